package series

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// cpuValues is one value of 8 bytes for each CPU.
func cpuValues(t testing.TB, v uint64) []uint64 {
	n, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	values := make([]uint64, n)
	for i := range values {
		values[i] = v
	}
	return values
}

// TestChurn reads while others insert and delete: keys that stay are neither
// lost nor doubled, sums and single counters do not go back unless they have a new start.
func TestChurn(t *testing.T) {
	const stable, churned = 500, 1000
	for _, c := range []struct {
		name string
		spec ebpf.MapSpec
		each bool // key by key instead of by batches
	}{
		{"hash", ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: stable + churned}, false},
		{"hash, key by key", ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: stable + churned}, true},
		{"no prealloc", ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: stable + churned, Flags: 1}, false},
		{"batches smaller than buckets", ebpf.MapSpec{Type: ebpf.Hash, MaxEntries: stable + churned}, false},
		{"per CPU", ebpf.MapSpec{Type: ebpf.PerCPUHash, MaxEntries: stable + churned}, false},
		{"per CPU, key by key", ebpf.MapSpec{Type: ebpf.PerCPUHash, MaxEntries: stable + churned}, true},
		{"LRU just large enough", ebpf.MapSpec{Type: ebpf.LRUHash, MaxEntries: 4 * (stable + churned)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := c.spec
			spec.KeySize, spec.ValueSize = 8, 8
			key := []program.Label{label("a", "uint", 0, 4), label("b", "uint", 4, 4)}
			f := newFixture(t, &spec, program.Metric{}, key...)
			// The same map a second time, with a label dropped: sums.
			sums := oneMap(&spec, program.Metric{Labels: key[1:]}, key...)
			fs := newFixtureOf(t, f.m, sums)
			for _, f := range []*fixture{f, fs} {
				m := f.collector.readers[0].reader.(*mapReader)
				if m.noBatch = c.each; c.name == "batches smaller than buckets" {
					m.small = 1
				}
			}
			perCPU := perCPU(spec.Type)
			put := func(k []byte, v uint64) error {
				if perCPU {
					return f.m.Put(k, cpuValues(t, v))
				}
				return f.m.Put(k, v)
			}
			factor := uint64(1)
			if perCPU {
				factor = uint64(len(cpuValues(t, 0)))
			}
			for i := range uint32(stable) {
				if err := put(key32(i, 0), uint64(i)); err != nil {
					t.Fatal(err)
				}
			}
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				r := rand.New(rand.NewPCG(1, 2))
				for n := uint64(1); ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					k := key32(stable+r.Uint32N(churned), 1+r.Uint32N(3))
					if r.IntN(2) == 0 {
						_ = put(k, n)
					} else {
						_ = f.m.Delete(k)
					}
				}
			})
			defer wg.Wait()
			defer close(stop)

			type last struct {
				value uint64
				start int64
			}
			singles, totals := map[string]last{}, map[string]last{}
			never := func(lasts map[string]last, got map[string]sample, mayRestart bool) {
				t.Helper()
				for l, s := range got {
					was, known := lasts[l]
					if known && s.row[0] < was.value && (s.start == was.start || !mayRestart) {
						t.Fatalf("{%s} went back from %d to %d with start %d", l, was.value, s.row[0], s.start)
					}
					lasts[l] = last{s.row[0], s.start}
				}
			}
			deadline := time.Now().Add(400 * time.Millisecond)
			reads := 0
			for ; time.Now().Before(deadline) || reads < 5; reads++ {
				got := f.collect()
				for i := range uint64(stable) {
					s, ok := got[fmt.Sprintf(`a="%d",b="0"`, i)]
					if !ok || s.row[0] != i*factor {
						t.Fatalf("read %d: stable key %d: %v, want %d", reads, i, s.row, i*factor)
					}
				}
				never(singles, got, true)
				got = fs.collect()
				if got[`b="0"`].row[0] != stable*(stable-1)/2*factor {
					t.Fatalf("read %d: sum of stable keys %d", reads, got[`b="0"`].row[0])
				}
				never(totals, got, false)
			}
			t.Logf("%d reads of each, %d series seen", reads, len(singles))
			for _, f := range []*fixture{f, fs} {
				if s := f.collector.Stats()[0]; s.Err != nil {
					t.Error(s.Err)
				}
			}
		})
	}
}

// TestLRUOverCapacity evicts all the time. What is shown is consistent: no series twice, sums never go back.
func TestLRUOverCapacity(t *testing.T) {
	for _, typ := range []ebpf.MapType{ebpf.LRUHash, ebpf.LRUCPUHash} {
		t.Run(typ.String(), func(t *testing.T) {
			ms := &ebpf.MapSpec{Type: typ, KeySize: 8, ValueSize: 8, MaxEntries: 300}
			key := []program.Label{label("a", "uint", 0, 4), label("b", "uint", 4, 4)}
			f := newFixture(t, ms, program.Metric{Labels: key[1:]}, key...)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				r := rand.New(rand.NewPCG(3, 4))
				for {
					select {
					case <-stop:
						return
					default:
					}
					k := key32(r.Uint32N(5000), r.Uint32N(2))
					if typ == ebpf.LRUCPUHash {
						_ = f.m.Put(k, cpuValues(t, 3))
					} else {
						_ = f.m.Put(k, uint64(3))
					}
				}
			})
			defer wg.Wait()
			defer close(stop)
			last := map[string]uint64{}
			for deadline := time.Now().Add(300 * time.Millisecond); time.Now().Before(deadline) || len(last) < 2; {
				for l, s := range f.collect() {
					if s.row[0] < last[l] {
						t.Fatalf("{%s} went back from %d to %d", l, last[l], s.row[0])
					}
					last[l] = s.row[0]
				}
			}
			if len(last) != 2 {
				t.Errorf("series: %v", last)
			}
		})
	}
}

// TestShortLivedKeys lets 200,000 keys come and go: memory must not grow.
func TestShortLivedKeys(t *testing.T) {
	rounds, each := 100, scaled(2000)
	ms := hashSpec(24, 8, uint32(each))
	f := newFixture(t, ms, program.Metric{Limit: each}, label("a", "uint", 0, 8), label("b", "string", 8, 16))
	keys := make([][24]byte, each)
	vals := make([]uint64, each)
	var after10 uint64
	for round := range rounds {
		for i := range keys {
			n := uint64(round*each + i)
			binary.LittleEndian.PutUint64(keys[i][:], n)
			copy(keys[i][8:], fmt.Sprint("name ", n))
			vals[i] = n
		}
		if _, err := f.m.BatchUpdate(keys, vals, nil); err != nil {
			t.Skipf("needs batch updates: %v", err)
		}
		s, err := f.collector.Collect(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(s.Families[0].Points); n != each {
			t.Fatalf("round %d: %d series, want %d", round, n, each)
		}
		s.Release()
		if _, err := f.m.BatchDelete(keys, nil); err != nil {
			t.Fatal(err)
		}
		if round == 10 {
			after10 = liveHeap()
		}
	}
	table := f.collector.readers[0].tables[0]
	if int(table.keys.next) > 2*each+16 || int(table.series.next) > 2*each+16 {
		t.Errorf("the tables grew to %d keys and %d series", table.keys.next, table.series.next)
	}
	if heap := liveHeap(); heap > after10+2<<20 {
		t.Errorf("the heap grew from %d to %d bytes", after10, heap)
	}
}
