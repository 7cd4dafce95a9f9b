package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

func TestParseCapabilities(t *testing.T) {
	f := func(status string, want capabilitySets) {
		t.Helper()
		if got := parseCapabilities(status); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	f("", capabilitySets{})
	f("Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t000001fffeffffff\nCapEff:\t0000008000000000\nCapBnd:\t00000000000000ff\nCapAmb:\t0000000000001000\n",
		capabilitySets{permitted: 0x1fffeffffff, effective: 1 << 39, bounding: 0xff, ambient: 1 << 12})
	f("CapEff:\tnonsense", capabilitySets{})
}

func TestLacking(t *testing.T) {
	f := func(effective uint64, want ...string) {
		t.Helper()
		if got := (capabilitySets{effective: effective}).lacking([]Capability{BPF, Perfmon, NetAdmin}); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	f(0, "CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN")
	f(1<<BPF, "CAP_PERFMON", "CAP_NET_ADMIN")
	f(1<<SysAdmin, "CAP_NET_ADMIN")
	f(1<<BPF | 1<<Perfmon | 1<<NetAdmin)
}

func TestCgroups(t *testing.T) {
	f := func(l workload.Layout, err error, want ...string) {
		t.Helper()
		var got []string
		for _, i := range cgroups(l, err) {
			got = append(got, fmt.Sprintf("%s %s %s", i.Name, i.State, i.Value))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	v2 := workload.Hierarchy{Mount: "/v2", Whole: true}
	v1 := workload.Hierarchy{Mount: "/v1", Number: 4, Controller: "pids", Whole: true}
	f(workload.Layout{}, workload.ErrNoCgroups, "layout no ")
	f(workload.Layout{V2: v2}, nil, "layout yes cgroup v2, v2 at /v2", "workloads yes told apart by cgroup v2", "cgroup v2 yes /v2")
	f(workload.Layout{Mode: workload.ModeV1, V1: v1}, nil, "layout yes cgroup v1, v1 pids at /v1", "workloads yes told apart by cgroup v1, controller pids", "cgroup v2 no ")
	v2.Whole = false
	f(workload.Layout{Mode: workload.ModeHybrid, V2: v2, V1: v1}, nil, "layout yes cgroup hybrid, v2 at /v2, v1 pids at /v1",
		"workloads yes told apart by cgroup v2, and by controller pids of v1 for tasks in v2's root", "cgroup v2 yes /v2", "all of /v2 no ")
}

func TestOwnCgroup(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		if got := ownCgroup(text); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f("", "")
	f("4:memory:/a\n0::/b c\n", "/b c")
	f("4:memory:/a\n", "")
}

// The files are the kernel's, but a container may put others there.
func FuzzParseCapabilities(f *testing.F) {
	f.Add("CapEff:\t000001fffeffffff\nCapBnd:\t00000000000000ff\n")
	f.Add("CapEff: \n:\nCapEff:0123456789abcdef0\n")
	f.Fuzz(func(t *testing.T, status string) {
		s := parseCapabilities(status)
		for _, item := range s.items(true) {
			if item.State == Yes && item.Value == "" || item.State == No && item.Remedy == "" {
				t.Errorf("%+v of %q", item, status)
			}
		}
	})
}

func TestDescribe(t *testing.T) {
	f := func(err error, want string) {
		t.Helper()
		if got := describe(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(nil, "")
	f(syscall.EPERM, "EPERM (operation not permitted)")
	f(fmt.Errorf("load: program kaon: %w (MEMLOCK may be too low, consider rlimit.RemoveMemlock)", syscall.EPERM), "EPERM (operation not permitted, at load)")
	f(syscall.Errno(524), "ENOTSUPP (operation is not supported)")
	f(errors.New("tracefs is not mounted"), "tracefs is not mounted")
}

// report is one as of a machine that refuses BTF trampolines.
func report() *Report {
	return &Report{Release: "6.1.0", Machine: "x86_64", CPUs: 2, Sections: []Section{{SectionHooks, []Item{
		{Name: "raw_tracepoint", State: Yes, Link: Yes, Pin: Yes},
		{Name: "tp_btf", State: Yes},
		{Name: "fentry", State: No, Error: "EPERM (operation not permitted)", Cost: "programs fail", Remedy: "boot another kernel"},
		{Name: "fexit", State: No, Error: "EPERM (operation not permitted)", Cost: "programs fail", Remedy: "boot another kernel"},
		{Name: "uprobe", State: Yes},
		{Name: "uprobe.multi", State: No, Error: "EINVAL (invalid argument)", Cost: "slower", Remedy: "nothing"},
		{Name: "kprobe.multi", State: No, Error: "EINVAL (invalid argument)", Cost: "slower", Remedy: "nothing"},
		{Name: "xdp", State: Unknown, Error: "not tried"},
		{Name: "cgroup", State: Yes},
		{Name: "cgroup/connect_unix", State: No, Error: "EINVAL (invalid argument)", Cost: "no", Remedy: "none"},
	}}}}
}

func TestAssess(t *testing.T) {
	f := func(want State, used []string, hooks ...program.Hook) {
		t.Helper()
		for i := range hooks {
			hooks[i].Function = fmt.Sprintf("f%d", i)
		}
		spec := &program.Spec{Name: "p", Hooks: hooks, Params: []program.Param{{Name: "on", Type: program.ParamBool, Default: "true", Size: 1}}}
		a := report().Assess([]*program.Spec{spec})[0]
		var got []string
		for _, h := range a.Hooks {
			if h.Used {
				got = append(got, h.Function)
			}
		}
		if a.State != want || !slices.Equal(got, used) {
			t.Errorf("state %s, used %v; want %s, %v", a.State, got, want, used)
		}
	}
	h := func(kind program.HookKind, group string, rank int) program.Hook {
		return program.Hook{Kind: kind, Target: "x", Group: group, Rank: rank}
	}
	f(Yes, nil)
	f(Yes, []string{"f0"}, h(program.RawTracepoint, "", 0))
	f(No, []string{"f0"}, h(program.RawTracepoint, "", 0), h(program.Fentry, "", 0))
	f(Yes, []string{"f1"}, h(program.Fentry, "g", 1), h(program.TracepointBTF, "g", 2), h(program.RawTracepoint, "g", 3))
	f(No, nil, h(program.Fentry, "g", 1), h(program.Fexit, "g", 2))
	f(Unknown, nil, h(program.Fentry, "g", 1), h(program.XDP, "g", 2))
	f(Unknown, nil, h(program.Kprobe, "", 0)) // nothing known
	f(Yes, nil, program.Hook{Kind: program.Fentry, Target: "x", Optional: true})
	f(Yes, []string{"f0"}, h(program.UprobeMulti, "", 0)) // one by one
	f(No, nil, h(program.KprobeMulti, "", 0))             // neither
	f(Yes, nil, program.Hook{Kind: program.Fentry, Target: "x", Unless: "on"})
	f(No, nil, program.Hook{Kind: program.Fentry, Target: "x", When: "on"})
	f(No, nil, program.Hook{Kind: program.Cgroup, Target: "cgroup/connect_unix"})
	f(Yes, []string{"f0"}, program.Hook{Kind: program.Cgroup, Target: "cgroup/connect4"})
}

func TestText(t *testing.T) {
	r := report()
	r.Programs = r.Assess([]*program.Spec{{Name: "latency", Hooks: []program.Hook{
		{Function: "a", Kind: program.Fentry, Target: "vfs_read", Group: "read", Rank: 1},
		{Function: "b", Kind: program.TracepointBTF, Target: "x", Group: "read", Rank: 2}}}})
	var b strings.Builder
	if err := r.Text(&b, false); err != nil {
		t.Fatal(err)
	}
	want := `Linux 6.1.0 x86_64, 2 CPUs, uid 0; probed in 0.0 s

programs
  latency        works
      fentry/vfs_read: no (an alternative is used): EPERM (operation not permitted)

what is missing
  fentry, fexit: EPERM (operation not permitted)
      costs: programs fail
      do:    boot another kernel
  uprobe.multi, kprobe.multi: EINVAL (invalid argument)
      costs: slower
      do:    nothing
  xdp: unknown: not tried
  cgroup/connect_unix: EINVAL (invalid argument)
      costs: no
      do:    none

what works
  hooks: raw_tracepoint, tp_btf, uprobe, cgroup
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(data, &back); err != nil || back.Hook(program.Fentry, "").Remedy != "boot another kernel" || !bytes.Contains(data, []byte(`"state":"unknown"`)) {
		t.Errorf("%v %s", err, data)
	}
}

// Every kind of hook has a requirement, once, with a cost and a remedy.
func TestRequirementsComplete(t *testing.T) {
	seen := map[program.HookKind]bool{}
	for _, r := range Requirements() {
		if seen[r.Kind] || len(r.Capabilities) == 0 || r.Since == "" || r.Cost == "" || r.Remedy == "" {
			t.Errorf("%s: twice or incomplete: %+v", r.Kind, r)
		}
		seen[r.Kind] = true
	}
	for _, kind := range []program.HookKind{program.Tracepoint, program.RawTracepoint, program.TracepointBTF, program.Kprobe, program.Kretprobe,
		program.KprobeMulti, program.KretprobeMulti, program.Ksyscall, program.Kretsyscall, program.Fentry, program.Fexit, program.FmodRet,
		program.Uprobe, program.Uretprobe, program.UprobeMulti, program.UretprobeMulti, program.USDT, program.PerfEvent, program.Iterator,
		program.XDP, program.TCXIngress, program.TCXEgress, program.Cgroup, program.LSM, program.LSMCgroup, program.SockOps,
		program.SocketFilter, program.SKLookup, program.Netfilter, program.Syscall} {
		if !seen[kind] {
			t.Errorf("%s has no requirement", kind)
		}
	}
}

var update = flag.Bool("update", false, "write the documentation anew")

func TestDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "reference", "privileges.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(Document()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("KAON_VM") != "" {
		t.Skip("needs the documentation, which is not in the guest")
	}
	have, err := os.ReadFile(path)
	if err != nil || string(have) != Document() {
		t.Errorf("%s is out of date (%v): go test ./internal/doctor -run TestDocument -update", path, err)
	}
}
