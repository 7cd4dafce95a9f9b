package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

func TestLoadBasic(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	spec := loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp", "on_tp_btf", "dump_tasks")
	spec.Readers = []program.Reader{
		{Name: "by_hash", Kind: program.MapReader, KeySize: 8, ValueSize: 8, Overflow: true},
		{Name: "tasks", Kind: program.IteratorReader, Function: "dump_tasks", KeySize: 8, ValueSize: 8},
	}
	spec.Params = []program.Param{{Name: "threshold", Variable: "threshold", Type: program.ParamDuration, Value: "3ns", Size: 8}}
	i := mustAttach(t, e, spec)

	call(5)
	for _, name := range []string{"by_tracepoint", "by_raw_tp", "by_tp_btf"} {
		if got := counter(t, i, name); got != 5 {
			t.Errorf("%s = %d, want 5", name, got)
		}
	}
	if i.Map("tasks") != nil {
		t.Error("the map that only declares an iterator's records was created")
	}
	lost, err := i.Lost()
	if err != nil || lost["kaon_lost"] != 15 {
		t.Errorf("Lost() = %v, %v, want 15 from the param", lost, err)
	}
	if size := i.Map("events").MaxEntries(); size != 8192 {
		t.Errorf("ring of 5000 bytes became %d, want 8192", size)
	}
	var value uint64
	if err := i.Map("by_hash").Lookup(bytes.Repeat([]byte{0xff}, 8), &value); err != nil || value != 0 {
		t.Errorf("overflow entry: %d, %v", value, err)
	}
	runs := i.Runs()
	if runs["on_tracepoint"] < 5 || runs["on_raw_tp"] < 5 || runs["on_tp_btf"] < 5 {
		t.Errorf("Runs() = %v, want at least 5 each", runs)
	}
	if _, ok := runs["dump_tasks"]; ok {
		t.Error("runs of an iterator are counted")
	}

	r, err := i.OpenIterator("dump_tasks")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil || len(data) == 0 || len(data)%16 != 0 {
		t.Fatalf("iterator: %d bytes, %v", len(data), err)
	}
	if pid := binary.NativeEndian.Uint32(data); int(pid) != os.Getpid() {
		t.Errorf("iterator shows process %d", pid)
	}
	if i.LoadDuration() <= 0 || i.Started().IsZero() {
		t.Error("no times")
	}
}

func TestClose(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	i, err := e.Load(context.Background(), loadSpec(t, "basic.bpf.o", "on_raw_tp"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := i.Map("by_raw_tp").Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	call(1)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	call(10)
	var value uint64
	if err := m.Lookup(uint32(0), &value); err != nil || value != 1 {
		t.Errorf("after Close: %d, %v, want 1", value, err)
	}
	if err := i.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if _, err := i.OpenIterator("x"); err == nil {
		t.Error("a closed instance opens iterators")
	}
}

func TestAlternatives(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	spec := loadSpec(t, "basic.bpf.o", "on_tp_btf", "on_raw_tp", "on_tracepoint")
	spec.Hooks[0].Group, spec.Hooks[0].Rank, spec.Hooks[0].Target = "enter", 1, "sys_entre"
	spec.Hooks[1].Group, spec.Hooks[1].Rank, spec.Hooks[1].Target = "enter", 2, "sys_entr"
	spec.Hooks[2].Group, spec.Hooks[2].Rank = "enter", 3
	i := mustLoad(t, e, spec)
	if err := i.Degraded(); err != nil {
		t.Errorf("degraded although an alternative works: %v", err)
	}
	call(2)
	if got := counter(t, i, "by_tracepoint"); got != 2 {
		t.Errorf("by_tracepoint = %d, want 2", got)
	}
	// The first is refused when it is loaded, the second when it is attached.
	for n, function := range []string{"on_tp_btf", "on_raw_tp"} {
		h := hookOf(t, i, function)
		if h.State != Failed || h.Chosen {
			t.Errorf("%s is %s", function, h.State)
		}
		mustFail(t, h.Err, ErrNoTarget, spec.Hooks[n].Target, "did you mean sys_enter?")
	}
	if h := hookOf(t, i, "on_tracepoint"); h.State != Attached || !h.Chosen {
		t.Errorf("on_tracepoint is %s, chosen %v", h.State, h.Chosen)
	}

	spec = loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp")
	spec.Hooks[0].Group, spec.Hooks[0].Rank = "enter", 2
	spec.Hooks[1].Group, spec.Hooks[1].Rank = "enter", 1
	i = mustLoad(t, e, spec)
	call(2)
	if a, b := counter(t, i, "by_raw_tp"), counter(t, i, "by_tracepoint"); a != 2 || b != 0 {
		t.Errorf("the first by rank counted %d, the second %d, want 2 and 0", a, b)
	}
	if h := hookOf(t, i, "on_tracepoint"); h.State != Unused {
		t.Errorf("the second is %s, want unused", h.State)
	}
}

func TestOptional(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	spec := loadSpec(t, "basic.bpf.o", "on_raw_tp", "on_tp_btf")
	spec.Hooks[1].Optional, spec.Hooks[1].Target = true, "nothing_like_it"
	i := mustLoad(t, e, spec)
	if err := i.Degraded(); err != nil {
		t.Errorf("degraded by an optional function: %v", err)
	}
	spec = loadSpec(t, "basic.bpf.o", "on_raw_tp", "on_tp_btf")
	spec.Hooks[1].Target = "nothing_like_it"
	i = mustLoad(t, e, spec)
	mustFail(t, i.Degraded(), ErrNoTarget, "nothing_like_it")

	// An optional function alone does not make a Program.
	spec = loadSpec(t, "basic.bpf.o", "on_raw_tp", "on_tp_btf")
	spec.Hooks[0].Target = "nothing_like_it"
	spec.Hooks[1].Optional = true
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, ErrNothingAttached, "nothing_like_it")
}

// One Program that can't be loaded must not hurt another.
func TestOneFails(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	good := mustAttach(t, e, loadSpec(t, "basic.bpf.o", "on_raw_tp"))
	bad := loadSpec(t, "misc.bpf.o", "refused")
	setVariable(t, bad, "position", uint64(1000))
	_, err := e.Load(context.Background(), bad)
	mustFail(t, err, ErrNothingAttached)
	call(3)
	if got := counter(t, good, "by_raw_tp"); got != 3 {
		t.Errorf("by_raw_tp = %d, want 3", got)
	}
}

func TestVerifierRejection(t *testing.T) {
	e := newEngine(t, Options{})
	spec := loadSpec(t, "misc.bpf.o", "refused")
	setVariable(t, spec, "position", uint64(1000))
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, ErrNothingAttached, "refused", "verifier", "value[position]")
	if len(err.Error()) > 600 {
		t.Errorf("the message is %d bytes long: %v", len(err.Error()), err)
	}
	var rejection *Rejection
	var full *ebpf.VerifierError
	if !errors.As(err, &rejection) || !errors.As(err, &full) || len(full.Log) < 5 {
		t.Errorf("the whole log is not available: %v", err)
	}
}

func TestMissingField(t *testing.T) {
	e := newEngine(t, Options{})
	_, err := e.Load(context.Background(), loadSpec(t, "misc.bpf.o", "missing_field"))
	mustFail(t, err, ErrNothingAttached, "missing_field", "does not have", "task->no_such_field", "alternative")
}

func TestNewRejection(t *testing.T) {
	f := func(log, source, lines string) {
		t.Helper()
		r := newRejection(strings.Split(log, "\n"), nil)
		if r.Source != source || strings.Join(r.Lines, "|") != lines {
			t.Errorf("source %q, lines %q", r.Source, r.Lines)
		}
	}
	f("0: (b7) r0 = 0\n; return value[position]; @ misc.bpf.c:83\n5: (79) r0 = *(u64 *)(r0 +8000)\ninvalid access to map value\nprocessed 6 insns (limit 1000000)",
		"return value[position]; @ misc.bpf.c:83", "5: (79) r0 = *(u64 *)(r0 +8000)|invalid access to map value")
	f("", "", "")
	f("processed 0 insns\n\n", "", "")
	f("a\nb\nc\nd\ne", "", "c|d|e")
	// As Linux 7.3 says it.
	f(`; return *pointer; @ x.bpf.c:7
0: (79) r2 = *(u64 *)(r1 +0)          ; R1=ctx() R2=scalar()
1: (79) r0 = *(u64 *)(r2 +0)
R2 invalid mem access 'scalar'

Verification failed: Register Type Safety: Invalid dereference

Reason:
  R2 is an integer scalar here, not
  a pointer to memory.

At:
  insn 1
; return *pointer; @ x.bpf.c:7
       | ^-- error: invalid dereference of R2 (an integer scalar)

Suggestion:
  Preserve a pointer-valued register where needed.

processed 2 insns (limit 1000000)`,
		"return *pointer; @ x.bpf.c:7",
		"0: (79) r2 = *(u64 *)(r1 +0)          ; R1=ctx() R2=scalar()|1: (79) r0 = *(u64 *)(r2 +0)|R2 invalid mem access 'scalar'|R2 is an integer scalar here, not a pointer to memory.")
}

func TestHugeMap(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	spec := loadSpec(t, "basic.bpf.o", "on_raw_tp")
	spec.Collection.Maps["by_hash"].MaxEntries = 1<<32 - 1
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, ErrTooLarge, "by_hash", "4294967295", "GiB", "max_entries")

	// Without our limit the kernel's own holds.
	e.options.MapMemoryLimit = math.MaxUint64
	_, err = e.Load(context.Background(), spec)
	mustFail(t, err, ErrTooLarge, "by_hash", "4294967295", "GiB", "max_entries")

	e.options.MapMemoryLimit = 1 << 10
	_, err = e.Load(context.Background(), loadSpec(t, "basic.bpf.o", "on_raw_tp"))
	mustFail(t, err, ErrTooLarge, "1.0 KiB", "events")
}

// Without capabilities the error names those that are missing.
func TestWithoutCapabilities(t *testing.T) {
	newEngine(t, Options{})
	out := runMode(t, "nobody")
	for _, part := range []string{"CAP_BPF", "map"} {
		if !strings.Contains(out, part) {
			t.Errorf("%q lacks %q", out, part)
		}
	}
	if strings.Contains(out, "MEMLOCK") {
		t.Errorf("the library's misleading hint is passed on: %s", out)
	}
}

// nobodyHelper gives up all privileges and tries to load a Program.
func nobodyHelper() error {
	e, err := New(Options{})
	if err != nil {
		return err
	}
	coll, err := ebpf.LoadCollectionSpec("testdata/basic.bpf.o")
	if err != nil {
		return err
	}
	spec := &program.Spec{Name: "basic", Collection: coll, Hooks: []program.Hook{{Function: "on_raw_tp", Kind: program.RawTracepoint, Target: "sys_enter"}}}
	if err := syscall.Setuid(65534); err != nil {
		return err
	}
	_, err = e.Load(context.Background(), spec)
	fmt.Println(err)
	return nil
}

func TestWhenUnless(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	load := func(value string) *Instance {
		spec := loadSpec(t, "basic.bpf.o", "on_raw_tp", "on_tracepoint")
		spec.Params = []program.Param{{Name: "latency", Variable: "wanted", Type: program.ParamBool, Size: 1, Value: value}}
		spec.Hooks[0].When, spec.Hooks[1].Unless = "latency", "latency"
		return mustAttach(t, e, spec)
	}
	on, off := load("true"), load("false")
	call(2)
	if a, b := counter(t, on, "by_raw_tp"), hookOf(t, on, "on_tracepoint").State; a != 2 || b != Disabled {
		t.Errorf("with the param: %d, %s", a, b)
	}
	if a, b := counter(t, off, "by_tracepoint"), hookOf(t, off, "on_raw_tp").State; a != 2 || b != Disabled {
		t.Errorf("without the param: %d, %s", a, b)
	}
	if on.Map("by_tracepoint") != nil {
		t.Error("the map of a disabled function was created")
	}
}

func TestSpecialMaps(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{Constants: Constants{CgroupMode: 2, ScopeID: 40}})
	spec := loadSpec(t, "misc.bpf.o", "caller", "tail")
	spec.Readers = []program.Reader{{Name: "per_cpu", Kind: program.MapReader, Overflow: true}}
	i := mustAttach(t, e, spec)
	call(3)
	if a, b := counter(t, i, "calls"), counter(t, i, "tails"); a != 3 || b != 3 {
		t.Errorf("%d calls, %d tail calls, want 3 and 3", a, b)
	}
	if h := hookOf(t, i, "tail"); h.State != Loaded {
		t.Errorf("the target of a tail call is %s", h.State)
	}
	if got := counter(t, i, "inner_one"); got != 3 {
		t.Errorf("the inner map has %d, want 3", got)
	}
	var mode uint64
	if err := i.Map(".bss").Lookup(uint32(0), &mode); err != nil || mode != 42 {
		t.Errorf("constants: %d, %v, want 42", mode, err)
	}
	var values []uint64
	if err := i.Map("per_cpu").Lookup(bytes.Repeat([]byte{0xff}, 8), &values); err != nil || len(values) != possibleCPUs() {
		t.Errorf("overflow entry of a per-CPU map: %v, %v", values, err)
	}
}

func TestMapIterator(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	i, err := e.Load(context.Background(), loadSpec(t, "misc.bpf.o", "dump_elements"))
	if errors.Is(err, ErrUnsupported) {
		mustFail(t, err, syscall.EPERM, "refuses iterators over bpf_map_elem: add an alternative")
		t.Skip("needs iterators over maps' elements")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close() })
	if err := i.Map("elements").Put(uint32(7), uint64(9)); err != nil {
		t.Fatal(err)
	}
	r, err := i.OpenIterator("dump_elements")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil || len(data) != 16 || data[0] != 7 || data[8] != 9 {
		t.Errorf("iterator over a map: %v, %v", data, err)
	}
}

func TestStats(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{Stats: true})
	i := mustAttach(t, e, loadSpec(t, "basic.bpf.o", "on_raw_tp", "on_tracepoint"))
	call(10)
	stats, err := i.Stats()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stats {
		if s.Runs < 10 || s.KernelRuns < 10 || s.Runtime <= 0 {
			t.Errorf("%+v", s)
		}
		// The kernel's count and the engine's are of the same thing, read one after the other.
		if s.KernelRuns < s.Runs {
			t.Errorf("%s: the kernel counted %d runs, the engine %d before", s.Function, s.KernelRuns, s.Runs)
		}
	}
}

func TestRingSize(t *testing.T) {
	f := func(want, got uint32) {
		t.Helper()
		if got != want {
			t.Errorf("%d, want %d", got, want)
		}
	}
	f(262144, ringSize(0, 4096))
	f(4096, ringSize(1, 4096))
	f(65536, ringSize(4097, 65536))
	f(8192, ringSize(5000, 4096))
	f(1<<20, ringSize(1<<20, 4096))
	f(1<<31, ringSize(1<<32-1, 4096))
}

func TestCancelled(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := e.Load(ctx, loadSpec(t, "basic.bpf.o"))
	mustFail(t, err, context.Canceled)
}

func TestSuggest(t *testing.T) {
	f := func(name, want string) {
		t.Helper()
		if got := suggest(name, []string{"vfs_read", "vfs_write", "sched_switch"}); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f("vfs_raed", " (did you mean vfs_read?)")
	f("sched_swich", " (did you mean sched_switch?)")
	f("tcp_connect", "")
	f("", "")
}
