package series

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// ErrClosed is returned by a Collector that was closed.
var ErrClosed = errors.New("the collector is closed")

// Source is what a Collector needs of a loaded Program.
type Source interface {
	// Map returns a map by its name in the object, nil if there is none. It must stay open
	// until the Collector is closed, or a later call returns another.
	Map(name string) *ebpf.Map
	// OpenIterator runs the iterator of a function: what is read is what it emits. It returns nil without an
	// error if the function is optional and the kernel did not take it.
	OpenIterator(function string) (io.ReadCloser, error)
}

// Directories knows where cgroups are.
type Directories interface {
	// DirectoryOf returns the directory of a cgroup v2, "" if it is not known (yet).
	DirectoryOf(id workload.ID) string
}

// Starter is a Source that knows when single maps began to count.
type Starter interface {
	// MapStarted returns the zero time for a map of which that is not known.
	MapStarted(name string) time.Time
}

// Options of a Collector. The zero value is useful.
type Options struct {
	// Resolver names workloads. Without one all are unresolved.
	Resolver workload.Resolver
	// Cgroups lists those whose files are read. Without it metrics of such files are refused.
	Cgroups workload.Lister
	// Directories knows where cgroups are. Without it no chain names any.
	Directories Directories
	// Host names devices, interfaces and kernel symbols; Collectors of one agent share it.
	Host *Host
	// Buffers are what Collectors read into; those of one agent share them. nil: the Collector has its own.
	Buffers *Buffers
	// Clock returns the time; nil means time.Now.
	Clock func() time.Time
	// Logger for what does not belong to a single collection; nil discards.
	Logger *slog.Logger
	// Started is when the Program's maps began to count, unless the Source is a Starter; zero means now.
	Started time.Time
	// Previous is the Collector of the same Program before a reload. Readers
	// that are unchanged keep their series, starts and bases. It is closed.
	Previous *Collector
}

// Collector makes series of what a Program's readers yield. It is safe for concurrent use.
type Collector struct {
	readers []*readerState
	options Options

	run    sync.Mutex // held while reading
	buffer *buffer    // of all readers; guarded by run
	mu     sync.Mutex // guards next, closed, stats, and the readers' free frames
	next   *collection
	closed bool
	stats  []ReaderStats
}

// ReaderStats says what became of a reader's last read.
type ReaderStats struct {
	Reader string
	// Entries that were read, and how many there can be (0: not bounded).
	Entries, Capacity int
	// Series that were shown, of all metrics.
	Series int
	// FoldedSeries and CutSeries are keys over the limit, as one series or not shown.
	FoldedSeries, CutSeries int
	// Unresolved are the keys with a label whose name is not known (yet).
	Unresolved int
	// FailedInserts is what the map's overflow entry counted: observations whose key found no room.
	FailedInserts uint64
	// Reaped keys of workloads that are gone, in total.
	Reaped uint64
	// Duration of the last read, and when it began.
	Duration time.Duration
	Time     time.Time
	// Err is why the last read failed, nil if it did not.
	Err error
}

// ReaderError says that a reader's metrics are missing.
type ReaderError struct {
	Reader string
	Err    error
}

func (e *ReaderError) Error() string { return e.Err.Error() }
func (e *ReaderError) Unwrap() error { return e.Err }

// NewCollector prepares the readers of a Program. It does not read yet; the
// error names every metric that can't be read.
func NewCollector(spec *program.Spec, source Source, options Options) (*Collector, error) {
	if options.Clock == nil {
		options.Clock = time.Now
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.Started.IsZero() {
		options.Started = options.Clock()
	}
	if options.Host == nil {
		options.Host = NewHost()
	}
	if options.Buffers == nil {
		options.Buffers = &Buffers{}
	}
	if err := checkFamilies(spec); err != nil {
		return nil, err
	}
	previous := options.Previous
	options.Previous = nil
	if previous != nil {
		previous.Close()
	}
	c := &Collector{options: options, buffer: &buffer{}}
	var problems []error
	for i := range spec.Readers {
		r, err := newReaderState(spec, &spec.Readers[i], source, c.buffer, &c.options)
		if err != nil {
			problems = append(problems, fmt.Errorf("reader %s: %w", spec.Readers[i].Name, err))
			continue
		}
		if r == nil {
			continue
		}
		if previous != nil {
			r = previous.succeed(r)
		}
		c.readers = append(c.readers, r)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	c.stats = make([]ReaderStats, len(c.readers))
	for i, r := range c.readers {
		c.stats[i] = r.stats
	}
	return c, nil
}

// checkFamilies refuses two metrics of one name whose series could be the same.
func checkFamilies(spec *program.Spec) error {
	var problems []error
	byName := map[string][]*program.Metric{}
	for i := range spec.Readers {
		for j := range spec.Readers[i].Metrics {
			m := &spec.Readers[i].Metrics[j]
			if !spec.Enabled(m.When, m.Unless) {
				continue
			}
			for _, other := range byName[m.Name] {
				if err := program.Compatible(m, other); err != nil {
					problems = append(problems, fmt.Errorf("%w: reader %s: two metrics of one name: %w", ErrMetric, spec.Readers[i].Name, err))
				}
			}
			byName[m.Name] = append(byName[m.Name], m)
		}
	}
	return errors.Join(problems...)
}

// succeed returns the state of a closed Collector's reader, which goes on as next; next itself if there is none that fits.
func (c *Collector) succeed(next *readerState) *readerState {
	// Those whose collection ended may still look at what they wanted.
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.readers {
		if r.spec.Name == next.spec.Name && r.sameSeries(next) {
			r.takeOver(next)
			return r
		}
	}
	return next
}

// Close waits for a collection in progress; later ones fail. Snapshots stay valid.
func (c *Collector) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.run.Lock()
	defer c.run.Unlock()
}

// Stats returns the state of each reader after its last read.
func (c *Collector) Stats() []ReaderStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]ReaderStats(nil), c.stats...)
}

// Snapshot is what a Program's metrics were at one moment. Its memory is the
// Collector's until Release is called, once.
type Snapshot struct {
	// Time is when reading began.
	Time     time.Time
	Families []Family
	// Errors has one entry for each reader that failed; its metrics are missing altogether.
	Errors []*ReaderError

	collection *collection
}

// Release gives the memory back. The snapshot must not be used any more.
func (s *Snapshot) Release() {
	if s.collection != nil {
		s.collection.release()
		s.collection = nil
		s.Families = nil
	}
}

// collection is one reading of the readers, for all callers that asked before it began.
type collection struct {
	c *Collector
	// What refers to its memory: snapshots, callers and the reading.
	references atomic.Int32
	// Guarded by c.mu. callers are those that still want it.
	callers int
	// Fixed when it begins:
	wants    []func(string) bool
	deadline time.Time // the latest; zero if a caller has none
	begun    bool
	time     time.Time
	// Of the readers so far, in their order.
	readings []reading

	cancel context.CancelFunc
	ctx    context.Context
	done   chan struct{}
	frames []usedFrame // the reading's until nothing refers to it
	err    error       // when done
}

// reading is what one reader yielded; nothing if nobody wanted it.
type reading struct {
	families []Family
	err      error
}

type usedFrame struct {
	table *table
	frame *frame
}

// Collect reads the metrics that want accepts by name (nil: all) and returns
// them. Callers that wait at the same time share one reading, which begins after
// the last of them asked: nobody gets what was read before. A reader that fails, by the deadline or
// otherwise, yields no families but an error in Snapshot.Errors; so does one that is not through at the caller's own deadline.
func (c *Collector) Collect(ctx context.Context, want func(metricName string) bool) (*Snapshot, error) {
	deadline, limited := ctx.Deadline()
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	col := c.next
	if col == nil {
		col = &collection{c: c, done: make(chan struct{}), deadline: deadline}
		col.ctx, col.cancel = context.WithCancel(context.WithoutCancel(ctx))
		col.references.Add(1)
		c.next = col
		go c.collect(col)
	}
	switch {
	case !limited:
		col.deadline = time.Time{}
	case !col.deadline.IsZero() && deadline.After(col.deadline):
		col.deadline = deadline
	}
	col.wants = append(col.wants, want)
	col.callers++
	col.references.Add(1)
	c.mu.Unlock()

	select {
	case <-col.done:
	case <-ctx.Done():
	}
	s, err := col.leave(want, ctx.Err())
	if err != nil {
		col.release()
		return nil, err
	}
	return s, nil
}

// leave ends one caller's interest and returns what was read for it: all, or what there is
// when its time is up. The reading stops if nobody wants it any more.
func (col *collection) leave(want func(string) bool, ended error) (*Snapshot, error) {
	c := col.c
	c.mu.Lock()
	defer c.mu.Unlock()
	// Before it begins others may join.
	if col.callers--; col.callers == 0 && col.begun {
		col.cancel()
	}
	select {
	case <-col.done:
		if col.err != nil {
			return nil, col.err
		}
	default:
		if !col.begun || !errors.Is(ended, context.DeadlineExceeded) {
			return nil, fmt.Errorf("collect: %w", ended)
		}
	}
	s := &Snapshot{Time: col.time, collection: col}
	for i, r := range c.readers {
		if some, _ := r.wanted([]func(string) bool{want}); !some {
			continue
		}
		read := reading{err: ended}
		if i < len(col.readings) {
			read = col.readings[i]
		}
		if read.err != nil {
			s.Errors = append(s.Errors, &ReaderError{c.stats[i].Reader, read.err})
		}
		for _, f := range read.families {
			if want == nil || want(f.Metric.Name) {
				s.Families = append(s.Families, f)
			}
		}
	}
	return s, nil
}

// release gives the frames back when nothing refers to them.
func (col *collection) release() {
	if col.references.Add(-1) > 0 {
		return
	}
	col.c.mu.Lock()
	defer col.c.mu.Unlock()
	for _, u := range col.frames {
		// The tables of a closed collector may belong to another by now.
		if !col.c.closed && len(u.table.free) < 2 {
			u.table.free = append(u.table.free, u.frame)
		}
	}
	col.frames = nil
}

// collect reads for a collection as soon as the one before is through.
func (c *Collector) collect(col *collection) {
	defer col.release()
	defer close(col.done)
	defer col.cancel()
	c.run.Lock()
	defer c.run.Unlock()
	c.mu.Lock()
	c.next, col.begun, col.time = nil, true, c.options.Clock()
	switch {
	case c.closed:
		col.err = ErrClosed
	case col.callers == 0:
		col.err = context.Canceled
	}
	deadline := col.deadline
	c.mu.Unlock()
	if col.err != nil {
		return
	}
	ctx := col.ctx
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	boot := bootTime(col.time)
	c.options.Buffers.lend(c.buffer)
	defer c.options.Buffers.takeBack(c.buffer)
	for i, r := range c.readers {
		var read reading
		if some, all := r.wanted(col.wants); some {
			read = col.read(ctx, r, boot, all)
		}
		c.mu.Lock()
		col.readings = append(col.readings, read)
		c.stats[i] = r.stats
		c.mu.Unlock()
	}
}

func (col *collection) read(ctx context.Context, r *readerState, boot int64, all bool) reading {
	frames, err := r.collect(ctx, col.c, boot, all)
	if err != nil {
		return reading{err: err}
	}
	var families []Family
	for i, t := range r.tables {
		col.frames = append(col.frames, usedFrame{t, frames[i]})
		for m := range t.metrics {
			families = append(families, frames[i].family(t, m))
		}
	}
	return reading{families: families}
}

// bootTime returns when CLOCK_BOOTTIME was zero, in Unix milliseconds.
func bootTime(now time.Time) int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return now.Add(-time.Duration(ts.Nano())).UnixMilli()
}
