package programs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/engine"
)

// spendTime sleeps and computes, each by a known amount, and says how long all of it took. Then it computes on.
func spendTime() {
	runtime.LockOSThread()
	begin := time.Now()
	for range sleeps {
		wait := unix.NsecToTimespec(int64(sleepTime))
		for unix.Nanosleep(&wait, &wait) == unix.EINTR {
		}
	}
	computeFor(computeTime)
	fmt.Println(time.Since(begin).Nanoseconds())
	go func() {
		runtime.LockOSThread()
		for {
			computed.Add(1)
		}
	}()
	waitForInput()
}

const (
	sleeps      = 20
	sleepTime   = 5 * time.Millisecond
	computeTime = 50 * time.Millisecond
)

// computed is what the CPU was used for.
var computed atomic.Uint64

// computeFor uses that much of a CPU's time, as the kernel counts it for the calling thread.
func computeFor(d time.Duration) {
	used := func() time.Duration {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			return d
		}
		return time.Duration(t.Nano())
	}
	for begin := used(); used()-begin < d; {
		for range 10000 {
			computed.Add(1)
		}
	}
}

// onCPU adds up how long a process's threads ran, in nanoseconds.
func onCPU(t testing.TB, pid int) uint64 {
	t.Helper()
	return perThread(t, pid, "schedstat", func(text string) uint64 {
		var ran uint64
		if _, err := fmt.Sscan(text, &ran); err != nil {
			t.Fatal(err)
		}
		return ran
	})
}

// switches adds up a line of /proc/PID/task/*/status.
func switches(t testing.TB, pid int, line string) uint64 {
	t.Helper()
	return perThread(t, pid, "status", func(text string) uint64 {
		_, rest, found := strings.Cut(text, "\n"+line+":")
		if !found {
			t.Fatalf("no line %s in %s", line, text)
		}
		number, _, _ := strings.Cut(strings.TrimSpace(rest), "\n")
		n, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	})
}

func perThread(t testing.TB, pid int, file string, f func(text string) uint64) uint64 {
	t.Helper()
	paths, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/%s", pid, file))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no threads of %d: %v", pid, err)
	}
	var n uint64
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n += f(string(text))
	}
	return n
}

// waitForRuns waits until the kernel has run a function as often as there are CPUs. It does not if the kernel refused the function.
func (r *running) waitForRuns(function string) {
	r.t.Helper()
	for range 150 {
		stats, err := r.instance.Stats()
		if err != nil {
			r.t.Fatal(err)
		}
		at := slices.IndexFunc(stats, func(s engine.FunctionStats) bool { return s.Function == function })
		if at < 0 || stats[at].Runs >= uint64(runtime.NumCPU()) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.t.Fatalf("%s never runs", function)
}

// reported reads a number from the helper, which goes on.
func (h *helper) reported() uint64 {
	h.t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatal("the helper says nothing:", err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// Seconds and switches are the kernel's own, to the nanosecond, though some kernels leave the tracepoint out a few times (see TestRunqueue).
func TestOnCPU(t *testing.T) {
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "oncpu", group.dir)
	outside := other.start(t, "spend")
	begin := time.Now()
	h := group.start(t, "spend")
	pid := h.cmd.Process.Pid
	took := h.reported()
	outside.reported()
	if err := outside.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	r.waitForRuns("each_second")
	cgroup := "cgroup=" + group.path
	var stopped time.Time
	var families map[string][]point
	stopSettled(t, pid, func() bool {
		stopped = time.Now()
		families = r.collect()
		return total(pick(families["oncpu_seconds_total"], cgroup)) == onCPU(t, pid)
	})
	expect(t, families, "oncpu_seconds_total", onCPU(t, pid), cgroup)
	if got := total(families["oncpu_seconds_total"]); got < uint64(computeTime) {
		t.Errorf("%d ns on a CPU, but at least %v were used", got, computeTime)
	}
	waited, _ := schedstat(t, pid)
	off := func(reasons ...string) uint64 {
		var ns uint64
		for _, reason := range reasons {
			ns += total(pick(families["offcpu_seconds_total"], cgroup, "reason="+reason))
		}
		return ns
	}
	if got := off("runqueue", "preempted"); got != waited {
		t.Errorf("%d ns waited for a CPU, the kernel says %d", got, waited)
	}
	if got := off("sleeping"); got < uint64(sleeps*sleepTime) {
		t.Errorf("slept for %d ns, but at least %v were asked for (all took %d)", got, sleeps*sleepTime, took)
	}
	for _, metric := range []struct{ name, line string }{
		{"context_switches_voluntary_total", "voluntary_ctxt_switches"},
		{"context_switches_involuntary_total", "nonvoluntary_ctxt_switches"},
	} {
		expect(t, families, metric.name, switches(t, pid, metric.line), cgroup)
	}
	if points := families["oncpu_seconds_total"]; len(points) != 1 {
		t.Errorf("another cgroup was measured: %v", points)
	}
	// No thread can have spent more than the time that went by.
	threads := perThread(t, pid, "comm", func(string) uint64 { return 1 })
	sum := total(families["oncpu_seconds_total"]) + total(families["offcpu_seconds_total"])
	if most := threads * uint64(stopped.Sub(begin)); sum > most {
		t.Errorf("%d threads spent %d ns in all, at most %d", threads, sum, most)
	}

	still := time.Since(stopped)
	if err := unix.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.wait()
	families = r.collect()
	if got := off("stopped"); got < uint64(still) {
		t.Errorf("stopped for %d ns, but it was at least %v", got, still)
	}
}
