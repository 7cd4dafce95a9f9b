package profile

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ianlancetaylor/demangle"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/workload"
)

// nameTime is how long looking up names may take.
const nameTime = 30 * time.Second

// place is where a frame's code is: in a file, or else in the memory of a process or of the kernel.
type place struct {
	object  *object
	process *process
	address uint64 // in a file: the offset
}

// namer finds the names of all places at once, file by file.
type namer struct {
	recorder *recorder
	frames   map[place]*Frame
	byObject map[*object][]*Frame
	perfMaps map[*process][]*Frame
	unmapped map[uint64]*Frame
	lost     *Frame
}

// name turns what was recorded into a profile.
func (r *recorder) name(ctx context.Context, p *Profile) {
	ctx, cancel := context.WithTimeout(ctx, nameTime)
	defer cancel()
	n := &namer{
		recorder: r, frames: map[place]*Frame{}, byObject: map[*object][]*Frame{}, perfMaps: map[*process][]*Frame{},
		unmapped: map[uint64]*Frame{}, lost: &Frame{missing: lostStack},
	}
	for key, count := range r.samples {
		p.Samples = append(p.Samples, r.newSample(n, key, count))
		if period := time.Duration(count.Nanoseconds / max(count.Samples, 1)); p.Period == 0 || period < p.Period {
			p.Period = period
		}
	}
	slices.SortFunc(p.Samples, func(a, b Sample) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.PID, b.PID), cmp.Compare(a.Thread, b.Thread), cmp.Compare(len(a.Stack), len(b.Stack)))
	})
	if !n.lookUp(ctx) {
		r.losses.Late = true
	}
	p.kernelBuildID = kernelBuildID()
	p.Losses = r.losses
	p.countMissing()
}

func (r *recorder) newSample(n *namer, key sampleKey, count stackCount) Sample {
	r.resolve(key.workload)
	s := Sample{
		Workload: r.workloads[key.workload], WorkloadID: workload.ID(key.workload),
		PID: key.space.process, Process: text(key.name[:]), Thread: text(key.thread[:]),
		Count: count.Samples, Nanoseconds: count.Nanoseconds,
	}
	n.add(&s, key.kernel, func(address uint64) *Frame { return n.kernel(address) })
	n.add(&s, key.user, func(address uint64) *Frame { return n.user(key.space, address) })
	return s
}

// add appends a stack to a sample. Those that call the innermost function are where they will go on: one behind the call.
func (n *namer) add(s *Sample, id stackID, frame func(address uint64) *Frame) {
	switch {
	case id == -stackID(unix.EFAULT):
		return // there is none
	case id < 0:
		s.Stack = append(s.Stack, n.lost)
		return
	}
	for i, address := range n.recorder.stacks[id] {
		if i > 0 {
			address--
		}
		s.Stack = append(s.Stack, frame(address))
	}
}

func text(name []byte) string {
	if end := bytes.IndexByte(name, 0); end >= 0 {
		name = name[:end]
	}
	return string(bytes.ToValidUTF8(name, []byte("\uFFFD")))
}

func (n *namer) kernel(address uint64) *Frame {
	at := place{address: address}
	if f := n.frames[at]; f != nil {
		return f
	}
	f := &Frame{Kernel: true, Address: address, missing: hidden}
	if n.recorder.options.Symbol != nil {
		f.set(n.recorder.options.Symbol(address))
	}
	n.frames[at] = f
	return f
}

func (f *Frame) set(symbol string) {
	if symbol == "" {
		return
	}
	f.Symbol, f.Name, f.missing = symbol, demangled(symbol), named
}

// demangled is the name that a function has in its source, without its parameters.
func demangled(symbol string) (name string) {
	// What a hostile file calls its functions must not be ours to die of.
	defer func() {
		if recover() != nil {
			name = symbol
		}
	}()
	name, err := demangle.ToString(symbol, demangle.NoParams, demangle.NoEnclosingParams, demangle.MaxLength(12))
	if err != nil || name == "" {
		return symbol
	}
	return name
}

func (n *namer) user(s space, address uint64) *Frame {
	process := n.recorder.processes.known[s]
	if process == nil || len(process.mappings) == 0 {
		return n.nowhere(address, ended)
	}
	m := find(process.mappings, address)
	if m == nil {
		return n.nowhere(address, unmapped)
	}
	at := place{process: process, address: address}
	if m.object != nil {
		at = place{object: m.object, address: address - m.start + m.offset}
		if m.path == "[vdso]" {
			at.address = address - m.start
		}
	}
	f := n.frames[at]
	if f == nil {
		f = &Frame{Address: at.address}
		if m.object != nil {
			f.missing, f.Binary = noSymbols, m.object.binary
			n.byObject[m.object] = append(n.byObject[m.object], f)
		} else {
			f.missing = generated
			n.perfMaps[process] = append(n.perfMaps[process], f)
		}
		n.frames[at] = f
	}
	return f
}

func (n *namer) nowhere(address uint64, why reason) *Frame {
	f := n.unmapped[address]
	if f == nil || f.missing != why {
		f = &Frame{Address: address, missing: why}
		n.unmapped[address] = f
	}
	return f
}

// lookUp reads the files, and returns whether it came to an end. What it can't read has no names.
func (n *namer) lookUp(ctx context.Context) bool {
	// A read may hang: then its result is not waited for, and must not be written to what is in use.
	type work struct {
		frames []*Frame
		read   func() *result
	}
	var all []work
	for o, frames := range n.byObject {
		slices.SortFunc(frames, func(a, b *Frame) int { return cmp.Compare(a.Address, b.Address) })
		offsets, file := addresses(frames), n.recorder.processes.contents(o)
		all = append(all, work{frames, func() *result { return readFunctions(ctx, file, offsets) }})
	}
	for process, frames := range n.perfMaps {
		if process.perfMap == nil {
			continue
		}
		slices.SortFunc(frames, func(a, b *Frame) int { return cmp.Compare(a.Address, b.Address) })
		list, file := addresses(frames), process.perfMap
		all = append(all, work{frames, func() *result { return readNames(ctx, file, list) }})
	}
	type done struct {
		frames []*Frame
		result *result
	}
	results := make(chan done, len(all))
	slots := make(chan struct{}, min(runtime.GOMAXPROCS(0), 4))
	var start sync.WaitGroup
	start.Go(func() {
		for _, w := range all {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				results <- done{w.frames, w.read()}
				<-slots
			}()
		}
	})
	defer start.Wait()
	for range all {
		select {
		case d := <-results:
			d.result.put(d.frames)
		case <-ctx.Done():
			return false
		}
	}
	return ctx.Err() == nil
}

func addresses(frames []*Frame) []uint64 {
	list := make([]uint64, len(frames))
	for i, f := range frames {
		list[i] = f.Address
	}
	return list
}

// result is what a file says of the frames in it.
type result struct {
	addresses []uint64 // nil: they stay as they are
	names     []string
	buildID   string
	segments  []Segment
}

func (r *result) put(frames []*Frame) {
	for i, f := range frames {
		if r.addresses != nil {
			f.Address = r.addresses[i]
		}
		if i < len(r.names) {
			f.set(r.names[i])
		}
		if b := f.Binary; b != nil {
			b.BuildID, b.Segments = r.buildID, r.segments
		}
	}
}

// readFunctions names the functions at sorted offsets of a file, nil if it could not be opened.
func readFunctions(ctx context.Context, contents io.ReaderAt, offsets []uint64) *result {
	if contents == nil {
		return &result{}
	}
	file, err := openELF(contents)
	if err != nil {
		return &result{}
	}
	// By address: segments need not be in the order of the file.
	type where struct {
		address uint64
		index   int
	}
	list := make([]where, 0, len(offsets))
	converted := slices.Clone(offsets)
	for i, offset := range offsets {
		if a, ok := address(file.segments, offset); ok {
			list = append(list, where{a, i})
			converted[i] = a
		}
	}
	slices.SortFunc(list, func(a, b where) int { return cmp.Compare(a.address, b.address) })
	sorted := make([]uint64, len(list))
	for i, w := range list {
		sorted[i] = w.address
	}
	found, err := file.functions(ctx, sorted)
	if err != nil {
		return &result{} // it took too long
	}
	names := make([]string, len(offsets))
	for i, w := range list {
		names[w.index] = found[i]
	}
	return &result{addresses: converted, names: names, buildID: file.buildID, segments: file.segments}
}

// readNames reads a list that a compiler at run time left. It may have grown since it was opened.
func readNames(ctx context.Context, f *os.File, list []uint64) *result {
	if _, err := f.Seek(0, 0); err != nil {
		return &result{}
	}
	names, err := readPerfMap(ctx, f, list)
	if err != nil {
		return &result{}
	}
	return &result{names: names}
}

// countMissing counts what is not known.
func (p *Profile) countMissing() {
	p.Losses.Missing = Missing{Binaries: map[string]uint64{}}
	l := &p.Losses.Missing
	for i := range p.Samples {
		s := &p.Samples[i]
		for _, f := range s.Stack {
			switch f.missing {
			case ended:
				l.Ended += s.Count
			case noSymbols:
				l.NoSymbols += s.Count
				l.Binaries[f.Binary.Path] += s.Count
			case unmapped:
				l.Unmapped += s.Count
			case generated:
				l.Generated += s.Count
			case hidden:
				l.Kernel += s.Count
			case lostStack:
				l.Stacks += s.Count
			}
		}
	}
}

// kernelBuildID is the running kernel's, empty if it does not say.
func kernelBuildID() string {
	notes, err := os.ReadFile("/sys/kernel/notes")
	if err != nil {
		return ""
	}
	return gnuBuildID(notes)
}
