package agent

import (
	"context"
	"errors"
	"iter"
	"maps"
	"runtime/debug"
	"slices"

	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/program"
)

// Apply makes the running Programs those of the configuration: what is
// unchanged is left alone, what changed is replaced with its counters kept, the
// rest is loaded or unloaded. One Program's failure is its own: it is logged and reported by
// Status, and what ran before goes on. The error is about the context only.
func (a *Agent) Apply(ctx context.Context, config Config) error {
	a.applying.Lock()
	defer a.applying.Unlock()
	config = config.withDefaults()
	before := a.all()
	bring := a.exchange
	if len(before) == 0 && len(a.foreignPins()) == 0 {
		bring = a.start
		a.removePins = false // there are none, and those to come are this agent's
	}
	units, err := bring(ctx, config, before)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.units, a.config = units, config
	a.reloads++
	a.mu.Unlock()
	// What loading needed is a large part of what an idle agent would hold.
	a.engine.ForgetTypes()
	debug.FreeOSMemory()
	return nil
}

// start brings up the configuration's Programs where nothing can be in their way: while one is loaded, the source of
// the next is read, and that is all of their code that there is at a time.
func (a *Agent) start(ctx context.Context, config Config, before []*unit) ([]*unit, error) {
	var units []*unit
	for wanted := range ahead(sourcesOf(config, before)) {
		for _, w := range wanted {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			units = append(units, a.bring(ctx, nil, w, units))
			a.mu.Lock()
			a.units = slices.Clone(units)
			a.mu.Unlock()
		}
	}
	return units, nil
}

// ahead yields what the functions return, in their order. One of them runs while the result of the one before is used.
func ahead[T any](functions []func() T) iter.Seq[T] {
	return func(yield func(T) bool) {
		results, stopped := make(chan T), make(chan struct{})
		defer close(stopped)
		go func() {
			defer close(results)
			for _, f := range functions {
				select {
				case results <- f():
				case <-stopped:
					return
				}
			}
		}()
		for result := range results {
			if !yield(result) {
				return
			}
		}
	}
}

// exchange makes the running units those of the configuration, and returns these.
func (a *Agent) exchange(ctx context.Context, config Config, before []*unit) ([]*unit, error) {
	var wanted []*unit
	for _, resolve := range sourcesOf(config, before) {
		wanted = append(wanted, resolve()...)
	}
	// units has, in the order of the configuration, what runs now or nil, and then what came of it.
	units := match(before, wanted)

	// Programs that are not wanted any more go first: they may be in the way.
	for _, old := range before {
		if !slices.Contains(units, old) {
			a.remove(old)
		}
	}
	a.removeStalePins(wanted)
	bring := func(n int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		units[n] = a.bring(ctx, units[n], wanted[n], others(units, n))
		a.mu.Lock()
		defer a.mu.Unlock()
		a.units = others(units, -1)
		return nil
	}
	// What is in the way of another may change, too: then the other comes later.
	var late []int
	for n, w := range wanted {
		if w.err == nil && clash(w, others(units, n)) != nil {
			late = append(late, n)
			continue
		}
		if err := bring(n); err != nil {
			return nil, err
		}
	}
	for _, n := range late {
		if err := bring(n); err != nil {
			return nil, err
		}
	}
	return units, nil
}

// all returns the units of this moment.
func (a *Agent) all() []*unit {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return slices.Clone(a.units)
}

// match returns for each wanted unit the one that it continues, or nil: the one of the same source and
// name, or else the running one of the same name, whose source moved. None continues twice.
func match(before, wanted []*unit) []*unit {
	units := make([]*unit, len(wanted))
	take := func(fits func(old, w *unit) bool) {
		for n, w := range wanted {
			if units[n] != nil {
				continue
			}
			for _, old := range before {
				if fits(old, w) && !slices.Contains(units, old) {
					units[n] = old
					break
				}
			}
		}
	}
	same := func(old, w *unit) bool { return old.source == w.source && old.name == w.name }
	take(func(old, w *unit) bool { return same(old, w) && old.instance != nil })
	take(same)
	take(func(old, w *unit) bool { return old.instance != nil && w.spec != nil && old.name == w.name })
	return units
}

// others returns the units that are there, except the one of that index.
func others(units []*unit, except int) []*unit {
	var list []*unit
	for n, u := range units {
		if u != nil && n != except {
			list = append(list, u)
		}
	}
	return list
}

// removeStalePins removes the pins of Programs that are pinned no more: once, when it is known what all sources hold.
func (a *Agent) removeStalePins(wanted []*unit) {
	if !a.removePins || slices.ContainsFunc(wanted, func(w *unit) bool { return w.spec == nil }) {
		return
	}
	names := a.foreignPins()
	a.removePins = false
	for _, name := range names {
		if slices.ContainsFunc(wanted, func(w *unit) bool { return w.name == name && w.spec.Pin }) {
			continue
		}
		if err := a.engine.Remove(name); err != nil {
			a.log.Warn("could not remove the pins of a program that is not configured any more", "program", name, "error", err)
			continue
		}
		a.log.Info("removed the pins of a program that is not configured any more", "program", name)
	}
}

// foreignPins returns the Programs that had pins when the agent started, as long as some of those may have to go.
func (a *Agent) foreignPins() []string {
	if !a.removePins {
		return nil
	}
	names, err := a.engine.Pinned()
	if err != nil {
		a.log.Warn("could not look for pins of programs that are not configured any more", "error", err)
	}
	return names
}

// sourcesOf returns functions that read the configuration's sources. A source that can't be read keeps the Programs that it gave before.
func sourcesOf(config Config, before []*unit) []func() []*unit {
	var all []func() []*unit
	for _, pc := range config.Programs {
		sources := []string{pc.Source}
		if pc.isPath() {
			var err error
			if sources, err = expand(pc.Source); err != nil {
				all = append(all, func() []*unit { return []*unit{{source: pc.Source, name: pc.Source, config: pc, err: err}} })
				continue
			}
		}
		for _, source := range sources {
			all = append(all, func() []*unit { return resolve(source, pc, config, before) })
		}
	}
	return all
}

func resolve(source string, pc ProgramConfig, config Config, before []*unit) []*unit {
	specs, err := pc.resolve(source)
	var units []*unit
	for _, spec := range specs {
		if configureErr := configure(spec, pc, config); configureErr != nil {
			err = errors.Join(err, configureErr)
			continue
		}
		units = append(units, &unit{source: source, name: spec.Name, config: pc, spec: spec, digest: digest(spec)})
	}
	if err == nil {
		return units
	}
	// What this source gave before and does not give now goes on.
	kept := false
	for _, old := range before {
		known := slices.ContainsFunc(units, func(u *unit) bool { return u.name == old.name })
		if old.source == source && old.instance != nil && !known {
			units = append(units, &unit{source: source, name: old.name, config: pc, err: err})
			kept = true
		}
	}
	if !kept {
		name := source
		if pc.Resolved != nil {
			name = pc.Resolved.Name
		}
		units = append(units, &unit{source: source, name: name, config: pc, err: err})
	}
	return units
}

// resolve returns the Programs of one of the sources that the entry names, the caller's to change.
func (c *ProgramConfig) resolve(source string) ([]*program.Spec, error) {
	switch r := c.Resolved; {
	case r == nil:
		return ResolveWithOptions(source, ResolveOptions{Prefix: c.Prefix})
	case r.Err != nil:
		return nil, r.Err
	default:
		return []*program.Spec{r.Spec.Clone()}, nil
	}
}

// configure applies the agent's configuration to a spec.
func configure(spec *program.Spec, pc ProgramConfig, config Config) error {
	for _, name := range slices.Sorted(maps.Keys(pc.Params)) {
		if err := spec.SetParam(name, string(pc.Params[name])); err != nil {
			return err
		}
	}
	spec.Pin = spec.Pin || pc.Pin
	if pc.selection() != nil && spec.SelectsInKernel() {
		spec.CgroupSets = append(spec.CgroupSets, program.CgroupSet{Map: program.SelectedMap})
	}
	for i := range spec.Readers {
		for j := range spec.Readers[i].Metrics {
			if m := &spec.Readers[i].Metrics[j]; m.Limit == 0 {
				m.Limit = config.Limits.SeriesPerMetric
			}
		}
	}
	labels := maps.Clone(config.StaticLabels)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, pc.StaticLabels)
	return manifest.AddStaticLabels(spec, labels)
}
