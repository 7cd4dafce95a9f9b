package profile

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	pprof "github.com/google/pprof/profile"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// example is a profile of two workloads.
func example() *Profile {
	nginx := &Binary{Path: "/usr/sbin/nginx", BuildID: "abcd", Segments: []Segment{{Offset: 0x1000, Address: 0x401000, Size: 0x1000}}}
	handle := &Frame{Name: "ngx::handle", Symbol: "_ZN3ngx6handleEv", Address: 0x401010, Binary: nginx}
	stripped := &Frame{Address: 0x401020, Binary: nginx, missing: noSymbols}
	read := &Frame{Name: "vfs_read", Symbol: "vfs_read", Kernel: true, Address: 0xffffffff81000010}
	odd := &Frame{Name: "a;b\nc\x1b[u8; 4]"}
	shop := workload.Workload{Namespace: "shop", Pod: "web-0", Container: "nginx", Runtime: "containerd"}
	return &Profile{
		Begun: time.Unix(100, 0), Duration: 10 * time.Second, Period: 10 * time.Millisecond, kernelBuildID: "ef01",
		Samples: []Sample{
			{Workload: shop, WorkloadID: 7, PID: 10, Process: "nginx", Thread: "worker;1", Stack: []*Frame{read, handle, stripped}, Count: 3, Nanoseconds: 30},
			{Workload: shop, WorkloadID: 7, PID: 11, Process: "nginx", Thread: "worker;1", Stack: []*Frame{read, handle, stripped}, Count: 2, Nanoseconds: 20},
			{WorkloadID: 3<<48 | 9, PID: 12, Process: "sh", Thread: "sh", Stack: []*Frame{odd, {missing: unmapped}, {missing: generated}, {missing: lostStack}}, Count: 1, Nanoseconds: 10},
			{Workload: workload.Workload{Cgroup: "/"}, PID: 2, Process: "kworker", Thread: "", Count: 1, Nanoseconds: 10},
		},
	}
}

func TestFolded(t *testing.T) {
	f := func(options FoldedOptions, want ...string) {
		t.Helper()
		var b bytes.Buffer
		if err := example().WriteFolded(&b, options); err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != strings.Join(want, "\n")+"\n" {
			t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
	f(FoldedOptions{},
		"[unknown] 1",
		"sh;[lost stack];[generated code];[unknown];a:b?c?[u8: 4] 1",
		"worker:1;[nginx+0x401020];ngx::handle;vfs_read_[k] 5")
	f(FoldedOptions{Workload: true},
		"/;[unknown] 1",
		"shop/web-0/nginx;worker:1;[nginx+0x401020];ngx::handle;vfs_read_[k] 5",
		"unresolved:9;sh;[lost stack];[generated code];[unknown];a:b?c?[u8: 4] 1")
}

func TestPprof(t *testing.T) {
	var b bytes.Buffer
	if err := example().WritePprof(&b); err != nil {
		t.Fatal(err)
	}
	p, err := pprof.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.SampleType) != 2 || p.SampleType[0].Type != "samples" || p.SampleType[1].Unit != "nanoseconds" ||
		p.Period != 10_000_000 || p.DurationNanos != 10_000_000_000 || p.TimeNanos != 100_000_000_000 {
		t.Errorf("%v", p)
	}
	if len(p.Sample) != 4 || len(p.Location) != 7 {
		t.Fatalf("%d samples, %d locations", len(p.Sample), len(p.Location))
	}
	s := p.Sample[0]
	if s.Value[0] != 3 || s.Value[1] != 30 || s.NumLabel["pid"][0] != 10 {
		t.Errorf("%v %v", s.Value, s.NumLabel)
	}
	for name, want := range map[string]string{"namespace": "shop", "pod": "web-0", "container": "nginx", "runtime": "containerd", "process": "nginx", "comm": "worker;1"} {
		if got := s.Label[name]; len(got) != 1 || got[0] != want {
			t.Errorf("label %s is %q, want %q", name, got, want)
		}
	}
	if got := p.Sample[2].Label["cgroup"]; len(got) != 1 || got[0] != "unresolved:9" {
		t.Errorf("label cgroup is %q", got)
	}
	kernel, named, stripped := s.Location[0], s.Location[1], s.Location[2]
	if m := kernel.Mapping; m == nil || m.File != "[kernel.kallsyms]" || m.BuildID != "ef01" || kernel.Line[0].Function.Name != "vfs_read" {
		t.Errorf("%+v", kernel)
	}
	if m := named.Mapping; m == nil || m.File != "/usr/sbin/nginx" || m.BuildID != "abcd" || m.Start != 0x401000 || m.Limit != 0x402000 || m.Offset != 0x1000 || !m.HasFunctions {
		t.Errorf("%+v", named)
	}
	if f := named.Line[0].Function; f.Name != "ngx::handle" || f.SystemName != "_ZN3ngx6handleEv" {
		t.Errorf("%+v", f)
	}
	// What has no name is left to who has symbols for the build id.
	if len(stripped.Line) != 0 || stripped.Mapping != named.Mapping {
		t.Errorf("%+v", stripped)
	}
}

func TestKeep(t *testing.T) {
	p := example()
	p.Keep(func(labels string) bool {
		return strings.Contains(labels, `pod="web-0"`) && strings.Contains(labels, `process="nginx",comm="worker;1",pid="11"`)
	})
	if count, cpu := p.Total(); len(p.Samples) != 1 || count != 2 || cpu != 20 {
		t.Errorf("%+v", p.Samples)
	}
	if l := p.Losses; l.NoSymbols != 2 || l.Binaries["/usr/sbin/nginx"] != 2 || l.Stacks != 0 || l.Unmapped != 0 {
		t.Errorf("%+v", l)
	}
}

func TestCheck(t *testing.T) {
	spec := &program.Spec{Name: "plain", Collection: &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}}}
	if err := Check(spec); !errors.Is(err, ErrNoStacks) {
		t.Errorf("a program without stacks: %v", err)
	}
	if err := Check(&program.Spec{Params: []program.Param{{Name: Param}}}); !errors.Is(err, ErrNoStacks) {
		t.Errorf("a program without code: %v", err)
	}
	for _, name := range mapNames() {
		spec.Collection.Maps[name] = &ebpf.MapSpec{}
	}
	if err := Check(spec); err == nil {
		t.Error("a program without the param passes")
	}
	spec.Params = []program.Param{{Name: Param}}
	if err := Check(spec); err != nil {
		t.Error(err)
	}
}
