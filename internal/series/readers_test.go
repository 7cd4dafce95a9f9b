package series

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// records is an iterator's output.
func records(r ...[]byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(bytes.Join(r, nil))) }

func TestIterator(t *testing.T) {
	spec := iteratorSpec(program.Metric{})
	output := func() (io.ReadCloser, error) { return nil, nil }
	source := &fakeSource{records: map[string]func() (io.ReadCloser, error){"fn": func() (io.ReadCloser, error) { return output() }}}
	c, err := NewCollector(spec, source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, collector: c}

	// Equal keys are added up; records are split between reads.
	for _, split := range []func(io.Reader) io.Reader{
		func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader} {
		output = func() (io.ReadCloser, error) {
			return io.NopCloser(split(records(key32(1, 5, 0), key32(2, 7, 0), key32(1, 6, 1)))), nil
		}
		values(t, f.collect(), map[string]uint64{`a="1"`: 11 + 1<<32, `a="2"`: 7})
	}
	output = func() (io.ReadCloser, error) { return records(), nil }
	values(t, f.collect(), nil)

	fails := func(want error) {
		t.Helper()
		s, err := c.Collect(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		if len(s.Errors) != 1 || !errors.Is(s.Errors[0], want) || len(s.Families) != 0 {
			t.Errorf("errors %v, want %v; %d families", s.Errors, want, len(s.Families))
		}
	}
	output = func() (io.ReadCloser, error) { return records(key32(1, 5, 0), key32(2, 7)), nil }
	fails(ErrTornRecord)
	output = func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(records(key32(1, 5, 0)), iotest.ErrReader(unix.E2BIG))), nil
	}
	fails(unix.E2BIG)
	output = func() (io.ReadCloser, error) { return nil, unix.EPERM }
	fails(unix.EPERM)
}

func TestIteratorCounterThatRestarts(t *testing.T) {
	n := uint32(9)
	spec := iteratorSpec(program.Metric{Type: program.Counter})
	source := &fakeSource{records: map[string]func() (io.ReadCloser, error){"fn": func() (io.ReadCloser, error) {
		return records(key32(1, n, 0), key32(1, n, 0)), nil
	}}}
	c, err := NewCollector(spec, source, Options{Started: started})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, collector: c}
	// Others counted it, since nobody knows when: a start would make it all ours.
	if s := f.collect()[`a="1"`]; s.row[0] != 18 || s.start != 0 {
		t.Errorf("got %+v", s)
	}
	n = 2
	if s := f.collect()[`a="1"`]; s.row[0] != 4 || s.start == 0 {
		t.Errorf("after a restart: %+v", s)
	}
}

func TestPerCPU(t *testing.T) {
	for _, typ := range []ebpf.MapType{ebpf.PerCPUHash, ebpf.PerCPUArray} {
		for _, each := range []bool{false, true} {
			ms := &ebpf.MapSpec{Type: typ, KeySize: 4, ValueSize: 12, MaxEntries: 3}
			spec := oneMap(ms, program.Metric{Cells: []program.Field{{Offset: 8, Size: 4}}}, label("a", "uint", 0, 4))
			apart := spec.Readers[0].Metrics[0]
			apart.Name, apart.CPULabel = "apart_total", true
			spec.Readers[0].Metrics = append(spec.Readers[0].Metrics, apart)
			f := newFixtureOf(t, newMap(t, ms), spec)
			f.collector.readers[0].reader.(*mapReader).noBatch = each
			n := len(cpuValues(t, 0))
			all := make([][]byte, n)
			sum := uint64(0)
			want := map[string]uint64{}
			for cpu := range all {
				all[cpu] = key32(9, 9, uint32(cpu*100))
				sum += uint64(cpu * 100)
				want[strings.ReplaceAll(`a="1",cpu="N"`, "N", string(rune('0'+cpu%10)))] = uint64(cpu * 100)
			}
			f.put(uint32(1), all)
			got := f.collectAll()
			values(t, got[0], map[string]uint64{`a="1"`: sum})
			if n <= 10 {
				values(t, got[1], want)
			}
		}
	}
}

func TestArrays(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags uint32
		each  bool
	}{{"batches", 0, false}, {"each", 0, true}, {"mapped", unix.BPF_F_MMAPABLE, false}} {
		t.Run(c.name, func(t *testing.T) {
			n := uint32(scaled(40_000))
			last := fmt.Sprintf(`a="%d"`, n-1)
			ms := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: n, Flags: c.flags}
			f := newFixture(t, ms, program.Metric{Name: "test", Type: program.Gauge, Cells: []program.Field{{Offset: 8, Size: 4}}}, label("a", "uint", 0, 4))
			r := f.collector.readers[0].reader.(*mapReader)
			r.noBatch = c.each
			values(t, f.collect(), nil)
			f.put(uint32(7), key32(0, 0, 70))
			f.put(n-1, key32(0, 0, 90))
			values(t, f.collect(), map[string]uint64{`a="7"`: 70, last: 90})
			f.put(uint32(7), key32(0, 0, 0)) // known: shown although zero
			values(t, f.collect(), map[string]uint64{`a="7"`: 0, last: 90})
			if (r.memory != nil) != (c.flags != 0) {
				t.Error("the map's memory was not used as it should")
			}
		})
	}
}

func TestArrayWithoutLabelsIsShownWhenZero(t *testing.T) {
	ms := &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 100}
	f := newFixture(t, ms, program.Metric{Labels: []program.Label{}}, label("a", "uint", 0, 4))
	values(t, f.collect(), map[string]uint64{``: 0})
	f.put(uint32(0), uint64(3))
	f.put(uint32(70), uint64(4))
	values(t, f.collect(), map[string]uint64{``: 7})
	if n := f.collector.readers[0].tables[0].live; n != 2 {
		t.Errorf("%d keys are remembered", n)
	}
}

func histogram(sum uint64, slots ...uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, sum)
	for _, s := range slots {
		b = binary.LittleEndian.AppendUint64(b, s)
	}
	return b
}

func TestHistogramsAndStructs(t *testing.T) {
	ms := hashSpec(8, 4*8, 100)
	key := []program.Label{label("a", "uint", 0, 4), label("b", "uint", 4, 4)}
	spec := oneMap(ms, program.Metric{Name: "h_seconds", Type: program.Histogram,
		Cells: []program.Field{u64(0), {Offset: 8, Size: 8, Count: 3}}, Labels: key[:1]}, key...)
	reader := &spec.Readers[0]
	reader.Metrics = append(reader.Metrics,
		program.Metric{Name: "s_seconds", Type: program.Summary, Cells: []program.Field{u64(8), u64(0), u64(16)}, Quantiles: []float64{0.5}, Labels: key[:1]},
		program.Metric{Name: "g", Type: program.Gauge, Cells: []program.Field{{Offset: 24, Size: 2, Signed: true}}, Labels: key[:1]},
		program.Metric{Name: "x_info", Type: program.Info, Labels: key},
		program.Metric{Name: "state", Type: program.StateSet, Cells: []program.Field{u64(16)}, Labels: key[:1]})
	f := newFixtureOf(t, newMap(t, ms), spec)
	f.put(key32(1, 1), histogram(100, 1, 2, 3))
	f.put(key32(1, 2), histogram(1000, 10, 20, 0xffff))
	rows := func(want ...[]uint64) {
		t.Helper()
		got := map[string]map[string]sample{}
		s, err := f.collector.Collect(context.Background(), nil)
		if err != nil || len(s.Errors) > 0 {
			t.Fatal(err, s.Errors)
		}
		for i := range s.Families {
			got[s.Families[i].Metric.Name] = samples(t, &s.Families[i])
		}
		s.Release()
		for i, name := range []string{"h_seconds", "s_seconds", "g", "state"} {
			row := got[name][`a="1"`].row
			if len(row) != len(want[i]) {
				t.Fatalf("%s: %v, want %v", name, row, want[i])
			}
			for j := range row {
				if row[j] != want[i][j] {
					t.Errorf("%s: %v, want %v", name, row, want[i])
					break
				}
			}
		}
		if i := got["x_info"]; len(i) == 0 || len(i[`a="1",b="1"`].row) != 0 {
			t.Errorf("info: %v", i)
		}
	}
	rows([]uint64{1100, 11, 22, 0xffff + 3}, []uint64{11, 1100, 20}, []uint64{2}, []uint64{20})
	f.put(key32(1, 2), histogram(5, 1, 0, 1)) // started again
	rows([]uint64{1105, 12, 22, 0xffff + 4}, []uint64{12, 1105, 2}, []uint64{4}, []uint64{2})
	f.remove(key32(1, 2))
	rows([]uint64{1105, 12, 22, 0xffff + 4}, []uint64{12, 1105, 2}, []uint64{3}, []uint64{2})
}

func TestExemplars(t *testing.T) {
	ms := hashSpec(4, 8+8+8+16, 10)
	l := label("trace_id", "string", 24, 16)
	f := newFixture(t, ms, program.Metric{Exemplar: &program.Exemplar{Value: u64(8), Timestamp: u64(16), Labels: []program.Label{l}}},
		label("a", "uint", 0, 4))
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		t.Fatal(err)
	}
	f.put(key32(1), append(histogram(5, 77, uint64(ts.Nano())-3e9), "abc\xff\x00zzzzzzzzzzz"...))
	f.put(key32(2), append(histogram(5, 0, 0), make([]byte, 16)...))
	s, err := f.collector.Collect(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	fam := s.Families[0]
	if len(fam.Exemplars) != len(fam.Points) {
		t.Fatalf("%d exemplars for %d points", len(fam.Exemplars), len(fam.Points))
	}
	for i, p := range fam.Points {
		e := fam.Exemplars[i]
		if p.Labels == `a="2"` {
			if e != (Exemplar{}) {
				t.Errorf("an exemplar where there is none: %v", e)
			}
			continue
		}
		if e.Labels != "trace_id=\"abc\uFFFD\"" || e.Value != 77 {
			t.Errorf("exemplar %+v", e)
		}
		if ago := f.now.UnixMilli() - e.Timestamp; ago < 2900 || ago > 20_000 {
			t.Errorf("the exemplar is %d ms old", ago)
		}
	}
}

func TestFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "softnet")
	text := "cpu one 5 x 7\ncpu two -1 x 8\nnot one 1 1 1\ncpu short\ncpu none a b c\ncpu one 10 x 1\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	key := []program.Label{label("name", "string", 0, 8)}
	spec := &program.Spec{Name: "test", Readers: []program.Reader{{Name: "f", Kind: program.FileReader, KeySize: 8, ValueSize: 16, Key: key,
		File:    &program.File{Path: path, Prefix: "cpu", Keys: []program.FileKey{{Column: 1}}, Values: []int{2, 4}},
		Metrics: []program.Metric{{Name: "a", Type: program.Gauge, Cells: []program.Field{u64(0)}, Labels: key}, {Name: "b", Type: program.Gauge, Cells: []program.Field{u64(8)}, Labels: key}}}}}
	c, err := NewCollector(spec, &fakeSource{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, collector: c}
	got := f.collectAll()
	values(t, got[0], map[string]uint64{`name="one"`: 15, `name="two"`: ^uint64(0)})
	values(t, got[1], map[string]uint64{`name="one"`: 8, `name="two"`: 8})
}

func TestWhatCanNotBeRead(t *testing.T) {
	for _, typ := range []ebpf.MapType{ebpf.TaskStorage, ebpf.Queue, ebpf.BloomFilter, ebpf.RingBuf, ebpf.HashOfMaps, ebpf.StackTrace, ebpf.PerfEventArray} {
		if err := Readable(typ); !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v", typ, err)
		}
	}
	f := func(want error, change func(*program.Spec)) {
		t.Helper()
		spec := oneMap(hashSpec(4, 8, 1), program.Metric{}, label("a", "uint", 0, 4))
		change(spec)
		if _, err := NewCollector(spec, &fakeSource{}, Options{}); !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	f(nil, func(*program.Spec) {})
	f(ErrUnreadable, func(s *program.Spec) { s.Collection.Maps["m"].Type = ebpf.Queue })
	f(ErrUnreadable, func(s *program.Spec) { s.Readers[0].Kind = "rumour" })
	f(ErrUnreadable, func(s *program.Spec) { s.Readers[0].ValueSize = 1 << 30 })
	f(ErrNoMap, func(s *program.Spec) { s.Readers[0].Name = "other" })
	f(ErrDecoder, func(s *program.Spec) { s.Readers[0].Metrics[0].Labels[0].Decoder = "rumour" })
	f(ErrDecoder, func(s *program.Spec) { s.Readers[0].Metrics[0].Labels[0].Field.Offset = 1 })
	f(ErrMetric, func(s *program.Spec) { s.Readers[0].Metrics[0].Cells[0].Offset = 1 })
	f(ErrMetric, func(s *program.Spec) { s.Readers[0].Metrics[0].Cells = nil })
	static := func(name string) func(*program.Spec) {
		return func(s *program.Spec) {
			s.Readers[0].Metrics[0].StaticLabels = []program.StaticLabel{{Name: name, Value: "x"}}
		}
	}
	f(nil, static("b"))
	f(ErrMetric, static("a"))
	f(ErrMetric, static(OverflowLabel))
	f(ErrMetric, static(""))
	f(ErrMetric, func(s *program.Spec) { s.Readers[0].Metrics[0].Cells[0].Count = 1<<32 - 1 })
}

func TestAMapThatIsMissing(t *testing.T) {
	f := newFixture(t, hashSpec(4, 8, 1), program.Metric{}, label("a", "uint", 0, 4))
	delete(f.source.maps, "m")
	s, err := f.collector.Collect(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if len(s.Errors) != 1 || !errors.Is(s.Errors[0], ErrNoMap) || len(s.Families) != 0 {
		t.Errorf("errors %v", s.Errors)
	}
	if f.collector.Stats()[0].Err == nil {
		t.Error("the reader's state does not tell")
	}
}

// A map that can't take more: what is in it is complete, and what was refused shows.
func TestAFullMap(t *testing.T) {
	ms := hashSpec(8, 8, 101)
	spec := oneMap(ms, program.Metric{}, label("a", "uint", 0, 8))
	spec.Readers[0].Overflow = true
	f := newFixtureOf(t, newMap(t, ms), spec)
	f.put(^uint64(0), uint64(0))
	lost := uint64(0)
	for i := range uint64(1000) {
		if err := f.m.Put(i, uint64(1)); err != nil {
			lost++
			f.put(^uint64(0), lost)
		}
	}
	got := f.collect()
	if len(got) != 101 || got[`overflow="true"`].row[0] != 900 {
		t.Errorf("%d series, overflow %v", len(got), got[`overflow="true"`])
	}
	if s := f.collector.Stats()[0]; s.Entries != 101 || s.Capacity != 101 || s.FailedInserts != 900 {
		t.Errorf("stats %+v", s)
	}
}

// A reload keeps what must be remembered of readers that did not change.
func TestPreviousCollector(t *testing.T) {
	key := []program.Label{label("a", "uint", 0, 4), label("b", "uint", 4, 4)}
	f := newFixture(t, hashSpec(8, 8, 10), program.Metric{Labels: key[:1]}, key...)
	f.put(key32(1, 1), uint64(10))
	f.put(key32(1, 2), uint64(5))
	f.collect()
	f.remove(key32(1, 2))
	reload := func(spec *program.Spec) {
		t.Helper()
		old := f.collector
		var err error
		f.collector, err = NewCollector(spec, f.source, Options{Previous: old, Started: f.now, Clock: func() time.Time { return f.now }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := old.Collect(context.Background(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("the previous collector: %v", err)
		}
	}
	same := func() *program.Spec {
		s := oneMap(hashSpec(8, 8, 10), program.Metric{Labels: key[:1]}, key...)
		return s
	}
	reload(same())
	got := f.collect()
	values(t, got, map[string]uint64{`a="1"`: 15})
	if got[`a="1"`].start != started.UnixMilli() {
		t.Error("a reload changed the start of a series")
	}
	// What changes only how it is shown does not change what was counted.
	shown := same()
	shown.Readers[0].Metrics[0].Help, shown.Readers[0].Metrics[0].Limit = "New.", 1
	reload(shown)
	s, err := f.collector.Collect(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if fam := &s.Families[0]; fam.Metric.Help != "New." || len(fam.Points) != 1 || fam.Values[0] != 15 || fam.Points[0].Start != started.UnixMilli() {
		t.Errorf("%s %v %v", fam.Metric.Help, fam.Points, fam.Values)
	}
	s.Release()
	f.put(key32(2, 1), uint64(1)) // beyond the new limit
	values(t, f.collect(), map[string]uint64{`a="1"`: 15, `overflow="true"`: 1})
	f.remove(key32(2, 1))
	other := same()
	other.Readers[0].Metrics[0].Name = "other_total"
	reload(other)
	values(t, f.collect(), map[string]uint64{`a="1"`: 10})
}

// Maps of sizes that nobody can read must not end the agent.
func TestHugeMaps(t *testing.T) {
	// A hash of 2^32-1 keys can't be made; one without preallocation may have far more room than keys.
	ms := &ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 8, MaxEntries: 1 << 22, Flags: unix.BPF_F_NO_PREALLOC}
	f := newFixture(t, ms, program.Metric{}, label("a", "uint", 0, 4))
	f.put(uint32(3), uint64(4))
	values(t, f.collect(), map[string]uint64{`a="3"`: 4})

	// The time that reading takes is the caller's to limit.
	ctx, cancel := context.WithCancel(context.Background())
	r := f.collector.readers[0].reader.(*mapReader)
	cancel()
	if err := r.readIndexes(ctx, func([]byte, []byte, int) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	s := oneMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 1 << 31, MaxEntries: 1}, program.Metric{}, label("a", "uint", 0, 4))
	if _, err := NewCollector(s, &fakeSource{}, Options{}); !errors.Is(err, ErrUnreadable) {
		t.Errorf("a value of 2 GiB: %v", err)
	}
}

// Values of one collection stay as they are while the next ones are made.
func TestSnapshotsAreIndependent(t *testing.T) {
	f := newFixture(t, hashSpec(4, 8, 10), program.Metric{}, label("a", "uint", 0, 4))
	var kept []*Snapshot
	for i := range uint64(5) {
		f.put(uint32(i), i)
		f.put(uint32(0), 100*i)
		s, err := f.collector.Collect(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, s)
	}
	for i, s := range kept {
		got := samples(t, &s.Families[0])
		if len(got) != i+1 || got[`a="0"`].row[0] != 100*uint64(i) {
			t.Errorf("snapshot %d: %v", i, got)
		}
		s.Release()
	}
}

// Exemplars stay when further series follow that have none.
func TestExemplarsBesideOverflow(t *testing.T) {
	ms := hashSpec(4, 8+8+8, 10)
	spec := oneMap(ms, program.Metric{Exemplar: &program.Exemplar{Value: u64(8), Timestamp: u64(16)}, Limit: 1}, label("a", "uint", 0, 4))
	spec.Readers[0].Overflow = true
	model := &listReader{parts{1, 24, 24}, [][2][]byte{
		{key32(1), histogram(5, 77, 1e9)},
		{key32(^uint32(0)), histogram(6, 0, 0)},
	}}
	c, err := NewCollector(spec, &fakeSource{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	c.readers[0].reader = model
	s, err := c.Collect(context.Background(), nil)
	if err != nil || len(s.Errors) > 0 {
		t.Fatal(err, s.Errors)
	}
	defer s.Release()
	fam := s.Families[0]
	if len(fam.Points) != 2 || len(fam.Exemplars) != 2 || fam.Exemplars[0].Value != 77 || fam.Exemplars[1] != (Exemplar{}) {
		t.Errorf("points %v, exemplars %v", fam.Points, fam.Exemplars)
	}
}

// listReader yields keys and values in a given order.
type listReader struct {
	parts   parts
	entries [][2][]byte
}

func (r *listReader) open() (parts, error) { return r.parts, nil }

func (r *listReader) read(_ context.Context, yield func(keys, values []byte, n int)) error {
	for _, e := range r.entries {
		yield(e[0], e[1], 1)
	}
	return nil
}

// What is given back is kept as long as it is among the largest.
func TestBuffersKeepTheLargest(t *testing.T) {
	var s Buffers
	give := func(size int) {
		b := buffer{keys: make([]byte, size)}
		s.takeBack(&b)
		if b.size() != 0 {
			t.Errorf("%d bytes are still there", b.size())
		}
	}
	for _, size := range []int{0, 0, 30, 10, 20, 40, 0, 5, maxFreeBytes + 1, 50} {
		give(size)
	}
	var got []int
	for range maxFreeBuffers + 1 {
		var b buffer
		s.lend(&b)
		got = append(got, b.size())
	}
	slices.Sort(got)
	if want := []int{0, 20, 30, 40, 50}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
