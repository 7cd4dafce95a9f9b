package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// errNothingYet is returned by families that follow targets when none exists at the moment.
var errNothingYet = errors.New("nothing to attach to yet")

// State is what became of a function.
type State string

// States of a function.
const (
	// Attached to at least one target.
	Attached State = "attached"
	// Loaded and meant to be run otherwise: by a tail call or by hand.
	Loaded State = "loaded"
	// Waiting for a target to appear (an interface, a cgroup).
	Waiting State = "waiting"
	// Failed to load or attach: HookStatus.Err says why.
	Failed State = "failed"
	// Unused because a better alternative works.
	Unused State = "unused"
	// Disabled by a param.
	Disabled State = "disabled"
)

// An Instance is a Program in the kernel. Its methods are safe for concurrent use; who
// reads its maps must have stopped before Close.
type Instance struct {
	engine *Engine
	spec   *program.Spec
	// coll is what is loaded. It goes, and the spec's code with it, as soon as everything is attached: see forgetCode.
	coll *ebpf.CollectionSpec

	// order is that of Spec.Hooks.
	order     []*function
	functions map[string]*function
	groups    map[string][]*function
	mapNames  []string
	maps      map[string]*loadedMap
	// lostCounters are where in .data.kaon the Program counts what it lost, by name: offsets in bytes.
	lostCounters map[string]uint32
	runs         *runCounter
	usdt         usdtSpecs
	// containers in which hooks of user space are attached, nil: on the host. following does so.
	containers ContainerSource
	following  *containerFollower

	begun        time.Time
	started      time.Time
	loadDuration time.Duration
	reloadGap    time.Duration
	// runBase is what the replaced instances counted, by function.
	runBase map[string]uint64

	// pinLock is held by the one instance that uses a Program's pins.
	pinLock *os.File

	mu     sync.Mutex
	closed bool
}

// function is one eBPF function and what became of it.
type function struct {
	hook   program.Hook
	family family
	// spec is nil once everything is attached.
	spec       *ebpf.ProgramSpec
	attachType ebpf.AttachType
	index      int
	tailCalled bool

	prog         *ebpf.Program
	counted      bool
	adopted      bool
	chosen       bool
	verified     uint32
	memory       uint64
	programID    ebpf.ProgramID
	loadDuration time.Duration

	state    State
	err      error
	waiting  error
	attached []*attachedTarget
	pinErr   error

	// places are the files, in containers, that the targets are; missing says what lacks in those.
	places  map[target]placedFile
	missing error
}

type attachedTarget struct {
	target     target
	attachment attachment
	err        error
	pinned     bool
}

func (f *function) String() string {
	if f.hook.Target == "" {
		return fmt.Sprintf("%s (%s)", f.hook.Kind, f.hook.Function)
	}
	return fmt.Sprintf("%s/%s (%s)", f.hook.Kind, f.hook.Target, f.hook.Function)
}

// at names the function and one of its targets in messages.
func (f *function) at(t target) string {
	if t.Name == f.hook.Target {
		return f.String()
	}
	return f.String() + " on " + t.Name
}

func (f *function) fail(err error) {
	f.state, f.err = Failed, err
	if f.prog != nil {
		f.prog.Close()
		f.prog = nil
	}
}

func (f *function) works() bool {
	return f.state == Attached || f.state == Loaded || f.state == Waiting
}

func (f *function) find(t target) *attachedTarget {
	for _, a := range f.attached {
		if a.target == t {
			return a
		}
	}
	return nil
}

func (f *function) attachedCount() int {
	n := 0
	for _, a := range f.attached {
		n += boolInt(a.attachment != nil)
	}
	return n
}

// HookStatus says what became of one function.
type HookStatus struct {
	Function string
	Kind     program.HookKind
	Target   string
	State    State
	// Attached to at least one target.
	Attached bool
	Optional bool
	// Group and Rank of alternatives; Chosen is the one that is used.
	Group  string
	Rank   int
	Chosen bool
	// Targets the function is, or should be, attached to. Empty unless attached.
	Targets []TargetStatus
	// Err says why the function failed or, if it waits, what for. A function that is attached to some
	// of its targets only has the reasons of the others here.
	Err error
	// Pinned says that all attachments are pinned; PinErr why they are not although the Program asks for it.
	Pinned bool
	PinErr error

	// ProgramID in the kernel, 0 if not loaded.
	ProgramID ebpf.ProgramID
	// VerifiedInstructions is what the verifier had to look at; 0 on kernels before 5.16.
	VerifiedInstructions uint32
	// MemoryBytes that the function itself takes in the kernel.
	MemoryBytes  uint64
	LoadDuration time.Duration
	// Counted says that Runs counts this function.
	Counted bool
}

// TargetStatus says whether a function is attached to one target.
type TargetStatus struct {
	Name string
	// Err is nil if it is attached.
	Err error
}

// Spec returns the Program's spec, without its code.
func (i *Instance) Spec() *program.Spec { return i.spec }

// Map returns a map by its name in the object, nil if it does not exist. The
// instance owns it.
func (i *Instance) Map(name string) *ebpf.Map {
	if lm := i.maps[name]; lm != nil {
		return lm.m
	}
	return nil
}

// MapNames returns the names of the maps that exist, in a fixed order.
func (i *Instance) MapNames() []string { return i.mapNames }

// Program returns a loaded function, nil if it is not loaded. The instance owns it.
func (i *Instance) Program(function string) *ebpf.Program {
	i.mu.Lock()
	defer i.mu.Unlock()
	if f := i.functions[function]; f != nil {
		return f.prog
	}
	return nil
}

// OpenIterator starts a run of an iterator function and returns the bytes it writes. The caller closes it. Of an
// optional function that failed it returns nil, without an error.
func (i *Instance) OpenIterator(function string) (io.ReadCloser, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, ErrClosed
	}
	f := i.functions[function]
	if f == nil || f.hook.Kind != program.Iterator {
		return nil, fmt.Errorf("the Program has no iterator %s", function)
	}
	if f.attachedCount() == 0 {
		if f.hook.Optional && f.state == Failed {
			return nil, nil
		}
		if f.err != nil {
			return nil, f.err
		}
		return nil, fmt.Errorf("the iterator %s is %s", function, f.state)
	}
	iterator, ok := f.attached[0].attachment.(*link.Iter)
	if !ok {
		return nil, fmt.Errorf("the iterator %s has no link", function)
	}
	r, err := iterator.Open()
	if err != nil {
		return nil, fmt.Errorf("run the iterator %s: %w", function, err)
	}
	return r, nil
}

// Hooks returns the state of every function, in the order of Spec.Hooks.
func (i *Instance) Hooks() []HookStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	hooks := make([]HookStatus, 0, len(i.order))
	for _, f := range i.order {
		hooks = append(hooks, f.status())
	}
	return hooks
}

func (f *function) status() HookStatus {
	s := HookStatus{
		Function: f.hook.Function, Kind: f.hook.Kind, Target: f.hook.Target, State: f.state,
		Attached: f.state == Attached, Optional: f.hook.Optional, Group: f.hook.Group, Rank: f.hook.Rank, Chosen: f.chosen,
		Err: f.err, PinErr: f.pinErr, ProgramID: f.programID, VerifiedInstructions: f.verified, MemoryBytes: f.memory,
		LoadDuration: f.loadDuration, Counted: f.counted,
	}
	if f.state == Waiting {
		s.Err = f.waiting
	}
	pinned := 0
	errs := []error{f.waiting}
	for _, a := range f.attached {
		s.Targets = append(s.Targets, TargetStatus{Name: a.target.Name, Err: a.err})
		pinned += boolInt(a.pinned)
		if a.err != nil {
			errs = append(errs, a.err)
		}
	}
	s.Pinned = pinned > 0 && pinned == f.attachedCount()
	if f.state == Attached {
		s.Err = errors.Join(errs...)
	}
	return s
}

// Degraded returns why the Program does less than it should: the errors of required functions
// that failed although others work. nil means that all is well.
func (i *Instance) Degraded() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	var errs []error
	for _, f := range i.order {
		if f.hook.Group == "" {
			if !f.hook.Optional {
				if err := errors.Join(f.err, f.missing); err != nil {
					errs = append(errs, err)
				}
			}
			continue
		}
		group := i.groups[f.hook.Group]
		if len(group) == 0 || group[0] != f {
			continue
		}
		works, optional := false, true
		var reasons []error
		for _, other := range group {
			works = works || other.works()
			optional = optional && other.hook.Optional
			if other.err != nil {
				reasons = append(reasons, other.err)
			}
			if other.missing != nil && !optional {
				errs = append(errs, other.missing)
			}
		}
		if !works && !optional {
			errs = append(errs, reasons...)
		}
	}
	return errors.Join(append(errs, i.following.stuck())...)
}

// LoadDuration is how long loading and attaching took.
func (i *Instance) LoadDuration() time.Duration { return i.loadDuration }

// ReloadGap is how long nothing counted while this instance replaced another; 0
// if it replaced none or the kernel exchanged all functions at once.
func (i *Instance) ReloadGap() time.Duration { return i.reloadGap }

// Started is when the Program's maps began to count. An instance that adopted
// pins or replaced another keeps their time; MapStarted tells for single maps.
func (i *Instance) Started() time.Time { return i.started }

// MapStarted is when a map began to count: earlier than the instance if it was
// taken over. Zero if there is no such map.
func (i *Instance) MapStarted(name string) time.Time {
	if lm := i.maps[name]; lm != nil {
		return lm.started
	}
	return time.Time{}
}

// KeptMap says that the map was taken over from a predecessor with what it held.
func (i *Instance) KeptMap(name string) bool {
	lm := i.maps[name]
	return lm != nil && lm.kept
}

func (i *Instance) ready() {
	now := time.Now()
	if i.started.IsZero() {
		i.started = now
	}
	for _, lm := range i.maps {
		if lm.started.IsZero() {
			lm.started = now
		}
	}
	i.loadDuration = now.Sub(i.begun)
}

// forgetCode frees what only loading needs. Instructions and types of the default Programs take 12 MB.
func (i *Instance) forgetCode() {
	i.spec, i.coll = i.spec.WithoutCode(), nil
	for _, f := range i.order {
		f.spec = nil
	}
}

// Close detaches the Program and frees what it holds in the kernel. What is
// pinned stays: see Engine.Remove.
func (i *Instance) Close() error {
	i.mu.Lock()
	if i.closed {
		i.mu.Unlock()
		return nil
	}
	i.closed = true
	i.mu.Unlock()
	i.engine.remove(i)
	i.following.stop()
	i.following.wait()
	return i.discard()
}

// discard frees everything; the instance may be incomplete.
func (i *Instance) discard() error {
	i.following.stop()
	var errs []error
	for n := len(i.order) - 1; n >= 0; n-- {
		f := i.order[n]
		for t := range f.places {
			f.closePlace(t)
		}
		if err := closeAll(f.attached); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
		}
		f.attached = nil
	}
	for _, f := range i.order {
		if f.prog != nil {
			f.prog.Close()
			f.prog = nil
		}
	}
	for _, lm := range i.maps {
		lm.m.Close()
	}
	i.runs.close()
	if i.pinLock != nil {
		i.pinLock.Close()
		i.pinLock = nil
	}
	return errors.Join(errs...)
}

// rescan follows targets that come and go.
func (i *Instance) rescan() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil
	}
	var errs []error
	for _, f := range i.order {
		if !f.family.follow || i.inContainers(f) || f.prog == nil || f.tailCalled || f.state != Attached && f.state != Waiting {
			continue
		}
		targets, err := f.family.findTargets(i.engine, &f.hook)
		if err != nil && !errors.Is(err, ErrNoTarget) && !errors.Is(err, errNothingYet) {
			errs = append(errs, fmt.Errorf("%s: %w", f, err))
			continue
		}
		f.waiting = err
		f.dropGone(targets)
		// What failed once is not tried again at every scan.
		var fresh []target
		for _, t := range targets {
			if f.find(t) == nil {
				fresh = append(fresh, t)
			}
		}
		f.attachTargets(i, fresh)
		if len(fresh) > 0 {
			i.pin()
		}
		for _, t := range fresh {
			if a := f.find(t); a != nil && a.err != nil {
				errs = append(errs, a.err)
			}
		}
		switch {
		case f.attachedCount() > 0:
			f.state = Attached
		default:
			f.state = Waiting
			if f.waiting == nil {
				f.waiting = errNothingYet
			}
		}
	}
	return errors.Join(errs...)
}

// dropGone closes the attachments whose targets no longer exist.
func (f *function) dropGone(targets []target) {
	kept := f.attached[:0]
	for _, a := range f.attached {
		gone := true
		for _, t := range targets {
			gone = gone && t != a.target
		}
		if !gone {
			kept = append(kept, a)
			continue
		}
		if p, ok := a.attachment.(pinner); ok && a.pinned {
			_ = p.Unpin()
		}
		if a.attachment != nil {
			// The target is gone, so the kernel detached already; an error says nothing new.
			_ = a.attachment.Close()
		}
		f.closePlace(a.target)
	}
	clear(f.attached[len(kept):])
	f.attached = kept
}

// sanitizePin makes a name fit for a bpffs, which reserves dots.
func sanitizePin(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return '_'
	}, name)
}
