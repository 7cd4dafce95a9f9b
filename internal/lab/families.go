package lab

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"go.starlark.net/starlark"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// reservedPrefix begins the lab's own metrics; reservedNames are the workshop's.
const reservedPrefix = "accelerator_"

var reservedNames = []string{"kick_power", "beam_speed_km_s", "beam_energy_mev"}

// sample is a series with a number.
type sample struct {
	labels string
	value  float64
}

// scalars makes a family of counters or gauges. Numbers are kept exactly.
func scalars(name, help, unit string, kind program.Type, start int64, samples ...sample) *series.Family {
	values := make([]float64, len(samples))
	for i := range samples {
		values[i] = samples[i].value
	}
	scale := scaleFor(values)
	f := &series.Family{Stride: 1, Metric: &program.Metric{
		Name: name, Help: help, Unit: unit, Type: kind, Scale: scale,
		Cells: []program.Field{{Size: 8, Signed: kind == program.Gauge}},
	}}
	for _, s := range samples {
		f.Points = append(f.Points, series.Point{Labels: s.labels, Start: start})
		f.Values = append(f.Values, raw(s.value, scale))
	}
	return f
}

// scaleFor returns how a family keeps numbers: as integers if they are all whole, and as floats otherwise.
func scaleFor(values []float64) program.Scale {
	for _, v := range values {
		if v != math.Trunc(v) || math.Abs(v) >= 1<<53 {
			return program.Scale{Float: true}
		}
	}
	return program.Scale{}
}

func raw(value float64, scale program.Scale) uint64 {
	if scale.Float {
		return math.Float64bits(value)
	}
	return uint64(int64(value))
}

// states makes a family of one stateset.
func states(name, help string, names []string, samples ...sample) *series.Family {
	m := &program.Metric{Name: name, Help: help, Type: program.StateSet, Cells: []program.Field{{Size: 8, Signed: true}}}
	for i, state := range names {
		m.States = append(m.States, program.State{Name: state, Value: int64(i)})
	}
	f := &series.Family{Metric: m, Stride: 1}
	for _, s := range samples {
		f.Points = append(f.Points, series.Point{Labels: s.labels})
		f.Values = append(f.Values, uint64(int64(s.value)))
	}
	return f
}

func info(name, help string, labels ...string) *series.Family {
	f := &series.Family{Metric: &program.Metric{Name: name, Help: help, Type: program.Info}}
	for _, l := range labels {
		f.Points = append(f.Points, series.Point{Labels: l})
	}
	return f
}

// family turns a program's metric into a family.
func (m *metric) family(start int64) *series.Family {
	var samples []sample
	var values []float64
	for _, s := range m.order {
		samples = append(samples, sample{s.labels, s.value})
		values = append(values, s.value)
	}
	switch m.kind {
	case program.Counter, program.Gauge:
		return scalars(m.name, m.help, "", m.kind, start, samples...)
	case program.StateSet:
		return states(m.name, m.help, m.states, samples...)
	case program.Info:
		f := info(m.name, m.help)
		for _, s := range samples {
			f.Points = append(f.Points, series.Point{Labels: s.labels})
		}
		return f
	}
	scale := scaleFor(values)
	f := &series.Family{Stride: 2, Metric: &program.Metric{
		Name: m.name, Help: m.help, Type: m.kind, Scale: scale, Buckets: m.buckets,
		Cells: []program.Field{{Size: 8}, {Size: 8, Signed: true}},
	}}
	if m.kind == program.Histogram {
		f.Stride = 1 + m.buckets.Slots()
		f.Metric.Cells = []program.Field{{Size: 8, Signed: true}, {Size: 8, Count: uint32(m.buckets.Slots())}}
	}
	for _, s := range m.order {
		f.Points = append(f.Points, series.Point{Labels: s.labels, Start: start})
		if m.kind == program.Histogram {
			f.Values = append(append(f.Values, raw(s.value, scale)), s.slots...)
		} else {
			f.Values = append(f.Values, s.count, raw(s.value, scale))
		}
	}
	return f
}

// Families returns the program's metrics. A gauge whose fn fails is left out; the first such error is returned
// with the rest.
func (p *Program) Families() ([]*series.Family, error) {
	var families []*series.Family
	var problem error
	for _, m := range p.metrics.metrics {
		if m.fn != nil {
			value, err := p.callback(m)
			if err != nil {
				if problem == nil {
					problem = err
				}
				continue
			}
			families = append(families, scalars(m.name, m.help, "", m.kind, 0, sample{"", value}))
			continue
		}
		families = append(families, m.family(p.metrics.start.UnixMilli()))
	}
	return families, problem
}

func (p *Program) callback(m *metric) (float64, error) {
	var returned float64
	err := p.run(kickSteps, false, func(thread *starlark.Thread) error {
		value, err := starlark.Call(thread, m.fn, nil, nil)
		if err != nil {
			return err
		}
		if returned, err = number(value); err != nil {
			return fmt.Errorf("what fn of %s returned %w", m.name, err)
		}
		return nil
	})
	return returned, err
}

// durations is the native histogram of runs: from 1 to 2048 seconds, eight buckets to a doubling.
type durations struct {
	nanoseconds uint64
	slots       []uint64
	exemplar    series.Exemplar
}

func durationBuckets() *program.Buckets { return &program.Buckets{Schema: 3, Low: 0, High: 11} }

func (d *durations) observe(r Result, now time.Time) {
	b := durationBuckets()
	if d.slots == nil {
		d.slots = make([]uint64, b.Slots())
	}
	d.nanoseconds += uint64(r.Duration)
	d.slots[slotOf(b, r.Duration.Seconds())]++
	labels := series.AppendLabel(nil, "run_id", strconv.FormatUint(r.Run, 10))
	d.exemplar = series.Exemplar{Labels: string(labels), Value: uint64(r.Duration), Timestamp: now.UnixMilli()}
}

func (d *durations) family(start int64) *series.Family {
	b := durationBuckets()
	f := &series.Family{Stride: 1 + b.Slots(), Metric: &program.Metric{
		Name: "accelerator_run_duration_seconds", Help: "Simulated time that runs lasted.", Unit: "seconds", Type: program.Histogram,
		Scale: program.Scale{Num: 1, Den: 1e9}, Buckets: b,
		Cells: []program.Field{{Size: 8}, {Size: 8, Count: uint32(b.Slots())}},
	}}
	if d.slots == nil {
		return f
	}
	f.Points = []series.Point{{Start: start}}
	f.Values = append([]uint64{d.nanoseconds}, d.slots...)
	f.Exemplars = []series.Exemplar{d.exemplar}
	return f
}
