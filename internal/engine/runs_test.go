package engine

import (
	"errors"
	"math"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// BenchmarkRunCount measures what counting runs costs per run, as the difference between an
// empty XDP function with the prologue and one without, run in the kernel.
func BenchmarkRunCount(b *testing.B) {
	e := newEngine(b, Options{})
	inNetns(b)
	i := mustLoad(b, e, onLoopback(loadSpec(b, "misc.bpf.o", "empty_xdp")))
	plain, err := e.loadProgram(loadSpec(b, "misc.bpf.o", "empty_xdp").Collection.Programs["empty_xdp"])
	if err != nil {
		b.Fatal(err)
	}
	defer plain.Close()
	packet := make([]byte, 64)
	// The kernel tells whole nanoseconds, and the machine has other work: take the least of many, in turns.
	with, without := math.Inf(1), math.Inf(1)
	run := func(prog *ebpf.Program, least *float64) {
		_, duration, err := prog.Benchmark(packet, 100_000, nil)
		if err == nil {
			*least = min(*least, float64(duration.Nanoseconds()))
		} else if !errors.Is(err, unix.EINTR) {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		run(i.Program("empty_xdp"), &with)
		run(plain, &without)
	}
	b.ReportMetric(with, "ns/run-counted")
	b.ReportMetric(without, "ns/run-plain")
	b.ReportMetric(with-without, "ns/run-added")
}

// BenchmarkLoad measures loading, attaching and closing a small Program once the kernel's BTF is parsed.
func BenchmarkLoad(b *testing.B) {
	e := newEngine(b, Options{})
	spec := loadSpec(b, "basic.bpf.o")
	for b.Loop() {
		i, err := e.Load(b.Context(), spec)
		if err != nil {
			b.Fatal(err)
		}
		if err := i.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRescan measures looking for new targets while nothing changes.
func BenchmarkRescan(b *testing.B) {
	e := newEngine(b, Options{})
	inNetns(b)
	mustLoad(b, e, onLoopback(loadSpec(b, "net.bpf.o", "on_ingress")))
	for b.Loop() {
		if err := e.Rescan(); err != nil {
			b.Fatal(err)
		}
	}
}
