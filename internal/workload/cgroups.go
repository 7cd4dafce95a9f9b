package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
)

// Options bound what a Cgroups keeps. Zero values mean the defaults that are named.
type Options struct {
	// MaxKnown cgroups alive (200,000); those beyond stay unresolved.
	MaxKnown int
	// MaxTombstones (50,000) and TombstoneAge (5 minutes) bound the names of
	// cgroups that are gone.
	MaxTombstones int
	TombstoneAge  time.Duration
	// WalkInterval is the least time between two walks (1 s). It is stretched so that walks take at
	// most a twentieth of a CPU.
	WalkInterval time.Duration
	// NoEvents: don't use eBPF; walk again when an unknown id is asked for and every 30 s.
	NoEvents bool
	// Types are the running kernel's, if they have been loaded.
	Types *btf.Spec
	// Names of pods and containers. Nil: pods have none.
	Names PodNames
	// NameWait is for how long a new cgroup is Pending while its names are not known (10 s).
	NameWait time.Duration
}

const (
	// With events nothing should change unnoticed: a seldom walk is a safety net.
	walkWithEvents    = 10 * time.Minute
	walkWithoutEvents = 30 * time.Second
)

// Cgroups names the cgroups of this machine: what exists at the start by walking the
// hierarchies, then by an eBPF program that tells of each one made and removed. If that loses
// events, or can't be attached, the hierarchies are walked again.
//
// It is safe for concurrent use and must be closed.
type Cgroups struct {
	layout      Layout
	hierarchies []Hierarchy
	table       *table
	interval    time.Duration
	names       PodNames // nil without
	nameWait    time.Duration

	events    *events // nil without
	eventsErr atomic.Pointer[error]

	ask    chan struct{} // somebody asked for an id that a walk may find
	cancel context.CancelFunc
	done   sync.WaitGroup

	walking sync.Mutex // one walk at a time
	walks   atomic.Uint32

	syncMu   sync.Mutex
	waiters  []chan struct{}
	followed chan struct{} // closed when no more events are read

	unresolved, received, lost, walkTime, delay, delays atomic.Uint64 // times in ns
	podLookups, podMisses                               atomic.Uint64
}

// Stats are a Cgroups' own figures. Numbers without a unit in their name are counts since the start, but
// for Known and Tombstones, which are of now.
type Stats struct {
	// Known cgroups that are alive; Tombstones: names kept of those that are gone.
	Known, Tombstones int
	// Unresolved: answers of Resolve with that state.
	Unresolved uint64
	// Events came from the kernel; Lost did not, for lack of room.
	Events, Lost uint64
	// Walks of all hierarchies, the first one included, and the time they took.
	Walks       uint64
	WalkSeconds float64
	// Evicted tombstones that were forgotten for their number, before their time.
	Evicted uint64
	// Refused cgroups were not entered because there are too many.
	Refused uint64
	// Resolutions of new cgroups by events, and the sum of the times from
	// their making until their name was known.
	Resolutions       uint64
	ResolutionSeconds float64
	// PodLookups: how often names of a pod were asked for; PodMisses: how often nobody knew them.
	PodLookups, PodMisses uint64
}

// NewCgroups walks the hierarchies of a layout and begins to follow them.
func NewCgroups(l Layout) (*Cgroups, error) { return NewCgroupsWithOptions(l, Options{}) }

// NewCgroupsWithOptions is NewCgroups with bounds of the caller's choice. That the eBPF program can't be
// used is no error: see EventsErr.
func NewCgroupsWithOptions(l Layout, o Options) (*Cgroups, error) {
	setDefault(&o.MaxKnown, 200_000)
	setDefault(&o.MaxTombstones, 50_000)
	setDefault(&o.TombstoneAge, 5*time.Minute)
	setDefault(&o.WalkInterval, time.Second)
	setDefault(&o.NameWait, 10*time.Second)
	c := &Cgroups{layout: l, interval: o.WalkInterval, names: o.Names, nameWait: o.NameWait, ask: make(chan struct{}, 1), followed: make(chan struct{})}
	for _, h := range []Hierarchy{l.V2, l.V1} {
		if h.Present() {
			c.hierarchies = append(c.hierarchies, h)
		}
	}
	c.table = newTable(l.Scope, c.hierarchies, o)
	if o.NoEvents {
		c.failEvents(errors.New("not wanted"))
	} else if e, err := openEvents(l, o.Types); err != nil {
		c.failEvents(err)
	} else {
		c.events = e
	}
	// After attaching, so that nothing falls in between.
	if err := c.Walk(); err != nil {
		if c.events != nil {
			err = errors.Join(err, c.events.close())
		}
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.done.Go(func() { c.keepWalking(ctx) })
	if c.events != nil {
		c.done.Go(c.follow)
	}
	return c, nil
}

func setDefault[T int | time.Duration](v *T, to T) {
	if *v == 0 {
		*v = to
	}
}

// Close detaches the program and stops everything. Resolve goes on to answer from what is known.
func (c *Cgroups) Close() error {
	c.cancel()
	var err error
	if c.events != nil {
		err = c.events.reader.Close()
	}
	c.done.Wait()
	if c.events != nil {
		err = errors.Join(err, c.events.close())
	}
	return err
}

// Layout returns what the Cgroups was made for.
func (c *Cgroups) Layout() Layout { return c.layout }

// EventsErr says why the eBPF program isn't used, nil if it is. Without it workloads that live
// less than about a second may stay without a name.
func (c *Cgroups) EventsErr() error {
	if err := c.eventsErr.Load(); err != nil {
		return *err
	}
	return nil
}

func (c *Cgroups) failEvents(err error) {
	err = fmt.Errorf("cgroups are found by walking, short-lived ones may be missed: %w", err)
	c.eventsErr.Store(&err)
}

// Resolve names a workload. A Gone one may have no name, if it was made and removed unseen or
// its tombstone was evicted.
func (c *Cgroups) Resolve(id ID) (Workload, State) {
	path, state := c.lookUp(id)
	switch {
	case state == Unresolved:
		c.unresolved.Add(1)
		return Workload{}, state
	case path == "":
		return Workload{}, state
	}
	w := c.table.named(id, path)
	if w.PodUID != "" && c.names != nil {
		w = c.identify(id, w)
	}
	return w, state
}

// ExtraLabels are the names of the labels that Workload.Extra may have.
func (c *Cgroups) ExtraLabels() []string {
	if c.names == nil {
		return nil
	}
	return c.names.ExtraLabels()
}

// lookUp returns a cgroup's path and state, and has it looked for if that may help.
func (c *Cgroups) lookUp(id ID) (path string, state State) {
	path, state, ask := c.table.resolve(id)
	if ask {
		c.table.wanted(id)
		select {
		case c.ask <- struct{}{}:
		default:
		}
	}
	return path, state
}

// DirectoryOf returns the directory of a cgroup v2, "" if it is not known (yet).
func (c *Cgroups) DirectoryOf(id ID) string {
	h := c.layout.V2
	path, _ := c.lookUp(id)
	if path == "" || id.hierarchy() != 0 || !h.Present() || !below(path, h.Base) {
		return ""
	}
	return strings.TrimSuffix(h.Mount+path[len(h.Base):], "/")
}

// followInterval is how far apart two calls of a Follow's function are at least: cgroups often come in bursts.
const followInterval = 10 * time.Millisecond

// Follow calls f with the cgroups that are to be measured and exist: now, whenever that changes, and whenever a channel that also returned is
// closed (also may be nil), until the context ends.
func (c *Cgroups) Follow(ctx context.Context, also func() <-chan struct{}, f func([]Cgroup)) {
	for {
		changed := c.table.changed()
		var more <-chan struct{}
		if also != nil {
			more = also()
		}
		f(c.Existing())
		// What comes alone is told at once.
		rest := time.After(followInterval)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-more:
		}
		select {
		case <-ctx.Done():
			return
		case <-rest:
		}
	}
}

// Existing returns the cgroups of both hierarchies that are to be measured and exist.
func (c *Cgroups) Existing() []Cgroup { return c.table.alive(func(ID) bool { return true }) }

// Inherit has the kernel add to a set each cgroup that is made below one of its members, before a task can be in it, and take out what is
// removed. The set is a hash whose keys are IDs and whose values, 8 bytes each, don't matter. Without events there is an error.
func (c *Cgroups) Inherit(set *ebpf.Map) (release func() error, err error) {
	if err := c.EventsErr(); err != nil {
		return nil, err
	}
	return c.events.inherit(set)
}

// Path returns a cgroup's path below its hierarchy's root, as far as it is known.
func (c *Cgroups) Path(id ID) (string, State) {
	path, state, _ := c.table.resolve(id)
	return path, state
}

// Gone returns the ids of the cgroups whose removal was noticed since a former call (0: ever), which are those
// with a tombstone, oldest first, and the argument for the next call.
func (c *Cgroups) Gone(since uint64) (ids []ID, next uint64) {
	c.table.expire(time.Now())
	return c.table.gone(since)
}

// Stats returns the figures of now.
func (c *Cgroups) Stats() Stats {
	c.table.expire(time.Now())
	s := Stats{
		Unresolved: c.unresolved.Load(), Events: c.received.Load(), Lost: c.lost.Load(),
		Walks: uint64(c.walks.Load()), WalkSeconds: seconds(&c.walkTime),
		Resolutions: c.delays.Load(), ResolutionSeconds: seconds(&c.delay),
		PodLookups: c.podLookups.Load(), PodMisses: c.podMisses.Load(),
	}
	s.Known, s.Tombstones, s.Evicted, s.Refused = c.table.figures()
	return s
}

func seconds(ns *atomic.Uint64) float64 { return time.Duration(ns.Load()).Seconds() }

// Sync waits until everything that happened to cgroups before the call is known. Without events it does nothing.
func (c *Cgroups) Sync(ctx context.Context) error {
	if c.eventsErr.Load() != nil {
		return nil
	}
	wait := make(chan struct{})
	c.syncMu.Lock()
	c.waiters = append(c.waiters, wait)
	c.syncMu.Unlock()
	if err := c.events.reader.Flush(); err != nil {
		return fmt.Errorf("flush cgroup events: %w", err)
	}
	select {
	case <-wait:
		return nil
	case <-c.followed:
		return fmt.Errorf("wait for cgroup events: %w", os.ErrClosed)
	case <-ctx.Done():
		return fmt.Errorf("wait for cgroup events: %w", ctx.Err())
	}
}

// releaseWaiters ends the calls of Sync in ripe and returns those that came meanwhile.
func (c *Cgroups) releaseWaiters(ripe []chan struct{}) (next []chan struct{}) {
	for _, w := range ripe {
		close(w)
	}
	c.syncMu.Lock()
	defer c.syncMu.Unlock()
	next, c.waiters = c.waiters, nil
	return next
}

// follow enters the kernel's events until the ring is closed.
func (c *Cgroups) follow() {
	var record ringbuf.Record
	var ripe []chan struct{}
	for {
		err := c.events.reader.ReadInto(&record)
		switch {
		case err == nil:
			c.enter(record.RawSample)
			if record.Remaining == 0 {
				c.checkLost()
			}
		case errors.Is(err, ringbuf.ErrFlushed):
			// Who waits since before this round is served. Others may have come
			// when the ring had been read already: one more round for them.
			c.checkLost()
			if ripe = c.releaseWaiters(ripe); len(ripe) > 0 {
				// It only fails when closed, which the next read says.
				_ = c.events.reader.Flush()
			}
		default:
			if !errors.Is(err, ringbuf.ErrClosed) {
				c.failEvents(fmt.Errorf("read ring: %w", err))
			}
			close(c.followed)
			return
		}
	}
}

func (c *Cgroups) enter(raw []byte) {
	e, err := decodeEvent(raw)
	if err != nil {
		return // Only another object than ours could send it.
	}
	c.received.Add(1)
	switch e.kind {
	case cgroupMade:
		c.table.add(e.id, e.parent, e.path, e.truncated, c.walks.Load())
		c.delay.Add(uint64(max(0, monotonic()-e.time)))
		c.delays.Add(1)
	case cgroupRemoved:
		c.table.remove(e.id, e.parent, e.path, e.truncated, time.Now())
	}
}

// checkLost has the hierarchies walked if the ring overflowed. To be called when it was read empty: a
// loss means that it was full, so an empty ring comes after each.
func (c *Cgroups) checkLost() {
	n, err := c.events.lost()
	if err != nil || n == c.lost.Swap(n) {
		return
	}
	select {
	case c.ask <- struct{}{}:
	default:
	}
}

// keepWalking walks when asked, but not too often, and otherwise now and then.
func (c *Cgroups) keepWalking(ctx context.Context) {
	var took time.Duration
	ended := time.Now()
	for {
		every := walkWithEvents
		if c.EventsErr() != nil {
			every = walkWithoutEvents
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		case <-c.ask:
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(ended.Add(max(c.interval, 20*took)))):
			}
		}
		began := time.Now()
		// A failure shows in what stays unresolved; there is nobody to tell here.
		_ = c.Walk()
		ended = time.Now()
		took = ended.Sub(began)
	}
}

// Walk reads the hierarchies' directories now. It is called by itself where needed.
func (c *Cgroups) Walk() error {
	c.walking.Lock()
	defer c.walking.Unlock()
	began := time.Now()
	number := c.walks.Add(1)
	var errs []error
	for _, h := range c.hierarchies {
		f := c.table.beginWalk(h.Number)
		complete, err := walk(h.Mount, func(inode uint64, path string) {
			if len(f.paths) < c.table.maxKnown {
				if path = h.Base + path; path == "" {
					path = "/"
				}
				f.paths[h.ID(inode)] = path
			}
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("walk cgroups at %s: %w", h.Mount, err))
			continue
		}
		f.complete = complete && len(f.paths) < c.table.maxKnown
		c.table.mergeWalk(f, number, h.Whole, time.Now())
	}
	c.walkTime.Add(uint64(time.Since(began)))
	return errors.Join(errs...)
}
