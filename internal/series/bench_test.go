package series

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// fill inserts n keys of two u32 and a char[16].
func fill(b testing.TB, m *ebpf.Map, n int) {
	b.Helper()
	for i := range n {
		key := make([]byte, 24)
		binary.LittleEndian.PutUint32(key, uint32(i))
		binary.LittleEndian.PutUint32(key[4:], uint32(i%100))
		copy(key[8:], fmt.Sprintf("process-%d", i%1000))
		if err := m.Put(key, uint64(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func cpuNanoseconds() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

func benchmarkCollect(b *testing.B, f *fixture, series int) {
	before := liveHeap()
	collect := func() {
		s, err := f.collector.Collect(context.Background(), nil)
		if err != nil || len(s.Errors) > 0 {
			b.Fatal(err, s.Errors)
		}
		if n := len(s.Families[0].Points); n != series {
			b.Fatalf("%d series, want %d", n, series)
		}
		s.Release()
	}
	collect()
	collect()
	heap := liveHeap()
	b.ReportAllocs()
	cpu := cpuNanoseconds()
	b.ResetTimer()
	for b.Loop() {
		collect()
	}
	cpu = cpuNanoseconds() - cpu
	b.ReportMetric(float64(cpu)/float64(b.N)/float64(series), "cpu-ns/series")
	if r, ok := f.collector.readers[0].reader.(*mapReader); ok && r.memory == nil {
		b.ReportMetric(float64(r.calls), "bpf-calls")
	}
	b.ReportMetric((float64(heap)-float64(before))/1e6, "heap-MB")
	runtime.KeepAlive(f)
}

func BenchmarkCollectHash(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := newFixture(b, hashSpec(24, 8, uint32(n)+1), program.Metric{Limit: n},
				label("a", "uint", 0, 4), label("b", "uint", 4, 4), label("c", "string", 8, 16))
			fill(b, f.m, n)
			benchmarkCollect(b, f, n)
		})
	}
}

func BenchmarkCollectHistograms(b *testing.B) {
	const n = 1000
	f := newFixture(b, hashSpec(4, 8*107, n), program.Metric{Name: "test_seconds", Type: program.Histogram,
		Cells: []program.Field{u64(0), {Offset: 8, Size: 8, Count: 106}}}, label("a", "uint", 0, 4))
	value := make([]byte, 8*107)
	for i := range value {
		value[i] = byte(i)
	}
	for i := range uint32(n) {
		f.put(key32(i), value)
	}
	benchmarkCollect(b, f, n)
}

func BenchmarkCollectMmapable(b *testing.B) {
	const n = 100_000
	f := newFixture(b, &ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: n, Flags: 1 << 10},
		program.Metric{Limit: n}, label("a", "uint", 0, 4))
	for i := range uint32(n) {
		f.put(i, uint64(i)+1)
	}
	benchmarkCollect(b, f, n)
}

func BenchmarkFirstCollect(b *testing.B) {
	const n = 100_000
	f := newFixture(b, hashSpec(24, 8, n+1), program.Metric{Limit: n},
		label("a", "uint", 0, 4), label("b", "uint", 4, 4), label("c", "string", 8, 16))
	fill(b, f.m, n)
	for b.Loop() {
		c, err := NewCollector(f.spec, f.source, Options{})
		if err != nil {
			b.Fatal(err)
		}
		s, err := c.Collect(context.Background(), nil)
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/series")
}
