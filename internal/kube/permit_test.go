package kube

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/kaon-project/kaon/internal/program"
)

func TestPermit(t *testing.T) {
	f := func(kind program.HookKind, helper asm.BuiltinFunc, allow []string, want string) {
		t.Helper()
		spec := &program.Spec{Hooks: []program.Hook{{Function: "f", Kind: kind}}, Collection: &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{
			"f": {Instructions: asm.Instructions{helper.Call(), asm.Return()}},
		}}}
		err := permit(spec, allow)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s calling %s, %v: %v, want %q", kind, helper, allow, err, want)
		}
	}
	for _, kind := range observers {
		f(kind, asm.FnKtimeGetNs, nil, "")
	}
	for _, kind := range permissible {
		f(kind, asm.FnKtimeGetNs, nil, "function f: a "+string(kind)+" hook can act")
		f(kind, asm.FnKtimeGetNs, []string{string(kind)}, "")
	}
	f(program.Kprobe, asm.FnOverrideReturn, nil, "--allow override_return")
	f(program.Kprobe, asm.FnOverrideReturn, []string{"override_return"}, "")
	f(program.Tracepoint, asm.FnSendSignal, []string{"override_return"}, "it calls send_signal")
	f(program.Unattached, asm.FnProbeWriteUser, nil, "probe_write_user")
	if err := CheckPermissions([]string{"xdp", "tcx/ingress", "send_signal"}); err != nil {
		t.Error(err)
	}
	if err := CheckPermissions([]string{"tracepoint"}); err == nil {
		t.Error("what needs no permission can be permitted")
	}
}

// Every kind of hook is either harmless or must be permitted: a new one must be thought about.
func TestEveryKindIsJudged(t *testing.T) {
	judged := map[program.HookKind]int{}
	for _, k := range observers {
		judged[k]++
	}
	for _, k := range permissible {
		judged[k]++
	}
	for _, k := range []program.HookKind{
		program.Tracepoint, program.RawTracepoint, program.TracepointBTF, program.Kprobe, program.Kretprobe, program.KprobeMulti, program.KretprobeMulti, program.Ksyscall,
		program.Kretsyscall, program.Fentry, program.Fexit, program.FmodRet, program.Uprobe, program.Uretprobe, program.UprobeMulti, program.UretprobeMulti, program.USDT,
		program.PerfEvent, program.Iterator, program.XDP, program.TCXIngress, program.TCXEgress, program.Cgroup, program.LSM, program.LSMCgroup, program.SockOps,
		program.SocketFilter, program.SKLookup, program.Netfilter, program.Syscall, program.Unattached,
	} {
		if judged[k] != 1 {
			t.Errorf("%s is judged %d times", k, judged[k])
		}
	}
}
