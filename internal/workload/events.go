package workload

import (
	"bytes"
	_ "embed" // for the object file
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

//go:embed bpf/cgroups.bpf.o
var cgroupsObject []byte

// events is the kernel's side: what is made and removed comes through a ring.
type events struct {
	collection *ebpf.Collection
	links      []link.Link
	reader     *ringbuf.Reader

	mu sync.Mutex
	// taken slots of the map sets.
	taken [maxSets]bool
}

// openEvents loads and attaches the program for the given hierarchies. From its return on, every cgroup
// that is made or removed is in the ring or counted as lost.
func openEvents(l Layout, types *btf.Spec) (_ *events, err error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(cgroupsObject))
	if err != nil {
		return nil, fmt.Errorf("parse cgroup program: %w", err)
	}
	var v2 uint8
	if l.V2.Present() {
		v2 = 1
	}
	for name, value := range map[string]any{"v2": v2, "v1_hierarchy": uint32(l.V1.Number)} {
		if err := spec.Variables[name].Set(value); err != nil {
			return nil, fmt.Errorf("set %s of cgroup program: %w", name, err)
		}
	}
	e := &events{}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	e.collection, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{KernelTypes: types}})
	if err != nil {
		return nil, fmt.Errorf("load cgroup program: %w", err)
	}
	if e.reader, err = ringbuf.NewReader(e.collection.Maps["events"]); err != nil {
		return nil, fmt.Errorf("open ring of cgroup program: %w", err)
	}
	// Removal first: a cgroup whose removal is missed would live forever.
	for _, at := range [...]struct{ tracepoint, function string }{
		{"cgroup_rmdir", "cgroup_removed"},
		{"cgroup_mkdir", "cgroup_made"},
	} {
		k, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: at.tracepoint, Program: e.collection.Programs[at.function]})
		if err != nil {
			return nil, fmt.Errorf("attach to raw tracepoint %s: %w", at.tracepoint, err)
		}
		e.links = append(e.links, k)
	}
	return e, nil
}

// maxSets is SETS of cgroups.bpf.c.
const maxSets = 64

// inherit puts a set of cgroups where the kernel keeps it; the result takes it out again.
func (e *events) inherit(set *ebpf.Map) (release func() error, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	slot := slices.Index(e.taken[:], false)
	if slot < 0 {
		return nil, fmt.Errorf("there are %d sets of cgroups already", maxSets)
	}
	if err := e.collection.Maps["sets"].Put(uint32(slot), set); err != nil {
		return nil, fmt.Errorf("put a set of cgroups into slot %d: %w", slot, err)
	}
	e.taken[slot] = true
	return func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.taken[slot] = false
		if err := e.collection.Maps["sets"].Delete(uint32(slot)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("take a set of cgroups out of slot %d: %w", slot, err)
		}
		return nil
	}, nil
}

func (e *events) close() error {
	var errs []error
	for _, k := range e.links {
		errs = append(errs, k.Close())
	}
	if e.reader != nil {
		errs = append(errs, e.reader.Close())
	}
	if e.collection != nil {
		e.collection.Close()
	}
	return errors.Join(errs...)
}

// lost returns the number of events so far that found no room in the ring.
func (e *events) lost() (n uint64, err error) {
	err = e.collection.Maps["lost"].Lookup(uint32(0), &n)
	return n, err
}

const (
	cgroupMade    = 1
	cgroupRemoved = 2
	// eventHeader and eventPath are those of struct event in cgroups.bpf.c.
	eventHeader = 32
	eventPath   = 1024
)

var errShortEvent = errors.New("short record from cgroup program")

// event is one cgroup made or removed.
type event struct {
	id, parent ID
	kind       uint32
	// time is CLOCK_MONOTONIC in nanoseconds.
	time int64
	path string
	// truncated: path was cut by the kernel.
	truncated bool
}

func decodeEvent(raw []byte) (event, error) {
	if len(raw) < eventHeader {
		return event{}, errShortEvent
	}
	h := Hierarchy{Number: uint16(binary.NativeEndian.Uint32(raw[24:]))}
	e := event{
		id:   h.ID(binary.NativeEndian.Uint64(raw)),
		time: int64(binary.NativeEndian.Uint64(raw[16:])),
		kind: binary.NativeEndian.Uint32(raw[28:]),
	}
	if parent := binary.NativeEndian.Uint64(raw[8:]); parent != 0 {
		e.parent = h.ID(parent)
	}
	path := raw[eventHeader:]
	if end := bytes.IndexByte(path, 0); end >= 0 {
		path = path[:end]
	}
	e.truncated = len(path) == 0 || len(path) >= eventPath-1
	e.path = string(path)
	return e, nil
}

func monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}
