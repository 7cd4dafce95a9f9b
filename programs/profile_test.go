package programs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	pprof "github.com/google/pprof/profile"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/profile"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/workload"
	"github.com/kaon-project/kaon/programs"
)

// spin is what hotUser is busy with.
var spin atomic.Uint64

// hotUser spends its time in hotLoop.
func hotUser() {
	var stop atomic.Bool
	go func() {
		waitForInput()
		stop.Store(true)
	}()
	fmt.Println("ready")
	for !stop.Load() {
		hotLoop()
	}
}

//go:noinline
func hotLoop() {
	for n := range uint64(100000) {
		spin.Store(n)
	}
}

// hotKernel spends its time in read(2).
func hotKernel() {
	var stop atomic.Bool
	go func() {
		waitForInput()
		stop.Store(true)
	}()
	zero, err := unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		os.Exit(1)
	}
	buffer := make([]byte, 1<<20)
	fmt.Println("ready")
	for !stop.Load() {
		_, _ = unix.Read(zero, buffer)
	}
}

// hotChildren starts processes that end before anybody has looked at them.
func hotChildren() {
	self, err := os.Executable()
	if err != nil {
		os.Exit(1)
	}
	for range 2 {
		child := exec.Command(self)
		child.Env = []string{helperVariable + "=hot-child"}
		if err := child.Run(); err != nil {
			os.Exit(1)
		}
	}
}

// hotChild ends soon. In an emulator that gets no CPU time goes by without anything being done: so it does some, too.
func hotChild() {
	begun := time.Now()
	for n := 0; n < 50 || time.Since(begun) < 30*time.Millisecond; n++ {
		hotLoop()
	}
}

// hotGenerated spends its time in code that it makes, and tells in a /tmp of its own how that is called, as compilers at run time do.
func hotGenerated() {
	code := map[string][]byte{
		"amd64": {0xb9, 0, 0, 0x10, 0, 0xff, 0xc9, 0x75, 0xfc, 0xc3}, // mov ecx, 1<<20; dec ecx; jnz; ret
		"arm64": {0, 2, 0xa0, 0x52, 0, 4, 0, 0x71, 0xe1, 0xff, 0xff, 0x54, 0xc0, 3, 0x5f, 0xd6},
	}[runtime.GOARCH]
	memory, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		copy(memory, code)
		err = errors.Join(
			unix.Mprotect(memory, unix.PROT_READ|unix.PROT_EXEC),
			unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("kaon-test", "/tmp", "tmpfs", 0, ""),
			os.WriteFile(fmt.Sprintf("/tmp/perf-%d.map", os.Getpid()), fmt.Appendf(nil, "%x %x generated hot\n", &memory[0], len(code)), 0o644),
		)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var stop atomic.Bool
	go func() {
		waitForInput()
		stop.Store(true)
	}()
	start := &memory[0]
	entry := unsafe.Pointer(&start)
	generated := *(*func())(unsafe.Pointer(&entry))
	fmt.Println("ready")
	for !stop.Load() {
		generated()
		runtime.Gosched() // it can't be interrupted itself
	}
}

const hotFunction = "github.com/kaon-project/kaon/programs_test.hotLoop"

// samplePeriod is the time between two samples in ns.
const samplePeriod = 1_000_000_000 / 99

// stackPeriod is that of the tests of stacks, which take more so as to take less time.
const stackPeriod = 1_000_000_000 / 999

// ready waits until a helper is busy.
func (h *helper) ready() {
	h.t.Helper()
	if line, err := h.out.ReadString('\n'); err != nil || line != "ready\n" {
		h.t.Fatalf("the helper says %q: %v", line, err)
	}
}

// waitForSamples waits until there are that many more samples with these labels.
func (r *running) waitForSamples(more uint64, labels ...string) {
	r.t.Helper()
	want := total(pick(r.collect()["cpu_samples_total"], labels...)) + more
	for range 1000 {
		if total(pick(r.collect()["cpu_samples_total"], labels...)) >= want {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.t.Fatalf("no %d samples have the labels %v: %v", want, labels, r.collect())
}

func TestProfile(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "profile", group.dir)
	h := group.start(t, "hot-kernel") // which begins in user space
	r.waitForSamples(1, "mode=user")
	r.waitForSamples(15, "mode=kernel")
	h.wait()
	families := r.collect()
	samples, seconds := families["cpu_samples_total"], families["cpu_sampled_seconds_total"]
	if len(samples) != 2 || len(pick(samples, "cgroup="+group.path)) != 2 {
		t.Errorf("series: %v", samples)
	}
	for _, mode := range []string{"mode=user", "mode=kernel"} {
		if n, ns := total(pick(samples, mode)), total(pick(seconds, mode)); ns != n*samplePeriod {
			t.Errorf("%s: %d samples make %d ns", mode, n, ns)
		}
	}
}

// names are read once: the list of the kernel's functions is long.
var names = sync.OnceValue(series.NewHost)

// record samples stacks while the function runs.
func (r *running) record(while func()) *profile.Profile {
	r.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	layout, err := workload.Detect()
	if err != nil {
		r.t.Fatal(err)
	}
	resolver, err := workload.NewCgroupsWithOptions(layout, workload.Options{NoEvents: true})
	if err != nil {
		r.t.Fatal(err)
	}
	defer resolver.Close()
	type recorded struct {
		profile *profile.Profile
		err     error
	}
	done := make(chan recorded, 1)
	go func() {
		p, err := profile.Record(ctx, profile.Options{
			Map:       func(name string) *ebpf.Map { return r.instance.Map(name) },
			Workloads: resolver, Symbol: names().Symbol,
			Lost: func() (uint64, error) {
				lost, err := r.instance.Lost()
				return lost["kaon_lost"], err
			},
		})
		done <- recorded{p, err}
	}()
	for active := uint32(0); active == 0; time.Sleep(time.Millisecond) {
		if err := r.instance.Map("stack_set").Lookup(uint32(0), &active); err != nil {
			r.t.Fatal(err)
		}
		select {
		case got := <-done:
			r.t.Fatal("the recorder ended:", got.err)
		default:
		}
	}
	while()
	stop()
	got := <-done
	if got.err != nil {
		r.t.Fatal(got.err)
	}
	return got.profile
}

// has says that a sample's stack contains a function.
func has(s *profile.Sample, kernel bool, function string) bool {
	return slices.ContainsFunc(s.Stack, func(f *profile.Frame) bool { return f.Kernel == kernel && strings.Contains(f.Name, function) })
}

func TestProfileStacks(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "profile", group.dir, "stacks=true", "frequency=999")
	// This process is busy, too, but in another cgroup.
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			default:
				hotLoop()
			}
		}
	}()
	var user, kernel *helper
	p := r.record(func() {
		user, kernel = group.start(t, "hot-user"), group.start(t, "hot-kernel")
		user.ready()
		kernel.ready()
		r.waitForSamples(200, "mode=user")
		r.waitForSamples(20, "mode=kernel")
		user.wait()
		kernel.wait()
	})
	userPID, kernelPID := uint32(user.cmd.Process.Pid), uint32(kernel.cmd.Process.Pid)

	// No sample is lost between the metric and the profile.
	families := r.collect()
	count, cpu := p.Total()
	expect(t, families, "cpu_samples_total", count)
	expect(t, families, "cpu_sampled_seconds_total", uint64(cpu))
	if p.Period != stackPeriod || p.Losses.Samples != 0 || p.Losses.Stacks != 0 || p.Losses.Kernel != 0 || p.Losses.Late {
		t.Errorf("period %v, losses %+v", p.Period, p.Losses)
	}

	// By the innermost function, of what the processes did since they were ready, too: that is most.
	var hot, read uint64
	leaves := map[string]uint64{}
	for i := range p.Samples {
		s := &p.Samples[i]
		if s.Workload.Cgroup != group.path || s.PID != userPID && s.PID != kernelPID || s.Process == "" || s.Thread == "" {
			t.Errorf("a sample of %+v, process %d %q, thread %q", s.Workload, s.PID, s.Process, s.Thread)
		}
		switch {
		case len(s.Stack) == 0:
			t.Errorf("a sample of process %d without a stack", s.PID)
		case s.PID == userPID && !s.Stack[0].Kernel:
			leaves[s.Stack[0].Name] += s.Count
			if s.Stack[0].Name == hotFunction && has(s, false, "programs_test.TestMain") {
				hot += s.Count
			}
		case s.PID == kernelPID && has(s, true, "sys_read") && has(s, false, "programs_test.hotKernel"):
			read += s.Count
		}
	}
	for name, n := range leaves {
		if n > hot {
			t.Errorf("%d samples are in %s and %d in %s", hot, hotFunction, n, name)
		}
	}
	if hot == 0 || read == 0 {
		t.Errorf("%d samples are in %s and %d in read(2)", hot, hotFunction, read)
	}
	checkFolded(t, p, group)
	checkPprof(t, p, group, userPID, hot)
}

// Processes that ended at once have names, too, and so has what they ran before they became another program.
func TestProfileShortLived(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "profile", group.dir, "stacks=true", "frequency=999")
	var parent *helper
	p := r.record(func() {
		parent = group.start(t, "hot-children")
		if status := parent.wait(); status.ExitStatus() != 0 {
			t.Fatal(status)
		}
	})
	hot := map[uint32]bool{}
	for i := range p.Samples {
		if s := &p.Samples[i]; has(s, false, hotFunction) {
			hot[s.PID] = true
		}
	}
	if len(hot) != 2 || p.Losses.Ended != 0 {
		t.Errorf("%d of 2 processes are in %s, %d frames are of processes that ended", len(hot), hotFunction, p.Losses.Ended)
	}
}

// The names of code that was made at run time are where the process says, in its own namespaces.
func TestProfileGenerated(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "profile", group.dir, "stacks=true", "frequency=999")
	p := r.record(func() {
		h := group.startCloned(t, unix.CLONE_NEWPID|unix.CLONE_NEWNS, "hot-generated")
		h.ready()
		r.waitForSamples(500, "mode=user") // a recorder looks five times per second
		if status := h.wait(); status.ExitStatus() != 0 {
			t.Fatal(status)
		}
	})
	var generated uint64
	for i := range p.Samples {
		if s := &p.Samples[i]; len(s.Stack) > 0 && s.Stack[0].Name == "generated hot" {
			generated += s.Count
		}
	}
	if generated == 0 || p.Losses.Generated != 0 {
		t.Errorf("%d samples are in the code that was made, %d frames of it have no name", generated, p.Losses.Generated)
	}
}

// What finds no room is counted: stacks where another has their place, samples where the map is full.
func TestProfileLosses(t *testing.T) {
	group := newCgroup(t)
	small := func(sizes map[string]uint32) (*running, *profile.Profile) {
		t.Helper()
		spec, err := programs.Load("profile")
		if err != nil {
			t.Fatal(err)
		}
		for name, size := range sizes {
			spec.Collection.Maps[name+"_a"].MaxEntries, spec.Collection.Maps[name+"_b"].MaxEntries = size, size
		}
		r := loadSpec(t, spec, group.dir, "stacks=true", "frequency=999")
		return r, r.record(func() {
			h := group.start(t, "hot-kernel")
			r.waitForSamples(40, "mode=kernel")
			h.wait()
		})
	}
	r, p := small(map[string]uint32{"stacks": 1, "spare_stacks": 1})
	count, _ := p.Total()
	expect(t, r.collect(), "cpu_samples_total", count)
	if p.Losses.Stacks == 0 || p.Losses.Samples != 0 {
		t.Errorf("with room for two stacks: %+v", p.Losses)
	}
	r, p = small(map[string]uint32{"stack_counts": 1})
	count, _ = p.Total()
	expect(t, r.collect(), "cpu_samples_total", count+p.Losses.Samples)
	if p.Losses.Samples == 0 || p.Losses.Stacks != 0 {
		t.Errorf("with room for one count: %+v", p.Losses)
	}
}

func checkFolded(t *testing.T, p *profile.Profile, group cgroup) {
	t.Helper()
	var b bytes.Buffer
	if err := p.WriteFolded(&b, profile.FoldedOptions{Workload: true}); err != nil {
		t.Fatal(err)
	}
	count, _ := p.Total()
	hot, kernel := false, false
	for line := range strings.Lines(b.String()) {
		space := strings.LastIndexByte(line, ' ') // function names may have some
		stack, number := line[:max(space, 0)], strings.TrimSpace(line[space+1:])
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil || !strings.HasPrefix(stack, group.path+";") {
			t.Errorf("%q", line)
		}
		count -= n
		hot = hot || strings.HasSuffix(stack, ";"+hotFunction)
		kernel = kernel || strings.Contains(stack, "programs_test.hotKernel;") && strings.HasSuffix(stack, "_[k]")
	}
	if count != 0 || !hot || !kernel {
		t.Errorf("%d samples are missing; hot function %v, kernel %v", count, hot, kernel)
	}
}

func checkPprof(t *testing.T, p *profile.Profile, group cgroup, pid uint32, hot uint64) {
	t.Helper()
	var b bytes.Buffer
	if err := p.WritePprof(&b); err != nil {
		t.Fatal(err)
	}
	read, err := pprof.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	if err := read.CheckValid(); err != nil || read.Period != stackPeriod || read.DurationNanos <= 0 {
		t.Errorf("%v, period %d, duration %d", err, read.Period, read.DurationNanos)
	}
	var count, cpu, found int64
	for _, s := range read.Sample {
		count += s.Value[0]
		cpu += s.Value[1]
		if got := s.Label["cgroup"]; len(got) != 1 || got[0] != group.path {
			t.Errorf("labels %v", s.Label)
		}
		for _, l := range s.Location {
			if l == s.Location[0] && len(l.Line) == 1 && l.Line[0].Function.Name == hotFunction && s.NumLabel["pid"][0] == int64(pid) {
				found += s.Value[0]
				if m := l.Mapping; m == nil || !strings.HasPrefix(m.File, "/") || l.Address < m.Start || l.Address >= m.Limit {
					t.Errorf("%s is at %#x of %+v", hotFunction, l.Address, m)
				}
			}
		}
	}
	wantCount, wantCPU := p.Total()
	if count != int64(wantCount) || cpu != int64(wantCPU) || found != int64(hot) {
		t.Errorf("%d samples, %d ns, %d in %s; want %d, %d, %d", count, cpu, found, hotFunction, wantCount, wantCPU, hot)
	}
}

// spendCPU keeps all CPUs busy until b.N samples have been taken.
func spendCPU(b *testing.B) {
	var wait sync.WaitGroup
	end := time.Now().Add(time.Duration(b.N) * time.Second / benchFrequency / time.Duration(runtime.NumCPU()))
	for range runtime.NumCPU() {
		wait.Go(func() {
			for time.Now().Before(end) {
				hotLoop()
			}
		})
	}
	wait.Wait()
}

// BenchmarkProfileStacks tells what a sample costs while its stack is recorded: BenchmarkCost has no recorder.
func BenchmarkProfileStacks(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skip("needs BPF statistics:", err)
	}
	defer stats.Close()
	empty := emptyRun(b)
	r := load(b, "profile", "", "stacks=true", fmt.Sprint("frequency=", benchFrequency))
	r.record(func() {
		b.ResetTimer()
		spendCPU(b)
		b.StopTimer()
	})
	functions, err := r.instance.Stats()
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range functions {
		if s.Function == "sample_stacks" && s.KernelRuns > 0 {
			b.ReportMetric(float64(s.Runtime)/float64(s.KernelRuns)-empty, "ns/sample")
		}
	}
}

// benchFrequency is high, so that measuring doesn't take long.
const benchFrequency = 2999
