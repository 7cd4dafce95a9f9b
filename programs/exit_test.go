package programs_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// exitAsTold ends by EXIT_CODE, while several threads are busy ending, too.
func exitAsTold() {
	code, err := strconv.Atoi(os.Getenv("EXIT_CODE"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 101
	}
	var ready sync.WaitGroup
	for range 4 {
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			select {}
		}()
	}
	ready.Wait()
	os.Exit(code)
}

// execFromThread executes another helper from a thread that is not the main one, which kills that.
func execFromThread() {
	self, err := os.Executable()
	if err != nil {
		os.Exit(101)
	}
	runtime.LockOSThread() // main stays on this thread
	go func() {
		err := syscall.Exec(self, []string{self}, []string{helperVariable + "=exit", "EXIT_CODE=9"})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(102)
	}()
	select {}
}

func TestExit(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "exit", group.dir)
	exits := map[int]int{0: 2, 3: 4, 255: 1}
	for code, times := range exits {
		for range times {
			status := group.start(t, "exit", "EXIT_CODE="+strconv.Itoa(code)).wait()
			if status.ExitStatus() != code {
				t.Fatalf("the helper ended with %v", status)
			}
		}
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGKILL} {
		h := group.start(t, "wait")
		if err := h.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		h.wait()
	}
	// A second thread that executes a program takes the process over: one exit.
	if status := group.start(t, "reexec").wait(); status.ExitStatus() != 9 {
		t.Fatalf("the helper ended with %v", status)
	}

	families := r.collect()
	cgroup := "cgroup=" + group.path
	missed := r.missed("process_exit")
	for code, times := range exits {
		expectUpTo(t, families, "process_exits_total", uint64(times), missed, cgroup, fmt.Sprint("code=", code), "signal=0")
	}
	expectUpTo(t, families, "process_exits_total", 2, missed, cgroup, "code=0", "signal=SIGKILL")
	expectUpTo(t, families, "process_exits_total", 1, missed, cgroup, "code=0", "signal=SIGTERM")
	expectUpTo(t, families, "process_exits_total", 1, missed, cgroup, "code=9", "signal=0")
	expectUpTo(t, families, "process_exits_total", 7+3+1, missed)
}

// Threads that end at the same moment must not count a process twice, nor none of them.
func TestExitManyThreads(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "exit", group.dir)
	const processes = 24
	var all sync.WaitGroup
	for range 4 {
		all.Add(1)
		go func() {
			defer all.Done()
			for range processes / 4 {
				group.start(t, "exit", "EXIT_CODE=1").wait()
			}
		}()
	}
	all.Wait()
	expectUpTo(t, r.collect(), "process_exits_total", processes, r.missed("process_exit"))
}
