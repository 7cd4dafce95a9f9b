// Package agent runs Programs: it turns a configuration into loaded Programs,
// keeps them as the configuration changes, and gathers their series.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/otlp"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/workload"
)

// Errors of programs that can't run beside the others.
var (
	ErrDuplicateProgram = errors.New("another program has this name")
	ErrDuplicateMetric  = errors.New("another program exports this metric")
)

// Options of an Agent. The zero value runs everything on the whole machine.
type Options struct {
	Logger *slog.Logger
	// CgroupRoot, PinDirectory, Statistics and MapBytes as in Config.
	CgroupRoot   string
	PinDirectory string
	Statistics   bool
	MapBytes     Text
	Traces       TracesConfig
	// Names of pods and containers; nil: pods have none.
	Names workload.PodNames
	// RemoveStalePins removes the pins of Programs that are not configured any more. Only for the agent that
	// owns the machine's pins, never for one that runs beside it.
	RemoveStalePins bool
}

// An Agent runs Programs. Its methods are safe for concurrent use.
type Agent struct {
	log       *slog.Logger
	engine    *engine.Engine
	layout    workload.Layout
	workloads *workload.Cgroups
	names     workload.PodNames // nil without
	host      *series.Host
	buffers   *series.Buffers
	// spans takes the Programs' spans; nil if they go nowhere.
	spans *otlp.Exporter
	// removePins is Options.RemoveStalePins.
	removePins bool

	// applying serialises changes; mu guards what scrapes read.
	applying sync.Mutex
	mu       sync.RWMutex
	config   Config
	units    []*unit
	reloads  uint64
	failures uint64

	// leftOut counts the series that did not fit into an exposition.
	leftOut atomic.Uint64
}

// New prepares an agent; it runs nothing until Apply. Close releases it.
func New(options Options) (*Agent, error) {
	a := &Agent{log: options.Logger, names: options.Names, host: series.NewHost(), buffers: &series.Buffers{}, removePins: options.RemoveStalePins}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	mapBytes, err := (&Limits{MapBytes: options.MapBytes}).mapBytes()
	if err != nil {
		return nil, fmt.Errorf("limits.mapBytes: %w", err)
	}
	types := btf.NewCache()
	kernel, err := types.Kernel()
	if err != nil {
		a.log.Warn("this kernel has no BTF: programs that need it will say so", "error", err)
	}
	a.layout, err = workload.DetectWithOptions(workload.DetectOptions{CgroupRoot: options.CgroupRoot, Types: kernel})
	if err != nil {
		return nil, fmt.Errorf("find out how cgroups are mounted: %w", err)
	}
	a.workloads, err = workload.NewCgroupsWithOptions(a.layout, workload.Options{Types: kernel, Names: options.Names})
	if err != nil {
		return nil, fmt.Errorf("list the machine's cgroups: %w", err)
	}
	if err := a.workloads.EventsErr(); err != nil {
		a.log.Warn("short-lived workloads may stay without a name: new cgroups are found by looking again", "reason", err)
	}
	engineOptions := engine.Options{
		Logger: a.log, Types: types, PinDir: options.PinDirectory, Stats: options.Statistics, MountFilesystems: true,
		MapMemoryLimit: mapBytes,
		CgroupMount:    a.layout.V2.Mount,
		Constants: engine.Constants{
			CgroupMode: uint32(a.layout.Mode), CgroupSubsys: a.layout.Subsystem,
			ScopeID: uint64(a.layout.Scope.ID), ScopeLevel: a.layout.Scope.Level,
		},
	}
	if a.layout.Scope.ID != 0 && a.layout.Mode == workload.ModeV2 {
		engineOptions.CgroupRoot = a.layout.V2.Mount + a.layout.Scope.Path
	}
	if a.engine, err = engine.New(engineOptions); err != nil {
		return nil, errors.Join(err, a.workloads.Close())
	}
	if a.spans, err = options.Traces.exporter(a.log); err != nil {
		return nil, errors.Join(err, a.workloads.Close(), a.engine.Close())
	}
	return a, nil
}

// Run follows cgroups, network interfaces and CPUs, and reaps the series of
// workloads that are gone, until the context ends.
func (a *Agent) Run(ctx context.Context) {
	var wait sync.WaitGroup
	wait.Go(func() { a.engine.Watch(ctx, 5*time.Second) })
	wait.Go(func() {
		ticker := time.NewTicker(time.Minute)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-ticker.C:
				a.reap(ctx, now)
			}
		}
	})
	wait.Wait()
}

func (a *Agent) reap(ctx context.Context, now time.Time) {
	for _, u := range a.all() {
		if err := u.reap(ctx, now); err != nil {
			a.log.Warn("could not remove the keys of workloads that are gone", "program", u.name, "error", err)
		}
	}
}

// A Health tells how one Program is. It costs next to nothing to find out, unlike Status.
type Health struct {
	Name, Source string
	State        State
	// Unread says that no Program could be made of the source, or of its latest change.
	Unread bool
	Reason string
}

// Health tells how each Program is.
func (a *Agent) Health() []Health {
	units := a.all()
	all := make([]Health, 0, len(units))
	for _, u := range units {
		all = append(all, u.health())
	}
	return all
}

func (u *unit) health() Health {
	u.use.RLock()
	defer u.use.RUnlock()
	h := Health{Name: u.name, Source: u.source, State: Down, Unread: u.unread}
	err := u.err
	if u.instance != nil && u.collector != nil {
		h.State, err = Up, errors.Join(u.err, u.instance.Degraded(), u.sets.problem())
		if err != nil {
			h.State = Degraded
		}
	}
	if err != nil {
		h.Reason = err.Error()
	}
	return h
}

// ReloadFailed counts a configuration that could not be read.
func (a *Agent) ReloadFailed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures++
}

// Close unloads all Programs. What is pinned stays.
func (a *Agent) Close() error {
	a.applying.Lock()
	defer a.applying.Unlock()
	a.mu.Lock()
	units := a.units
	a.units = nil
	a.mu.Unlock()
	var errs []error
	for _, u := range units {
		u.use.Lock()
		u.collector = nil
		if u.instance != nil {
			errs = append(errs, u.unload())
		}
		u.use.Unlock()
	}
	if a.spans != nil {
		a.spans.Close()
	}
	errs = append(errs, a.workloads.Close(), a.engine.Close())
	return errors.Join(errs...)
}
