package workload

import (
	"strings"
	"time"
)

// PodNames tells what pods and their containers are called. Implementations are safe for
// concurrent use and block on nothing but a lock.
type PodNames interface {
	// Identify returns what is known of a pod by the UID in its cgroups' path (of a static pod: the hash of its
	// configuration), and of its container with that id; an empty id asks for the pod alone.
	Identify(uid, containerID string) PodIdentity
	// ExtraLabels are the names of the labels that PodIdentity.Extra may have.
	ExtraLabels() []string
	// Stats returns the figures of each source of names.
	Stats() []PodStats
}

// PodIdentity is how Kubernetes calls a container. Fields that are not known (yet) are empty.
type PodIdentity struct {
	Namespace, Pod, Container string
	Extra                     Extra
}

// PodStats are the figures of one source of the names of pods.
type PodStats struct {
	// Source: "api" or "logs".
	Source string
	// Pods that exist; Retained are gone but still have their names.
	Pods, Retained int
	// Connected: the source tells of changes now.
	Connected bool
	// Refused: the source may not be asked, so that names will not come.
	Refused bool
	// LastSync is when it told something last.
	LastSync time.Time
	// Events, Errors: how often it told of something, and how often it could not be asked.
	Events, Errors uint64
}

// Extra is a set of labels of a pod beside its name: pairs of name and value, each ended by a NUL.
type Extra string

// Append returns the set with one more label. An empty value is a label that is absent. NULs are lost.
func (e Extra) Append(name, value string) Extra {
	if value == "" {
		return e
	}
	clean := func(s string) string { return strings.ReplaceAll(s, "\x00", "") }
	return e + Extra(clean(name)+"\x00"+clean(value)+"\x00")
}

// Each calls yield with every label.
func (e Extra) Each(yield func(name, value string)) {
	for rest := string(e); rest != ""; {
		var name, value string
		name, rest, _ = strings.Cut(rest, "\x00")
		value, rest, _ = strings.Cut(rest, "\x00")
		yield(name, value)
	}
}

// SandboxName is the container label of a pod's sandbox (its pause container), which has no name of its own.
// That is what dashboards made for the kubelet's metrics exclude.
const SandboxName = "POD"

// FirstOf asks several sources for names, best first: what one does not know the next may.
type FirstOf []PodNames

// Identify implements PodNames.
func (f FirstOf) Identify(uid, containerID string) PodIdentity {
	var all PodIdentity
	for _, source := range f {
		one := source.Identify(uid, containerID)
		if all.Pod == "" {
			all.Namespace, all.Pod = one.Namespace, one.Pod
		}
		if all.Container == "" {
			all.Container = one.Container
		}
		if all.Extra == "" {
			all.Extra = one.Extra
		}
		if all.Pod != "" && (all.Container != "" || containerID == "") {
			break
		}
	}
	return all
}

// ExtraLabels implements PodNames.
func (f FirstOf) ExtraLabels() (all []string) {
	for _, source := range f {
		all = append(all, source.ExtraLabels()...)
	}
	return all
}

// Stats implements PodNames.
func (f FirstOf) Stats() (all []PodStats) {
	for _, source := range f {
		all = append(all, source.Stats()...)
	}
	return all
}

// identify gives a pod's cgroup its names. A name that was known once stays: neither a pod that was
// deleted nor an API server that is away takes it.
func (c *Cgroups) identify(id ID, w Workload) Workload {
	c.podLookups.Add(1)
	now := c.names.Identify(w.PodUID, w.Container)
	known, made := c.table.identity(id)
	if now.Pod == "" {
		c.podMisses.Add(1)
		now.Namespace, now.Pod, now.Extra = known.Namespace, known.Pod, known.Extra
	}
	containerKnown := now.Container != ""
	if !containerKnown {
		now.Container = known.Container
	}
	if w.Container != "" && now.Pod != "" {
		if containerKnown {
			c.table.podHas(id, w.PodUID, w.Container)
		} else if now.Container == "" && c.isSandbox(id, w.PodUID, w.Container) {
			now.Container = SandboxName
		}
	}
	if now != known {
		c.table.setIdentity(id, now)
	}
	if now.Pod == "" || w.Container != "" && now.Container == "" {
		w.Pending = time.Duration(monotonic()-made) < c.nameWait && !c.refused()
	}
	if now.Pod == "" {
		return w
	}
	w.Namespace, w.Pod, w.Extra, w.Cgroup = now.Namespace, now.Pod, now.Extra, ""
	if now.Container != "" {
		w.Container = now.Container
	}
	return w
}

// refused says whether no source of names may be asked.
func (c *Cgroups) refused() bool {
	for _, s := range c.names.Stats() {
		if !s.Refused {
			return false
		}
	}
	return true
}

// isSandbox says whether a container without a name is its pod's sandbox, once another of its containers has one.
func (c *Cgroups) isSandbox(id ID, uid, container string) bool {
	for _, other := range c.table.nameless(id, uid, container) {
		if c.names.Identify(uid, other).Container != "" {
			c.table.podHas(id, uid, other)
		}
	}
	return c.table.isSandbox(id, uid, container)
}

// podKey is one pod in one hierarchy.
type podKey struct {
	hierarchy uint16
	uid       string
}

// podContainer is one container of a pod, as its cgroups tell.
type podContainer struct {
	id string
	// first is the lowest id of its cgroups: that of the oldest.
	first ID
	// Numbers of its cgroups, and of those that exist.
	cgroups, alive int
	// named: it is one of the pod's containers. sandbox: it is known to be none.
	named, sandbox bool
}

// enterContainer notes a cgroup of a pod's container. It needs the lock.
func (t *table) enterContainer(id ID, g group) {
	if !t.namesPods || g.outside {
		return
	}
	w := Name(g.path)
	if w.PodUID == "" || w.Container == "" {
		return
	}
	key := podKey{id.hierarchy(), w.PodUID}
	alive := 1
	if g.gone {
		alive = 0
	}
	if c := t.container(key, w.Container); c != nil {
		c.first = min(c.first, id)
		c.cgroups++
		c.alive += alive
		return
	}
	t.pods[key] = append(t.pods[key], podContainer{id: w.Container, first: id, cgroups: 1, alive: alive})
}

// leaveContainer notes that a cgroup is gone, or that it is forgotten.
func (t *table) leaveContainer(id ID, path string, forgotten bool) {
	if !t.namesPods || path == "" {
		return
	}
	w := Name(path)
	key := podKey{id.hierarchy(), w.PodUID}
	c := t.container(key, w.Container)
	switch {
	case c == nil:
	case !forgotten:
		c.alive--
	default:
		if c.cgroups--; c.cgroups > 0 {
			return
		}
		all := t.pods[key]
		*c = all[len(all)-1]
		if all = all[:len(all)-1]; len(all) == 0 {
			delete(t.pods, key)
		} else {
			t.pods[key] = all
		}
	}
}

func (t *table) container(key podKey, id string) *podContainer {
	if key.uid == "" || id == "" {
		return nil
	}
	all := t.pods[key]
	for i := range all {
		if all[i].id == id {
			return &all[i]
		}
	}
	return nil
}

// nameless returns the ids of the pod's other containers of which nothing is known.
func (t *table) nameless(id ID, uid, container string) (ids []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, o := range t.pods[podKey{id.hierarchy(), uid}] {
		if o.id != container && !o.named && !o.sandbox {
			ids = append(ids, o.id)
		}
	}
	return ids
}

// podHas notes that a container is one of the pod's own.
func (t *table) podHas(id ID, uid, container string) {
	key := podKey{id.hierarchy(), uid}
	t.mu.RLock()
	c := t.container(key, container)
	done := c == nil || c.named
	t.mu.RUnlock()
	if done {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.container(key, container); c != nil {
		c.named, c.sandbox = true, false
	}
}

// isSandbox says whether a container without a name is its pod's sandbox: nothing but the order of their making
// tells. The sandbox comes first, so it is the oldest once a younger one is known to be the pod's.
func (t *table) isSandbox(id ID, uid, container string) bool {
	key := podKey{id.hierarchy(), uid}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.container(key, container)
	if c == nil || c.named {
		return false
	}
	if c.sandbox {
		return true
	}
	younger := false
	for _, o := range t.pods[key] {
		switch {
		case o.id == c.id:
		case o.named && o.first > c.first:
			younger = true
		case c.alive > 0 && o.alive == 0:
			// What is gone says nothing of what exists: pods get new sandboxes.
		case o.sandbox, o.first < c.first:
			return false
		}
	}
	c.sandbox = younger
	return younger
}

// identity returns the names that a cgroup had last, and when it was entered, as monotonic does.
func (t *table) identity(id ID) (PodIdentity, int64) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	g := t.groups[id]
	if g.identity == nil {
		return PodIdentity{}, g.made
	}
	return *g.identity, g.made
}

func (t *table) setIdentity(id ID, to PodIdentity) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g, ok := t.groups[id]; ok {
		g.identity = &to
		t.groups[id] = g
	}
}
