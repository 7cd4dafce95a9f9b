package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaon-project/kaon/internal/program"
)

// The same file named twice is loaded once, however often the configuration is applied.
func TestNamedTwice(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	calls := ProgramConfig{Source: "testdata/calls.bpf.o", Params: number}
	for range 3 {
		apply(t, a, calls, ProgramConfig{Source: "testdata/calls.b*.o", Params: number}, calls)
		status := a.Status()
		if len(status) != 3 || status[0].State != Up || status[1].State != Down || status[2].State != Down {
			t.Fatalf("got %+v", status)
		}
		// The agent's own metrics tell of the one that runs, and are not in two minds.
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(a.Figures("v1"))
		families, err := registry.Gather()
		if err != nil {
			t.Error(err)
		}
		for _, f := range families {
			if f.GetName() == "kaon_program_up" && (len(f.Metric) != 1 || f.Metric[0].GetGauge().GetValue() != 1) {
				t.Errorf("got %v", f)
			}
		}
		if !strings.Contains(status[1].Reason, ErrDuplicateProgram.Error()) {
			t.Errorf("reason %q", status[1].Reason)
		}
	}
	call(t, cgroup, "once", 3)
	if got := values(t, a, "test_calls_total"); got["once"] != 3 {
		t.Errorf("got %v", got)
	}
	// Without the first entry the second one goes on with the Program.
	apply(t, a, ProgramConfig{Source: "testdata/calls.b*.o", Params: number})
	if got := values(t, a, "test_calls_total"); got["once"] != 3 {
		t.Errorf("got %v", got)
	}
}

// What runs is not joined by another that exports the same metrics, whatever their order.
func TestClashWithWhatRuns(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	first, second := ProgramConfig{Source: "testdata/calls.bpf.o", Params: number}, ProgramConfig{Source: "testdata/calls2.bpf.o", Params: number}
	apply(t, a, second)
	apply(t, a, first, second)
	if state, reason := stateOf(a, "calls"); state != Down || !strings.Contains(reason, ErrDuplicateMetric.Error()) {
		t.Errorf("state %q, reason %q", state, reason)
	}
	call(t, cgroup, "one", 1)
	if got := values(t, a, "test_calls_total"); got["one"] != 1 {
		t.Errorf("got %v", got)
	}
	// When the other gives way in the same change, there is room.
	second.StaticLabels = map[string]string{"which": "second"}
	first.StaticLabels = map[string]string{"which": "first"}
	apply(t, a, first, second)
	for _, s := range a.Status() {
		if s.State != Up {
			t.Errorf("%s is %s: %s", s.Name, s.State, s.Reason)
		}
	}
	if got := a.Status()[0].Name; got != "calls" {
		t.Errorf("the first is %s", got)
	}
}

// A Program whose file moves keeps what it counted.
func TestMovedSource(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	before, after := filepath.Join(t.TempDir(), "mine.bpf.o"), filepath.Join(t.TempDir(), "mine.bpf.o")
	copyFile(t, "calls.bpf.o", before)
	copyFile(t, "calls2.bpf.o", after)
	apply(t, a, ProgramConfig{Source: before, Params: number})
	call(t, cgroup, "mover", 2)
	apply(t, a, ProgramConfig{Source: after, Params: number})
	call(t, cgroup, "mover", 3)
	if got := values(t, a, "test_calls_total"); got["mover"] != 5 {
		t.Errorf("got %v", got)
	}
	if s := a.Status(); len(s) != 1 || s[0].Source != after || s[0].State != Up {
		t.Errorf("got %+v", s)
	}
}

// A static label that can't be leaves what runs alone.
func TestBadStaticLabels(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	calls := ProgramConfig{Source: "testdata/calls.bpf.o", Params: number}
	apply(t, a, calls)
	call(t, cgroup, "before", 2)
	f := func(name, want string) {
		t.Helper()
		changed := calls
		changed.StaticLabels = map[string]string{name: "x"}
		apply(t, a, changed)
		if state, reason := stateOf(a, "calls"); state != Degraded || !strings.Contains(reason, want) {
			t.Errorf("%q: state %q, reason %q, want %q", name, state, reason, want)
		}
		if got := values(t, a, "test_calls_total"); got["before"] != 2 {
			t.Errorf("%q: got %v", name, got)
		}
	}
	f("overflow", "meaning of its own")
	f("comm", "two labels are called comm")
	f("no name", "can't be a label's name")
	f("", "can't be a label's name")
	f("__name__", "begins with an underscore")
}

// A version whose code is good and whose metrics can't be read gives way to the one before.
func TestUnreadableVersion(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	apply(t, a, ProgramConfig{Source: "testdata/calls.bpf.o", Params: number})
	call(t, cgroup, "before", 2)
	u := a.all()[0]
	specs, err := Resolve("testdata/calls2.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	spec := specs[0]
	if err := spec.SetParam("number", string(number["number"])); err != nil {
		t.Fatal(err)
	}
	m := &spec.Readers[0].Metrics[0]
	m.StaticLabels = []program.StaticLabel{{Name: "comm", Value: "x"}}
	if err := a.load(context.Background(), u, &unit{name: "calls", spec: spec}); err == nil {
		t.Fatal("no error")
	}
	call(t, cgroup, "after", 3)
	if got := values(t, a, "test_calls_total"); got["before"] != 2 || got["after"] != 3 {
		t.Errorf("got %v", got)
	}
	if u.spec == spec {
		t.Error("the unit has the spec that was not taken")
	}
}

// Pins of Programs that nobody wants any more go when an agent starts that owns the pins.
func TestStalePins(t *testing.T) {
	cgroup := newCgroup(t)
	directory := filepath.Join("/sys/fs/bpf", filepath.Base(cgroup))
	options := Options{CgroupRoot: cgroup, PinDirectory: directory, RemoveStalePins: true}
	run := func(programs ...ProgramConfig) []string {
		t.Helper()
		a, err := New(options)
		if err != nil {
			t.Fatal(err)
		}
		apply(t, a, programs...)
		for _, s := range a.Status() {
			if s.State != Up {
				t.Logf("%s is %s: %s", s.Name, s.State, s.Reason)
			}
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(directory)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	t.Cleanup(func() { _ = os.Remove(directory) })
	pinned := ProgramConfig{Source: "testdata/calls.bpf.o", Params: number, Pin: true}
	if got := run(pinned); len(got) != 1 || got[0] != "calls" {
		t.Fatalf("got %v", got)
	}
	if got := run(pinned); len(got) != 1 {
		t.Errorf("a wanted program: got %v", got)
	}
	if got := run(ProgramConfig{Source: "testdata/absent.bpf.o"}); len(got) != 1 {
		t.Errorf("with a source that can't be read: got %v", got)
	}
	if got := run(ProgramConfig{Source: "testdata/calls2.bpf.o", Params: number}); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// Where an agent finds no pins when it starts, those that come later are not its to remove.
func TestLaterPinsStay(t *testing.T) {
	cgroup := newCgroup(t)
	directory := filepath.Join("/sys/fs/bpf", filepath.Base(cgroup))
	a, err := New(Options{CgroupRoot: cgroup, PinDirectory: directory, RemoveStalePins: true})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	apply(t, a)
	other := filepath.Join(directory, "other")
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(os.Remove(other), os.Remove(directory)); err != nil {
			t.Error(err)
		}
	}()
	apply(t, a)
	apply(t, a)
}

// While a Program is loaded the source of the next one is read, and of no other: their code takes memory.
func TestAhead(t *testing.T) {
	var begun atomic.Int64
	functions := make([]func() int64, 5)
	for n := range functions {
		functions[n] = func() int64 { return begun.Add(1) }
	}
	want := int64(1)
	for got := range ahead(functions) {
		if got != want {
			t.Fatalf("result %d comes when %d is due", got, want)
		}
		if n := begun.Load(); n > want+1 {
			t.Errorf("while result %d is used %d functions were called", got, n)
		}
		if want++; want == 4 {
			break // and nobody waits
		}
	}
	if got := slices.Collect(ahead[int](nil)); len(got) != 0 {
		t.Errorf("of nothing comes %v", got)
	}
}
