// Package stream reads the typed records that Programs send through ring buffers, and makes
// aggregates of them.
package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"

	"github.com/kaon-project/kaon/internal/program"
)

// Errors of rings.
var (
	ErrNoStream = errors.New("the program has no such stream")
	ErrClosed   = errors.New("the ring is closed")
)

// Maps is what a Set needs of a loaded Program.
type Maps interface {
	// Map returns a map by its name in the object, nil if there is none.
	Map(name string) *ebpf.Map
}

// Set opens the rings of one Program when they are first asked for. It is safe for concurrent use.
type Set struct {
	spec *program.Spec
	maps Maps

	mu     sync.Mutex
	rings  map[string]*Ring
	closed bool
}

// NewSet returns the rings of a loaded Program. Close it before the Program is unloaded.
func NewSet(spec *program.Spec, maps Maps) *Set {
	return &Set{spec: spec, maps: maps, rings: map[string]*Ring{}}
}

// Ring returns the ring of a stream. The Set owns it.
func (s *Set) Ring(name string) (*Ring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("read the stream %s: %w", name, ErrClosed)
	}
	if r := s.rings[name]; r != nil {
		return r, nil
	}
	for _, stream := range s.spec.Streams {
		if stream.Name != name {
			continue
		}
		m := s.maps.Map(name)
		if m == nil {
			break
		}
		r, err := open(m, stream)
		if err != nil {
			return nil, err
		}
		s.rings[name] = r
		return r, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrNoStream, name)
}

// Short returns how many records were too short to be what they should be, by stream.
func (s *Set) Short() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	short := make(map[string]uint64, len(s.rings))
	for name, r := range s.rings {
		short[name] = r.short.Load()
	}
	return short
}

// Lost returns how many records the kernel had no room for, by stream, as far as it tells: rings of
// bpf_ringbuf_* don't.
func (s *Set) Lost() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := make(map[string]uint64, len(s.rings))
	for name, r := range s.rings {
		if r.source.tellsLost() {
			lost[name] = r.lost.Load()
		}
	}
	return lost
}

// Close stops reading. What consumers have gathered stays.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, r := range s.rings {
		errs = append(errs, r.close())
	}
	return errors.Join(errs...)
}

// source is what the kernel fills: a ring buffer, or a perf buffer for each CPU.
type source interface {
	// next returns the next record, valid until the next call, or how many were lost. It waits for one, until
	// flush is called and all others were returned: then the error is errFlushed. Other errors are final.
	next() (record []byte, lost uint64, err error)
	flush() error
	// available returns the bytes that wait to be read, records with recordHeader, or more than ever come
	// if it does not tell; then a flush ends a reading also where records keep coming.
	available() int
	tellsLost() bool
	close() error
}

var errFlushed = errors.New("flushed")

// openers has an entry for each type of map that streams can be.
func openers() map[ebpf.MapType]func(*ebpf.Map) (source, error) {
	return map[ebpf.MapType]func(*ebpf.Map) (source, error){
		ebpf.RingBuf:        openRingBuffer,
		ebpf.PerfEventArray: openPerfBuffers,
	}
}

type ringBuffer struct {
	reader *ringbuf.Reader
	record ringbuf.Record
}

func openRingBuffer(m *ebpf.Map) (source, error) {
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, err
	}
	return &ringBuffer{reader: reader}, nil
}

func (b *ringBuffer) next() ([]byte, uint64, error) {
	err := b.reader.ReadInto(&b.record)
	if errors.Is(err, ringbuf.ErrFlushed) {
		err = errFlushed
	}
	return b.record.RawSample, 0, err
}

func (b *ringBuffer) flush() error    { return b.reader.Flush() }
func (b *ringBuffer) available() int  { return b.reader.AvailableBytes() }
func (b *ringBuffer) tellsLost() bool { return false }
func (b *ringBuffer) close() error    { return b.reader.Close() }

// Ring reads one ring buffer and hands each record to its consumers.
type Ring struct {
	stream program.Stream
	source source
	done   chan struct{}
	short  atomic.Uint64
	lost   atomic.Uint64

	mu        sync.Mutex
	consumers []func(record []byte)
	waiters   []*waiter
	round     int // of reading the ring until it is empty
	closed    bool
}

// waiter is a call of Sync.
type waiter struct {
	done chan struct{}
	// round in which it came: a flush that ends a later one was its own or came after.
	round int
	// left are the bytes of the ring that have to be handed out, after the record that was on its way.
	left     int
	onItsWay bool
}

func open(m *ebpf.Map, stream program.Stream) (*Ring, error) {
	open := openers()[m.Type()]
	if open == nil {
		return nil, fmt.Errorf("read the stream %s: a map of type %s carries no records", stream.Name, m.Type())
	}
	source, err := open(m)
	if err != nil {
		return nil, fmt.Errorf("read the stream %s: %w", stream.Name, err)
	}
	r := &Ring{stream: stream, source: source, done: make(chan struct{})}
	go r.read()
	return r, nil
}

// Consume adds a consumer, which is called with each record from now on, one at a time. The record
// is valid during the call, and at least Stream.RecordSize long.
func (r *Ring) Consume(consumer func(record []byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.consumers = append(r.consumers, consumer)
}

// Sync waits until the records that were sent before the call were handed out.
func (r *Ring) Sync(ctx context.Context) error {
	wait := make(chan struct{})
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return fmt.Errorf("read the stream %s: %w", r.stream.Name, ErrClosed)
	}
	r.waiters = append(r.waiters, &waiter{done: wait, round: r.round, left: r.source.available(), onItsWay: true})
	r.mu.Unlock()
	if err := r.source.flush(); err != nil {
		return fmt.Errorf("read the stream %s: %w", r.stream.Name, err)
	}
	select {
	case <-wait:
		return nil
	case <-r.done:
		return fmt.Errorf("read the stream %s: %w", r.stream.Name, ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("read the stream %s: %w", r.stream.Name, ctx.Err())
	}
}

func (r *Ring) read() {
	defer close(r.done)
	for {
		r.mu.Lock()
		r.round++
		r.mu.Unlock()
		record, lost, err := r.source.next()
		for ; err == nil; record, lost, err = r.source.next() {
			if lost > 0 {
				r.lost.Add(lost)
				continue
			}
			r.hand(record)
		}
		if !errors.Is(err, errFlushed) {
			return // closed; nothing else ends a ring
		}
		r.releaseFlushed()
	}
}

// recordHeader is what a record takes in the ring besides its bytes, which are rounded up to as many.
const recordHeader = 8

func (r *Ring) hand(record []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(record) < int(r.stream.RecordSize) {
		r.short.Add(1)
	} else {
		for _, consume := range r.consumers {
			consume(record)
		}
	}
	// A ring that is never empty is never flushed: who waits has got what there was when it came.
	if len(r.waiters) == 0 {
		return
	}
	size := recordHeader + (len(record)+recordHeader-1)&^(recordHeader-1)
	r.release(func(w *waiter) bool {
		if !w.onItsWay {
			w.left -= size
		}
		w.onItsWay = false
		return w.left <= 0
	})
}

// release ends the calls of Sync that are through.
func (r *Ring) release(through func(*waiter) bool) {
	r.waiters = slices.DeleteFunc(r.waiters, func(w *waiter) bool {
		if !through(w) {
			return false
		}
		close(w.done)
		return true
	})
}

// releaseFlushed ends the calls of Sync that were there before the ring was read empty. A later one
// needs another flush, because its own may have been this one.
func (r *Ring) releaseFlushed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release(func(w *waiter) bool { return w.round < r.round })
	if len(r.waiters) > 0 {
		// The ring is not closed while the lock is held; if it is about to be, nobody waits for long.
		_ = r.source.flush()
	}
}

func (r *Ring) close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	err := r.source.close()
	<-r.done
	if err != nil {
		return fmt.Errorf("close the stream %s: %w", r.stream.Name, err)
	}
	return nil
}
