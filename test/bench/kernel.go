package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/program"
)

// costs are nanoseconds per run by function of bpf/testdata/cost.bpf.c, with and without run counting.
type costs struct {
	Functions      map[string]float64
	Counted, Plain float64
}

// measureKernel runs the measurement in a process without asynchronous preemption, whose signals
// would interrupt the kernel's loop.
func measureKernel(ctx context.Context, o options) ([]figure, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	histogram := figure{what: "kernel: histogram update (schema 2, ns to seconds), less the empty function", unit: "ns", baselineName: "bare hash-map increment"}
	added := figure{what: "kernel: histogram update more than a bare hash-map increment", unit: "ns", atMost: 20}
	increment := figure{what: "kernel: kaon_increment, less the empty function", unit: "ns", baselineName: "bare hash-map increment"}
	single := figure{what: "kernel: kaon_increment without labels, less the empty function", unit: "ns"}
	counting := figure{what: "kernel: counting a program's runs", unit: "ns", atMost: 2, note: "an empty XDP function that the engine loaded, less the same without its prologue"}
	for range o.repeats {
		command := exec.CommandContext(ctx, self, "-kernel", strconv.Itoa(o.runs))
		command.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
		command.Stderr = os.Stderr
		out, err := command.Output()
		if err != nil {
			return nil, fmt.Errorf("measure in the kernel: %w", err)
		}
		var c costs
		if err := json.Unmarshal(out, &c); err != nil {
			return nil, err
		}
		empty := c.Functions["empty"]
		bare := c.Functions["bare"] - empty
		histogram.samples = append(histogram.samples, c.Functions["observe2"]-empty)
		histogram.baseline = append(histogram.baseline, bare)
		added.samples = append(added.samples, c.Functions["observe2"]-c.Functions["bare"])
		increment.samples = append(increment.samples, c.Functions["increment"]-empty)
		increment.baseline = append(increment.baseline, bare)
		single.samples = append(single.samples, c.Functions["single"]-empty)
		counting.samples = append(counting.samples, c.Counted-c.Plain)
	}
	return []figure{histogram, added, increment, single, counting}, nil
}

// runKernel is the process that measureKernel starts.
func runKernel(ctx context.Context, runs int) error {
	c := costs{Functions: map[string]float64{}}
	spec, err := ebpf.LoadCollectionSpec("bpf/testdata/cost.bpf.o")
	if err != nil {
		return err
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("load bpf/testdata/cost.bpf.o: %w", err)
	}
	defer collection.Close()
	for _, name := range []string{"empty", "bare", "increment", "single", "observe2"} {
		// What is measured is an entry that exists.
		if err := collection.Maps["counter_total"].Put(uint64(42), uint64(0)); err != nil {
			return err
		}
		if c.Functions[name], err = perRun(collection.Programs[name], runs); err != nil {
			return err
		}
	}
	if c.Counted, c.Plain, err = counting(ctx, runs); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(c)
}

// counting measures an empty function as the engine loads it, and without what the engine adds.
func counting(ctx context.Context, runs int) (counted, plain float64, err error) {
	const object, function = "internal/engine/testdata/misc.bpf.o", "empty_xdp"
	spec, err := ebpf.LoadCollectionSpec(object)
	if err != nil {
		return 0, 0, err
	}
	for name := range spec.Programs {
		if name != function {
			delete(spec.Programs, name)
		}
	}
	clear(spec.Maps)
	clear(spec.Variables)
	bare, err := ebpf.NewCollection(spec.Copy())
	if err != nil {
		return 0, 0, err
	}
	defer bare.Close()
	e, err := engine.New(engine.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer e.Close()
	i, err := e.Load(ctx, &program.Spec{Name: "empty", Collection: spec,
		Hooks: []program.Hook{{Function: function, Kind: program.XDP, Interfaces: []string{"lo"}}}})
	if err != nil {
		return 0, 0, err
	}
	defer i.Close()
	if counted, err = perRun(i.Program(function), runs); err != nil {
		return 0, 0, err
	}
	stats, err := i.Stats()
	if err != nil {
		return 0, 0, err
	}
	if len(stats) != 1 || stats[0].Runs < uint64(runs) {
		return 0, 0, fmt.Errorf("the engine did not count the runs: %+v", stats)
	}
	plain, err = perRun(bare.Programs[function], runs)
	return counted, plain, err
}

// perRun is the CPU time of a run: the kernel's own figure has whole nanoseconds only. It is the difference between many
// runs and few, so that what a call costs as a whole does not count; the least of five rounds each.
func perRun(p *ebpf.Program, runs int) (float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	few, many := math.Inf(1), math.Inf(1)
	for range 5 {
		for n, least := range map[int]*float64{runs / 50: &few, runs / 5: &many} {
			took, err := cpuOf(p, n)
			if err != nil {
				return 0, err
			}
			*least = min(*least, took)
		}
	}
	return (many - few) / float64(runs/5-runs/50), nil
}

func cpuOf(p *ebpf.Program, runs int) (float64, error) {
	packet := make([]byte, 64)
	var begun, ended unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &begun); err != nil {
		return 0, err
	}
	if _, err := p.Run(&ebpf.RunOptions{Data: packet, Repeat: uint32(runs)}); err != nil {
		return 0, fmt.Errorf("run %s: %w", p, err)
	}
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ended)
	return float64(ended.Nano() - begun.Nano()), err
}
