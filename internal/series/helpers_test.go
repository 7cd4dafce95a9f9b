package series

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

func TestMain(m *testing.M) {
	// Kernels before 5.11 charge maps to the memlock limit.
	_ = rlimit.RemoveMemlock()
	os.Exit(m.Run())
}

// fakeSource has maps and the output of iterators.
type fakeSource struct {
	maps    map[string]*ebpf.Map
	records map[string]func() (io.ReadCloser, error)
}

func (s *fakeSource) Map(name string) *ebpf.Map { return s.maps[name] }

func (s *fakeSource) OpenIterator(function string) (io.ReadCloser, error) {
	if f := s.records[function]; f != nil {
		return f()
	}
	return nil, errors.New("no such iterator")
}

// fakeResolver names the workloads that a test gives it.
type fakeResolver struct {
	mu    sync.Mutex
	names map[workload.ID]workload.Workload
	state map[workload.ID]workload.State
}

func newFakeResolver() *fakeResolver {
	return &fakeResolver{names: map[workload.ID]workload.Workload{}, state: map[workload.ID]workload.State{}}
}

func (r *fakeResolver) set(id workload.ID, container string, state workload.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[id], r.state[id] = workload.Workload{Container: container}, state
}

func (r *fakeResolver) Resolve(id workload.ID) (workload.Workload, workload.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.names[id], r.state[id]
}

// newMap creates a map or skips the test if this machine does not let it.
func newMap(t testing.TB, spec *ebpf.MapSpec) *ebpf.Map {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to create maps")
	}
	m, err := ebpf.NewMap(spec)
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skipf("needs maps of type %s: %v", spec.Type, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// u64 is a field of 8 bytes.
func u64(offset uint32) program.Field { return program.Field{Offset: offset, Size: 8} }

func label(name, decoder string, offset, size uint32) program.Label {
	return program.Label{Name: name, Member: name, Decoder: decoder, Field: program.Field{Offset: offset, Size: size}}
}

// oneMap is the spec of a Program with one map and one metric.
func oneMap(m *ebpf.MapSpec, metric program.Metric, key ...program.Label) *program.Spec {
	if metric.Name == "" {
		metric.Name = "test_total"
	}
	if metric.Type == "" {
		metric.Type = program.Counter
	}
	if metric.Labels == nil {
		metric.Labels = key
	}
	if metric.Cells == nil {
		metric.Cells = []program.Field{u64(0)}
	}
	return &program.Spec{
		Name:       "test",
		Collection: &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{"m": m}},
		Readers: []program.Reader{{Name: "m", Kind: program.MapReader, KeySize: m.KeySize, ValueSize: m.ValueSize,
			Key: key, Metrics: []program.Metric{metric}}},
	}
}

// fixture is a collector over one map, with a clock that the test moves.
type fixture struct {
	t         testing.TB
	m         *ebpf.Map
	spec      *program.Spec
	source    *fakeSource
	resolver  *fakeResolver
	collector *Collector
	now       time.Time
}

var started = time.UnixMilli(1_000_000)

func newFixture(t testing.TB, ms *ebpf.MapSpec, metric program.Metric, key ...program.Label) *fixture {
	t.Helper()
	return newFixtureOf(t, newMap(t, ms), oneMap(ms, metric, key...))
}

func newFixtureOf(t testing.TB, m *ebpf.Map, spec *program.Spec) *fixture {
	t.Helper()
	f := &fixture{t: t, m: m, spec: spec, resolver: newFakeResolver(), now: started.Add(10 * time.Second)}
	f.source = &fakeSource{maps: map[string]*ebpf.Map{"m": m}}
	var err error
	f.collector, err = NewCollector(spec, f.source, Options{Resolver: f.resolver, Started: started, Clock: func() time.Time { return f.now }})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) put(key, value any) {
	f.t.Helper()
	if err := f.m.Put(key, value); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) remove(key any) {
	f.t.Helper()
	if err := f.m.Delete(key); err != nil {
		f.t.Fatal(err)
	}
}

// sample is a series as a test looks at it.
type sample struct {
	row   []uint64
	start int64
}

// collect reads and returns the series of the first family by labels; the clock moves on by 10 seconds.
func (f *fixture) collect() map[string]sample {
	f.t.Helper()
	return f.collectAll()[0]
}

// collectAll returns the series of each family.
func (f *fixture) collectAll() []map[string]sample {
	f.t.Helper()
	s, err := f.collector.Collect(context.Background(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	defer s.Release()
	for _, e := range s.Errors {
		f.t.Fatal(e)
	}
	all := make([]map[string]sample, len(s.Families))
	for i := range s.Families {
		all[i] = samples(f.t, &s.Families[i])
	}
	f.now = f.now.Add(10 * time.Second)
	return all
}

// samples copies a family and fails on a label set that appears twice.
func samples(t testing.TB, f *Family) map[string]sample {
	t.Helper()
	m := map[string]sample{}
	for i, p := range f.Points {
		if _, twice := m[p.Labels]; twice {
			t.Fatalf("series {%s} appears twice", p.Labels)
		}
		m[strings.Clone(p.Labels)] = sample{append([]uint64(nil), f.Row(i)...), p.Start}
	}
	return m
}

// values expects exactly these series, by their first number.
func values(t testing.TB, got map[string]sample, want map[string]uint64) {
	t.Helper()
	for l, v := range want {
		if s, ok := got[l]; !ok {
			t.Errorf("series {%s} is missing, want %d", l, v)
		} else if s.row[0] != v {
			t.Errorf("series {%s}: got %d, want %d", l, s.row[0], v)
		}
	}
	for l, s := range got {
		if _, ok := want[l]; !ok {
			t.Errorf("series {%s} %v was not expected", l, s.row)
		}
	}
}

// scaled is n, or a tenth of it where the machine is emulated.
func scaled(n int) int {
	if os.Getenv("KAON_VM") != "" {
		return n / 10
	}
	return n
}

func key32(n ...uint32) []byte {
	var b []byte
	for _, v := range n {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
