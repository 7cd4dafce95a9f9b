//go:build linux

package smoke

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// inGuest tells whether this is a guest of the matrix, whose kernels are known.
func inGuest() bool { return os.Getenv("KAON_VM") == "1" }

// lacking skips on a machine that does not have a feature. The guests do have
// it, so there it is a failure.
func lacking(t *testing.T, reason string, err error) {
	t.Helper()
	if inGuest() {
		t.Fatalf("a guest of the matrix %s: %v", reason, err)
	}
	t.Skipf("%s: %v", reason, err)
}

// counter is the body of a program that counts, in the first value of an array
// map, how often this process came by.
func counter(t *testing.T) (*ebpf.Map, asm.Instructions) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m, asm.Instructions{
		asm.FnGetCurrentPidTgid.Call(),
		asm.RSh.Imm(asm.R0, 32),
		asm.JNE.Imm(asm.R0, int32(os.Getpid()), "exit"),
		asm.LoadMapValue(asm.R1, m.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.StoreXAdd(asm.R1, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("exit"),
		asm.Return(),
	}
}

// load loads a program or ends the test.
func load(t *testing.T, spec *ebpf.ProgramSpec) *ebpf.Program {
	t.Helper()
	program, err := ebpf.NewProgram(spec)
	if err != nil {
		t.Fatalf("load: %+v", err)
	}
	t.Cleanup(func() { program.Close() })
	return program
}

// expectCount triggers 10 times and wants each counted while l is attached,
// and none after.
func expectCount(t *testing.T, m *ebpf.Map, l link.Link, trigger func()) {
	t.Helper()
	count := func() (n uint64) {
		t.Helper()
		if err := m.Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := count()
	for range 10 {
		trigger()
	}
	attached := count()
	if attached < before+10 {
		t.Errorf("counted %d of 10", attached-before)
	}
	if err := l.Close(); err != nil {
		t.Fatalf("detach: %v", err)
	}
	before = count()
	for range 10 {
		trigger()
	}
	if after := count(); after != before {
		t.Errorf("counted %d after it was detached", after-before)
	}
}

func getppid() { unix.Getppid() }

func openRoot() {
	if file, err := os.Open("/"); err == nil {
		file.Close()
	}
}

func TestRawTracepoint(t *testing.T) {
	m, body := counter(t)
	program := load(t, &ebpf.ProgramSpec{Type: ebpf.RawTracepoint, Instructions: body, License: "Dual BSD/GPL"})
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_enter", Program: program})
	if err != nil {
		t.Fatal(err)
	}
	expectCount(t, m, l, getppid)
}

func TestTracepointBTF(t *testing.T) {
	m, body := counter(t)
	program := load(t, &ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceRawTp, AttachTo: "sys_enter",
		Instructions: body, License: "Dual BSD/GPL",
	})
	l, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	expectCount(t, m, l, getppid)
}

func TestTracepoint(t *testing.T) {
	m, body := counter(t)
	if _, err := os.Stat("/sys/kernel/tracing/events/raw_syscalls"); err != nil {
		lacking(t, "needs tracefs at /sys/kernel/tracing", err)
	}
	program := load(t, &ebpf.ProgramSpec{Type: ebpf.TracePoint, Instructions: body, License: "Dual BSD/GPL"})
	l, err := link.Tracepoint("raw_syscalls", "sys_enter", program, nil)
	if err != nil {
		t.Fatal(err)
	}
	expectCount(t, m, l, getppid)
}

func TestKprobe(t *testing.T) {
	m, body := counter(t)
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err != nil {
		lacking(t, "needs kprobes", err)
	}
	program := load(t, &ebpf.ProgramSpec{Type: ebpf.Kprobe, Instructions: body, License: "Dual BSD/GPL"})
	l, err := link.Kprobe("sys_getppid", program, nil)
	if err != nil {
		t.Fatal(err)
	}
	expectCount(t, m, l, getppid)
}

func TestKprobeMulti(t *testing.T) {
	m, body := counter(t)
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Kprobe, AttachType: ebpf.AttachTraceKprobeMulti, Instructions: body, License: "Dual BSD/GPL",
	})
	if err == nil {
		defer program.Close()
		var l link.Link
		if l, err = link.KprobeMulti(program, link.KprobeMultiOptions{Symbols: []string{"__x64_sys_getppid"}}); err == nil {
			expectCount(t, m, l, getppid)
			return
		}
	}
	if errors.Is(err, ebpf.ErrNotSupported) { // some guests do not have it
		t.Skipf("needs kprobe_multi: %v", err)
	}
	t.Fatal(err)
}

// trivial loads a program that does nothing, to find out whether the kernel
// takes the kind at all.
func trivial(attach ebpf.AttachType, kind ebpf.ProgramType, to string) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, AttachType: attach, AttachTo: to, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	return program.Close()
}

func TestFentry(t *testing.T) {
	m, body := counter(t)
	// Kernels have no BTF of every system call's entry, but of this.
	const function = "security_file_open"
	if err := trivial(ebpf.AttachTraceFEntry, ebpf.Tracing, function); err != nil {
		lacking(t, "needs BTF trampolines", err)
	}
	program := load(t, &ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: function,
		Instructions: body, License: "Dual BSD/GPL",
	})
	l, err := link.AttachTracing(link.TracingOptions{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	expectCount(t, m, l, openRoot)
}

func TestLSM(t *testing.T) {
	m, body := counter(t)
	if err := trivial(ebpf.AttachLSMMac, ebpf.LSM, "file_open"); err != nil {
		lacking(t, "needs BPF LSM programs", err)
	}
	program := load(t, &ebpf.ProgramSpec{
		Type: ebpf.LSM, AttachType: ebpf.AttachLSMMac, AttachTo: "file_open",
		Instructions: body, License: "Dual BSD/GPL",
	})
	l, err := link.AttachLSM(link.LSMOptions{Program: program})
	if err != nil {
		t.Fatal(err)
	}
	expectCount(t, m, l, openRoot)
}
