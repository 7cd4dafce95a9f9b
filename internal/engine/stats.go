package engine

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
)

// FunctionStats is what the kernel or the engine counted for one function.
type FunctionStats struct {
	Function string
	// Runs since the Program started; 0 if it is not counted.
	Runs uint64
	// KernelRuns and Runtime are the kernel's statistics, which only count while they are switched on.
	KernelRuns uint64
	Runtime    time.Duration
	// Missed runs, because the function was running on that CPU already.
	Missed uint64
}

// Runs returns how often each counted function ran, by function. It makes no system calls.
func (i *Instance) Runs() map[string]uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	runs := make(map[string]uint64, len(i.order))
	if i.runs == nil || i.closed {
		return runs
	}
	for _, f := range i.order {
		if f.counted && f.works() {
			runs[f.hook.Function] = i.countOf(f)
		}
	}
	return runs
}

// Stats returns the statistics of all loaded functions: one system call for each.
func (i *Instance) Stats() ([]FunctionStats, error) {
	runs := i.Runs()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, ErrClosed
	}
	var stats []FunctionStats
	for _, f := range i.order {
		if f.prog == nil {
			continue
		}
		s := FunctionStats{Function: f.hook.Function, Runs: runs[f.hook.Function]}
		kernel, err := f.prog.Stats()
		if err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
			return nil, fmt.Errorf("statistics of %s: %w", f.hook.Function, err)
		}
		if err == nil {
			s.KernelRuns, s.Runtime, s.Missed = kernel.RunCount, kernel.Runtime, kernel.RecursionMisses
		}
		stats = append(stats, s)
	}
	return stats, nil
}

// lostSection is where a Program counts what it lost.
const lostSection = ".data.kaon"

// Lost returns the counters of what the Program itself knows to have lost: the
// 64-bit variables of the section .data.kaon, by name.
func (i *Instance) Lost() (map[string]uint64, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	lost := make(map[string]uint64)
	lm := i.maps[lostSection]
	if lm == nil {
		return lost, nil
	}
	if i.closed {
		return nil, ErrClosed
	}
	data := make([]byte, lm.m.ValueSize())
	if err := lm.m.Lookup(uint32(0), &data); err != nil {
		return nil, fmt.Errorf("read %s: %w", lostSection, err)
	}
	for name, offset := range i.lostCounters {
		if int(offset)+8 <= len(data) {
			lost[name] = nativeUint64(data[offset:])
		}
	}
	return lost, nil
}

// lostCounters returns the offsets in bytes of the variables that Lost reads.
func lostCounters(coll *ebpf.CollectionSpec) map[string]uint32 {
	counters := make(map[string]uint32)
	for name, v := range coll.Variables {
		if v.SectionName == lostSection && v.Size() == 8 {
			counters[name] = v.Offset
		}
	}
	return counters
}
