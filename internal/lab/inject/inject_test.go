package inject

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// parentVariable makes the test binary play a lab that injects and is then killed.
const parentVariable = "KAON_TEST_INJECT_PARENT"

// lateVariable makes a child begin so much later, as a busy machine does.
const lateVariable = "KAON_TEST_INJECT_LATE"

func TestMain(m *testing.M) {
	if IsChild(os.Args[1:]) {
		if late, err := time.ParseDuration(os.Getenv(lateVariable)); err == nil {
			time.Sleep(late)
		}
		if err := ChildMain(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(parentVariable) != "" {
		i, err := Start(context.Background(), Memory, Options{Duration: MaxDuration})
		if err != nil {
			panic(err)
		}
		fmt.Println(i.pid)
		<-i.Done()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// until waits for a condition, with a deadline that only a test which fails reaches.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("did not happen:", what)
		}
	}
}

func start(t *testing.T, kind Kind, options Options) *Injection {
	t.Helper()
	i, err := Start(context.Background(), kind, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Stop)
	return i
}

// resident returns the anonymous memory of a process, by what the kernel says.
func resident(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "RssAnon:" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("no RssAnon of %d", pid)
	return 0
}

func TestMemoryIsReallyTaken(t *testing.T) {
	const bytes = 48<<20 + 12345
	i := start(t, Memory, Options{Bytes: bytes, Duration: 5 * time.Minute})
	until(t, "all is held", func() bool { return i.Status().Bytes == bytes })
	// The Go runtime's own is some megabytes.
	if got := resident(t, i.pid); got < bytes || got > bytes+childOverhead {
		t.Errorf("the kernel says %d bytes, want %d and little more", got, bytes)
	}
	s := i.Status()
	if !s.Running || s.Remaining <= 0 || s.Remaining > 5*time.Minute || s.Err != nil {
		t.Errorf("the status is %+v", s)
	}
	cell := s.Cgroup
	if cell != "" {
		procs, err := os.ReadFile(filepath.Join(cell, "cgroup.procs"))
		if err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(i.pid) {
			t.Errorf("in its cgroup: %q (%v), want %d", procs, err, i.pid)
		}
	} else if os.Geteuid() == 0 {
		t.Log("this machine gave it no cgroup of its own")
	}
	i.Stop()
	i.Stop()
	s = i.Status()
	if s.Running || s.Bytes != 0 || s.Err != nil || s.Remaining != 0 || s.Cgroup != "" {
		t.Errorf("after it was stopped the status is %+v", s)
	}
	if err := unix.Kill(i.pid, 0); !errors.Is(err, unix.ESRCH) {
		t.Errorf("the child lives: %v", err)
	}
	if _, err := os.Stat(cell); cell != "" && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", cell, err)
	}
}

// TestCPUIsReallyUsed compares what the child says with what the kernel says.
func TestCPUIsReallyUsed(t *testing.T) {
	begun := time.Now()
	i := start(t, CPU, Options{CPUs: 0.5, Duration: 5 * time.Minute})
	until(t, "it used half a second", func() bool { return i.Status().CPUSeconds > 0.5 })
	if s := i.Status(); s.Bytes != 0 {
		t.Errorf("it holds %d bytes", s.Bytes)
	}
	elapsed := time.Since(begun).Seconds()
	i.Stop()
	// The least that a bound can mean: not more than twice of what was asked for, start and end included.
	if used := i.Status().CPUSeconds; used < 0.5 || used > elapsed+0.5 {
		t.Errorf("half a CPU used %.2f s in %.2f s", used, elapsed)
	}
}

func TestItEndsByItself(t *testing.T) {
	i := start(t, CPU, Options{CPUs: 0.1, Duration: 300 * time.Millisecond})
	select {
	case <-i.Done():
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if s := i.Status(); s.Running || s.Err != nil {
		t.Errorf("it ended with %+v", s)
	}
}

// TestASlowChildHasItsTime: what is injected counts from when the child begins.
func TestASlowChildHasItsTime(t *testing.T) {
	t.Setenv(lateVariable, (graceful + time.Second).String())
	i := start(t, CPU, Options{CPUs: 0.1, Duration: 200 * time.Millisecond})
	<-i.Done()
	if s := i.Status(); s.Running || s.Err != nil || s.CPUSeconds == 0 {
		t.Errorf("it ended with %+v", s)
	}
	select {
	case <-i.begun:
	default:
		t.Error("it never began")
	}
}

// TestAChildThatHangsIsKilled, which is not for want of memory.
func TestAChildThatHangsIsKilled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	i, err := Start(ctx, Memory, Options{Duration: MaxDuration})
	if err != nil {
		t.Fatal(err)
	}
	<-i.begun
	if err := unix.Kill(i.pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-i.Done()
	if s := i.Status(); s.Running || s.Err != nil {
		t.Errorf("it ended with %+v", s)
	}
}

func TestItEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	i, err := Start(ctx, Memory, Options{Duration: MaxDuration})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-i.Done():
	case <-time.After(time.Minute):
		t.Fatal("it goes on")
	}
	if s := i.Status(); s.Running || s.Err != nil {
		t.Errorf("it ended with %+v", s)
	}
}

// TestItEndsWithTheLab kills the parent with SIGKILL: the child must not outlive it.
func TestItEndsWithTheLab(t *testing.T) {
	parent := exec.Command("/proc/self/exe")
	parent.Env = append(os.Environ(), parentVariable+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil || pid == 0 {
		t.Fatalf("no child: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	until(t, "the child ends", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(state), ") Z ")
	})
	// What the killed one left is swept by the next.
	start(t, CPU, Options{CPUs: 0.01, Duration: time.Minute}).Stop()
}

// TestAKilledChildIsReported: as the kernel does when memory runs out.
func TestAKilledChildIsReported(t *testing.T) {
	i := start(t, Memory, Options{Duration: MaxDuration})
	if err := unix.Kill(i.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-i.Done()
	if s := i.Status(); s.Running || s.Err == nil || !strings.Contains(s.Err.Error(), "want of memory") {
		t.Errorf("it ended with %+v", s)
	}
}

func TestBounds(t *testing.T) {
	const available = 1 << 30
	for _, c := range []struct {
		name    string
		kind    Kind
		options Options
		ok      bool
		says    string
	}{
		{"defaults of cpu", CPU, Options{}, true, ""},
		{"defaults of memory", Memory, Options{}, true, ""},
		{"half of what is available", Memory, Options{Bytes: available / 2}, true, ""},
		{"more than half", Memory, Options{Bytes: available/2 + 1}, false, "only 1024 MiB are available"},
		{"little", Memory, Options{Bytes: 1}, false, "1048576 at least"},
		{"negative", Memory, Options{Bytes: -5}, false, "at least"},
		{"no CPU", CPU, Options{CPUs: -1}, false, "which is what this machine has"},
		{"too many CPUs", CPU, Options{CPUs: 1e6}, false, "which is what this machine has"},
		{"not a number", CPU, Options{CPUs: nan()}, false, "which is what this machine has"},
		{"too long", CPU, Options{Duration: MaxDuration + 1}, false, "at most 10m0s"},
		{"a negative time", CPU, Options{Duration: -1}, false, "more than 0"},
		{"something else", "disk", Options{}, false, "cpu or memory"},
	} {
		_, err := c.options.withDefaults(c.kind, available)
		if c.ok != (err == nil) || err != nil && (!errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := Start(context.Background(), Memory, Options{Bytes: 1 << 60}); !errors.Is(err, ErrOptions) {
		t.Errorf("an exbibyte: %v", err)
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

// TestMemoryStopsWhenItRunsShort: with what is reserved above what is there, nothing is taken.
func TestMemoryStopsWhenItRunsShort(t *testing.T) {
	m := &memory{}
	m.grow(context.Background(), 64<<20, 1<<60, false)
	if bytes, err := m.status(); bytes != 0 || err == nil {
		t.Errorf("it took %d bytes (%v)", bytes, err)
	}
}

func TestChildArguments(t *testing.T) {
	if !IsChild(childArguments(CPU, Options{CPUs: 1, Duration: time.Second}, false)) {
		t.Error("a child's arguments are not recognised")
	}
	for _, arguments := range [][]string{nil, {"lab"}, {"lab", "inject", "cpu"}, {"lab", "inject", "child"}} {
		if IsChild(arguments) {
			t.Errorf("%q are taken for a child's", arguments)
		}
	}
	for _, arguments := range [][]string{{"x"}, {"lab", "inject", "child", "-cpus", "many", "cpu"}, {"lab", "inject", "child", "-cpus", "1"}, {"lab", "inject", "child", "cpu", "memory"}} {
		if err := ChildMain(context.Background(), arguments); err == nil {
			t.Errorf("%q are accepted", arguments)
		}
	}
}

func TestInjector(t *testing.T) {
	j := NewInjector()
	defer j.Close()
	first, err := j.Start(context.Background(), CPU, Options{CPUs: 0.2, Duration: 5 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.Start(context.Background(), CPU, Options{}); !errors.Is(err, ErrBusy) {
		t.Errorf("a second one: %v", err)
	}
	if _, err := j.Start(context.Background(), Memory, Options{Bytes: 2 << 20}); err != nil {
		t.Error("memory beside CPU:", err)
	}
	until(t, "both report", func() bool {
		s := j.Status()
		return len(s) == 2 && s[0].CPUSeconds > 0 && s[1].Bytes == 2<<20
	})
	j.Stop(CPU)
	used := first.Status().CPUSeconds
	if _, err := j.Start(context.Background(), CPU, Options{CPUs: 0.1, Duration: 5 * time.Minute}); err != nil {
		t.Fatal("after the first was stopped:", err)
	}
	values := map[string]uint64{}
	for _, f := range j.Families() {
		for n, p := range f.Points {
			values[f.Metric.Name+"{"+p.Labels+"}"] = f.Row(n)[0]
		}
	}
	if got := values["accelerator_injected_cpu_seconds_total{}"]; float64(got) < used*1e9-1 {
		t.Errorf("the counter is %d ns after %.3f s were used", got, used)
	}
	for series, want := range map[string]uint64{
		"accelerator_injected_memory_bytes{}":         2 << 20,
		`accelerator_injections_total{kind="cpu"}`:    2,
		`accelerator_injections_total{kind="memory"}`: 1,
		`accelerator_injection_active{kind="cpu"}`:    1,
		`accelerator_injection_active{kind="memory"}`: 1,
	} {
		if got, ok := values[series]; !ok || got != want {
			t.Errorf("%s is %d (%v), want %d", series, got, ok, want)
		}
	}
	j.Close()
	for _, s := range j.Status() {
		if s.Running {
			t.Errorf("%s goes on", s.Kind)
		}
	}
}

func FuzzParseAvailable(f *testing.F) {
	f.Add("MemTotal: 1 kB\nMemAvailable:   24054788 kB\n")
	f.Add("MemAvailable: -5 kB")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseAvailable(text); n < 0 || err != nil && n != 0 {
			t.Errorf("%d, %v", n, err)
		}
	})
}

func TestAvailable(t *testing.T) {
	n, err := available(false)
	if err != nil || n <= 0 {
		t.Errorf("available: %d (%v)", n, err)
	}
	if n, err := parseAvailable("MemAvailable: 12 kB\n"); n != 12<<10 || err != nil {
		t.Errorf("12 kB are %d (%v)", n, err)
	}
}
