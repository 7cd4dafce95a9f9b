package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

// Limits of what is attached in containers.
const (
	// maxContainers are looked into for one Program.
	maxContainers = 1000
	// maxContainerFiles is how many different files one function is attached to.
	maxContainerFiles = 256
	// maxContainerPlaces of a file a function is attached to, one by one: a file may have as many probes as it likes. maxContainerFunctions
	// is how many the kernel attaches to at once (uprobe.multi since Linux 6.6).
	maxContainerPlaces    = 64
	maxContainerFunctions = 4096
	// maxContainerProcesses of a container are looked at for one that is in it, or that has mapped a library.
	maxContainerProcesses = 32
)

// How often containers are looked into: a new one often, because between its root directory and its program are milliseconds; its binary may
// also come there later.
const (
	newContainer      = 2 * time.Second
	startInterval     = 5 * time.Millisecond // until it has a root directory
	newInterval       = 50 * time.Millisecond
	settledContainer  = 10 * time.Second
	unsettledInterval = 500 * time.Millisecond
	settledInterval   = 5 * time.Second
	// applyInterval is after what time functions are gone through although no look found anything new: names of containers may be known meanwhile.
	applyInterval = time.Second
	// stuckScan is how long a look may take before that is told.
	stuckScan = 30 * time.Second
)

// Container is one in which hooks of user space are attached.
type Container struct {
	// ID is unique for all times.
	ID string
	// Processes are files that list its processes, such as the cgroup.procs of its cgroups.
	Processes []string
	// Matters tells whether it is to be told that something is not in it; nil: it is.
	Matters func() bool
}

// ContainerSource tells in which containers a Program's hooks of user space are attached.
type ContainerSource interface {
	// FollowContainers calls f with these containers, now and whenever they change, until the context ends.
	FollowContainers(ctx context.Context, f func([]Container))
}

// inContainers says that a function is attached in containers instead of on the host.
func (i *Instance) inContainers(f *function) bool {
	return i.containers != nil && f.family.places != nil && f.hook.PID == 0
}

// splitBinary splits a target into what names the binary and what follows, with the colon.
func splitBinary(hook *program.Hook) (binary, rest string, err error) {
	if hook.Kind == program.USDT {
		path, provider, name, err := parseUSDT(hook.Target)
		return path, ":" + provider + ":" + name, err
	}
	if _, err := parseUprobe(hook.Target); err != nil {
		return "", "", err
	}
	colon := strings.LastIndexByte(hook.Target, ':')
	return hook.Target[:colon], hook.Target[colon:], nil
}

// containerFollower looks for binaries in containers and has functions attached to them. Looking may take forever, because what is in a
// container is its own: nobody waits for it, and no lock is held.
type containerFollower struct {
	instance *Instance
	cancel   context.CancelFunc
	done     chan struct{}

	mu       sync.Mutex
	latest   []Container
	leftOut  int
	changed  chan struct{}
	scanning time.Time // zero: not now
}

// followContainers begins to attach functions in containers if there are such.
func (i *Instance) followContainers() {
	if !slices.ContainsFunc(i.order, i.inContainers) {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &containerFollower{instance: i, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}, 1)}
	i.following = c
	go i.containers.FollowContainers(ctx, func(all []Container) {
		c.mu.Lock()
		c.leftOut = max(0, len(all)-maxContainers)
		c.latest = all[:len(all)-c.leftOut]
		c.mu.Unlock()
		select {
		case c.changed <- struct{}{}:
		default:
		}
	})
	go c.run(ctx)
}

func (c *containerFollower) run(ctx context.Context) {
	defer close(c.done)
	s := &containerScan{looked: make(map[string]*lookedInto)}
	defer s.close()
	select { // there is something to look at once the source told what
	case <-ctx.Done():
		return
	case <-c.changed:
	}
	functions := c.instance.containerFunctions()
	var applied time.Time
	appliedLeftOut := 0
	for ctx.Err() == nil {
		c.mu.Lock()
		containers, leftOut := c.latest, c.leftOut
		c.scanning = time.Now()
		c.mu.Unlock()
		changed, wait := s.look(containers, c.instance.binaries(), time.Now())
		changed = changed || leftOut != appliedLeftOut || time.Since(applied) >= applyInterval
		if changed {
			s.locate(ctx, functions)
		}
		c.mu.Lock()
		c.scanning = time.Time{}
		c.mu.Unlock()
		if changed {
			c.instance.applyContainers(s, leftOut)
			applied, appliedLeftOut = time.Now(), leftOut
		}
		select {
		case <-ctx.Done():
		case <-c.changed:
		case <-time.After(wait):
		}
	}
}

// stuck says that looking into containers takes too long. It may be called on nil.
func (c *containerFollower) stuck() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if took := time.Since(c.scanning); !c.scanning.IsZero() && took > stuckScan {
		return fmt.Errorf("a container's file system does not answer for %s: new containers are not attached to", took.Round(time.Second))
	}
	return nil
}

// stop ends following. It may be called on nil, and does not wait.
func (c *containerFollower) stop() {
	if c != nil {
		c.cancel()
	}
}

// wait waits, not forever, until all is let go of. No lock may be held.
func (c *containerFollower) wait() {
	if c == nil {
		return
	}
	select {
	case <-c.done:
	case <-time.After(settledInterval):
	}
}

// containerFunctions returns the functions that are attached in containers.
func (i *Instance) containerFunctions() []*function {
	var all []*function
	for _, f := range i.order {
		if i.inContainers(f) {
			all = append(all, f)
		}
	}
	return all
}

// binaries returns what the functions in containers name.
func (i *Instance) binaries() []string {
	var names []string
	for _, f := range i.containerFunctions() {
		if name, _, err := splitBinary(&f.hook); err == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// applyContainers attaches functions to the files that a look found, and detaches them from those that are in no container any more.
func (i *Instance) applyContainers(s *containerScan, leftOut int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	for _, f := range i.order {
		if !i.inContainers(f) || f.prog == nil || f.tailCalled || f.state != Attached && f.state != Waiting {
			continue
		}
		binary, _, err := splitBinary(&f.hook)
		if err != nil {
			continue // it failed when it was loaded
		}
		files := s.filesOf(binary)
		excess := max(0, len(files)-maxContainerFiles)
		targets := make([]target, 0, len(files))
		fresh := make([]target, 0, len(files))
		for _, o := range files[:len(files)-excess] {
			t := o.target
			targets = append(targets, t)
			if f.find(t) != nil {
				continue
			}
			places := s.placesOf(f, t)
			if places == nil {
				continue // it is about to end
			}
			fresh = append(fresh, t)
			if duplicate, err := o.duplicate(); err == nil {
				f.setPlace(t, duplicate, places)
			}
		}
		f.dropGone(targets)
		f.attachTargets(i, fresh)
		f.state = Waiting
		if f.attachedCount() > 0 {
			f.state = Attached
		}
		f.waiting, f.missing = s.summary(f, binary, leftOut, excess)
		f.pinErr = nil
		if i.spec.Pin && f.attachedCount() > 0 {
			f.pinErr = errContainerPin(f)
		}
	}
}

// errContainerPin says that such attachments are not pinned. A container's file may be another's by the time an agent would adopt them.
func errContainerPin(f *function) error {
	return fmt.Errorf("%s: attachments in containers are not pinned: they end with the agent, its maps stay", f)
}

// attachments are those of one function in one file.
type attachments []attachment

func (a attachments) Close() error {
	var errs []error
	for _, one := range slices.Backward(a) {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// renamedError is an error about a file by a name that nobody knows.
type renamedError struct {
	err      error
	from, to string
}

func (e *renamedError) Error() string { return strings.ReplaceAll(e.err.Error(), e.from, e.to) }
func (e *renamedError) Unwrap() error { return e.err }
