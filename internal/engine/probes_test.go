package engine

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// targetBinary returns the absolute path of the program that probes are set in.
func targetBinary(t testing.TB) string {
	t.Helper()
	path, err := filepath.Abs("testdata/target")
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Machine != nativeMachine() {
		t.Skipf("needs a machine of type %s", f.Machine)
	}
	return path
}

func nativeMachine() elf.Machine {
	self, err := os.Executable()
	if err != nil {
		return elf.EM_NONE
	}
	f, err := elf.Open(self)
	if err != nil {
		return elf.EM_NONE
	}
	defer f.Close()
	return f.Machine
}

func runTarget(t testing.TB, path, times string) {
	t.Helper()
	if out, err := exec.Command(path, times).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", path, err, out)
	}
}

func TestUprobes(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	path := targetBinary(t)
	spec := loadSpec(t, "probes.bpf.o", "on_uprobe", "on_uretprobe", "on_uprobe_multi")
	spec.Hooks[0].Target = path + ":work"
	spec.Hooks[1].Target = path + ":work_more"
	spec.Hooks[2].Target = path + ":work*"
	i := mustAttach(t, e, spec)
	runTarget(t, path, "4")
	for name, want := range map[string]uint64{"by_uprobe": 4, "by_uretprobe": 4, "by_uprobe_multi": 8} {
		if got := counter(t, i, name); got != want {
			t.Errorf("%s = %d, want %d", name, got, want)
		}
	}
}

func TestUprobeErrors(t *testing.T) {
	e := newEngine(t, Options{})
	path := targetBinary(t)
	f := func(target string, pid int, want error, parts ...string) {
		t.Helper()
		spec := loadSpec(t, "probes.bpf.o", "on_uprobe")
		spec.Hooks[0].Target, spec.Hooks[0].PID = target, pid
		_, err := e.Load(context.Background(), spec)
		mustFail(t, err, want, parts...)
	}
	f(path+":wark", 0, ErrNoTarget, "wark", "did you mean work?")
	f(path, 0, nil, "PATH:SYMBOL")
	f("/nonexistent/kaon:main", 0, ErrNoTarget, "/nonexistent/kaon")
	f("libkaonnone:main", 0, ErrNoTarget, "libkaonnone")
	f(path+":work", 1<<30, ErrNoTarget, "no process")
}

func TestParseUprobe(t *testing.T) {
	f := func(text string, want uprobeTarget, ok bool) {
		t.Helper()
		got, err := parseUprobe(text)
		if (err == nil) != ok || ok && got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	f("/bin/bash:readline", uprobeTarget{path: "/bin/bash", symbol: "readline"}, true)
	f("/bin/bash:readline+0x10", uprobeTarget{path: "/bin/bash", symbol: "readline", offset: 16}, true)
	f("/a:b/c:f", uprobeTarget{path: "/a:b/c", symbol: "f"}, true)
	f("libc:operator+", uprobeTarget{path: "libc", symbol: "operator+"}, true)
	f("/bin/x:0x1234", uprobeTarget{path: "/bin/x", offset: 0x1234}, true)
	f("/bin/x", uprobeTarget{}, false)
	f("/bin/x:", uprobeTarget{}, false)
	f(":main", uprobeTarget{}, false)
}

func TestUSDT(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	path := targetBinary(t)
	spec := parseSpec(t, "usdt.bpf.o")
	spec.Hooks[0].Target = path + ":kaon:tick"
	i := mustAttach(t, e, spec)
	runTarget(t, path, "3")
	if got := counter(t, i, "calls"); got != 3 {
		t.Fatalf("calls = %d, want 3 (the semaphore is needed to have any)", got)
	}
	for n, want := range []int64{-7, 0x1122334455667788, 77, 3} {
		var got int64
		if err := i.Map("arguments").Lookup(uint32(n), &got); err != nil || got != want {
			t.Errorf("argument %d = %d, %v, want %d", n, got, err, want)
		}
	}

	spec = parseSpec(t, "usdt.bpf.o")
	spec.Hooks[0].Target = path + ":kaon:tack"
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, ErrNoTarget, "kaon:tack", "did you mean kaon:tick?")
}

func TestParseUSDTArguments(t *testing.T) {
	f := func(machine elf.Machine, text string, want ...usdtArgument) {
		t.Helper()
		got, err := parseUSDTArguments(text, machine)
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
	f(elf.EM_X86_64, "-4@%edi 8@-16(%rbp) 1@$5 -2@%r8w",
		usdtArgument{kind: usdtRegister, register: 14 * 8, signed: true, shift: 32},
		usdtArgument{kind: usdtMemory, register: 4 * 8, value: ^uint64(15)},
		usdtArgument{kind: usdtConstant, value: 5, shift: 56},
		usdtArgument{kind: usdtRegister, register: 9 * 8, signed: true, shift: 48})
	f(elf.EM_X86_64, "8@(%rsp) 4@$-9",
		usdtArgument{kind: usdtMemory, register: 19 * 8}, usdtArgument{kind: usdtConstant, value: ^uint64(8), shift: 32})
	f(elf.EM_AARCH64, "-4@w1 8@[sp, 16] 8@[x29] 4@-3 8@x30",
		usdtArgument{kind: usdtRegister, register: 8, signed: true, shift: 32},
		usdtArgument{kind: usdtMemory, register: 31 * 8, value: 16},
		usdtArgument{kind: usdtMemory, register: 29 * 8},
		usdtArgument{kind: usdtConstant, value: ^uint64(2), shift: 32},
		usdtArgument{kind: usdtRegister, register: 30 * 8})
	f(elf.EM_X86_64, "")

	bad := func(machine elf.Machine, text string) {
		t.Helper()
		if got, err := parseUSDTArguments(text, machine); err == nil {
			t.Errorf("%q is accepted as %+v", text, got)
		}
	}
	bad(elf.EM_X86_64, "4%eax")
	bad(elf.EM_X86_64, "3@%eax")
	bad(elf.EM_X86_64, "4@%xmm0")
	bad(elf.EM_X86_64, "4@8(%rax")
	bad(elf.EM_X86_64, "8@symbol(%rip)")
	bad(elf.EM_X86_64, "8@(%rax,%rbx,8)")
	bad(elf.EM_AARCH64, "8@[sp, 16")
	bad(elf.EM_AARCH64, "8@x31")
	bad(elf.EM_RISCV, "8@a0")
	bad(elf.EM_X86_64, strings.Repeat("4@$1 ", maxUSDTArguments+1))
}

func FuzzParseUSDTArguments(f *testing.F) {
	f.Add("-4@%edi 8@-16(%rbp) 1@$5", true)
	f.Add("8@[sp, 16] -4@w1", false)
	f.Fuzz(func(t *testing.T, text string, x86 bool) {
		machine := elf.EM_AARCH64
		if x86 {
			machine = elf.EM_X86_64
		}
		arguments, err := parseUSDTArguments(text, machine)
		if err != nil {
			return
		}
		for _, a := range arguments {
			if a.register < 0 || a.register > 31*8 || a.shift > 56 {
				t.Errorf("%q: %+v", text, a)
			}
		}
		if len(encodeUSDT(arguments)) != usdtSpecSize {
			t.Errorf("%q: wrong size", text)
		}
	})
}

func FuzzParseUSDTNotes(f *testing.F) {
	b, err := elf.Open("testdata/target")
	if err != nil {
		f.Fatal(err)
	}
	defer b.Close()
	data, err := b.Section(".note.stapsdt").Data()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		notes, err := parseUSDTNotes(data, binary.LittleEndian)
		if err == nil && len(notes) > len(data)/12 {
			t.Errorf("%d notes out of %d bytes", len(notes), len(data))
		}
	})
}

func FuzzParseNetlink(f *testing.F) {
	f.Add([]byte{20, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseMessages(data, 1, func(kind uint16, payload []byte) {
			if filter := parseFilter(kind, payload); filter != nil && filter.name == "" {
				t.Error("a filter without a name")
			}
		})
	})
}

func TestPerfEvent(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	spec := loadSpec(t, "probes.bpf.o", "on_perf_event")
	spec.Hooks[0].Target = "type=software,config=cpu_clock,frequency=999"
	i := mustAttach(t, e, spec)
	cpus, err := e.onlineCPUs()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(hookOf(t, i, "on_perf_event").Targets); got != len(cpus) {
		t.Errorf("attached to %d CPUs of %d", got, len(cpus))
	}
	deadline := time.Now().Add(20 * time.Second)
	for counter(t, i, "by_perf_event") == 0 {
		if time.Now().After(deadline) {
			t.Fatal("no sample in 20 s of work")
		}
	}
	// Without what the kernel counts, the runs say as much: they include other processes.
	if i.Runs()["on_perf_event"] == 0 {
		t.Error("runs are not counted")
	}

	// A CPU that goes offline and comes back.
	name := filepath.Join(t.TempDir(), "online")
	online := func(text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e.cpusFile = name
		if err := e.Rescan(); err != nil {
			t.Fatal(err)
		}
		want, err := parseCPUs(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(hookOf(t, i, "on_perf_event").Targets); got != len(want) {
			t.Errorf("with CPUs %s online attached to %d", text, got)
		}
	}
	online("0\n")
	if len(cpus) > 1 {
		online("0-1\n")
	}
}

func TestParsePerfEvent(t *testing.T) {
	f := func(text string, want perfTarget) {
		t.Helper()
		if got, err := parsePerfEvent(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	f("type=software,config=cpu_clock,frequency=99", perfTarget{kind: 1, sample: 99, frequency: true})
	f("type=0,config=3,period=1000000", perfTarget{config: 3, sample: 1000000})
	f("type=HARDWARE,config=PERF_COUNT_HW_CACHE_MISSES,frequency=99", perfTarget{config: 3, sample: 99, frequency: true})
	f("config=page-faults,period=1", perfTarget{kind: 1, config: 2, sample: 1})
	for _, text := range []string{"", "config=cpu_clock", "config=nothing,period=1", "type=odd,config=1,period=1",
		"config=1,period=1,frequency=2", "config=1,period=0", "config=1,period=1,colour=red", "config=1,config=2,period=1", "config"} {
		if got, err := parsePerfEvent(text); err == nil {
			t.Errorf("%q is accepted as %+v", text, got)
		}
	}
}

func FuzzParseCPUs(f *testing.F) {
	f.Add("0-3,8\n")
	f.Fuzz(func(t *testing.T, text string) {
		cpus, err := parseCPUs(text)
		if err == nil && (len(cpus) == 0 || len(cpus) > 1<<16) {
			t.Errorf("%q: %d CPUs", text, len(cpus))
		}
	})
}

// needKprobes skips where the kernel was built without kprobes.
func needKprobes(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err != nil {
		t.Skip("needs kprobes (CONFIG_KPROBES)")
	}
}

// needTrampolines skips where the kernel refuses fentry functions.
func needTrampolines(t testing.TB) {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.Tracing, AttachType: ebpf.AttachTraceFEntry, AttachTo: "vfs_read", License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Skipf("needs BPF trampolines: %v", err)
	}
	prog.Close()
}

func TestKprobes(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	needKprobes(t)
	i := mustAttach(t, e, loadSpec(t, "probes.bpf.o", "on_kprobe", "on_kretprobe", "on_ksyscall", "on_kprobe_multi"))
	call(6)
	for _, name := range []string{"by_kprobe", "by_kretprobe", "by_ksyscall", "by_kprobe_multi"} {
		if got := counter(t, i, name); got != 6 {
			t.Errorf("%s = %d, want 6", name, got)
		}
	}
	t.Logf("kprobe.multi: %v", features.HaveBPFLinkKprobeMulti())
}

func TestKprobeErrors(t *testing.T) {
	e := newEngine(t, Options{})
	spec := loadSpec(t, "probes.bpf.o", "on_kprobe")
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err != nil {
		_, err := e.Load(context.Background(), spec)
		mustFail(t, err, ErrUnsupported, "CONFIG_KPROBES", "alternative")
		return
	}
	spec.Hooks[0].Target = "vfs_raed"
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, ErrNoTarget, "vfs_raed", "did you mean vfs_read?")
}

func TestTracing(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	needTrampolines(t)
	i := mustAttach(t, e, loadSpec(t, "probes.bpf.o", "on_fentry", "on_fexit"))
	for range 6 {
		if _, err := unix.Getpgid(0); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"by_fentry", "by_fexit"} {
		if got := counter(t, i, name); got != 6 {
			t.Errorf("%s = %d, want 6", name, got)
		}
	}
}

func TestTracingRefused(t *testing.T) {
	e := newEngine(t, Options{})
	spec := loadSpec(t, "probes.bpf.o", "on_fentry")
	spec.Hooks[0].Target = "vfs_raed"
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, ErrNoTarget, "vfs_raed", "did you mean vfs_read?")

	spec.Hooks[0].Target = "vfs_read"
	i, err := e.Load(context.Background(), spec)
	if err == nil {
		i.Close()
		t.Skip("needs a kernel that refuses trampolines")
	}
	mustFail(t, err, ErrUnsupported, "fentry/vfs_read", "alternative")
	mustFail(t, err, ErrNothingAttached)
	if strings.Contains(err.Error(), "MEMLOCK") {
		t.Errorf("the library's misleading hint is passed on: %v", err)
	}
}

func TestLSM(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	needTrampolines(t)
	list, err := os.ReadFile("/sys/kernel/security/lsm")
	if err == nil && !bytes.Contains(list, []byte("bpf")) {
		t.Skipf("needs lsm=...,bpf, have %s", list)
	}
	i, err := e.Load(context.Background(), loadSpec(t, "probes.bpf.o", "on_lsm"))
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("needs BPF LSM: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if _, err := os.ReadFile("/proc/self/stat"); err != nil {
		t.Fatal(err)
	}
	if counter(t, i, "by_lsm") == 0 {
		t.Skip("needs the bpf LSM switched on (lsm=...,bpf)")
	}
}

func TestFunctionName(t *testing.T) {
	f := func(line, want string, ok bool) {
		t.Helper()
		if got, is := functionName(line); is != ok || ok && got != want {
			t.Errorf("%q: %q, %v", line, got, is)
		}
	}
	f("ffffffff81000000 T vfs_read", "vfs_read", true)
	f("ffffffff81000000 t ext4_open\t[ext4]", "ext4_open", true)
	f("ffffffff81000000 D jiffies", "", false)
	f("vfs_read", "vfs_read", true)
	f("ext4_open [ext4]", "ext4_open", true)
	f("", "", false)
}
