package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
)

// BenchmarkCost gives the time of one run of an XDP program by what it does;
// "empty" is to be subtracted. On a quiet machine, with GODEBUG=asyncpreemptoff=1.
func BenchmarkCost(b *testing.B) {
	for _, name := range []string{"empty", "slot", "bare", "increment", "single", "observe2", "observe3", "observe_one", "observe_bounds", "clock"} {
		b.Run(name, func(b *testing.B) {
			collection := load(b, "cost.bpf.o", nil)
			// What is measured is an entry that exists.
			options := &ebpf.RunOptions{Data: make([]byte, 64), Repeat: 1}
			var key, zero uint64 = 42, 0
			if err := collection.Maps["counter_total"].Put(key, zero); err != nil {
				b.Fatal(err)
			}
			if _, err := collection.Programs[name].Run(options); err != nil {
				b.Fatal(err)
			}
			_, took, err := collection.Programs[name].Benchmark(options.Data, max(b.N, 1), nil)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(took.Nanoseconds()), "ns/run")
			b.ReportMetric(0, "ns/op")
		})
	}
}
