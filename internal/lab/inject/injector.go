package inject

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// Injector injects each kind at most once at a time, and counts. Create it with NewInjector. It is safe for concurrent use.
type Injector struct {
	start time.Time

	mu      sync.Mutex
	running map[Kind]*Injection
	// cpuSeconds and started of the injections that were replaced by another.
	cpuSeconds map[Kind]float64
	started    map[Kind]uint64
}

// NewInjector returns one that injects nothing.
func NewInjector() *Injector {
	return &Injector{start: time.Now(), running: map[Kind]*Injection{}, cpuSeconds: map[Kind]float64{}, started: map[Kind]uint64{}}
}

// Start is Start, unless this kind is injected already: ErrBusy.
func (j *Injector) Start(ctx context.Context, kind Kind, options Options) (*Injection, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.running[kind]
	if before != nil && before.Status().Running {
		return nil, fmt.Errorf("%s: %w: stop it first, or wait %v", kind, ErrBusy, before.Status().Remaining.Round(time.Second))
	}
	i, err := Start(ctx, kind, options)
	if err != nil {
		return nil, err
	}
	if before != nil {
		j.cpuSeconds[kind] += before.Status().CPUSeconds
	}
	j.running[kind] = i
	j.started[kind]++
	return i, nil
}

// Status tells of the latest injection of each kind, in the order of Kinds; kinds that were not injected yet are left out.
func (j *Injector) Status() []Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []Status
	for _, kind := range Kinds() {
		if i := j.running[kind]; i != nil {
			all = append(all, i.Status())
		}
	}
	return all
}

// Stop ends what is injected of a kind, and returns when it has ended.
func (j *Injector) Stop(kind Kind) {
	j.mu.Lock()
	i := j.running[kind]
	j.mu.Unlock()
	if i != nil {
		i.Stop()
	}
}

// Close ends all.
func (j *Injector) Close() {
	for _, kind := range Kinds() {
		j.Stop(kind)
	}
}

// Families are the metrics, the caller's: what the injections say of themselves.
func (j *Injector) Families() []*series.Family {
	j.mu.Lock()
	defer j.mu.Unlock()
	seconds, bytes, active := 0.0, int64(0), [2]uint64{}
	started := make([]uint64, 0, 2)
	for n, kind := range Kinds() {
		seconds += j.cpuSeconds[kind]
		started = append(started, j.started[kind])
		if i := j.running[kind]; i != nil {
			s := i.Status()
			seconds += s.CPUSeconds
			bytes += s.Bytes
			if s.Running {
				active[n] = 1
			}
		}
	}
	start := j.start.UnixMilli()
	var labels []string
	for _, kind := range Kinds() {
		labels = append(labels, string(series.AppendLabel(nil, "kind", string(kind))))
	}
	family := func(name, help, unit string, kind program.Type, scale program.Scale, labels []string, values ...uint64) *series.Family {
		f := &series.Family{Stride: 1, Values: values, Metric: &program.Metric{
			Name: name, Help: help, Unit: unit, Type: kind, Scale: scale, Cells: []program.Field{{Size: 8}},
		}}
		for _, l := range labels {
			p := series.Point{Labels: l}
			if kind == program.Counter {
				p.Start = start
			}
			f.Points = append(f.Points, p)
		}
		return f
	}
	return []*series.Family{
		family("accelerator_injected_cpu_seconds_total", "CPU time that injections used, as they say themselves.", "seconds",
			program.Counter, program.Scale{Num: 1, Den: 1e9}, []string{""}, uint64(seconds*1e9)),
		family("accelerator_injected_memory_bytes", "Memory that is injected now, as the injection says itself.", "bytes",
			program.Gauge, program.Scale{}, []string{""}, uint64(bytes)),
		family("accelerator_injections_total", "Injections that were started.", "", program.Counter, program.Scale{}, labels, started...),
		family("accelerator_injection_active", "1 while something of this kind is injected.", "", program.Gauge, program.Scale{}, labels, active[:]...),
	}
}
