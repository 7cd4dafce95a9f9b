package profile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ringBytes is how much room each CPU has for what its processes do between two looks: about 1,500 programs started.
const ringBytes = 256 << 10

// events tells what processes map, fork, start and when they end, from the kernel's own records of it. So processes that are gone before anybody
// could look at them have mappings, too.
type events struct {
	rings []*ring
}

// ring is what one CPU writes and this process reads.
type ring struct {
	fd     int
	memory []byte
}

// openEvents begins to listen, on all CPUs.
func openEvents() (*events, error) {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, err
	}
	e := &events{}
	for cpu := range cpus {
		r, err := openRing(cpu)
		if errors.Is(err, unix.ENODEV) {
			continue // offline
		}
		if err != nil {
			e.close()
			return nil, fmt.Errorf("listen to what processes map: %w", err)
		}
		e.rings = append(e.rings, r)
	}
	return e, nil
}

func openRing(cpu int) (*ring, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Config: unix.PERF_COUNT_SW_DUMMY,
		Sample_type: unix.PERF_SAMPLE_TIME,
		Bits:        unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitComm | unix.PerfBitCommExec | unix.PerfBitTask | unix.PerfBitSampleIDAll,
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	memory, err := unix.Mmap(fd, 0, os.Getpagesize()+ringBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &ring{fd: fd, memory: memory}, nil
}

func (e *events) close() {
	for _, r := range e.rings {
		_ = unix.Munmap(r.memory) // what could be wrong is in this file
		unix.Close(r.fd)
	}
	e.rings = nil
}

// commExec marks a change of name that is an exec's: PERF_RECORD_MISC_COMM_EXEC.
const commExec = 1 << 13

// record is one thing that a process did.
type record struct {
	time uint64
	kind uint32
	pid  uint32
	// parent of one that is new.
	parent uint32
	// exec: a new program begins in the process.
	exec bool
	name string
	// mapping is what it mapped; start 0: nothing.
	mapping mapping
}

// read takes all records out of the rings, in the order of time.
func (e *events) read() []record {
	var all []record
	for _, r := range e.rings {
		all = r.read(all)
	}
	slices.SortStableFunc(all, func(a, b record) int { return cmp.Compare(a.time, b.time) })
	return all
}

func (r *ring) read(all []record) []record {
	page := (*unix.PerfEventMmapPage)(unsafe.Pointer(&r.memory[0]))
	data := r.memory[len(r.memory)-ringBytes:]
	tail := page.Data_tail
	head := atomic.LoadUint64(&page.Data_head)
	if head-tail > ringBytes {
		tail = head // it is not as it should be
	}
	// In one piece, as records go on at the beginning where the ring ends.
	pending := make([]byte, head-tail)
	n := copy(pending, data[tail%ringBytes:])
	copy(pending[n:], data)
	atomic.StoreUint64(&page.Data_tail, head)
	runtime.KeepAlive(r)
	return parseRecords(all, pending)
}

// parseRecords reads records as perf_event_open(2) describes them, each with its time in the end.
func parseRecords(all []record, data []byte) []record {
	const header, timeSize = 8, 8
	for len(data) >= header {
		kind, misc, size := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint16(data[4:]), int(binary.LittleEndian.Uint16(data[6:]))
		if size < header+timeSize || size > len(data) {
			return all
		}
		body := data[header : size-timeSize]
		r := record{kind: kind, time: binary.LittleEndian.Uint64(data[size-timeSize : size])}
		data = data[size:]
		if r.parse(misc, body) {
			all = append(all, r)
		}
	}
	return all
}

// parse reads what follows a record's header; false if it does not matter.
func (r *record) parse(misc uint16, body []byte) bool {
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(body[at:]) }
	long := func(at int) uint64 { return binary.LittleEndian.Uint64(body[at:]) }
	switch r.kind {
	case unix.PERF_RECORD_FORK, unix.PERF_RECORD_EXIT: // pid, ppid, tid, ptid, time
		if len(body) < 24 || word(0) != word(8) {
			return false // of a thread
		}
		r.pid, r.parent = word(0), word(4)
		return true
	case unix.PERF_RECORD_COMM: // pid, tid, name
		if len(body) < 8 || misc&commExec == 0 && word(0) != word(4) {
			return false
		}
		r.pid, r.exec, r.name = word(0), misc&commExec != 0, text(body[8:])
		return true
	case unix.PERF_RECORD_MMAP2: // pid, tid, start, size, offset, major, minor, inode, generation, protection, flags, path
		if len(body) < 64 {
			return false
		}
		start, size, offset := long(8), long(16), long(24)
		if size == 0 || start+size < start || offset+size < offset || word(56)&unix.PROT_EXEC == 0 {
			return false
		}
		path := body[64:]
		if end := bytes.IndexByte(path, 0); end >= 0 {
			path = path[:end]
		}
		r.pid = word(0)
		r.mapping = mapping{
			start: start, end: start + size, offset: offset,
			device: fmt.Sprintf("%02x:%02x", word(32), word(36)), inode: long(40), path: string(path),
		}
		if r.mapping.path == "//anon" {
			r.mapping.path = ""
		}
		return true
	}
	return false
}

// Bounds of what is remembered of processes that nobody has sampled (yet).
const (
	maxLives       = 32768
	maxGenerations = 4
)

// life is what is known of a process from events: since it was forked, or since sampling began.
type life struct {
	parent uint32
	// generations begin with each exec. The latest comes last.
	generations []generation
}

type generation struct {
	name     string
	mappings []mapping
}

// lives follows events.
type lives struct {
	byPID map[uint32]*life
	// ended have 0: those that ended since the last turn, 1: in the turn before.
	ended [2][]uint32
}

func newLives() *lives { return &lives{byPID: map[uint32]*life{}} }

// turn forgets the processes that ended before the turn before: what they did has been seen by now.
func (l *lives) turn() {
	for _, pid := range l.ended[1] {
		delete(l.byPID, pid)
	}
	l.ended[0], l.ended[1] = nil, l.ended[0]
}

func (l *lives) apply(r *record) {
	switch r.kind {
	case unix.PERF_RECORD_FORK:
		child := &life{parent: r.parent}
		if parent := l.byPID[r.parent]; parent != nil && len(parent.generations) > 0 {
			latest := parent.generations[len(parent.generations)-1]
			latest.mappings = slices.Clip(latest.mappings)
			child.generations = []generation{latest}
		}
		l.begin(r.pid, child)
	case unix.PERF_RECORD_EXIT:
		l.ended[0] = append(l.ended[0], r.pid)
	case unix.PERF_RECORD_COMM:
		if r.exec {
			l.of(r.pid).next(r.name)
		} else if p := l.byPID[r.pid]; p != nil {
			p.latest().name = r.name
		}
	case unix.PERF_RECORD_MMAP2:
		g := l.of(r.pid).latest()
		// Not in place: a child may have the same.
		g.mappings = merge(g.mappings, []mapping{r.mapping})
	}
}

// begin enters a new process; its number may have been another's.
func (l *lives) begin(pid uint32, p *life) {
	if len(l.byPID) >= maxLives && l.byPID[pid] == nil {
		return
	}
	l.byPID[pid] = p
	for i := range l.ended {
		l.ended[i] = slices.DeleteFunc(l.ended[i], func(other uint32) bool { return other == pid })
	}
}

// of returns a process, which may be older than the events.
func (l *lives) of(pid uint32) *life {
	if p := l.byPID[pid]; p != nil {
		return p
	}
	p := &life{}
	l.begin(pid, p)
	return p
}

func (p *life) next(name string) {
	p.generations = append(p.generations, generation{name: name})
	if len(p.generations) > maxGenerations {
		p.generations = slices.Delete(p.generations, 0, 1)
	}
}

func (p *life) latest() *generation {
	if len(p.generations) == 0 {
		p.generations = append(p.generations, generation{})
	}
	return &p.generations[len(p.generations)-1]
}

// named returns the mappings of the program that the process ran under that name: before an exec that is its parent's. A name that is not
// known is one that the latest had before it called itself otherwise.
func (p *life) named(name string) []mapping {
	for _, g := range slices.Backward(p.generations) {
		if g.name == name {
			return g.mappings
		}
	}
	return p.latest().mappings
}
