package programs_test

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// BenchmarkCost reports the kernel's own figures: ns per event and per run of each function, less what
// an empty one takes, which is mostly the measuring itself. Programs are not limited to a cgroup: as in use. What works at
// scrape time only is timed as a whole. Where bpftrace is installed it does the same job afterwards, in the same way.
func BenchmarkCost(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Skip("needs BPF statistics:", err)
	}
	defer stats.Close()
	empty := emptyRun(b)
	for _, a := range areas() {
		for _, c := range a.costs {
			m := measured{Program: c.program, Params: c.params, Event: c.event, AtScrape: c.cause == nil}
			b.Run(strings.Join(append([]string{c.program}, c.params...), ","), func(b *testing.B) { m.NS = c.measure(b, empty) })
			if c.bpftrace != "" {
				b.Run(c.program+"/bpftrace", func(b *testing.B) { m.BpftraceNS = c.measureBpftrace(b, empty) })
			}
			if line, err := json.Marshal(m); err == nil && m.NS != 0 {
				fmt.Printf("cost: %s\n", line) // for test/bench
			}
		}
	}
}

// measured is what BenchmarkCost found, for test/bench.
type measured struct {
	Program    string   `json:"program"`
	Params     []string `json:"params,omitempty"`
	Event      string   `json:"event"`
	AtScrape   bool     `json:"atScrape,omitempty"`
	NS         float64  `json:"ns"`
	BpftraceNS float64  `json:"bpftraceNs,omitempty"`
}

func (c *cost) measure(b *testing.B, empty float64) float64 {
	if c.prepare != nil {
		c.prepare(b)
	}
	r := load(b, c.program, "", c.params...)
	if c.cause == nil {
		r.collectBench(b) // the first makes what others only update
		b.ResetTimer()
		for range b.N {
			r.collectBench(b)
		}
		return float64(b.Elapsed()) / float64(b.N)
	}
	before, err := r.instance.Stats()
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	c.cause(b)
	b.StopTimer()
	after, err := r.instance.Stats()
	if err != nil {
		b.Fatal(err)
	}
	sort.Slice(after, func(i, j int) bool { return after[i].Function < after[j].Function })
	event := 0.0
	for _, s := range after {
		runs, time := s.KernelRuns, s.Runtime
		for _, old := range before {
			if old.Function == s.Function {
				runs, time = runs-old.KernelRuns, time-old.Runtime
			}
		}
		if runs > 0 {
			net := float64(time) - float64(runs)*empty
			event += net / float64(b.N)
			b.ReportMetric(net/float64(runs), "ns/"+s.Function)
		}
	}
	b.ReportMetric(event, "ns/event")
	return event
}

func (c *cost) measureBpftrace(b *testing.B, empty float64) float64 {
	script := startBpftrace(b, c.bpftrace)
	if script == nil {
		b.Skip("needs bpftrace")
	}
	if c.prepare != nil {
		c.prepare(b)
	}
	before := script.runtime(b, empty)
	b.ResetTimer()
	c.cause(b)
	b.StopTimer()
	event := (script.runtime(b, empty) - before) / float64(b.N)
	b.ReportMetric(event, "ns/event")
	return event
}

func (r *running) collectBench(b *testing.B) {
	b.Helper()
	snapshot, err := r.collector.Collect(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	snapshot.Release()
}

// emptyRun returns what the kernel reports for a function that does nothing, in ns.
func emptyRun(b *testing.B) float64 {
	b.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		b.Fatal(err)
	}
	defer prog.Close()
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: "sys_exit", Program: prog})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	for range 200000 {
		unix.Syscall(unix.SYS_GETPRIORITY, 0, 0, 0)
	}
	s, err := prog.Stats()
	if err != nil || s.RunCount == 0 {
		b.Fatal("no statistics:", err)
	}
	return float64(s.Runtime) / float64(s.RunCount)
}

// switchThreads passes a byte between two threads of one CPU.
func switchThreads(b *testing.B) {
	var there, back [2]int
	for _, p := range []*[2]int{&there, &back} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			b.Fatal(err)
		}
		defer unix.Close(p[0])
		defer unix.Close(p[1])
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		pin()
		buffer := make([]byte, 1)
		for range b.N {
			_, _ = unix.Read(there[0], buffer)
			_, _ = unix.Write(back[1], buffer)
		}
	}()
	finished := make(chan bool)
	go func() {
		defer close(finished)
		runtime.LockOSThread()
		pin()
		buffer := make([]byte, 1)
		for range b.N {
			_, _ = unix.Write(there[1], buffer)
			_, _ = unix.Read(back[0], buffer)
		}
	}()
	<-done
	<-finished
}
