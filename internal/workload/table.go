package workload

import (
	"strings"
	"sync"
	"time"
)

// table holds the paths of all known cgroups, alive and gone. Everything is bounded. No
// method does anything slow under the lock but what its argument's length demands.
type table struct {
	maxKnown, maxTombstones int
	tombstoneAge            time.Duration
	scope                   Scope

	mu     sync.RWMutex
	groups map[ID]group
	// The cgroups that are gone, oldest first: graves[i] has sequence number firstGrave+i.
	graves     []grave
	firstGrave uint64
	// marks has an entry for each hierarchy that is tracked.
	marks map[uint16]*mark

	// namesPods: pods has the containers of each pod that has cgroups.
	namesPods bool
	pods      map[podKey][]podContainer

	evicted, refused uint64
	// wake is closed at the next change; nil if nobody waits for it.
	wake chan struct{}
}

type group struct {
	// path below the hierarchy's root, "/" for the root. Empty if outside the scope.
	path    string
	gone    bool
	outside bool
	// walk is the last walk that saw it, or that was under way when it was made.
	walk uint32
	// name is what the path tells; nil if nobody asked yet.
	name *Workload
	// made is when it was entered, as monotonic returns it.
	made int64
	// identity is what its pod was called last; nil if that was never known.
	identity *PodIdentity
}

type grave struct {
	id   ID
	died time.Time
}

// mark says up to where a hierarchy is known. The kernel gives out rising ids and no
// id twice (kernfs: idr_alloc_cyclic and a generation), so all that a complete walk did not find and that is
// not newer than the walk is dead.
type mark struct {
	// highest id that was ever seen or asked for.
	highest ID
	// walked: a walk that began when this was the highest has ended. whole: it saw everything.
	walked ID
	whole  bool
}

func newTable(scope Scope, hierarchies []Hierarchy, o Options) *table {
	t := &table{
		maxKnown: o.MaxKnown, maxTombstones: o.MaxTombstones, tombstoneAge: o.TombstoneAge,
		scope: scope, groups: map[ID]group{}, marks: map[uint16]*mark{}, namesPods: o.Names != nil, pods: map[podKey][]podContainer{},
	}
	for _, h := range hierarchies {
		t.marks[h.Number] = &mark{}
	}
	return t
}

func (id ID) hierarchy() uint16 { return uint16(id >> hierarchyShift) }

// resolve returns the path of a cgroup and its state. ask is true if a walk might find it.
func (t *table) resolve(id ID) (path string, state State, ask bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	g, ok := t.groups[id]
	switch {
	case !ok:
	case g.outside:
		return "", Outside, false
	case g.gone:
		return g.path, Gone, false
	default:
		return g.path, Alive, false
	}
	m := t.marks[id.hierarchy()]
	switch {
	case m == nil || id == 0:
		return "", Unresolved, false
	case id > m.walked:
		return "", Unresolved, true
	case m.whole:
		return "", Gone, false
	}
	return "", Unresolved, false
}

// named returns what the path tells of a cgroup that resolve found. It is worth keeping: each scrape asks.
func (t *table) named(id ID, path string) Workload {
	t.mu.RLock()
	g, ok := t.groups[id]
	t.mu.RUnlock()
	if ok && g.name != nil && g.path == path {
		return *g.name
	}
	w := Name(path)
	t.mu.Lock()
	defer t.mu.Unlock()
	if g, ok := t.groups[id]; ok && g.path == path {
		g.name = &w
		t.groups[id] = g
	}
	return w
}

// add enters a cgroup that was just made. parent is 0 if unknown; path is the kernel's and is
// used where the parent's isn't known, because it may be cut (truncated) or differ from what a
// cgroup namespace shows.
func (t *table) add(id, parent ID, path string, truncated bool, walk uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.groups[id]; ok {
		return
	}
	t.note(id)
	g := t.place(id, t.join(parent, path, truncated), walk)
	if p, ok := t.groups[parent]; ok && p.outside {
		g.outside, g.path = true, ""
	}
	t.insert(id, g)
}

// join returns a new cgroup's path.
func (t *table) join(parent ID, path string, truncated bool) string {
	p, ok := t.groups[parent]
	switch {
	case !ok || p.outside:
		return path
	case truncated:
		return p.path // What is nested that deep belongs to the same workload.
	}
	name := path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case p.path == "/":
		return "/" + name
	case len(p.path)+1+len(name) > maxPath:
		return p.path
	}
	return p.path + "/" + name
}

// place makes the group of a path.
func (t *table) place(id ID, path string, walk uint32) group {
	if t.scope.ID != 0 && (id.hierarchy() != t.scope.ID.hierarchy() || !below(path, t.scope.Path)) {
		return group{outside: true, walk: walk}
	}
	return group{path: path, walk: walk}
}

func (t *table) insert(id ID, g group) {
	if len(t.groups)-len(t.graves) >= t.maxKnown {
		t.refused++
		return
	}
	g.made = monotonic()
	t.groups[id] = g
	t.enterContainer(id, g)
	t.touch()
}

// changed returns a channel that is closed when a cgroup comes or goes.
func (t *table) changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wake == nil {
		t.wake = make(chan struct{})
	}
	return t.wake
}

func (t *table) touch() {
	if t.wake != nil {
		close(t.wake)
		t.wake = nil
	}
}

func (t *table) note(id ID) {
	if m := t.marks[id.hierarchy()]; m != nil && id > m.highest {
		m.highest = id
	}
}

// wanted notes that an unknown id was asked for, so that the next walk settles it.
func (t *table) wanted(id ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// A program that mistakes another number for an id must not make all that comes
	// look old: ids grow by 2^32 when their lower half wraps.
	if m := t.marks[id.hierarchy()]; m != nil && id > m.highest && id>>32 <= m.highest>>32+1 {
		m.highest = id
	}
}

// remove turns a cgroup into a tombstone. path is what to call it if it was never seen alive.
func (t *table) remove(id, parent ID, path string, truncated bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok := t.groups[id]
	if !ok {
		t.note(id)
		g = t.place(id, t.join(parent, path, truncated), 0)
	}
	t.bury(id, g, now)
	t.evict(now)
}

func (t *table) bury(id ID, g group, now time.Time) {
	if g.gone {
		return
	}
	if _, known := t.groups[id]; known {
		t.leaveContainer(id, g.path, false)
		g.gone = true
	} else {
		g.gone, g.made = true, monotonic()
		t.enterContainer(id, g)
	}
	t.groups[id] = g
	t.graves = append(t.graves, grave{id, now})
	t.touch()
}

// evict forgets the oldest tombstones that are too many or too old.
func (t *table) evict(now time.Time) {
	n := max(0, len(t.graves)-t.maxTombstones)
	t.evicted += uint64(n)
	for n < len(t.graves) && now.Sub(t.graves[n].died) > t.tombstoneAge {
		n++
	}
	if n == 0 {
		return
	}
	for _, g := range t.graves[:n] {
		t.leaveContainer(g.id, t.groups[g.id].path, true)
		delete(t.groups, g.id)
	}
	t.graves = t.graves[n:]
	t.firstGrave += uint64(n)
	if len(t.graves) == 0 {
		t.graves = nil
	}
}

// found is what a walk saw of one hierarchy.
type found struct {
	number   uint16
	start    ID // mark.highest when the walk began
	paths    map[ID]string
	complete bool
}

// beginWalk returns the state against which the walk's result will be merged.
func (t *table) beginWalk(number uint16) found {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return found{number: number, start: t.marks[number].highest, paths: map[ID]string{}}
}

// mergeWalk enters what a walk found and, if it was complete, buries what it didn't. Events
// are younger than the walk: what they said gone stays gone, what they added since it began stays.
// The lock is released now and then so that nobody waits long.
func (t *table) mergeWalk(f found, walk uint32, whole bool, now time.Time) {
	const chunk = 1024
	n := 0
	t.mu.Lock()
	defer t.mu.Unlock()
	breathe := func() {
		if n++; n%chunk == 0 {
			t.mu.Unlock()
			t.mu.Lock()
		}
	}
	for id, path := range f.paths {
		g, ok := t.groups[id]
		switch {
		case !ok:
			t.insert(id, t.place(id, path, walk))
		case !g.gone: // its name may be another: cgroups of v1 can be renamed
			now := t.place(id, path, walk)
			now.made, now.identity, now.name = g.made, g.identity, g.name
			if now.path != g.path {
				t.leaveContainer(id, g.path, false)
				t.leaveContainer(id, g.path, true)
				t.enterContainer(id, now)
			}
			t.groups[id] = now
		}
		t.note(id)
		breathe()
	}
	m := t.marks[f.number]
	m.walked, m.whole = max(m.walked, f.start), whole && f.complete && t.refused == 0
	if !f.complete {
		return
	}
	var dead []ID
	for id, g := range t.groups {
		if id.hierarchy() == f.number && !g.gone && g.walk < walk && len(g.path) < tooDeep {
			dead = append(dead, id)
		}
	}
	for _, id := range dead {
		if g := t.groups[id]; !g.gone && g.walk < walk {
			t.bury(id, g, now)
		}
		breathe()
	}
	t.evict(now)
}

// tooDeep is a length of path from which on a walk may not have got there.
const tooDeep = maxPath - 512

// gone returns the ids of tombstones from sequence number since on, and the number to continue with.
func (t *table) gone(since uint64) ([]ID, uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	next := t.firstGrave + uint64(len(t.graves))
	if since >= next {
		return nil, next
	}
	from := uint64(0)
	if since > t.firstGrave {
		from = since - t.firstGrave
	}
	ids := make([]ID, 0, uint64(len(t.graves))-from)
	for _, g := range t.graves[from:] {
		if !t.groups[g.id].outside {
			ids = append(ids, g.id)
		}
	}
	return ids, next
}

// alive returns the cgroups that exist and are to be measured, of the hierarchies that want accepts.
func (t *table) alive(want func(ID) bool) []Cgroup {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]Cgroup, 0, len(t.groups)-len(t.graves))
	for id, g := range t.groups {
		// One that lies too deep has its parent's path, and is part of it.
		if !g.gone && !g.outside && len(g.path) < tooDeep && want(id) {
			all = append(all, Cgroup{ID: id, Path: g.path})
		}
	}
	return all
}

// expire forgets tombstones whose time is over.
func (t *table) expire(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.evict(now)
}

func (t *table) figures() (known, tombstones int, evicted, refused uint64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.groups) - len(t.graves), len(t.graves), t.evicted, t.refused
}
