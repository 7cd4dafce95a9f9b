package programs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracedWord is at the same address in every process of this binary.
var tracedWord uint64 = 0x6b616f6e6b616f6e

// traceProcess traces the process TARGET, which is another helper, and a child.
func traceProcess() {
	runtime.LockOSThread()
	target, err := strconv.Atoi(os.Getenv("TARGET"))
	if err != nil {
		os.Exit(101)
	}
	pid := uintptr(target)
	call := func(request, pid, address, data uintptr, want unix.Errno) {
		if _, _, err := unix.Syscall6(unix.SYS_PTRACE, request, pid, address, data, 0, 0); err != want {
			fmt.Fprintf(os.Stderr, "ptrace %d: %v\n", request, err)
			os.Exit(102)
		}
	}
	stopped := func(pid int) {
		var status unix.WaitStatus
		if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil || !status.Stopped() {
			fmt.Fprintln(os.Stderr, "wait:", err, status)
			os.Exit(103)
		}
	}
	address := uintptr(unsafe.Pointer(&tracedWord))
	for range 2 {
		call(unix.PTRACE_ATTACH, pid, 0, 0, 0)
		stopped(target)
		var word uint64
		for range 3 {
			call(unix.PTRACE_PEEKDATA, pid, address, uintptr(unsafe.Pointer(&word)), 0)
		}
		call(unix.PTRACE_POKEDATA, pid, address, uintptr(word), 0)
		call(unix.PTRACE_DETACH, pid, 0, 0, 0)
	}
	call(unix.PTRACE_SEIZE, pid, 0, 0, 0)
	call(unix.PTRACE_INTERRUPT, pid, 0, 0, 0)
	stopped(target)
	call(unix.PTRACE_DETACH, pid, 0, 0, 0)
	for range 4 {
		call(unix.PTRACE_ATTACH, 1<<30, 0, 0, unix.ESRCH)
	}

	buffer := make([]byte, 8)
	local := []unix.Iovec{{Base: &buffer[0], Len: 8}}
	remote := []unix.RemoteIovec{{Base: address, Len: 8}}
	for range 5 {
		if n, err := unix.ProcessVMReadv(target, local, remote, 0); n != 8 || err != nil {
			fmt.Fprintln(os.Stderr, "read:", n, err)
			os.Exit(104)
		}
	}
	for range 6 {
		if n, err := unix.ProcessVMWritev(target, local, remote, 0); n != 8 || err != nil {
			fmt.Fprintln(os.Stderr, "write:", n, err)
			os.Exit(105)
		}
	}

	path := filepath.Join(os.Getenv("DIRECTORY"), "kaon-tiny")
	if err := os.WriteFile(path, tinyProgram(), 0o755); err != nil {
		os.Exit(106)
	}
	child := exec.Command(path)
	child.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	if err := child.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "start:", err)
		os.Exit(107)
	}
	stopped(child.Process.Pid)
	call(unix.PTRACE_CONT, uintptr(child.Process.Pid), 0, 0, 0)
	_ = child.Wait()
}

func TestPtrace(t *testing.T) {
	scope, outside := newCgroup(t), newCgroup(t)
	group, victims := scope.child(t, "tracer"), scope.child(t, "traced")
	f := func(params ...string) *running {
		t.Helper()
		r := load(t, "ptrace", scope.dir, params...)
		for _, c := range []cgroup{group, outside} {
			victim := victims.start(t, "wait")
			status := c.start(t, "ptrace", fmt.Sprint("TARGET=", victim.cmd.Process.Pid), "DIRECTORY="+t.TempDir()).wait()
			if status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
			if status := victim.wait(); status.ExitStatus() != 0 {
				t.Fatalf("its target ended with %v", status)
			}
		}
		known := ""
		if r.attached("access_trampoline") || r.attached("access_kprobe") {
			known = victims.path
		}
		families := r.collect()
		missed := r.missedAll()
		f := func(want uint64, target, operation, errno string) {
			t.Helper()
			expectUpTo(t, families, "ptrace_calls_total", want, missed, "cgroup="+group.path, "target_cgroup="+target, "operation="+operation, "errno="+errno)
		}
		f(2, victims.path, "attach", "0")
		f(4, "", "attach", "ESRCH")
		f(6, "", "peek", "0")
		f(2, "", "poke", "0")
		f(3, "", "detach", "0")
		f(1, victims.path, "seize", "0")
		f(1, "", "traceme", "0")
		f(2, "", "other", "0") // interrupt, continue
		f(5, known, "process_vm_readv", "0")
		f(6, known, "process_vm_writev", "0")
		expectUpTo(t, families, "ptrace_calls_total", 2+4+6+2+3+1+1+2+5+6, missed)
		return r
	}
	if f().attached("ptrace_trampoline_exit") {
		f("-fentry", "-fexit")
	}
}
