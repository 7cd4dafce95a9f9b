package lab

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// Options configure a Lab.
type Options struct {
	// Mode; empty means Compatible.
	Mode Mode
	Seed uint64
	// File names the kick program in errors; Source is its text. An empty File means DefaultProgram.
	File   string
	Source []byte
	// Now tells the time of exemplars and starts; nil means time.Now.
	Now func() time.Time
}

// Lab is an accelerator with its kick program and metrics. It is safe for concurrent use.
type Lab struct {
	now func() time.Time

	mu           sync.Mutex
	simulation   *Simulation
	program      *Program
	loadProblem  error
	kickProblem  error
	start        time.Time
	kicks, turns uint64 // of the runs that ended
	outcomes     map[Outcome]uint64
	durations    durations
}

// NewLab returns a Lab that stands still. A kick program that can't be loaded is an error here.
func NewLab(options Options) (*Lab, error) {
	l := &Lab{now: options.Now, outcomes: map[Outcome]uint64{}}
	if l.now == nil {
		l.now = time.Now
	}
	if options.Mode == "" {
		options.Mode = Compatible
	}
	if options.File == "" {
		options.File, options.Source = "kick.star", []byte(DefaultProgram)
	}
	l.start = l.now()
	var err error
	if l.simulation, err = New(options.Mode, options.Seed, l.kick); err != nil {
		return nil, err
	}
	if l.program, err = LoadProgram(options.File, options.Source, l.start); err != nil {
		return nil, err
	}
	return l, nil
}

// kick runs while the lab is locked. When the program fails its KICK_POWER counts.
func (l *Lab) kick(turn uint64, beam Beam) float64 {
	power, err := l.program.Kick(turn, beam)
	if err != nil {
		if l.kickProblem == nil {
			l.kickProblem = err
		}
		return l.program.Power()
	}
	return power
}

// SetProgram replaces the kick program, from the next kick on. If it can't be loaded the error says where and why, and
// the last good one keeps running. The metrics of the new program begin anew.
func (l *Lab) SetProgram(file string, source []byte) error {
	loaded, err := LoadProgram(file, source, l.now())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loadProblem = err
	if err != nil {
		return err
	}
	l.program, l.kickProblem = loaded, nil
	return nil
}

// SetMode puts an accelerator of another mode in place, where nothing circulates. A beam is aborted and its result
// returned. Runs go on to be counted, and the metrics too.
func (l *Lab) SetMode(mode Mode) (Result, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next, err := New(mode, l.simulation.seed, l.kick)
	if err != nil {
		return Result{}, false, err
	}
	result, ended := l.simulation.Abort()
	if ended {
		l.record(result)
	}
	next.run = l.simulation.run
	l.simulation = next
	return result, ended, nil
}

// Problem returns what is wrong with the kick program: that the latest one could not be loaded, or else
// the first failure of the one that runs. It is nil or a *ProgramError.
func (l *Lab) Problem() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loadProblem != nil {
		return l.loadProblem
	}
	return l.kickProblem
}

// Output is what the kick program printed last.
func (l *Lab) Output() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.program.Output()
}

// Start launches a beam if there is none.
func (l *Lab) Start() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.simulation.Start()
}

// Abort stops the beam if there is one, and returns its result.
func (l *Lab) Abort() (Result, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	result, ended := l.simulation.Abort()
	if ended {
		l.record(result)
	}
	return result, ended
}

// Advance lets simulated time pass: wall time times the warp. It returns the result of a run that ended.
func (l *Lab) Advance(d time.Duration) (Result, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	result, ended := l.simulation.Advance(d)
	if ended {
		l.record(result)
	}
	return result, ended
}

func (l *Lab) record(r Result) {
	l.outcomes[r.Outcome]++
	l.kicks += r.Kicks
	l.turns += r.Turns
	l.durations.observe(r, l.now())
}

// State returns what can be seen now, and the program's KICK_POWER.
func (l *Lab) State() (State, float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.simulation.State(), l.program.Power()
}

// Totals are sums over all runs, with the one that goes on.
type Totals struct {
	Kicks uint64             `json:"kicks"`
	Turns uint64             `json:"turns"`
	Runs  map[Outcome]uint64 `json:"runs"`
}

// Totals returns the sums over all runs.
func (l *Lab) Totals() Totals {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.totals()
}

func (l *Lab) totals() Totals {
	t := Totals{Kicks: l.kicks, Turns: l.turns, Runs: maps.Clone(l.outcomes)}
	if l.simulation.Alive() {
		s := l.simulation.State()
		t.Kicks, t.Turns = t.Kicks+s.Kicks, t.Turns+s.Turns
	}
	return t
}

// Own returns the kick program's own metrics. It calls each fn, as a scrape does.
func (l *Lab) Own() []*series.Family {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own()
}

// own reports a failing fn as a problem of the program; it must not hide the rest.
func (l *Lab) own() []*series.Family {
	families, err := l.program.Families()
	if err != nil && l.kickProblem == nil {
		l.kickProblem = err
	}
	return families
}

// Gather implements exposition.Gather: the lab's metrics, those of the workshop in compatible mode, and the kick program's.
func (l *Lab) Gather(_ context.Context, names []string) (exposition.Snapshot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	families := append(l.families(), l.own()...)
	if len(names) > 0 {
		families = slices.DeleteFunc(families, func(f *series.Family) bool { return !slices.Contains(names, f.Metric.Name) })
	}
	return exposition.Snapshot{Families: families}, nil
}

func (l *Lab) families() []*series.Family {
	s := l.simulation.State()
	start := l.start.UnixMilli()
	totals := l.totals()
	label := func(name, value string) string { return string(series.AppendLabel(nil, name, value)) }

	results := make([]sample, 0, 4)
	for _, outcome := range []Outcome{Succeeded, TimedOut, Overload, Aborted} {
		results = append(results, sample{label("result", string(outcome)), float64(l.outcomes[outcome])})
	}
	families := []*series.Family{
		scalars("accelerator_beam_energy_electronvolts", "Energy of one proton, rest energy included; 0 without a beam.", "electronvolts", program.Gauge, 0, sample{"", s.Beam.Energy}),
		scalars("accelerator_beam_speed_ratio", "Speed of the protons as a share of the speed of light.", "ratio", program.Gauge, 0, sample{"", s.Beam.Ratio}),
		scalars("accelerator_kicks_total", "How often the kick program was asked.", "", program.Counter, start, sample{"", float64(totals.Kicks)}),
		scalars("accelerator_turns_total", "Turns of the beam.", "", program.Counter, start, sample{"", float64(totals.Turns)}),
		scalars("accelerator_runs_total", "Runs that ended, by how.", "", program.Counter, start, results...),
		l.durations.family(start),
		info("accelerator_info", "What is simulated.", label("mode", string(s.Mode))+","+label("seed", strconv.FormatUint(l.simulation.seed, 10))),
	}
	if s.Mode == Physics {
		sectors := make([]sample, 0, len(s.Sectors))
		for i, kelvin := range s.Sectors {
			sectors = append(sectors, sample{label("sector", strconv.Itoa(i+1)), kelvin})
		}
		return append(families,
			scalars("accelerator_magnet_temperature_kelvin", "Temperature of the magnets.", "kelvin", program.Gauge, 0, sectors...),
			scalars("accelerator_beam_protons", "Protons that circulate.", "", program.Gauge, 0, sample{"", s.Beam.Protons}),
			states("accelerator_state", "What the accelerator does.", statusNames[:], sample{"", float64(s.Status)}),
		)
	}
	power := 0.0
	if s.Published.Status == Running {
		power = l.program.Power()
	}
	// The workshop's accelerator_state is a number, so that its dashboard works; the stateset has another name here.
	return append(families,
		scalars("accelerator_state", "0=stopped, 1=running, 2=success, 3=overloaded, 4=timeout", "", program.Gauge, 0, sample{"", float64(s.Published.Status)}),
		states("accelerator_status", "What the accelerator does.", statusNames[:], sample{"", float64(s.Status)}),
		scalars("kick_power", "Kick power", "", program.Gauge, 0, sample{"", power}),
		scalars("beam_speed_km_s", "Current beam speed in km/s", "", program.Gauge, 0, sample{"", s.Published.Speed}),
		scalars("beam_energy_mev", "Current beam energy in MeV", "", program.Gauge, 0, sample{"", OriginalEnergy(s.Published.Speed)}),
	)
}
