package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/stream"
	"github.com/kaon-project/kaon/internal/workload"
)

// unit is one Program and what became of it.
type unit struct {
	// source is the entry of the configuration that the Program came from.
	source string
	config ProgramConfig
	// spec is nil if the source could not be read; name is then the source.
	name   string
	spec   *program.Spec
	digest [sha256.Size]byte

	instance *engine.Instance
	streams  *stream.Set
	sets     *cgroupSets
	// badSpans are records that were to be spans.
	badSpans  atomic.Uint64
	collector *series.Collector
	// previous is the latest collector: the next one goes on with its series.
	previous *series.Collector
	// err says why the Program is down, or why its latest change was not taken.
	err error
	// unread says that err is the source's: no kernel has seen it.
	unread bool
	since  time.Time

	// use guards source, spec, digest, config, instance, collector, err and since: it is held for reading while maps are
	// read, for writing while they are exchanged or closed. Apply reads them without, as only it writes. Taken after Agent.mu is released.
	use sync.RWMutex
	// scrape is how long the latest collection took, in nanoseconds.
	scrape atomic.Int64
}

func (u *unit) reap(ctx context.Context, now time.Time) error {
	u.use.RLock()
	defer u.use.RUnlock()
	if u.collector == nil {
		return nil
	}
	return u.collector.Reap(ctx, now)
}

// bring makes a wanted unit run and returns it, or the old one where that has to go on.
func (a *Agent) bring(ctx context.Context, old, wanted *unit, others []*unit) *unit {
	log := a.log.With("program", wanted.name)
	wanted.since = time.Now()
	running := old != nil && old.instance != nil
	if wanted.err != nil || wanted.spec == nil {
		if old == nil || !old.unread || old.err == nil || !strings.HasSuffix(old.err.Error(), wanted.err.Error()) { // it was said already
			log.Error("could not read the program", "source", wanted.source, "error", wanted.err)
		}
		wanted.unread = true
		return a.fallBack(old, wanted)
	}
	if running && old.digest == wanted.digest {
		old.use.Lock()
		old.err, old.unread, old.config, old.source = nil, false, wanted.config, wanted.source
		old.use.Unlock()
		return old
	}
	if err := clash(wanted, others); err != nil {
		wanted.err, wanted.spec = err, wanted.spec.WithoutCode()
		log.Error("the program can't run beside another", "error", err)
		return a.fallBack(old, wanted)
	}
	u := wanted
	if running {
		u = old
	}
	if err := a.load(ctx, u, wanted); err != nil {
		wanted.err, wanted.spec = err, wanted.spec.WithoutCode()
		if ctx.Err() != nil {
			log.Info("the program is not loaded any more, because the agent ends")
			return a.fallBack(old, wanted)
		}
		log.Error("could not load the program", "error", err)
		logVerifier(log, err)
		return a.fallBack(old, wanted)
	}
	log.Info("program is up", "load", u.instance.LoadDuration().Round(time.Millisecond), "reloadGap", u.instance.ReloadGap())
	hooks := u.instance.Hooks()
	for _, h := range hooks {
		if h.Err != nil {
			log.Log(ctx, severity(h, hooks), "hook is not in use", "function", h.Function, "state", h.State, "reason", h.Err)
			logVerifier(log, h.Err)
		}
	}
	return u
}

// severity is how much it matters that a hook is not in use.
func severity(h engine.HookStatus, all []engine.HookStatus) slog.Level {
	replaced := h.Group != "" && slices.ContainsFunc(all, func(o engine.HookStatus) bool { return o.Group == h.Group && o.Attached })
	switch {
	case replaced:
		return slog.LevelDebug // that is what alternatives are for
	case h.State == engine.Waiting || h.Optional:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// logVerifier logs all that the verifier said, of which the error has only the lines that matter.
func logVerifier(log *slog.Logger, err error) {
	var rejection *ebpf.VerifierError
	if !log.Enabled(context.Background(), slog.LevelDebug) || !errors.As(err, &rejection) {
		return
	}
	for _, line := range rejection.Log {
		log.Debug("verifier: " + line)
	}
}

// load makes u run what is wanted. If u runs already, it is the same Program: scrapes wait while its
// successor takes its place, and it goes on if there is none.
func (a *Agent) load(ctx context.Context, u, wanted *unit) error {
	// Scrapes go on until the new version is loaded.
	locked := false
	lock := func() {
		if !locked {
			u.use.Lock()
			locked = true
		}
	}
	defer func() {
		if locked {
			u.use.Unlock()
		}
	}()
	var filled *cgroupSets
	defer func() { filled.close() }()
	exchanging := func(next *engine.Instance) error {
		lock()
		var err error
		filled, err = a.fillCgroups(wanted.spec, wanted.config.selection(), next)
		return err
	}
	read := func(instance *engine.Instance) error {
		lock()
		if err := a.read(u, wanted.spec, wanted.config, instance); err != nil {
			return fmt.Errorf("read the program's maps: %w", err)
		}
		return nil
	}
	if before := u.instance; before != nil {
		if _, err := a.engine.ReplaceWithOptions(ctx, before, wanted.spec, engine.ReplaceOptions{Containers: a.containers(wanted.config), Exchanging: exchanging, Exchanged: read}); err != nil {
			if u.instance == before {
				return err
			}
			// It goes on, and is to be read again.
			if backErr := a.read(u, u.spec, u.config, before); backErr != nil {
				return errors.Join(err, backErr, before.Close())
			}
			return err
		}
	} else {
		instance, err := a.engine.LoadWithOptions(ctx, wanted.spec, engine.LoadOptions{Containers: a.containers(wanted.config)})
		if err != nil {
			return err
		}
		if err := read(instance); err != nil {
			return errors.Join(err, instance.Close())
		}
	}
	u.source, u.spec, u.digest, u.config, u.since = wanted.source, u.instance.Spec(), wanted.digest, wanted.config, wanted.since
	u.err, u.unread = nil, false
	return nil
}

// read makes u read an instance instead of what it reads. After an error it reads nothing.
func (a *Agent) read(u *unit, spec *program.Spec, config ProgramConfig, instance *engine.Instance) error {
	// Who reads keeps the spec, and needs no code.
	spec = spec.WithoutCode()
	// A ring has one reader: what is sent meanwhile waits in it.
	if u.streams != nil {
		if err := u.streams.Close(); err != nil {
			a.log.Warn("could not stop reading streams", "program", u.name, "error", err)
		}
	}
	sets, err := a.followCgroups(spec, config.selection(), instance, u.sets)
	u.sets = nil
	if err != nil {
		u.instance, u.collector, u.streams = nil, nil, nil
		return err
	}
	streams := stream.NewSet(spec, instance)
	collector, err := series.NewCollector(spec, source{instance, streams}, series.Options{
		Resolver: a.resolver(config), Cgroups: a.workloads, Directories: a.workloads, Host: a.host, Buffers: a.buffers, Logger: a.log.With("program", u.name), Started: instance.Started(), Previous: u.previous,
	})
	if err == nil {
		err = a.exportSpans(u, spec, streams)
	}
	if err != nil {
		sets.close()
		u.instance, u.collector, u.streams = nil, nil, nil
		return errors.Join(err, streams.Close())
	}
	u.instance, u.collector, u.previous, u.streams, u.sets = instance, collector, collector, streams, sets
	return nil
}

// selecting marks the workloads for which a Program is not meant.
type selecting struct {
	*workload.Cgroups
	selection Selection
}

func (s *selecting) Resolve(id workload.ID) (workload.Workload, workload.State) {
	w, state := s.Cgroups.Resolve(id)
	w.Unselected = !s.selection.Selects(w)
	return w, state
}

// resolver names workloads for one Program.
func (a *Agent) resolver(config ProgramConfig) workload.Resolver {
	if s := config.selection(); s != nil {
		return &selecting{a.workloads, s}
	}
	return a.workloads
}

// fallBack lets the old unit go on with the new one's error, if there is one that runs.
func (a *Agent) fallBack(old, wanted *unit) *unit {
	a.ReloadFailed()
	if old == nil || old.instance == nil {
		return wanted
	}
	old.use.Lock()
	defer old.use.Unlock()
	old.err, old.unread = fmt.Errorf("the latest change was not taken: %w", wanted.err), wanted.unread
	return old
}

func (a *Agent) remove(u *unit) {
	a.mu.Lock()
	a.units = slices.DeleteFunc(slices.Clone(a.units), func(o *unit) bool { return o == u })
	a.mu.Unlock()
	if u.instance == nil {
		return
	}
	u.use.Lock()
	defer u.use.Unlock()
	u.collector = nil
	if err := u.unload(); err != nil {
		a.log.Warn("could not unload the program", "program", u.name, "error", err)
	}
	if u.spec.Pin {
		if err := a.engine.Remove(u.name); err != nil {
			a.log.Warn("could not remove the program's pins", "program", u.name, "error", err)
		}
	}
	a.log.Info("program is unloaded", "program", u.name)
}

// source is where a collector reads.
type source struct {
	*engine.Instance
	*stream.Set
}

// unload closes what the unit has in the kernel.
func (u *unit) unload() error {
	u.sets.close()
	return errors.Join(u.streams.Close(), u.instance.Close())
}

// clash tells whether u would export something that another Program exports already.
func clash(u *unit, others []*unit) error {
	for _, o := range others {
		if o.instance == nil {
			continue
		}
		if o.name == u.name {
			return fmt.Errorf("%w: %s comes from %s: rename one of them", ErrDuplicateProgram, u.name, o.source)
		}
		for _, mine := range metricsOf(u.spec) {
			for _, theirs := range metricsOf(o.spec) {
				if err := program.Compatible(mine, theirs); err != nil {
					return fmt.Errorf("%w: program %s: %w: rename it, drop it, or set staticLabels that differ", ErrDuplicateMetric, o.name, err)
				}
			}
		}
	}
	return nil
}

// metricsOf lists the metrics that exist with the spec's params.
func metricsOf(spec *program.Spec) []*program.Metric {
	var all []*program.Metric
	for i := range spec.Readers {
		for j := range spec.Readers[i].Metrics {
			if m := &spec.Readers[i].Metrics[j]; spec.Enabled(m.When, m.Unless) {
				all = append(all, m)
			}
		}
	}
	return all
}
