package programs_test

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// callBPF calls bpf() as a program that loads things would.
func callBPF() {
	call := func(command uintptr, attributes unsafe.Pointer, size uintptr, want unix.Errno) uintptr {
		fd, _, err := unix.Syscall(unix.SYS_BPF, command, uintptr(attributes), size)
		if err != want {
			fmt.Fprintf(os.Stderr, "bpf %d: %v\n", command, err)
			os.Exit(101)
		}
		return fd
	}
	code := []uint64{0xb7, 0x95} // r0 = 0; exit
	license := []byte("MIT\x00")
	load := struct {
		kind, count   uint32
		code, license *byte
	}{unix.BPF_PROG_TYPE_SCHED_ACT, 2, (*byte)(unsafe.Pointer(&code[0])), &license[0]}
	for range 3 {
		unix.Close(int(call(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load), 0)))
	}
	load.count = 0
	for range 2 {
		call(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load), unix.E2BIG)
	}
	load.kind, load.count = 12345, 2
	call(unix.BPF_PROG_LOAD, unsafe.Pointer(&load), unsafe.Sizeof(load), unix.EINVAL)
	lookup := struct{ fd uint32 }{1 << 20}
	for range 4 {
		call(unix.BPF_MAP_FREEZE, unsafe.Pointer(&lookup), unsafe.Sizeof(lookup), unix.EBADF)
	}
	call(12345, unsafe.Pointer(&lookup), unsafe.Sizeof(lookup), unix.EINVAL)
	runtime.KeepAlive(code)
}

func TestBPFUse(t *testing.T) {
	group, outside := newCgroup(t), newCgroup(t)
	f := func(params ...string) *running {
		t.Helper()
		r := load(t, "bpfuse", group.dir, params...)
		for _, c := range []cgroup{group, outside} {
			if status := c.start(t, "bpfuse").wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		families := r.collect()
		missed := r.missedAll()
		f := func(metric string, want uint64, labels ...string) {
			t.Helper()
			expectUpTo(t, families, metric, want, missed, append(labels, "cgroup="+group.path)...)
		}
		f("bpf_program_loads_total", 3, "type=sched_act", "errno=0")
		f("bpf_program_loads_total", 2, "type=sched_act", "errno=E2BIG")
		f("bpf_program_loads_total", 1, "type=other", "errno=EINVAL")
		f("bpf_calls_total", 2, "command=prog_load", "errno=E2BIG")
		f("bpf_calls_total", 4, "command=map_freeze", "errno=EBADF")
		f("bpf_calls_total", 1, "command=other", "errno=EINVAL")
		expect(t, families, "bpf_calls_total", 0, "cgroup="+outside.path)
		return r
	}
	if f().attached("bpf_trampoline_exit") {
		f("-fentry", "-fexit")
	}
}
