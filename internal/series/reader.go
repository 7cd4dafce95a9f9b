package series

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// Errors of readers.
var (
	ErrUnreadable = errors.New("map can't be read as a metric")
	ErrNoMap      = errors.New("the program has no such map")
	ErrTornRecord = errors.New("the output ends within a record")
)

// A reader yields everything that there is at one moment, each key once unless
// it is additive.
type reader interface {
	// open returns the layout of values. It is called before each read.
	open() (parts, error)
	// read calls yield with n keys and n values, back to back, until all were
	// yielded. They are valid until yield returns.
	read(ctx context.Context, yield func(keys, values []byte, n int)) error
}

// remover is a reader whose keys can be deleted.
type remover interface {
	// removes says whether it lets keys be deleted.
	removes() bool
	// remove deletes a key and returns its last value, nil if it was gone already.
	remove(key []byte) ([]byte, error)
}

// sparse is a reader whose entries may lack the number of a metric. It yields one at a time.
type sparse interface {
	// absent is asked while an entry is being yielded.
	absent(m *program.Metric) bool
}

// adopter is a reader with a memory of its own, which survives a reload.
type adopter interface{ adopt(old reader) }

// sized is a reader that can hold only so many keys.
type sized interface{ capacity() int }

// readerInfo says how the keys and values of a kind of reader are to be treated.
type readerInfo struct {
	// additive readers may yield a key several times: the values are added up.
	additive bool
	// perCPU values have one part for each CPU.
	perCPU bool
	// dense readers yield all possible keys: those that were always zero are no series.
	dense bool
}

// newReader makes the reader of a spec's Reader.
func newReader(spec *program.Spec, r *program.Reader, source Source, b *buffer, options *Options) (reader, readerInfo, error) {
	open := map[program.ReaderKind]func(*program.Spec, *program.Reader, Source, *buffer, *Options) (reader, readerInfo, error){
		program.MapReader:      newMapReader,
		program.IteratorReader: newIteratorReader,
		program.FileReader:     newFileReader,
		program.FieldReader:    newFieldReader,
		program.StreamReader:   newStreamReader,
	}[r.Kind]
	if open == nil {
		return nil, readerInfo{}, fmt.Errorf("%w: %s: there are no readers of kind %q", ErrUnreadable, r.Name, r.Kind)
	}
	return open(spec, r, source, b, options)
}

// Readable says whether a map of this type can be a metric's reader, and if not, why.
func Readable(t ebpf.MapType) error {
	why := ""
	switch t {
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.Array, ebpf.PerCPUArray, ebpf.LPMTrie,
		ebpf.CGroupStorage, ebpf.PerCPUCGroupStorage, ebpf.CgroupStorage:
		return nil
	case ebpf.TaskStorage, ebpf.SkStorage, ebpf.InodeStorage:
		why = "the kernel lists no keys of local storage: add an iterator program that emits {key, value} records, or use a hash map"
	case ebpf.Queue, ebpf.Stack, ebpf.BloomFilter:
		why = "it has no keys, and reading would take its elements away: use a hash map"
	case ebpf.RingBuf, ebpf.PerfEventArray, ebpf.UserRingbuf:
		why = "it carries events: declare it as a stream"
	case ebpf.StackTrace:
		why = "stacks are no series"
	default:
		why = "it holds references, no values: use a hash map or an array"
	}
	return fmt.Errorf("%w: type %s: %s", ErrUnreadable, t, why)
}

// Buffers are the memory that Collectors read into. Those that share them take as much as read at the same time. The zero value is ready.
type Buffers struct {
	mu   sync.Mutex
	free []buffer
}

const (
	// maxFreeBuffers bounds how many are kept while nobody reads, and maxFreeBytes how large.
	maxFreeBuffers = 4
	maxFreeBytes   = 2 * batchBytes
)

// lend gives b memory that nobody uses now, if there is any.
func (s *Buffers) lend(b *buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if last := len(s.free) - 1; last >= 0 {
		*b, s.free[last] = s.free[last], buffer{}
		s.free = s.free[:last]
	}
}

// takeBack leaves b without memory. Of more than are kept, the smallest goes.
func (s *Buffers) takeBack(b *buffer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { *b = buffer{} }()
	if b.size() == 0 || b.size() > maxFreeBytes {
		return
	}
	if len(s.free) < maxFreeBuffers {
		s.free = append(s.free, *b)
		return
	}
	smallest := 0
	for n := range s.free {
		if s.free[n].size() < s.free[smallest].size() {
			smallest = n
		}
	}
	if s.free[smallest].size() < b.size() {
		s.free[smallest] = *b
	}
}

// buffer is memory for what is read, shared by the readers of one Collector, which read one after the other. It has any
// only while they read.
type buffer struct{ keys, values []byte }

func (b *buffer) size() int { return len(b.keys) + len(b.values) }

func (b *buffer) grow(keys, values int) {
	if len(b.keys) < keys {
		b.keys = make([]byte, keys)
	}
	if len(b.values) < values {
		b.values = make([]byte, values)
	}
}
