package series

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

func workloadKey() []program.Label {
	return []program.Label{label("workload", "workload", 0, 8), label("op", "uint", 8, 4)}
}

func wkey(id uint64, op uint32) []byte { return key32(uint32(id), uint32(id>>32), op) }

func (f *fixture) entries() int {
	f.t.Helper()
	n := 0
	key, err := f.m.NextKeyBytes(nil)
	for ; key != nil && err == nil; n++ {
		key, err = f.m.NextKeyBytes(key)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func TestWorkloadIsNamedLater(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	v1 := workload.ID(7<<48 | 55)
	f.put(wkey(42, 1), uint64(5))
	f.put(wkey(uint64(v1), 1), uint64(6))
	values(t, f.collect(), map[string]uint64{`cgroup="unresolved:42",op="1"`: 5, `cgroup="unresolved:7:55",op="1"`: 6})
	if s := f.collector.Stats()[0]; s.Unresolved != 2 {
		t.Errorf("stats %+v", s)
	}
	f.resolver.set(42, "shop", workload.Alive)
	f.put(wkey(42, 1), uint64(8))
	got := f.collect()
	values(t, got, map[string]uint64{`container="shop",op="1"`: 8, `cgroup="unresolved:7:55",op="1"`: 6})
	if got[`container="shop",op="1"`].start != started.UnixMilli() {
		t.Error("naming a workload changed the start of its series")
	}
	if s := f.collector.Stats()[0]; s.Unresolved != 1 {
		t.Errorf("stats %+v", s)
	}
}

// A key that leaves one sum for another counts once, and neither goes back.
func TestWorkloadMovesBetweenSums(t *testing.T) {
	key := workloadKey()
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{Labels: key[:1]}, key...)
	f.resolver.set(1, "a", workload.Alive)
	f.resolver.set(2, "a", workload.Alive)
	f.put(wkey(1, 1), uint64(10))
	f.put(wkey(1, 2), uint64(20))
	f.put(wkey(2, 1), uint64(100))
	values(t, f.collect(), map[string]uint64{`container="a"`: 130})
	f.resolver.set(2, "b", workload.Alive)
	f.put(wkey(2, 1), uint64(103))
	values(t, f.collect(), map[string]uint64{`container="a"`: 130, `container="b"`: 3})
	f.remove(wkey(2, 1))
	values(t, f.collect(), map[string]uint64{`container="a"`: 130, `container="b"`: 3})
}

func TestReapingOfDeadWorkloads(t *testing.T) {
	for _, typ := range []ebpf.MapType{ebpf.Hash, ebpf.PerCPUHash} {
		t.Run(typ.String(), func(t *testing.T) {
			ms := &ebpf.MapSpec{Type: typ, KeySize: 12, ValueSize: 8, MaxEntries: 100}
			key := workloadKey()
			spec := oneMap(ms, program.Metric{}, key...)
			sum := spec.Readers[0].Metrics[0]
			sum.Name, sum.Labels = "sum_total", key[1:]
			spec.Readers[0].Metrics = append(spec.Readers[0].Metrics, sum)
			f := newFixtureOf(t, newMap(t, ms), spec)
			n := uint64(1)
			put := func(k []byte, v uint64) {
				if typ == ebpf.PerCPUHash {
					all := cpuValues(t, v)
					n = uint64(len(all))
					f.put(k, all)
				} else {
					f.put(k, v)
				}
			}
			f.resolver.set(1, "a", workload.Alive)
			f.resolver.set(2, "b", workload.Alive)
			put(wkey(1, 1), 10)
			put(wkey(2, 1), 20)
			both := func(single, sums map[string]uint64) {
				t.Helper()
				got := f.collectAll()
				values(t, got[0], single)
				values(t, got[1], sums)
			}
			both(map[string]uint64{`container="a",op="1"`: 10 * n, `container="b",op="1"`: 20 * n}, map[string]uint64{`op="1"`: 30 * n})
			f.resolver.set(1, "a", workload.Gone)
			put(wkey(1, 1), 11)
			both(map[string]uint64{`container="a",op="1"`: 11 * n, `container="b",op="1"`: 20 * n}, map[string]uint64{`op="1"`: 31 * n})
			if f.entries() != 2 {
				t.Error("a key was deleted before it was shown")
			}
			put(wkey(1, 1), 12) // a straggler, after the last scrape
			both(map[string]uint64{`container="b",op="1"`: 20 * n}, map[string]uint64{`op="1"`: 32 * n})
			if f.entries() != 1 {
				t.Errorf("%d entries are left in the map", f.entries())
			}
			if s := f.collector.Stats()[0]; s.Reaped != 1 {
				t.Errorf("stats %+v", s)
			}
			both(map[string]uint64{`container="b",op="1"`: 20 * n}, map[string]uint64{`op="1"`: 32 * n})
		})
	}
}

func TestReapWithoutScrapes(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	f.resolver.set(1, "a", workload.Gone)
	f.resolver.set(2, "b", workload.Alive)
	f.put(wkey(1, 1), uint64(10))
	f.put(wkey(2, 1), uint64(20))
	f.collect()
	f.put(wkey(1, 2), uint64(10))
	reap := func(after time.Duration, want int) {
		t.Helper()
		f.now = f.now.Add(after)
		if err := f.collector.Reap(context.Background(), f.now); err != nil {
			t.Fatal(err)
		}
		if n := f.entries(); n != want {
			t.Errorf("%d entries are left, want %d", n, want)
		}
	}
	reap(time.Minute, 3)
	reap(5*time.Minute, 1)
}

func TestOutsideIsNotShown(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	f.resolver.set(1, "a", workload.Alive)
	f.resolver.set(2, "", workload.Outside)
	f.put(wkey(1, 1), uint64(10))
	f.put(wkey(2, 1), uint64(20))
	values(t, f.collect(), map[string]uint64{`container="a",op="1"`: 10})
	if f.collector.readers[0].tables[0].live != 1 {
		t.Error("a key outside of the scope takes memory")
	}
}

// A day of pods: each comes with its keys, is seen, and goes.
func TestADayOfPods(t *testing.T) {
	const keysEach = 10
	pods := uint64(scaled(3000))
	key := workloadKey()
	ms := hashSpec(12, 8, 40*keysEach)
	spec := oneMap(ms, program.Metric{}, key...)
	sum := spec.Readers[0].Metrics[0]
	sum.Name, sum.Labels = "sum_total", key[1:]
	spec.Readers[0].Metrics = append(spec.Readers[0].Metrics, sum)
	f := newFixtureOf(t, newMap(t, ms), spec)
	total := uint64(0)
	for pod := range pods {
		f.resolver.set(workload.ID(pod+1), fmt.Sprint("pod-", pod), workload.Alive)
		for op := range uint32(keysEach) {
			f.put(wkey(pod+1, op), uint64(op))
			total += uint64(op)
		}
		if pod >= 10 {
			f.resolver.set(workload.ID(pod-9), fmt.Sprint("pod-", pod-10), workload.Gone)
		}
		if pod%10 == 9 {
			got := f.collectAll()[1]
			sum := uint64(0)
			for _, s := range got {
				sum += s.row[0]
			}
			if sum != total {
				t.Fatalf("pod %d: the sums are %d, want %d", pod, sum, total)
			}
		}
	}
	if n := f.collector.readers[0].tables[0].keys.next; n > 60*keysEach {
		t.Errorf("the table grew to %d keys", n)
	}
	if n := len(f.collector.readers[0].workloads.byID); n > 60 {
		t.Errorf("%d workloads are remembered", n)
	}
}

func TestTwoWorkloads(t *testing.T) {
	f := newFixture(t, hashSpec(16, 8, 100), program.Metric{}, label("client", "workload", 0, 8), label("server", "workload", 8, 8))
	f.resolver.set(1, "a", workload.Alive)
	f.resolver.set(2, "b", workload.Alive)
	f.put(key32(1, 0, 2, 0), uint64(5))
	f.put(key32(1, 0, 3, 0), uint64(6))
	values(t, f.collect(), map[string]uint64{`container="a",server_container="b"`: 5, `container="a",server_cgroup="unresolved:3"`: 6})
	f.resolver.set(3, "c", workload.Alive)
	values(t, f.collect(), map[string]uint64{`container="a",server_container="b"`: 5, `container="a",server_container="c"`: 6})
}

// A filtered scrape shows only a part of what a dead workload counted: its keys wait for the rest to be shown.
func TestFilteredScrapesDoNotReap(t *testing.T) {
	key := workloadKey()
	ms := hashSpec(12, 8, 100)
	spec := oneMap(ms, program.Metric{}, key...)
	other := spec.Readers[0].Metrics[0]
	other.Name = "other_total"
	spec.Readers[0].Metrics = append(spec.Readers[0].Metrics, other)
	f := newFixtureOf(t, newMap(t, ms), spec)
	f.resolver.set(1, "a", workload.Gone)
	f.put(wkey(1, 1), uint64(10))
	want := func(left int, names ...string) {
		t.Helper()
		s, err := f.collector.Collect(context.Background(), func(name string) bool { return slices.Contains(names, name) })
		if err != nil {
			t.Fatal(err)
		}
		s.Release()
		f.now = f.now.Add(10 * time.Second)
		if n := f.entries(); n != left {
			t.Errorf("after a scrape of %v: %d entries are left, want %d", names, n, left)
		}
	}
	want(1, "test_total")
	want(1, "test_total")
	want(1, "test_total", "other_total")
	want(0, "test_total")

	// Where nobody ever asks for all, the map is cleared all the same.
	f.put(wkey(1, 1), uint64(10))
	for range 40 {
		want(1, "test_total")
	}
	if err := f.collector.Reap(context.Background(), f.now); err != nil {
		t.Fatal(err)
	}
	if n := f.entries(); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}

// A workload outside of the scope stays so when the resolver forgets it.
func TestOutsideAndForgotten(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	f.resolver.set(2, "", workload.Outside)
	f.put(wkey(2, 1), uint64(20))
	values(t, f.collect(), nil)
	f.resolver.set(2, "", workload.Gone)
	values(t, f.collect(), nil)
	values(t, f.collect(), nil)
}

// In a full table a key that gets its name keeps its place.
func TestNamingInAFullTable(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{Limit: 2}, workloadKey()...)
	f.put(wkey(1, 1), uint64(10))
	f.put(wkey(2, 1), uint64(20))
	values(t, f.collect(), map[string]uint64{`cgroup="unresolved:1",op="1"`: 10, `cgroup="unresolved:2",op="1"`: 20})
	f.resolver.set(1, "a", workload.Alive)
	f.resolver.set(2, "b", workload.Alive)
	got := f.collect()
	values(t, got, map[string]uint64{`container="a",op="1"`: 10, `container="b",op="1"`: 20})
	for l, s := range got {
		if s.start != started.UnixMilli() {
			t.Errorf("{%s} starts at %d", l, s.start)
		}
	}
}

// A folded key whose workload gets a name is no longer unresolved, though it stays folded.
func TestUnresolvedAmongFolded(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{Limit: 1}, workloadKey()...)
	f.put(wkey(1, 1), uint64(10))
	f.put(wkey(2, 1), uint64(20))
	f.collect()
	f.resolver.set(1, "a", workload.Alive)
	f.resolver.set(2, "b", workload.Alive)
	f.collect()
	if n := f.collector.Stats()[0].Unresolved; n != 0 {
		t.Errorf("%d keys are unresolved", n)
	}
}
