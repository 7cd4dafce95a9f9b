package series

import (
	"testing"

	"github.com/kaon-project/kaon/internal/program"
)

func chainLabel(name string, offset, size uint32, steps ...program.Step) program.Label {
	l := label(name, "chain", offset, size)
	l.Steps = steps
	return l
}

// newChainFixture is a fixture whose collector knows cgroups.
func newChainFixture(t *testing.T, spec *program.Spec, cgroups directories) *fixture {
	t.Helper()
	ms := spec.Collection.Maps["m"]
	f := newFixtureOf(t, newMap(t, ms), spec)
	f.collector.Close()
	var err error
	f.collector, err = NewCollector(spec, f.source, Options{Directories: cgroups, Started: started, Clock: f.collector.options.Clock})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A key that is no series may become one when a name is known, and costs no place in the limit meanwhile.
func TestDroppedKeys(t *testing.T) {
	number := program.Step{Name: "uint"}
	cgroups := directories{1: "/sys/fs/cgroup/ours/a", 2: "/sys/fs/cgroup/theirs"}
	ms := hashSpec(8, 8, 100)
	path := chainLabel("path", 0, 8, number, program.Step{Name: "cgroup"}, program.Step{Name: "regexp", Regexps: []string{"^.*/ours/(.*)$"}})
	f := newChainFixture(t, oneMap(ms, program.Metric{Limit: 2}, path), cgroups)
	for id := range uint32(50) {
		f.put(key32(id+1, 0), uint64(id+1))
	}
	want := map[string]uint64{`path="a"`: 1}
	values(t, f.collect(), want)
	values(t, f.collect(), want)
	cgroups[3] = "/sys/fs/cgroup/ours/c"
	f.put(key32(3, 0), uint64(33))
	values(t, f.collect(), map[string]uint64{`path="a"`: 1, `path="c"`: 33})
	f.remove(key32(3, 0))
	for id := range uint32(40) {
		f.remove(key32(id+10, 0))
	}
	values(t, f.collect(), want)
	if table := f.collector.readers[0].tables[0]; table.dropped != 8 || table.live != 9 {
		t.Errorf("%d keys are dropped, of %d", table.dropped, table.live)
	}
}

// A name that comes late moves the series; it goes on where it was.
func TestLateName(t *testing.T) {
	cgroups := directories{}
	f := newChainFixture(t, oneMap(hashSpec(8, 8, 100), program.Metric{}, chainLabel("path", 0, 8, program.Step{Name: "uint"}, program.Step{Name: "cgroup"})), cgroups)
	f.put(key32(7, 0), uint64(1))
	values(t, f.collect(), map[string]uint64{`path="unknown_cgroup_id:7"`: 1})
	if s := f.collector.Stats()[0]; s.Unresolved != 1 {
		t.Errorf("stats %+v", s)
	}
	cgroups[7] = "/a"
	got := f.collect()
	values(t, got, map[string]uint64{`path="/a"`: 1})
	if got[`path="/a"`].start != started.UnixMilli() {
		t.Error("naming a cgroup changed the start of its series")
	}
	delete(cgroups, 7) // gone, and forgotten
	values(t, f.collect(), map[string]uint64{`path="/a"`: 1})
}

func spreadSpec(limit int) *program.Spec {
	ms := hashSpec(8, 8, 1000)
	spec := oneMap(ms, program.Metric{Type: program.Histogram, Name: "h", Limit: limit, Buckets: &program.Buckets{Upper: []float64{1, 2, 4}}},
		chainLabel("shard", 0, 4, program.Step{Name: "uint"}))
	spec.Readers[0].Spread = &program.Spread{Bucket: program.Field{Offset: 4, Size: 4}, Sum: 3}
	return spec
}

// Keys that differ in the slot only are one series, folded or not; one that loses a key starts again.
func TestSpread(t *testing.T) {
	f := newChainFixture(t, spreadSpec(2), nil)
	rows := func(want map[string][]uint64) map[string]sample {
		t.Helper()
		got := f.collect()
		for labels, row := range want {
			s, ok := got[labels]
			if !ok || len(s.row) != len(row) {
				t.Fatalf("series {%s}: got %v, want %v", labels, s.row, row)
			}
			for i := range row {
				if s.row[i] != row[i] {
					t.Errorf("series {%s}: got %v, want %v", labels, s.row, row)
					break
				}
			}
		}
		if len(got) != len(want) {
			t.Errorf("%d series, want %d: %v", len(got), len(want), got)
		}
		return got
	}
	for bucket := range uint32(6) {
		f.put(key32(1, bucket), uint64(1)<<(4*bucket))
	}
	rows(map[string][]uint64{`shard="1"`: {0x1000, 1, 0x10, 0x100, 0x110000}})
	f.put(key32(1, 1), uint64(0x11))
	before := rows(map[string][]uint64{`shard="1"`: {0x1000, 1, 0x11, 0x100, 0x110000}})
	f.remove(key32(1, 0))
	after := rows(map[string][]uint64{`shard="1"`: {0x1000, 0, 0x11, 0x100, 0x110000}})
	if after[`shard="1"`].start <= before[`shard="1"`].start {
		t.Error("a histogram that lost a bucket goes on")
	}
	f.put(key32(2, 0), uint64(1))
	rows(map[string][]uint64{`shard="1"`: {0x1000, 0, 0x11, 0x100, 0x110000}, `shard="2"`: {0, 1, 0, 0, 0}})
	f.put(key32(3, 0), uint64(1))
	f.put(key32(4, 0), uint64(1))
	f.put(key32(4, 1), uint64(5))
	rows(map[string][]uint64{`shard="1"`: {0x1000, 0, 0x11, 0x100, 0x110000}, `shard="2"`: {0, 1, 0, 0, 0}, `overflow="true"`: {0, 2, 5, 0, 0}})
}

func TestSpreadPlaces(t *testing.T) {
	f := func(s program.Spread, raw uint64, want int) {
		t.Helper()
		r := &program.Reader{KeySize: 8, Spread: &s}
		if got := newSpread(r, &program.Metric{Buckets: &program.Buckets{Upper: []float64{1, 2, 3}}}).place(raw); got != want {
			t.Errorf("%d of %+v: got %d, want %d", int64(raw), s, got, want)
		}
	}
	plain := program.Spread{First: 5, Sum: 8}
	for raw, want := range map[uint64]int{0: 1, 5: 1, 6: 2, 7: 3, 8: 0, 9: 4, 1 << 63: 4} {
		f(plain, raw, want)
	}
	signed := program.Spread{Bucket: program.Field{Signed: true}, First: -1, Sum: 2}
	for raw, want := range map[int64]int{-9: 1, -1: 1, 0: 2, 1: 3, 2: 0, 3: 4} {
		f(signed, uint64(raw), want)
	}
	fixed := program.Spread{Numbers: []float64{1, 2.5, 10}, Sum: 11}
	for raw, want := range map[uint64]int{0: 1, 1: 1, 2: 2, 3: 3, 10: 3, 11: 0, 12: 4, 1 << 63: 4} {
		f(fixed, raw, want)
	}
}
