package series

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

func hashSpec(keySize, valueSize, entries uint32) *ebpf.MapSpec {
	return &ebpf.MapSpec{Type: ebpf.Hash, KeySize: keySize, ValueSize: valueSize, MaxEntries: entries}
}

func TestCounterOfAHash(t *testing.T) {
	f := newFixture(t, hashSpec(8, 8, 5000), program.Metric{StaticLabels: []program.StaticLabel{{Name: "job", Value: "x"}}},
		label("a", "uint", 0, 4), label("b", "uint", 4, 4))
	values(t, f.collect(), nil)
	want := map[string]uint64{}
	for i := range uint32(3000) {
		f.put(key32(i, i%7), uint64(i)<<33+1)
		want[fmt.Sprintf(`a="%d",b="%d",job="x"`, i, i%7)] = uint64(i)<<33 + 1
	}
	values(t, f.collect(), want)
	f.put(key32(5, 5), uint64(5)<<33+9)
	want[`a="5",b="5",job="x"`] = 5<<33 + 9
	values(t, f.collect(), want)
	if s := f.collector.Stats()[0]; s.Entries != 3000 || s.Series != 3000 || s.Capacity != 5000 {
		t.Errorf("stats: %+v", s)
	}
}

func TestStartOfASeries(t *testing.T) {
	f := newFixture(t, hashSpec(4, 8, 10), program.Metric{}, label("a", "uint", 0, 4))
	start := func(got map[string]sample, want time.Time) {
		t.Helper()
		if s := got[`a="1"`]; s.start != want.UnixMilli() {
			t.Errorf("start %d, want %d", s.start, want.UnixMilli())
		}
	}
	f.put(key32(1), uint64(5))
	first := f.now
	start(f.collect(), started)
	f.put(key32(1), uint64(6))
	start(f.collect(), started)
	second := f.now.Add(-10 * time.Second)

	f.put(key32(1), uint64(2)) // deleted and made again between two scrapes
	third := f.now
	start(f.collect(), second)
	f.remove(key32(1))
	if got := f.collect(); len(got) != 0 {
		t.Errorf("a deleted key is shown: %v", got)
	}
	fourth := f.now.Add(-10 * time.Second)
	f.put(key32(1), uint64(100))
	start(f.collect(), fourth)
	if !(first.Before(second) && second.Before(third) && third.Before(fourth)) {
		t.Error("the test's clock does not move")
	}
}

func TestDroppedLabelsAreSummed(t *testing.T) {
	kept := label("a", "uint", 0, 4)
	f := newFixture(t, hashSpec(8, 8, 100), program.Metric{Labels: []program.Label{kept}}, kept, label("b", "uint", 4, 4))
	f.put(key32(1, 1), uint64(10))
	values(t, f.collect(), map[string]uint64{`a="1"`: 10})
	f.put(key32(1, 2), uint64(20))
	f.put(key32(2, 2), uint64(7))
	values(t, f.collect(), map[string]uint64{`a="1"`: 30, `a="2"`: 7})
	f.put(key32(1, 1), uint64(11))
	f.remove(key32(1, 2))
	values(t, f.collect(), map[string]uint64{`a="1"`: 31, `a="2"`: 7})
	f.put(key32(1, 1), uint64(1)) // its own value goes back: the sum does not
	values(t, f.collect(), map[string]uint64{`a="1"`: 32, `a="2"`: 7})
	f.put(key32(1, 2), uint64(3)) // and this key is back
	values(t, f.collect(), map[string]uint64{`a="1"`: 35, `a="2"`: 7})
	f.remove(key32(1, 1))
	f.remove(key32(1, 2))
	f.remove(key32(2, 2)) // one key: no sum to keep
	got := f.collect()
	values(t, got, map[string]uint64{`a="1"`: 35})
	if got[`a="1"`].start != started.UnixMilli() {
		t.Error("the start of a sum moved")
	}
}

func TestLimitFoldsCounters(t *testing.T) {
	f := newFixture(t, hashSpec(4, 8, 100), program.Metric{Limit: 3}, label("a", "uint", 0, 4))
	sum := func(got map[string]sample) (n uint64) {
		for _, s := range got {
			n += s.row[0]
		}
		return n
	}
	for i := range uint32(10) {
		f.put(key32(i), uint64(100))
	}
	got := f.collect()
	if len(got) != 4 || got[`overflow="true"`].row[0] != 700 || sum(got) != 1000 {
		t.Fatalf("got %v", got)
	}
	if s := f.collector.Stats()[0]; s.FoldedSeries != 7 || s.CutSeries != 0 {
		t.Errorf("stats %+v", s)
	}
	// Admission is sticky: who was folded stays so, also when there is room again.
	var free, folded uint32
	for i := range uint32(10) {
		if _, ok := got[fmt.Sprintf(`a="%d"`, i)]; ok {
			free = i
		} else {
			folded = i
		}
	}
	f.remove(key32(free))
	f.remove(key32(folded))
	got = f.collect()
	if len(got) != 3 || got[`overflow="true"`].row[0] != 700 {
		t.Fatalf("after deleting: %v", got)
	}
	f.put(key32(77), uint64(5))
	got = f.collect()
	if got[`a="77"`].row == nil || got[`overflow="true"`].row[0] != 700 {
		t.Fatalf("a new key did not take the free place: %v", got)
	}
	for i := range uint32(100) {
		_ = f.m.Delete(key32(i))
	}
	values(t, f.collect(), map[string]uint64{`overflow="true"`: 700})
}

func TestLimitCutsGauges(t *testing.T) {
	f := newFixture(t, hashSpec(4, 8, 100), program.Metric{Name: "test", Type: program.Gauge, Limit: 3}, label("a", "uint", 0, 4))
	for i := range uint32(10) {
		f.put(key32(i), uint64(100))
	}
	if got := f.collect(); len(got) != 3 {
		t.Fatalf("got %v", got)
	}
	if s := f.collector.Stats()[0]; s.FoldedSeries != 0 || s.CutSeries != 7 {
		t.Errorf("stats %+v", s)
	}
}

func TestManyOverTheLimitTakeBoundedMemory(t *testing.T) {
	entries := uint64(scaled(50_000))
	f := newFixture(t, hashSpec(4, 8, uint32(entries)), program.Metric{Limit: 10}, label("a", "uint", 0, 4))
	table := f.collector.readers[0].tables[0]
	table.foldLimit = 1000
	for i := range uint32(entries) {
		f.put(key32(i), uint64(1))
	}
	total := func(want uint64) {
		t.Helper()
		n := uint64(0)
		for _, s := range f.collect() {
			n += s.row[0]
		}
		if n != want {
			t.Errorf("total %d, want %d", n, want)
		}
	}
	total(entries)
	total(entries)
	if table.live > 1100 {
		t.Errorf("%d keys are remembered", table.live)
	}
	if s := f.collector.Stats()[0]; s.FoldedSeries != int(entries)-10 {
		t.Errorf("folded %d", s.FoldedSeries)
	}
	for i := range uint32(entries) {
		if i%2 == 0 {
			f.remove(key32(i))
		}
	}
	// The admitted ones that were deleted end; the folded ones stay in the sum.
	for range 2 {
		if got := f.collect()[`overflow="true"`].row[0]; got != entries-10 {
			t.Errorf("the overflow series went to %d, want %d", got, entries-10)
		}
	}
}

func TestOverflowEntry(t *testing.T) {
	ms := hashSpec(8, 8, 100)
	m := newMap(t, ms)
	spec := oneMap(ms, program.Metric{StaticLabels: []program.StaticLabel{{Name: "s", Value: "1"}}}, label("a", "uint", 0, 8))
	spec.Readers[0].Overflow = true
	f := newFixtureOf(t, m, spec)
	f.put(^uint64(0), uint64(0))
	f.put(uint64(1), uint64(1))
	values(t, f.collect(), map[string]uint64{`a="1",s="1"`: 1})
	f.put(^uint64(0), uint64(9))
	values(t, f.collect(), map[string]uint64{`a="1",s="1"`: 1, `overflow="true",s="1"`: 9})
	if s := f.collector.Stats()[0]; s.FailedInserts != 9 {
		t.Errorf("stats %+v", s)
	}
}

func TestWantDecidesWhatIsRead(t *testing.T) {
	f := newFixture(t, hashSpec(4, 8, 10), program.Metric{}, label("a", "uint", 0, 4))
	s, err := f.collector.Collect(context.Background(), func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if len(s.Families) != 0 || !f.collector.Stats()[0].Time.IsZero() {
		t.Error("a map was read that nobody asked for")
	}
}

// A sum that loses its only key when another comes must start anew: what the first
// had counted since the last read is not known, and the second's number is no continuation.
func TestASeriesThatChangesItsOnlyKey(t *testing.T) {
	kept := label("a", "uint", 0, 4)
	f := newFixture(t, hashSpec(8, 8, 100), program.Metric{Labels: []program.Label{kept}}, kept, label("b", "uint", 4, 4))
	f.put(key32(1, 1), uint64(10))
	f.collect()
	at := f.now.Add(-10 * time.Second).UnixMilli()
	f.remove(key32(1, 1))
	f.put(key32(1, 2), uint64(12))
	got := f.collect()
	values(t, got, map[string]uint64{`a="1"`: 12})
	if s := got[`a="1"`]; s.start != at {
		t.Errorf("it started at %d, want %d", s.start, at)
	}
}

// What runs in and out of a gauge histogram is counted on different CPUs: a read between may find less than nothing.
func TestGaugeHistogramsAreNeverNegative(t *testing.T) {
	slots := u64(8)
	slots.Count = 3
	f := newFixture(t, hashSpec(4, 32, 10), program.Metric{Name: "test", Type: program.GaugeHistogram,
		Cells: []program.Field{u64(0), slots}, Buckets: &program.Buckets{Bounds: []uint64{1, 2}}}, label("a", "uint", 0, 4))
	minus := ^uint64(0)
	f.put(key32(1), histogram(minus, minus, 4, minus))
	if got := f.collect()[`a="1"`].row; !slices.Equal(got, []uint64{0, 0, 4, 0}) {
		t.Errorf("got %v", got)
	}
}

// starterSource knows when each map began to count.
type starterSource struct {
	fakeSource
	at map[string]time.Time
}

func (s *starterSource) MapStarted(name string) time.Time { return s.at[name] }

// A Program that was reloaded may have old and new maps; what it made of a stream begins with the reader.
func TestStartOfReaders(t *testing.T) {
	now, old, fresh := started.Add(time.Hour), started, started.Add(time.Minute)
	options := &Options{Started: old, Clock: func() time.Time { return now }}
	f := func(r program.Reader, source Source, want int64) {
		t.Helper()
		if got := startOf(&r, source, options); got != want {
			t.Errorf("%s %s: got %d, want %d", r.Kind, r.Name, got, want)
		}
	}
	known := &starterSource{at: map[string]time.Time{"fresh": fresh}}
	f(program.Reader{Kind: program.MapReader, Name: "fresh"}, known, fresh.UnixMilli())
	f(program.Reader{Kind: program.MapReader, Name: "other"}, known, old.UnixMilli())
	f(program.Reader{Kind: program.MapReader, Name: "fresh"}, &fakeSource{}, old.UnixMilli())
	f(program.Reader{Kind: program.StreamReader, Name: "fresh"}, known, now.UnixMilli())
	f(program.Reader{Kind: program.IteratorReader, Name: "fresh"}, known, 0)
	f(program.Reader{Kind: program.FileReader, Name: "fresh"}, known, 0)
}

// Two metrics of one name are one family with every series twice.
func TestMetricsOfOneNameAreRefused(t *testing.T) {
	f := func(change func(*program.Metric), refused bool) {
		t.Helper()
		spec := oneMap(hashSpec(4, 8, 10), program.Metric{StaticLabels: []program.StaticLabel{{Name: "from", Value: "a"}}}, label("a", "uint", 0, 4))
		spec.Params = []program.Param{{Name: "on", Type: program.ParamBool, Default: "true"}}
		spec.Collection.Maps["n"] = hashSpec(4, 8, 10)
		r := spec.Readers[0]
		r.Name = "n"
		r.Metrics = append([]program.Metric(nil), r.Metrics...)
		change(&r.Metrics[0])
		spec.Readers = append(spec.Readers, r)
		if _, err := NewCollector(spec, &fakeSource{}, Options{}); errors.Is(err, ErrMetric) != refused {
			t.Errorf("got %v", err)
		}
	}
	f(func(m *program.Metric) {}, true)
	f(func(m *program.Metric) { m.When = "on" }, true)
	f(func(m *program.Metric) { m.Unless = "on" }, false)
	f(func(m *program.Metric) { m.StaticLabels = []program.StaticLabel{{Name: "from", Value: "b"}} }, false)
	f(func(m *program.Metric) { m.Type, m.StaticLabels = program.Gauge, nil }, true)
	f(func(m *program.Metric) { m.Name = "other_total" }, false)
}

// A stateset's label is called like its family.
func TestStateSetCalledLikeALabel(t *testing.T) {
	spec := oneMap(hashSpec(8, 8, 10), program.Metric{Name: "unit", Type: program.StateSet}, label("workload", "workload", 0, 8))
	if _, err := NewCollector(spec, &fakeSource{}, Options{}); !errors.Is(err, ErrMetric) {
		t.Errorf("got %v", err)
	}
}

// Everything at once: per-CPU values kept apart, static labels, more keys than the limit, and inserts that failed.
func TestOverflowOfPerCPUValues(t *testing.T) {
	ms := &ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 4, ValueSize: 8, MaxEntries: 100}
	spec := oneMap(ms, program.Metric{CPULabel: true, Limit: 3, StaticLabels: []program.StaticLabel{{Name: "from", Value: "x"}}},
		label("a", "uint", 0, 4))
	spec.Readers[0].Overflow = true
	f := newFixtureOf(t, newMap(t, ms), spec)
	total := uint64(0)
	put := func(key uint32, v uint64) {
		all := cpuValues(t, v)
		total += v * uint64(len(all))
		f.put(key32(key), all)
	}
	for key := range uint32(10) {
		put(key, uint64(key)+1)
	}
	put(^uint32(0), 100)
	got := f.collect()
	sum := uint64(0)
	for _, s := range got {
		sum += s.row[0]
	}
	if _, ok := got[`overflow="true",from="x"`]; !ok || len(got) != 4 || sum != total {
		t.Errorf("want 4 series of %d in total, one of them for what is too much: %v", total, got)
	}
	if s := f.collector.Stats()[0]; s.FailedInserts != 100*uint64(len(cpuValues(t, 1))) {
		t.Errorf("stats %+v", s)
	}
}
