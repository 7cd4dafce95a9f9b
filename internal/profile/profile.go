// Package profile turns the stacks that a Program collects into a profile: it empties the Program's maps while
// it runs, notes what the processes have mapped before they end, and names functions when it is over.
package profile

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/workload"
)

// ErrNoStacks means that a Program does not collect stacks.
var ErrNoStacks = errors.New("the program collects no stacks")

// Param is the param that makes a Program collect stacks.
const Param = "stacks"

// Check returns an error that wraps ErrNoStacks unless the Program can be recorded.
func Check(spec *program.Spec) error {
	switchable := false
	for _, p := range spec.Params {
		switchable = switchable || p.Name == Param
	}
	for _, name := range mapNames() {
		if switchable && spec.Collection != nil && spec.Collection.Maps[name] != nil {
			continue
		}
		return fmt.Errorf("%s: %w", spec.Name, ErrNoStacks)
	}
	return nil
}

// A Profile says how often each stack was seen.
type Profile struct {
	Samples []Sample
	// Begun is when sampling began; it took Duration.
	Begun    time.Time
	Duration time.Duration
	// Period is the time between two samples of a CPU; 0 if there is none.
	Period time.Duration
	Losses Losses

	kernelBuildID string
}

// Sample is one stack of one thread's name, and how often it was seen.
type Sample struct {
	Workload workload.Workload
	// WorkloadID is the cgroup's id.
	WorkloadID workload.ID
	// PID is the process's number in the machine's own namespace.
	PID             uint32
	Process, Thread string
	// Stack has the innermost function first: those of the kernel, then those of user space.
	Stack []*Frame
	Count uint64
	// Nanoseconds of CPU time that the samples stand for.
	Nanoseconds uint64
}

// Frame is one place in the code.
type Frame struct {
	// Name of the function, for readers. Empty if it is not known.
	Name string
	// Symbol is the name as the file has it: mangled, for C++ and Rust.
	Symbol string
	Kernel bool
	// Address in the file's own address space, as its symbol table has it; in the kernel and in
	// code that was made at run time: in memory.
	Address uint64
	// Binary is the file that the code is from, nil if it is from none.
	Binary *Binary

	missing reason
}

// Binary is a file that code was mapped from.
type Binary struct {
	// Path as the process saw it.
	Path    string
	BuildID string
	// Segments are its executable parts.
	Segments []Segment
}

// Segment is an executable part of a file: Size bytes from Offset on, meant to be at Address.
type Segment struct{ Offset, Address, Size uint64 }

// reason says why a frame has no name.
type reason uint8

const (
	named reason = iota
	// ended: the process was gone before its memory map could be read.
	ended
	// noSymbols: the file has no name for the address, or could not be read.
	noSymbols
	// unmapped: nothing is mapped there: the stack was walked wrongly.
	unmapped
	// generated: code that was made at run time, by a compiler that leaves no /tmp/perf-PID.map.
	generated
	// hidden: the kernel does not show its symbols, or does not know this one.
	hidden
	// lostStack stands for a stack that found no room.
	lostStack
)

// Losses says what is missing in a profile.
type Losses struct {
	// Samples that are not in the profile, for lack of room.
	Samples uint64
	// Late says that names were not looked up to the end, because it took too long.
	Late bool
	Missing
}

// Missing counts what is not known of the samples of a profile, each as often as it was seen.
type Missing struct {
	// Stacks that found no room in the kernel's maps.
	Stacks uint64
	// Frames without a name, by why.
	Ended, NoSymbols, Unmapped, Generated, Kernel uint64
	// Binaries without symbols, by path: frames.
	Binaries map[string]uint64
}

// Total returns the number of samples in the profile and the CPU time that they stand for.
func (p *Profile) Total() (samples uint64, cpu time.Duration) {
	var ns uint64
	for i := range p.Samples {
		samples += p.Samples[i].Count
		ns += p.Samples[i].Nanoseconds
	}
	return samples, time.Duration(ns)
}

// Keep drops the samples whose labels, in the text form of package series, do not pass.
func (p *Profile) Keep(match func(labels string) bool) {
	kept := p.Samples[:0]
	for _, s := range p.Samples {
		var text []byte
		s.eachLabel(func(name, value string) { text = series.AppendLabel(text, name, value) })
		text = series.AppendLabel(text, "pid", strconv.FormatUint(uint64(s.PID), 10))
		if match(string(text)) {
			kept = append(kept, s)
		}
	}
	p.Samples = kept
	p.countMissing()
}

// eachLabel yields what is known of who was sampled, its number excepted.
func (s *Sample) eachLabel(yield func(name, value string)) {
	for i, v := range s.workloadValues() {
		if v != "" {
			yield(workload.Labels[i], v)
		}
	}
	s.Workload.Extra.Each(yield)
	yield("process", s.Process)
	yield("comm", s.Thread)
}

func (s *Sample) workloadValues() [len(workload.Labels)]string {
	if s.Workload == (workload.Workload{}) {
		return [len(workload.Labels)]string{len(workload.Labels) - 1: fmt.Sprintf("unresolved:%d", uint64(s.WorkloadID)&(1<<48-1))}
	}
	return s.Workload.Values()
}

// label returns what to show for a frame, whatever is known of it.
func (f *Frame) label() string {
	switch {
	case f.Name != "":
		return f.Name
	case f.missing == lostStack:
		return "[lost stack]"
	case f.Kernel:
		return fmt.Sprintf("[kernel 0x%x]", f.Address)
	case f.Binary != nil:
		return fmt.Sprintf("[%s+0x%x]", base(f.Binary.Path), f.Address)
	case f.missing == generated:
		return "[generated code]"
	}
	return "[unknown]"
}
