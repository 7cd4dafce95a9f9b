package agent

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refuseBPF makes bpf(2) fail on this thread, as old kernels do without capabilities.
func refuseBPF() error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the system call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: unix.SYS_BPF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// Whether maps can be read is tried on the thread that may do less, not on another.
func TestReadable(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	apply(t, a, ProgramConfig{Source: "testdata/calls.bpf.o", Params: number}, ProgramConfig{Source: "testdata/absent.o"})
	if err := a.readable(context.Background()); err != nil {
		t.Errorf("with all rights: %v", err)
	}
	type result struct{ prepare, err error }
	results := make(chan result, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		if err := refuseBPF(); err != nil {
			results <- result{prepare: err}
			return
		}
		results <- result{err: a.readable(context.Background())}
	}()
	r := <-results
	if r.prepare != nil {
		t.Skip("needs seccomp: ", r.prepare)
	}
	if !errors.Is(r.err, ErrCapabilitiesNeeded) {
		t.Errorf("without bpf(2): got %v", r.err)
	}
}
