// Package page is what kaon lab opens: an accelerator that runs on the server, its kick program in a file, and the
// page and the HTTP interface that show and change both.
package page

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/lab"
)

// Errors of requests.
var (
	// ErrEnded means that the session is over.
	ErrEnded = errors.New("the lab has ended")
	// ErrChanged means that the program's file is not what somebody thought who wanted to replace it.
	ErrChanged = errors.New("the file was changed meanwhile: take that one, or keep mine and save again")
	// ErrWarp is wrapped by errors about a warp.
	ErrWarp = errors.New("not a warp")
)

// Bounds of how fast simulated time goes, in seconds per second.
const (
	MinWarp = 0.1
	MaxWarp = 1000
)

const (
	tick = 20 * time.Millisecond
	// maxLag is how much time at once is simulated after a break of the whole process.
	maxLag = 250 * time.Millisecond
	// chunk of simulated time, after which it is looked whether the wall time for it is used up.
	chunk = 250 * time.Millisecond
)

// SessionOptions configure a Session.
type SessionOptions struct {
	// Mode; empty means lab.Compatible.
	Mode lab.Mode
	Seed uint64
	// Warp is how many seconds are simulated in one; 0 means what suits the mode.
	Warp float64
	// Program is the path of the kick program. Where there is none the original is written.
	Program string
	// Logger; nil means none.
	Logger *slog.Logger
}

// Session is an accelerator that runs. What happens to it happens in the goroutine of Run; pages only look, so that it makes no
// difference how many there are. It is safe for concurrent use.
type Session struct {
	lab      *lab.Lab
	file     *file
	hub      *hub
	history  *history
	log      *slog.Logger
	commands chan func()
	ended    chan struct{}

	// What follows is Run's.

	mode    lab.Mode
	warp    float64
	last    time.Time // when simulated time was let pass
	shown   time.Time // when the state was published
	slow    bool
	result  *lab.Result
	steps   progress
	problem string // the latest that was published
	stamp   stamp  // of the file when it was read

	mu      sync.Mutex
	program Program // written by Run under mu
}

// NewSession returns a Session that stands still; call Run. A kick program that is broken is no error: the original
// runs in its place and the page shows what is wrong.
func NewSession(options SessionOptions) (*Session, error) {
	if options.Mode == "" {
		options.Mode = lab.Compatible
	}
	if options.Warp == 0 {
		options.Warp = defaultWarp(options.Mode)
	}
	if err := checkWarp(options.Warp); err != nil {
		return nil, err
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	l, err := lab.NewLab(lab.Options{Mode: options.Mode, Seed: options.Seed})
	if err != nil {
		return nil, err
	}
	f, err := openFile(options.Program)
	if err != nil {
		return nil, err
	}
	s := &Session{
		lab: l, file: f, hub: newHub(), history: &history{}, log: options.Logger, commands: make(chan func()), ended: make(chan struct{}),
		mode: options.Mode, warp: options.Warp, steps: progress{},
		program: Program{File: f.name(), Path: f.path, Original: lab.DefaultProgram},
	}
	s.reload()
	s.publish(time.Now())
	s.publishSteps()
	return s, nil
}

// defaultWarp makes a run last half a minute.
func defaultWarp(mode lab.Mode) float64 {
	if mode == lab.Physics {
		return 60
	}
	return 1
}

func checkWarp(warp float64) error {
	if !(warp >= MinWarp && warp <= MaxWarp) {
		return fmt.Errorf("%w: %v: it must be from %v to %v seconds per second", ErrWarp, warp, MinWarp, MaxWarp)
	}
	return nil
}

// Lab is what runs, to gather its metrics.
func (s *Session) Lab() *lab.Lab { return s.lab }

// Run lets time pass and follows the program's file until the context ends.
func (s *Session) Run(ctx context.Context) error {
	defer close(s.ended)
	var wait sync.WaitGroup
	defer wait.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wait.Go(func() {
		err := agent.Watch(ctx, func() []string { return []string{s.file.path} }, func() { _ = s.Reload(ctx) }, s.log)
		if err != nil {
			s.log.Warn("the kick program's file is not watched: save in the page", "error", err)
		}
	})
	steps := time.NewTicker(tick)
	defer steps.Stop()
	seconds := time.NewTicker(time.Second)
	defer seconds.Stop()
	for {
		moving := steps.C
		if !s.alive() {
			moving = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case command := <-s.commands:
			command()
		case <-moving:
			s.pass(time.Now())
		case now := <-seconds.C:
			s.second(now)
		}
	}
}

// do runs a command in the goroutine of Run.
func (s *Session) do(ctx context.Context, command func() error) error {
	done := make(chan error, 1)
	select {
	case s.commands <- func() { done <- command() }:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.ended:
		return ErrEnded
	}
	return <-done
}

func (s *Session) alive() bool {
	state, _ := s.lab.State()
	return state.Status == lab.Running || state.Status == lab.Success
}

// Launch starts a beam if there is none.
func (s *Session) Launch(ctx context.Context) error {
	return s.do(ctx, func() error {
		if s.alive() {
			return nil
		}
		s.result, s.slow = nil, false
		s.last = time.Now()
		s.lab.Start()
		s.publish(s.last)
		s.done(StepLaunch)
		return nil
	})
}

// Abort stops the beam if there is one.
func (s *Session) Abort(ctx context.Context) error {
	return s.do(ctx, func() error {
		if result, ended := s.lab.Abort(); ended {
			s.result = &result
		}
		s.publish(time.Now())
		return nil
	})
}

// SetMode changes the mode, which aborts a beam, and the warp to what suits it.
func (s *Session) SetMode(ctx context.Context, mode lab.Mode) error {
	return s.do(ctx, func() error {
		if mode == s.mode {
			return nil
		}
		if _, _, err := s.lab.SetMode(mode); err != nil {
			return err
		}
		s.mode, s.warp, s.result, s.slow = mode, defaultWarp(mode), nil, false
		s.publish(time.Now())
		return nil
	})
}

// SetWarp changes how many seconds are simulated in one.
func (s *Session) SetWarp(ctx context.Context, warp float64) error {
	return s.do(ctx, func() error {
		if err := checkWarp(warp); err != nil {
			return err
		}
		s.warp, s.slow = warp, false
		s.publish(time.Now())
		return nil
	})
}

// Done notes steps that were taken elsewhere.
func (s *Session) Done(ctx context.Context, steps ...Step) error {
	return s.do(ctx, func() error {
		s.done(steps...)
		return nil
	})
}

// pass lets simulated time pass: what has passed on the wall times the warp. A program that takes longer than that
// makes the run slower, never the server.
func (s *Session) pass(now time.Time) {
	left := time.Duration(float64(min(max(now.Sub(s.last), 0), maxLag)) * s.warp)
	s.last = now
	s.slow = false
	for left > 0 {
		part := min(left, chunk)
		left -= part
		result, ended := s.lab.Advance(part)
		if ended {
			s.result = &result
			s.publish(now)
			s.done(outcome(result.Outcome))
			s.noteOwn(now)
			break
		}
		if time.Since(now) > tick*3/4 && left > 0 {
			s.slow = true
			break
		}
	}
	s.notice()
	// A run that is over within a second or two is to be seen as well.
	pause := 100 * time.Millisecond
	if s.warp > 4 && s.mode == lab.Compatible {
		pause = 2 * tick
	}
	if now.Sub(s.shown) >= pause {
		s.publish(now)
	}
}

// second does what need not be done more often.
func (s *Session) second(now time.Time) {
	if !s.alive() {
		s.publish(now)
	}
	// Some file systems tell of no changes.
	if !s.file.stamp().same(s.stamp) {
		s.reload()
	}
	s.noteOwn(now)
	s.notice()
}

// noteOwn reads the kick program's metrics, as a scrape each second does.
func (s *Session) noteOwn(now time.Time) {
	families := s.lab.Own()
	lines, more, err := samples(families, ownSeries)
	own := &Own{Time: now.UnixMilli(), Series: lines, More: more}
	if err == nil {
		err = s.history.addOwn(own)
	}
	if err == nil {
		err = s.hub.publish("own", own)
	}
	if err != nil {
		s.log.Warn("the kick program's metrics can't be shown", "error", err)
	}
	s.done(defined(families)...)
}

func (s *Session) done(steps ...Step) {
	changed := false
	for _, step := range steps {
		if step != "" && !s.steps[step] {
			s.steps[step], changed = true, true
		}
	}
	if changed {
		s.publishSteps()
	}
}

func (s *Session) publishSteps() {
	if err := s.hub.publish("steps", s.steps.list()); err != nil {
		s.log.Warn("steps can't be shown", "error", err)
	}
}

func (s *Session) publish(now time.Time) {
	s.shown = now
	state := s.state(now)
	s.history.add(state)
	if err := s.hub.publish("state", state); err != nil {
		s.log.Warn("the state can't be shown", "error", err)
	}
}

// State is what the page shows of the accelerator.
type State struct {
	// Time in Unix milliseconds.
	Time int64    `json:"time"`
	Mode lab.Mode `json:"mode"`
	// Status is its name, Code the workshop's number.
	Status string `json:"status"`
	Code   int    `json:"code"`
	Run    uint64 `json:"run"`
	// Elapsed since launch in seconds of the simulation.
	Elapsed float64 `json:"elapsed"`
	Angle   float64 `json:"angle"`
	// Omega in radians per second of the simulation; compatible mode only.
	Omega float64 `json:"omega"`
	// Speed in metres per second, Energy in electronvolts.
	Speed  float64 `json:"speed"`
	Ratio  float64 `json:"ratio"`
	Gamma  float64 `json:"gamma"`
	Energy float64 `json:"energy"`
	// Power is the program's KICK_POWER while the beam is accelerated, otherwise 0; Kick is the latest kick's.
	Power float64 `json:"power"`
	Kick  float64 `json:"kick"`
	Kicks uint64  `json:"kicks"`
	Turns uint64  `json:"turns"`
	// Temperature of the hottest sector in kelvin; physics mode only, as are Protons and Sectors.
	Temperature float64   `json:"temperature"`
	Protons     float64   `json:"protons"`
	Sectors     []float64 `json:"sectors,omitempty"`
	Warp        float64   `json:"warp"`
	// Slow says that the kick program takes so long that the warp is not reached.
	Slow   bool       `json:"slow,omitempty"`
	Totals lab.Totals `json:"totals"`
	Result *Result    `json:"result,omitempty"`
}

// Result is how the latest run ended.
type Result struct {
	lab.Result
	Duration float64 `json:"duration_seconds"`
	Energy   float64 `json:"energy"`
	Ratio    float64 `json:"ratio"`
}

func (s *Session) state(now time.Time) *State {
	from, power := s.lab.State()
	state := &State{
		Time: now.UnixMilli(), Mode: from.Mode, Status: from.Status.String(), Code: int(from.Status), Run: from.Run,
		Elapsed: from.Elapsed.Seconds(), Angle: from.Angle,
		Speed: from.Beam.Speed, Ratio: from.Beam.Ratio, Gamma: from.Beam.Gamma, Energy: from.Beam.Energy,
		Kick: from.KickPower, Kicks: from.Kicks, Turns: from.Turns,
		Protons: from.Beam.Protons, Sectors: from.Sectors, Warp: s.warp, Slow: s.slow, Totals: s.lab.Totals(),
	}
	if from.Status == lab.Running {
		state.Power = power
	}
	if from.Mode == lab.Compatible {
		state.Omega = lab.Omega(from.Beam.Speed)
	}
	for _, kelvin := range from.Sectors {
		state.Temperature = math.Max(state.Temperature, kelvin)
	}
	if s.result != nil {
		state.Result = &Result{Result: *s.result, Duration: s.result.Duration.Seconds(), Energy: s.result.Beam.Energy, Ratio: s.result.Beam.Ratio}
	}
	return state
}
