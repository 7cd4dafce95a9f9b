package programs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busy is what the threads that compete are busy with.
var busy atomic.Uint64

// competeForCPU keeps two threads busy on one CPU, and wakes a third now and then.
func competeForCPU() {
	for range 2 {
		go func() {
			runtime.LockOSThread()
			pin()
			for n := uint64(0); ; n++ {
				busy.Store(n)
			}
		}()
	}
	go func() {
		runtime.LockOSThread()
		pin()
		for {
			time.Sleep(time.Millisecond)
		}
	}()
	waitForInput()
}

func pin() {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	_ = unix.SchedSetaffinity(0, &one)
}

// schedstat adds up what the kernel says of a process's threads: how long they waited for a CPU, in
// nanoseconds, and how often they ran.
func schedstat(t *testing.T, pid int) (waited, runs uint64) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(files) == 0 {
		t.Skip("needs CONFIG_SCHED_INFO:", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var ran, w, r uint64
		if _, err := fmt.Sscan(string(text), &ran, &w, &r); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		waited += w
		runs += r
	}
	return waited, runs
}

// stop stops a process and waits until all of its threads have.
func stop(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		stopped := 0
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, state, ok := strings.Cut(string(text), ") "); ok && strings.HasPrefix(state, "T") {
				stopped++
			}
		}
		if stopped > 0 && stopped == len(files) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("process %d does not stop", pid)
}

// stopSettled stops a process so that settled holds. It may not at once: a thread that is said to be stopped can still be on
// its way off the CPU, and where a kernel leaves a thread's last switch out (see TestRunqueue) the next one makes it good.
func stopSettled(t *testing.T, pid int, settled func() bool) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		stop(t, pid)
		if settled() || attempt == 5 {
			return
		}
		if err := unix.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// What is observed is, to the nanosecond, what the kernel itself adds up. Some kernels leave the tracepoint out at one in
// a thousand switches (the native one does; an empty function misses them as well): their waits are in the next observation.
func TestRunqueue(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "runqueue", group.dir)
	h := group.start(t, "compete")
	time.Sleep(500 * time.Millisecond)
	var waited, runs uint64
	var observed []point
	stopSettled(t, h.cmd.Process.Pid, func() bool {
		waited, runs = schedstat(t, h.cmd.Process.Pid)
		observed = pick(r.collect()["runqueue_latency_seconds"], "cgroup="+group.path)
		return len(observed) == 1 && observed[0].row[0] == waited
	})
	if len(observed) != 1 {
		t.Fatalf("series: %v", observed)
	}
	if got := observed[0].count(); got > runs || got < runs-runs/20 || got == 0 {
		t.Errorf("%d observations, but the threads ran %d times", got, runs)
	}
	if got := observed[0].row[0]; got != waited || got == 0 {
		t.Errorf("%d ns observed, but the threads waited %d ns", got, waited)
	}
}
