package ebpfexporter_test

import (
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/internal/program"
)

// Functions attach to what libbpf would attach them to, and those that it would not attach are not.
func TestHooks(t *testing.T) {
	spec := load(t, "sections")
	want := map[string]program.Hook{
		"a_kprobe":           {Kind: program.Kprobe, Target: "vfs_read"},
		"a_kprobe_offset":    {Kind: program.Kprobe, Target: "vfs_read+0x10"},
		"a_kretprobe":        {Kind: program.Kretprobe, Target: "vfs_read"},
		"a_kprobe_multi":     {Kind: program.KprobeMulti, Target: "vfs_*"},
		"a_kretprobe_multi":  {Kind: program.KretprobeMulti, Target: "vfs_?ead"},
		"a_ksyscall":         {Kind: program.Ksyscall, Target: "getpgid"},
		"a_kretsyscall":      {Kind: program.Kretsyscall, Target: "getpgid"},
		"a_uprobe":           {Kind: program.Uprobe, Target: "/usr/lib/x.so:malloc+4"},
		"a_uprobe_sleepable": {Kind: program.Uprobe, Target: "libc.so.6:malloc"},
		"a_uretprobe":        {Kind: program.Uretprobe, Target: "libc.so.6:malloc"},
		"a_uprobe_multi":     {Kind: program.UprobeMulti, Target: "libc.so.6:*alloc"},
		"a_usdt":             {Kind: program.USDT, Target: "./demo:provider:name"},
		"a_tracepoint":       {Kind: program.Tracepoint, Target: "sched/sched_switch"},
		"a_tp":               {Kind: program.Tracepoint, Target: "sched/sched_switch"},
		"a_raw_tracepoint":   {Kind: program.RawTracepoint, Target: "sched_switch"},
		"a_raw_tp":           {Kind: program.RawTracepoint, Target: "sched_switch"},
		"a_tp_btf":           {Kind: program.TracepointBTF, Target: "sched_switch"},
		"a_fentry":           {Kind: program.Fentry, Target: "vfs_read"},
		"a_fexit":            {Kind: program.Fexit, Target: "vfs_read"},
		"a_fmod_ret":         {Kind: program.FmodRet, Target: "security_task_kill"},
		"a_lsm":              {Kind: program.LSM, Target: "bprm_check_security"},
		"a_perf_event":       {Kind: program.PerfEvent, Target: "type=0,config=3,frequency=1"},
		"a_xdp":              {Kind: program.XDP, Interfaces: []string{"lo"}},
		"a_xdp_frags":        {Kind: program.XDP, Interfaces: []string{"lo"}},
		"not_xdp":            {Kind: program.Unattached},
		"not_devmap":         {Kind: program.Unattached},
		"not_tc":             {Kind: program.Unattached},
		"not_cgroup":         {Kind: program.Unattached},
		"not_socket":         {Kind: program.Unattached},
	}
	for _, h := range spec.Hooks {
		w, ok := want[h.Function]
		w.Function = h.Function
		if !ok || !reflect.DeepEqual(h, w) {
			t.Errorf("got %+v, want %+v", h, w)
		}
		delete(want, h.Function)
	}
	for function := range want {
		t.Errorf("%s has no hook", function)
	}
	if spec.Collection.Programs["not_loaded"] != nil {
		t.Error("not_loaded would be loaded")
	}
	aimless := load(t, "aimless")
	aims := map[string]program.HookKind{}
	for _, h := range aimless.Hooks {
		aims[h.Function] = h.Kind
	}
	if want := map[string]program.HookKind{"not_aimed": program.Unattached, "on_enter": program.RawTracepoint, "on_probe": program.USDT}; !maps.Equal(aims, want) ||
		aimless.Collection.Programs["not_known"] != nil {
		t.Errorf("hooks %+v", aimless.Hooks)
	}
	spec.Doubts = append(spec.Doubts, aimless.Doubts...)
	var doubts []string
	for _, d := range spec.Doubts {
		doubts = append(doubts, d.Error())
	}
	all := strings.Join(doubts, "\n")
	for _, text := range []string{
		`function not_xdp: it is attached to nothing: its section "xdp" does not say to what: write SEC("xdp/INTERFACE")`,
		`function not_loaded: it is not loaded: its section is "?raw_tp/sched_switch"`,
		`function not_aimed: it is attached to nothing: its section "kprobe" does not say to what`,
		`function not_known: it is not loaded: its section "fentry" does not say where to attach`,
	} {
		if !strings.Contains(all, text) {
			t.Errorf("%q is not in:\n%s", text, all)
		}
	}
}
