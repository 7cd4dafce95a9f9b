package programs_test

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// makeSyscalls makes system calls that the Go runtime does not make.
func makeSyscalls() {
	runtime.LockOSThread()
	for range 1000 {
		unix.Syscall(unix.SYS_GETPRIORITY, 0, 0, 0)
	}
	for range 11 {
		unix.Syscall(unix.SYS_GETPRIORITY, 99, 0, 0) // EINVAL
	}
	for range 5 {
		unix.Syscall(unix.SYS_GETPGID, 1<<30, 0, 0) // ESRCH
	}
	for range 3 {
		sleep := unix.NsecToTimespec(int64(20 * time.Millisecond))
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &sleep, nil)
	}
}

func TestSyscalls(t *testing.T) {
	group := newCgroup(t)
	cgroup := "cgroup=" + group.path
	f := func(calls, latency bool, params ...string) {
		t.Helper()
		r := load(t, "syscalls", group.dir, params...)
		if status := group.start(t, "syscalls").wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
		families := r.collect()
		missed := r.missed("syscall_exit")
		if calls {
			expectUpTo(t, families, "syscalls_total", 1011, missed, cgroup, "syscall=getpriority")
			expectUpTo(t, families, "syscalls_total", 5, missed, cgroup, "syscall=getpgid")
			expectUpTo(t, families, "syscalls_total", 3, missed, cgroup, "syscall=clock_nanosleep")
			expectUpTo(t, families, "syscalls_total", 1, missed, cgroup, "syscall=execve")
		} else if _, ok := families["syscalls_total"]; ok {
			t.Errorf("%v: calls are counted", params)
		}
		expectUpTo(t, families, "syscall_errors_total", 11, missed, cgroup, "syscall=getpriority")
		expectUpTo(t, families, "syscall_errors_total", 11, missed, cgroup, "syscall=getpriority", "errno=EINVAL")
		expectUpTo(t, families, "syscall_errors_total", 5, missed, cgroup, "syscall=getpgid", "errno=ESRCH")
		expect(t, families, "syscall_errors_total", 0, cgroup, "syscall=clock_nanosleep")
		observed, ok := families["syscall_duration_seconds"]
		if ok != latency {
			t.Errorf("%v: latency is measured: %v", params, ok)
		}
		if !latency {
			return
		}
		missed = r.missed("syscall_enter") + r.missed("syscall_return")
		sleeps := pick(observed, cgroup, "syscall=clock_nanosleep")
		if len(sleeps) != 1 || sleeps[0].count() > 3 || sleeps[0].count()+missed < 3 ||
			sleeps[0].row[0] < sleeps[0].count()*uint64(20*time.Millisecond) {
			t.Errorf("three sleeps of 20 ms: %v", sleeps)
		}
		if calls := pick(observed, cgroup, "syscall=getpriority"); len(calls) != 1 || calls[0].count() > 1011 || calls[0].count()+missed < 1011 {
			t.Errorf("1011 calls: %v", calls)
		}
	}
	f(true, false)
	f(true, true, "latency=true")
	f(false, false, "errors_only=true")
	f(false, true, "errors_only=true", "latency=true")
}
