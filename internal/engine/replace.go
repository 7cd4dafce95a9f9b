package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// Replace exchanges a running Program for another version of it. The new code is loaded first;
// if that fails, the old one never notices. Maps whose layout is unchanged are handed over with what they
// hold. Then each attachment that the kernel can exchange in place is; the others are detached before
// the new ones attach, so that no event is counted twice. If the new version does not attach, the old one is
// attached again and goes on; the error says why. After success old is closed.
func (e *Engine) Replace(ctx context.Context, old *Instance, spec *program.Spec) (*Instance, error) {
	return e.ReplaceWithOptions(ctx, old, spec, ReplaceOptions{})
}

// ReplaceOptions of ReplaceWithOptions. The zero value is usable.
type ReplaceOptions struct {
	// Containers as in LoadOptions.
	Containers ContainerSource
	// Exchanging, if not nil, is called once the new version is loaded, which may take
	// the verifier a while, and before anything happens to the old one: who reads old's maps stops there. Its error ends the attempt.
	Exchanging func(next *Instance) error
	// Exchanged, if not nil, is called once the new version is attached and before the old one is
	// closed. With an error the old one is attached again and goes on. It must not use the old one.
	Exchanged func(*Instance) error
}

// ReplaceWithOptions is Replace with a say in when the old version's maps are let go.
func (e *Engine) ReplaceWithOptions(ctx context.Context, old *Instance, spec *program.Spec, options ReplaceOptions) (*Instance, error) {
	i, err := e.prepare(spec)
	if err != nil {
		return nil, err
	}
	i.containers = options.Containers
	closed := func() error { return fmt.Errorf("replace program %s: %w", old.spec.Name, ErrClosed) }
	old.mu.Lock()
	gone := old.closed
	old.mu.Unlock()
	if gone {
		return nil, closed()
	}
	if err := i.load(ctx, func(name string, layout [sha256.Size]byte, _ *ebpf.MapSpec) *ebpf.Map { return old.hand(name, layout) }); err != nil {
		return nil, errors.Join(err, i.discard())
	}
	if options.Exchanging != nil {
		if err := options.Exchanging(i); err != nil {
			return nil, errors.Join(err, i.discard())
		}
	}
	replaced := false
	defer func() { // without the lock
		if replaced {
			old.following.wait()
		}
	}()
	old.mu.Lock()
	defer old.mu.Unlock()
	if old.closed {
		return nil, errors.Join(closed(), i.discard())
	}
	i.inheritPlaces(old)
	if err := i.worseThan(old); err != nil {
		return nil, errors.Join(err, i.discard())
	}
	if err := i.exchange(ctx, old, options.Exchanged); err != nil {
		return nil, err
	}
	if old.spec.Name == spec.Name {
		i.pinLock, old.pinLock = old.pinLock, nil
	}
	i.settlePins(old)
	old.closed, replaced = true, true
	e.remove(old)
	// All that counted moved on or is detached; what is left is memory.
	if err := old.discard(); err != nil {
		e.log.Warn("could not free all of a replaced program", "program", spec.Name, "error", err)
	}
	i.forgetCode()
	e.add(i)
	i.followContainers()
	return i, nil
}

// hand returns a duplicate of the map if a successor may take it over.
func (i *Instance) hand(name string, layout [sha256.Size]byte) *ebpf.Map {
	lm := i.maps[name]
	if lm == nil || lm.layout != layout {
		return nil
	}
	m, err := lm.m.Clone()
	if err != nil {
		i.engine.log.Warn("a map is not handed over", "program", i.spec.Name, "map", name, "error", err)
		return nil
	}
	return m
}

// worseThan returns an error if a required function fails that does not fail in old.
func (i *Instance) worseThan(old *Instance) error {
	var errs []error
	for _, f := range i.order {
		if f.state != Failed || f.hook.Optional {
			continue
		}
		if f.hook.Group != "" {
			works := false
			for _, other := range i.groups[f.hook.Group] {
				works = works || other.works()
			}
			if works {
				continue
			}
		}
		if before := old.functions[f.hook.Function]; before != nil && before.state == Failed {
			continue
		}
		errs = append(errs, f.err)
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("replace program %s, the old version keeps running: %w", i.spec.Name, errors.Join(errs...))
}

// handover is what exchange did, to be undone if it fails.
type handover struct {
	old, new *function
	attached []*attachedTarget
}

// exchange detaches old and attaches i, which is then offered to exchanged unless that is nil. On failure i is discarded
// and old is attached as before.
func (i *Instance) exchange(ctx context.Context, old *Instance, exchanged func(*Instance) error) error {
	updatable := make(map[*function]*function)
	for _, f := range i.order {
		before := old.functions[f.hook.Function]
		if before != nil && f.prog != nil && f.state == Loaded && before.state == Attached && canUpdate(before, f) && i.isCandidateOrFree(f) {
			updatable[before] = f
		}
	}
	begun := time.Now()
	detached := make(map[*function]bool)
	var err error
	for n := len(old.order) - 1; n >= 0; n-- {
		before := old.order[n]
		if before.state != Attached || updatable[before] != nil {
			continue
		}
		if before.hook.Kind != program.Iterator {
			detached[before] = true
		}
		err = errors.Join(err, before.detach())
	}
	var moved []handover
	for _, before := range old.order {
		f := updatable[before]
		if f == nil {
			continue
		}
		if updateErr := before.update(f.prog); updateErr != nil {
			// The kernel does not exchange this one after all.
			i.engine.log.Debug("exchange in place failed", "function", f.hook.Function, "error", updateErr)
			detached[before] = true
			err = errors.Join(err, before.detach())
			continue
		}
		moved = append(moved, handover{old: before, new: f, attached: before.attached})
		f.attached, before.attached = before.attached, nil
		f.state, before.state = Attached, Loaded
		// Targets that appeared meanwhile are attached to as well.
		if targets, targetsErr := i.targetsOf(f); targetsErr == nil {
			f.attachTargets(i, targets)
		}
	}
	if i.runs != nil {
		i.runBase = make(map[string]uint64)
		for _, before := range old.order {
			if before.counted {
				i.runBase[before.hook.Function] = old.countOf(before)
			}
		}
	}
	if err == nil {
		err = i.attach(ctx)
	}
	if err == nil {
		err = i.worseThan(old)
	}
	if err == nil {
		if len(detached) > 0 {
			i.reloadGap = time.Since(begun)
		}
		i.inherit(old)
		i.ready()
		if exchanged != nil {
			err = exchanged(i)
		}
	}
	if err == nil {
		return nil
	}
	// Back to the old version: first take off what is new.
	var undo []error
	for _, h := range moved {
		kept := make(map[*attachedTarget]bool)
		for _, a := range h.attached {
			kept[a] = true
		}
		for _, a := range h.new.attached {
			if !kept[a] && a.attachment != nil {
				undo = append(undo, a.attachment.Close())
			}
		}
		h.new.attached = nil
		h.old.attached, h.old.state = h.attached, Attached
		if updateErr := h.old.update(h.old.prog); updateErr != nil {
			undo = append(undo, fmt.Errorf("give %s back: %w", h.old, updateErr))
		}
	}
	undo = append(undo, i.discard())
	// The map that was handed over holds what the new version wrote: all that attach again write anew.
	old.usdt = usdtSpecs{}
	for _, before := range old.order {
		if before.state != Attached && before.state != Loaded || len(before.attached) > 0 {
			continue
		}
		if detached[before] || before.hook.Kind == program.Iterator {
			before.state = Loaded
			old.attachFunction(before)
			if before.state == Failed {
				undo = append(undo, fmt.Errorf("attach the old version again: %w", before.err))
			}
		}
	}
	old.pin()
	return errors.Join(append([]error{fmt.Errorf("the old version of %s runs on: %w", old.spec.Name, err)}, undo...)...)
}

// inherit takes over when old's maps began to count.
func (i *Instance) inherit(old *Instance) {
	for name, lm := range i.maps {
		if lm.kept {
			lm.started = old.maps[name].started
			i.started = old.started
		}
	}
}

// isCandidateOrFree says that the function stands alone or is the best of its group.
func (i *Instance) isCandidateOrFree(f *function) bool {
	return f.hook.Group == "" || i.isCandidate(f)
}

// canUpdate says that attachments of before can be given to f in place: both are attached to the same
// targets in the same way, and the kernel exchanges such functions.
func canUpdate(before, f *function) bool {
	a, b := &before.hook, &f.hook
	if !f.family.update || a.Kind != b.Kind || a.Target != b.Target || a.PID != b.PID || before.prog == nil ||
		!reflect.DeepEqual(a.Interfaces, b.Interfaces) || !reflect.DeepEqual(a.Cgroups, b.Cgroups) ||
		before.attachType != f.attachType || before.tailCalled != f.tailCalled {
		return false
	}
	for _, t := range before.attached {
		if t.attachment == nil {
			continue
		}
		if _, ok := t.attachment.(updater); !ok {
			return false
		}
	}
	return true
}

// update gives all attachments of f to prog, or none.
func (f *function) update(prog *ebpf.Program) error {
	var done []updater
	for _, a := range f.attached {
		if a.attachment == nil {
			continue
		}
		u, ok := a.attachment.(updater)
		err := ErrUnsupported
		if ok {
			err = u.Update(prog)
		}
		if err != nil {
			for _, d := range done {
				_ = d.Update(f.prog)
			}
			return fmt.Errorf("exchange the function on %s: %w", a.target.Name, err)
		}
		done = append(done, u)
	}
	return nil
}

// detach takes f off all of its targets for good, also where it is pinned.
func (f *function) detach() error {
	var errs []error
	var ids []link.ID
	for _, a := range f.attached {
		if !a.pinned {
			continue
		}
		if l, ok := a.attachment.(interface{ Info() (*link.Info, error) }); ok {
			if info, err := l.Info(); err == nil {
				ids = append(ids, info.ID)
			}
		}
		if p, ok := a.attachment.(pinner); ok {
			errs = append(errs, p.Unpin())
		}
		a.pinned = false
	}
	errs = append(errs, closeAll(f.attached), waitDetached(ids))
	f.attached = nil
	f.state = Loaded
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", f, err)
	}
	return nil
}

// countOf returns how often a function ran, in this instance and those it replaced.
func (i *Instance) countOf(f *function) uint64 {
	n := i.runBase[f.hook.Function]
	if i.runs != nil && f.counted {
		n += i.runs.runs(f.index)
	}
	return n
}
