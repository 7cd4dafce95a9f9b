package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// mustReplace replaces an instance; the new one is closed when the test ends.
func mustReplace(t testing.TB, e *Engine, old *Instance, spec *program.Spec) *Instance {
	t.Helper()
	i, err := e.Replace(context.Background(), old, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return i
}

func TestReplaceKeepsMaps(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	old := mustAttach(t, e, loadSpec(t, "basic.bpf.o"))
	call(5)

	i := mustReplace(t, e, old, loadSpec(t, "basic.bpf.o"))
	if _, err := old.OpenIterator("dump_tasks"); err == nil {
		t.Error("the replaced instance still works")
	}
	call(3)
	for _, name := range []string{"by_tracepoint", "by_raw_tp", "by_tp_btf"} {
		if got := counter(t, i, name); got != 8 {
			t.Errorf("%s = %d, want 8", name, got)
		}
		if !i.KeptMap(name) || i.MapStarted(name) != old.MapStarted(name) {
			t.Errorf("%s: kept %v, since %v, want %v", name, i.KeptMap(name), i.MapStarted(name), old.MapStarted(name))
		}
	}
	var seen uint64
	if err := i.Map(".bss").Lookup(uint32(0), &seen); err != nil || seen != 8 {
		t.Errorf("global variable: %d, %v, want 8", seen, err)
	}
	if runs := i.Runs()["on_tracepoint"]; runs < 8 {
		t.Errorf("runs of on_tracepoint: %d, want those of before as well", runs)
	}
	if i.ReloadGap() <= 0 {
		t.Error("tracepoints can't be exchanged in place, but there was no gap")
	}
}

func TestReplaceChangedLayout(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	old := mustAttach(t, e, loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp"))
	call(5)
	spec := loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp")
	spec.Collection.Maps["by_raw_tp"].MaxEntries = 2
	i := mustReplace(t, e, old, spec)
	if got := counter(t, i, "by_raw_tp"); got != 0 || i.KeptMap("by_raw_tp") {
		t.Errorf("a map with another layout was taken over: %d", got)
	}
	if got := counter(t, i, "by_tracepoint"); got != 5 {
		t.Errorf("by_tracepoint = %d, want 5", got)
	}
}

func TestReplaceBroken(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	old := mustAttach(t, e, loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp"))
	call(2)
	works := func(want uint64) {
		t.Helper()
		call(1)
		for _, name := range []string{"by_tracepoint", "by_raw_tp"} {
			if got := counter(t, old, name); got != want {
				t.Errorf("%s = %d, want %d", name, got, want)
			}
		}
		if err := old.Degraded(); err != nil {
			t.Errorf("the old version is degraded: %v", err)
		}
	}

	// The verifier refuses the new version.
	broken := loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp")
	function := broken.Collection.Programs["on_raw_tp"]
	first := function.Instructions[0]
	bad := asm.LoadMem(asm.R0, asm.R9, 0, asm.DWord).WithSymbol(first.Symbol())
	bad = btf.WithFuncMetadata(bad, btf.FuncMetadata(&first)).WithSource(first.Source())
	function.Instructions[0] = btf.WithFuncMetadata(first.WithSymbol(""), nil)
	function.Instructions = append(asm.Instructions{bad}, function.Instructions...)
	_, err := e.Replace(context.Background(), old, broken)
	mustFail(t, err, nil, "on_raw_tp", "verifier", "R9 !read_ok", "keeps running")
	works(3)

	// The new version loads but does not attach: this one only shows when the old is detached already.
	broken = loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp")
	broken.Hooks[1].Target = "sys_enterr"
	_, err = e.Replace(context.Background(), old, broken)
	mustFail(t, err, ErrNoTarget, "sys_enterr", "did you mean sys_enter?", "runs on")
	works(4)

	// A param that does not exist.
	broken = loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp")
	broken.Params = []program.Param{{Name: "colour", Variable: "colour", Value: "1"}}
	_, err = e.Replace(context.Background(), old, broken)
	mustFail(t, err, program.ErrNoParam, "colour")
	works(5)
}

// Nothing is counted twice while programs are exchanged under load.
func TestReplaceUnderLoad(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	i := mustAttach(t, e, loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp"))
	var stop atomic.Bool
	made := make(chan uint64)
	go func() {
		n := uint64(0)
		for !stop.Load() {
			unix.Getppid()
			// Detaching waits until every thread has slept or been in user mode; on the one CPU of a guest
			// one that only calls can keep it waiting for minutes.
			if n++; n%128 == 0 {
				time.Sleep(10 * time.Microsecond)
			}
		}
		made <- n
	}()
	for range 5 {
		i = mustReplace(t, e, i, loadSpec(t, "basic.bpf.o", "on_tracepoint", "on_raw_tp"))
		call(10)
	}
	stop.Store(true)
	n := <-made + 50
	for _, name := range []string{"by_tracepoint", "by_raw_tp"} {
		// The calls between the exchanges are counted for certain. Of the busy thread's, Linux 6.18 was seen to count
		// none while another process attached to and detached from sys_enter.
		got := counter(t, i, name)
		if got > n || got < 50 {
			t.Errorf("%s = %d of %d calls", name, got, n)
		}
		call(5)
		if after := counter(t, i, name); after != got+5 {
			t.Errorf("%s = %d after %d and five more calls", name, after, got)
		}
	}
}

// XDP and tcx are exchanged in place: every packet is counted exactly once.
func TestReplaceInPlace(t *testing.T) {
	checkFDs(t)
	inNetns(t)
	e := newEngine(t, Options{})
	functions := []string{"on_xdp", "on_socket"}
	i := mustAttach(t, e, onLoopback(loadSpec(t, "net.bpf.o", functions...)))
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	var stop atomic.Bool
	made := make(chan uint64)
	go func() {
		runtime.LockOSThread()
		n := uint64(0)
		defer func() { made <- n }()
		if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		for !stop.Load() {
			sendUDP(t, 1)
			n++
		}
	}()
	for range 5 {
		i = mustReplace(t, e, i, onLoopback(loadSpec(t, "net.bpf.o", functions...)))
		if i.ReloadGap() != 0 {
			t.Errorf("gap of %v", i.ReloadGap())
		}
	}
	stop.Store(true)
	n := <-made
	if got := counter(t, i, "by_xdp"); got != n {
		t.Errorf("by_xdp = %d of %d packets", got, n)
	}
}

func TestLayoutDigest(t *testing.T) {
	u32 := &btf.Int{Name: "u32", Size: 4}
	base := func() *ebpf.MapSpec {
		return &ebpf.MapSpec{
			Name: "m", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 10, Tags: []string{"kaon:type=counter", "kaon:help=Old."},
			Key: &btf.Struct{Name: "key", Size: 8, Members: []btf.Member{
				{Name: "device", Type: &btf.Typedef{Name: "kaon_device_t", Type: u32}},
				{Name: "operation", Type: &btf.Enum{Name: "io", Size: 4, Values: []btf.EnumValue{{Name: "READ"}, {Name: "WRITE", Value: 1}}}, Offset: 32},
			}},
			Value: &btf.Int{Name: "u64", Size: 8},
		}
	}
	coll := &ebpf.CollectionSpec{}
	want := layoutDigest(coll, "m", base())
	f := func(what string, same bool, change func(*ebpf.MapSpec)) {
		t.Helper()
		ms := base()
		change(ms)
		if got := layoutDigest(coll, "m", ms) == want; got != same {
			t.Errorf("%s: same layout %v, want %v", what, got, same)
		}
	}
	members := func(ms *ebpf.MapSpec) []btf.Member { return ms.Key.(*btf.Struct).Members }
	f("nothing", true, func(*ebpf.MapSpec) {})
	f("help", true, func(ms *ebpf.MapSpec) { ms.Tags[1] = "kaon:help=New." })
	f("type", false, func(ms *ebpf.MapSpec) { ms.Tags[0] = "kaon:type=gauge" })
	f("map type", false, func(ms *ebpf.MapSpec) { ms.Type = ebpf.PerCPUHash })
	f("max_entries", false, func(ms *ebpf.MapSpec) { ms.MaxEntries++ })
	f("flags", false, func(ms *ebpf.MapSpec) { ms.Flags = unix.BPF_F_NO_PREALLOC })
	f("member's name", false, func(ms *ebpf.MapSpec) { members(ms)[0].Name = "disk" })
	f("member's offset", false, func(ms *ebpf.MapSpec) { members(ms)[0].Offset = 8 })
	f("member's tag", false, func(ms *ebpf.MapSpec) { members(ms)[0].Tags = []string{"kaon:skip"} })
	f("typedef", false, func(ms *ebpf.MapSpec) { members(ms)[0].Type.(*btf.Typedef).Name = "kaon_uid_t" })
	f("enumerator", false, func(ms *ebpf.MapSpec) { members(ms)[1].Type.(*btf.Enum).Values[1].Name = "DISCARD" })
	f("enum value", false, func(ms *ebpf.MapSpec) { members(ms)[1].Type.(*btf.Enum).Values[1].Value = 2 })
	f("signedness", false, func(ms *ebpf.MapSpec) { ms.Value.(*btf.Int).Encoding = btf.Signed })
	f("value's type", false, func(ms *ebpf.MapSpec) { ms.Value = &btf.Array{Type: u32, Nelems: 2} })

	// A type that contains itself must not hang.
	list := &btf.Struct{Name: "list", Size: 8}
	list.Members = []btf.Member{{Name: "next", Type: &btf.Array{Type: list, Nelems: 1}}}
	f("recursion", false, func(ms *ebpf.MapSpec) { ms.Value = list })
}

// pinDir returns a directory for pins that is removed with all in it.
func pinDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join("/sys/fs/bpf", "kaon-test-"+sanitizePin(t.Name()))
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// pinnable skips where this kernel can't pin links of tracepoints.
func pinnable(t testing.TB, i *Instance, function string) {
	t.Helper()
	if h := hookOf(t, i, function); !h.Pinned {
		t.Skipf("needs a kernel that pins links of %s: %v", h.Kind, h.PinErr)
	}
}

func TestPin(t *testing.T) {
	checkFDs(t)
	dir := pinDir(t)
	e := newEngine(t, Options{PinDir: dir})
	pinned := func() *program.Spec {
		spec := loadSpec(t, "basic.bpf.o", "on_raw_tp", "on_tp_btf", "dump_tasks")
		spec.Pin = true
		spec.Origin.Digest[0] = 1
		return spec
	}
	load := func(e *Engine, spec *program.Spec) *Instance {
		t.Helper()
		i, err := e.Load(context.Background(), spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := i.Degraded(); err != nil {
			t.Fatal(err)
		}
		return i
	}
	first := load(e, pinned())
	pinnable(t, first, "on_raw_tp")
	started := first.Started()
	id := hookOf(t, first, "on_raw_tp").ProgramID
	call(4)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	call(3)

	// Another agent: the same program is adopted with what it counted meanwhile.
	second := load(newEngine(t, Options{PinDir: dir}), pinned())
	call(2)
	for _, name := range []string{"by_raw_tp", "by_tp_btf"} {
		if got := counter(t, second, name); got != 9 {
			t.Errorf("%s = %d, want 9", name, got)
		}
	}
	if got := hookOf(t, second, "on_raw_tp"); got.ProgramID != id || !got.Pinned {
		t.Errorf("the program was not adopted: %+v", got)
	}
	if !second.Started().Equal(started) {
		t.Errorf("started at %v, want %v", second.Started(), started)
	}
	if second.MapStarted("by_raw_tp").IsZero() || second.MapStarted("by_raw_tp").Sub(started).Abs() > 5e9 {
		t.Errorf("the map started at %v, want about %v", second.MapStarted("by_raw_tp"), started)
	}
	if runs := second.Runs()["on_raw_tp"]; runs < 9 {
		t.Errorf("runs = %d, want at least 9", runs)
	}
	r, err := second.OpenIterator("dump_tasks")
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}

	// Another version: maps are kept, links are not, and nothing counts twice.
	changed := pinned()
	changed.Origin.Digest[0] = 2
	third := load(e, changed)
	call(1)
	if got := counter(t, third, "by_raw_tp"); got != 10 {
		t.Errorf("by_raw_tp = %d, want 10", got)
	}
	if got := hookOf(t, third, "on_raw_tp").ProgramID; got == id {
		t.Error("the old program was adopted for a new version")
	}

	// Replaced while it runs, and pinned again.
	again := pinned()
	again.Origin.Digest[0] = 3
	fourth, err := e.Replace(context.Background(), third, again)
	if err != nil {
		t.Fatal(err)
	}
	call(1)
	if got := counter(t, fourth, "by_raw_tp"); got != 11 {
		t.Errorf("by_raw_tp = %d, want 11", got)
	}
	if h := hookOf(t, fourth, "on_raw_tp"); !h.Pinned {
		t.Errorf("not pinned after being replaced: %v", h.PinErr)
	}
	if err := fourth.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := e.Pinned()
	if err != nil || !slices.Equal(names, []string{"basic"}) {
		t.Errorf("pinned: %v, %v", names, err)
	}

	// Without pin it starts anew, and lets the pins be: they may be another agent's.
	plain := pinned()
	plain.Pin = false
	fifth := load(e, plain)
	if names, err := e.Pinned(); err != nil || len(names) != 1 {
		t.Errorf("pinned: %v, %v", names, err)
	}
	if err := e.Remove("basic"); err != nil {
		t.Fatal(err)
	}

	// Pinned while it runs, and no more.
	sixth := mustReplace(t, e, fifth, pinned())
	if h := hookOf(t, sixth, "on_raw_tp"); !h.Pinned {
		t.Errorf("not pinned: %v", h.PinErr)
	}
	fifth = mustReplace(t, e, sixth, plain)
	if h := hookOf(t, fifth, "on_raw_tp"); h.Pinned {
		t.Error("still pinned")
	}
	call(1)
	if got := counter(t, fifth, "by_raw_tp"); got != 1 {
		t.Errorf("by_raw_tp = %d, want 1", got)
	}
	if names, err := e.Pinned(); err != nil || len(names) != 0 {
		t.Errorf("pinned: %v, %v", names, err)
	}
}

func TestPinRemove(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{PinDir: pinDir(t)})
	spec := loadSpec(t, "basic.bpf.o", "on_raw_tp")
	spec.Pin = true
	i, err := e.Load(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	pinnable(t, i, "on_raw_tp")
	m, err := i.Map("by_raw_tp").Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	call(1)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	call(1)
	if err := e.Remove(spec.Name); err != nil {
		t.Fatal(err)
	}
	call(1)
	var value uint64
	if err := m.Lookup(uint32(0), &value); err != nil || value != 2 {
		t.Errorf("%d, %v, want 2: once after Close, not after Remove", value, err)
	}
	if err := e.Remove(spec.Name); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	for _, name := range []string{"", "..", "a/b", "../x"} {
		if e.Remove(name) == nil {
			t.Errorf("Remove(%q) is accepted", name)
		}
	}
}

// Two agents must not share pins.
func TestPinLocked(t *testing.T) {
	checkFDs(t)
	dir := pinDir(t)
	spec := loadSpec(t, "basic.bpf.o", "on_raw_tp")
	spec.Pin = true
	first := mustAttach(t, newEngine(t, Options{PinDir: dir}), spec)
	second := mustAttach(t, newEngine(t, Options{PinDir: dir}), spec)
	call(2)
	if a, b := counter(t, first, "by_raw_tp"), counter(t, second, "by_raw_tp"); a != 2 || b != 2 {
		t.Errorf("they counted %d and %d, want 2 each", a, b)
	}
	if h := hookOf(t, second, "on_raw_tp"); h.Pinned || h.PinErr == nil || !strings.Contains(h.PinErr.Error(), "another agent") {
		t.Errorf("the second: pinned %v, %v", h.Pinned, h.PinErr)
	}
}

func TestPinRefused(t *testing.T) {
	e := newEngine(t, Options{PinDir: pinDir(t)})
	spec := loadSpec(t, "probes.bpf.o", "on_lsm")
	spec.Pin = true
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, nil, "can't be pinned", "lsm")
}

func TestPinWithoutBPFFS(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{PinDir: filepath.Join(t.TempDir(), "pins")})
	spec := loadSpec(t, "basic.bpf.o", "on_raw_tp")
	spec.Pin = true
	i := mustAttach(t, e, spec)
	if h := hookOf(t, i, "on_raw_tp"); h.Pinned || h.PinErr == nil || !strings.Contains(fmt.Sprint(h.PinErr), "bpffs") {
		t.Errorf("pinned %v, %v", h.Pinned, h.PinErr)
	}
}

// While the new version is being loaded the old one counts and can be read; what is told of the exchange
// comes before it.
func TestReplaceTellsOfTheExchange(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	old, err := e.Load(context.Background(), loadSpec(t, "basic.bpf.o", "on_raw_tp"))
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	next, err := e.ReplaceWithOptions(context.Background(), old, loadSpec(t, "basic.bpf.o", "on_raw_tp"), ReplaceOptions{Exchanging: func(next *Instance) error {
		told++
		if !next.KeptMap("by_raw_tp") {
			t.Error("before the exchange the new version does not have the maps")
		}
		call(3)
		if got := counter(t, old, "by_raw_tp"); got != 3 {
			t.Errorf("before the exchange: %d, want 3", got)
		}
		// Nothing of the old version is locked.
		if h := old.Hooks(); len(h) == 0 || h[0].State != Attached {
			t.Errorf("before the exchange: %+v", h)
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	call(2)
	if got := counter(t, next, "by_raw_tp"); got != 5 || told != 1 {
		t.Errorf("after the exchange: %d, want 5; told %d times", got, told)
	}
	broken := loadSpec(t, "basic.bpf.o", "on_raw_tp")
	broken.Params = []program.Param{{Name: "colour", Variable: "colour", Value: "1"}}
	_, err = e.ReplaceWithOptions(context.Background(), next, broken, ReplaceOptions{Exchanging: func(*Instance) error { told++; return nil }})
	if err == nil || told != 1 {
		t.Errorf("a version that does not load: %v, told %d times", err, told)
	}
	refused := errors.New("refused")
	_, err = e.ReplaceWithOptions(context.Background(), next, loadSpec(t, "basic.bpf.o", "on_raw_tp"), ReplaceOptions{Exchanging: func(*Instance) error { return refused }})
	call(1)
	if got := counter(t, next, "by_raw_tp"); !errors.Is(err, refused) || got != 6 {
		t.Errorf("refused: %v, %d counted, want 6", err, got)
	}
}

// A version that its user does not take after all leaves the old one attached, with what it counted.
func TestReplaceRefused(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	old := mustAttach(t, e, loadSpec(t, "basic.bpf.o"))
	call(5)
	refused := errors.New("not like this")
	_, err := e.ReplaceWithOptions(context.Background(), old, loadSpec(t, "basic.bpf.o"), ReplaceOptions{Exchanged: func(next *Instance) error {
		call(2)
		for _, name := range []string{"by_tracepoint", "by_raw_tp", "by_tp_btf"} {
			if got := counter(t, next, name); got != 7 || next.MapStarted(name) != old.maps[name].started {
				t.Errorf("offered: %s = %d since %v, want 7 since %v", name, got, next.MapStarted(name), old.maps[name].started)
			}
		}
		return refused
	}})
	if !errors.Is(err, refused) {
		t.Fatalf("got %v", err)
	}
	for _, h := range old.Hooks() {
		if h.State != Attached {
			t.Errorf("%s is %s: %v", h.Function, h.State, h.Err)
		}
	}
	call(3)
	next := mustReplace(t, e, old, loadSpec(t, "basic.bpf.o"))
	call(4)
	for _, name := range []string{"by_tracepoint", "by_raw_tp", "by_tp_btf"} {
		if got := counter(t, next, name); got != 14 {
			t.Errorf("%s = %d, want 14", name, got)
		}
	}
}

// Code and types are most of what a Program takes in memory: nothing holds them once it is attached.
func TestCodeIsForgotten(t *testing.T) {
	e := newEngine(t, Options{})
	load := func(bring func(*program.Spec) *Instance) (*Instance, []weak.Pointer[ebpf.ProgramSpec]) {
		spec := loadSpec(t, "basic.bpf.o")
		var code []weak.Pointer[ebpf.ProgramSpec]
		i := bring(spec)
		for _, function := range spec.Collection.Programs {
			code = append(code, weak.Make(function))
		}
		if i.coll != nil || i.Spec().Collection != nil || slices.ContainsFunc(i.order, func(f *function) bool { return f.spec != nil }) {
			t.Error("the instance holds its code")
		}
		return i, code
	}
	forgotten := func(code []weak.Pointer[ebpf.ProgramSpec]) {
		t.Helper()
		runtime.GC()
		for _, c := range code {
			if f := c.Value(); f != nil {
				t.Errorf("something holds the function %s", f.Name)
			}
		}
	}
	old, code := load(func(spec *program.Spec) *Instance { return mustAttach(t, e, spec) })
	forgotten(code)
	next, code := load(func(spec *program.Spec) *Instance { return mustReplace(t, e, old, spec) })
	forgotten(code)
	runtime.KeepAlive(next)
}
