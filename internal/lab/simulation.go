// Package lab is the particle accelerator of the workshop: a deterministic simulation, the kick program that
// its user edits, and the metrics of both. Nothing in it draws anything; a page or a command shows it.
package lab

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Physical constants, in SI units but for energies, which are in electronvolts.
const (
	// SpeedOfLight is exact by definition (SI).
	SpeedOfLight = 299_792_458.0
	// ProtonEnergy is a proton's rest energy: 938.27208943 MeV (CODATA 2022).
	ProtonEnergy = 938.272_089_43e6
)

// ErrMode is wrapped by errors about modes.
var ErrMode = errors.New("there is no mode")

// Mode says whose rules hold.
type Mode string

// Modes.
const (
	// Compatible follows the workshop camptocamp/openmetrics-accelerator-lab number by number.
	Compatible Mode = "compatible"
	// Physics has the figures of the Large Hadron Collider.
	Physics Mode = "physics"
)

// Status is what the accelerator does, with the workshop's numbers.
type Status int

// Statuses.
const (
	Stopped    Status = 0
	Running    Status = 1
	Success    Status = 2
	Overloaded Status = 3
	Timeout    Status = 4
)

var statusNames = [...]string{"stopped", "running", "success", "overloaded", "timeout"}

func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return fmt.Sprintf("status %d", int(s))
	}
	return statusNames[s]
}

// Outcome says how a run ended.
type Outcome string

// Outcomes.
const (
	Succeeded Outcome = "success"
	TimedOut  Outcome = "timeout"
	Overload  Outcome = "overload"
	Aborted   Outcome = "abort"
)

// Beam is what a kick program sees of the beam at one kick.
type Beam struct {
	// Speed in metres per second, Ratio of it to that of light, Energy of one proton in electronvolts.
	Speed, Ratio, Gamma, Energy float64
	// Elapsed since launch, in seconds of the simulation.
	Elapsed float64
	// Temperature of the hottest magnet sector in kelvin, and the number of protons; both 0 in compatible mode.
	Temperature, Protons float64
}

// Kicker decides how strong each kick is, from 0 to 100.
type Kicker func(turn uint64, beam Beam) float64

// Result tells how a run went.
type Result struct {
	// Run counts the runs of a simulation, from 1.
	Run      uint64        `json:"run"`
	Outcome  Outcome       `json:"outcome"`
	Duration time.Duration `json:"-"`
	Kicks    uint64        `json:"kicks"`
	Turns    uint64        `json:"turns"`
	// Beam is the beam just before it was stopped.
	Beam Beam `json:"-"`
}

// State is everything that can be seen of the accelerator at one moment.
type State struct {
	Mode    Mode
	Status  Status
	Run     uint64
	Elapsed time.Duration
	// Angle of the particle in radians from the kick zone; of no meaning in physics mode, where a turn lasts 89 µs.
	Angle float64
	Beam  Beam
	// KickPower of the latest kick of this run.
	KickPower float64
	// Kicks and Turns of this run.
	Kicks, Turns uint64
	// Sectors are the temperatures of the magnets in kelvin; nil in compatible mode.
	Sectors []float64
	// Published is what the workshop's page would have told its server last; compatible mode only.
	Published Published
}

// Published is a status with a speed in metres per second.
type Published struct {
	Status Status
	Speed  float64
}

// Simulation is an accelerator. The same mode, seed and kicks give the same run, bit by bit, however
// Advance divides time. It is for one goroutine.
type Simulation struct {
	mode   Mode
	seed   uint64
	kicker Kicker

	status       Status
	run          uint64
	steps        uint64
	carry        int64 // time that is not yet a step, in nanoseconds times steps per second
	power        float64
	kicks        uint64
	published    Published
	ended        *Result
	turns        float64
	angle, omega float64 // compatible mode; radians, radians per second
	ring         ring    // physics mode
}

// New returns a Simulation that stands still. seed makes the accidents of physics mode.
func New(mode Mode, seed uint64, kicker Kicker) (*Simulation, error) {
	if mode != Compatible && mode != Physics {
		return nil, fmt.Errorf("%w %q: it is %s or %s", ErrMode, mode, Compatible, Physics)
	}
	s := &Simulation{mode: mode, seed: seed, kicker: kicker}
	s.ring = newRing(rand.New(rand.NewPCG(seed, 0)))
	return s, nil
}

// Start launches a beam. Nothing happens while there is one.
func (s *Simulation) Start() {
	if s.Alive() {
		return
	}
	s.run++
	s.status, s.steps, s.carry, s.power, s.kicks, s.turns = Running, 0, 0, 0, 0, 0
	s.angle, s.omega = 0, 1
	if s.mode == Physics {
		s.ring = newRing(rand.New(rand.NewPCG(s.seed, s.run)))
		s.ring.energy = injectionEnergy
		s.ring.protons = nominalProtons
	}
	s.publish()
}

// Abort stops the beam, if there is one.
func (s *Simulation) Abort() (Result, bool) {
	if !s.Alive() {
		return Result{}, false
	}
	s.finish(Aborted, Stopped)
	return s.take()
}

// Alive says whether a beam circulates.
func (s *Simulation) Alive() bool { return s.status == Running || s.status == Success }

// stepsPerSecond of simulated time.
func (s *Simulation) stepsPerSecond() int64 {
	if s.mode == Physics {
		return physicsStepsPerSecond
	}
	return compatibleStepsPerSecond
}

// Advance lets simulated time pass. It stops at the end of a run and returns its result.
func (s *Simulation) Advance(d time.Duration) (Result, bool) {
	rate := s.stepsPerSecond()
	// A stretch that nobody can wait for is cut rather than overflow.
	s.carry += int64(min(max(d, 0), 24*time.Hour)) * rate
	for s.carry >= int64(time.Second) && s.Alive() {
		s.carry -= int64(time.Second)
		if result, ended := s.Step(); ended {
			return result, true
		}
	}
	if !s.Alive() {
		s.carry = 0
	}
	return Result{}, false
}

// Step lets one step of simulated time pass, and returns the result of a run that it ended.
func (s *Simulation) Step() (Result, bool) {
	if !s.Alive() {
		return Result{}, false
	}
	s.steps++
	if s.mode == Physics {
		s.stepPhysics()
	} else {
		s.stepCompatible()
	}
	return s.take()
}

// kick asks the kick program once. It stays a function of its own so that a uprobe can count its calls (KickEntry). Its entry does not
// check the stack: a function whose stack has to grow is entered a second time.
//
//go:noinline
//go:nosplit
func (s *Simulation) kick(turn uint64) float64 {
	power := s.kicker(turn, s.beam())
	// Whatever a Kicker says, the ring stays finite.
	if !(power >= 0) {
		power = 0
	}
	s.power = min(power, maxPower)
	s.kicks++
	return s.power
}

func (s *Simulation) elapsed() float64 { return float64(s.steps) / float64(s.stepsPerSecond()) }

func (s *Simulation) finish(outcome Outcome, status Status) {
	s.ended = &Result{
		Run: s.run, Outcome: outcome, Duration: s.duration(),
		Kicks: s.kicks, Turns: uint64(s.turns), Beam: s.beam(),
	}
	s.status, s.omega, s.angle = status, 0, 0
	s.ring.energy, s.ring.protons = 0, 0
	s.publish()
}

func (s *Simulation) take() (Result, bool) {
	if s.ended == nil {
		return Result{}, false
	}
	result := *s.ended
	s.ended = nil
	return result, true
}

func (s *Simulation) duration() time.Duration {
	return time.Duration(s.steps) * time.Second / time.Duration(s.stepsPerSecond())
}

func (s *Simulation) publish() {
	s.published = Published{Status: s.status, Speed: s.omega * speedFactor}
}

func (s *Simulation) beam() Beam {
	beam := Beam{Elapsed: s.elapsed()}
	if s.mode == Physics {
		beam.Temperature, beam.Protons = s.ring.hottest(), s.ring.protons
		if s.ring.energy == 0 {
			return beam
		}
		beam.Energy = s.ring.energy
		beam.Gamma = beam.Energy / ProtonEnergy
		beam.Ratio = ratioOf(beam.Gamma)
		beam.Speed = beam.Ratio * SpeedOfLight
		return beam
	}
	if s.omega == 0 {
		return beam
	}
	beam.Speed = s.omega * speedFactor
	beam.Ratio = beam.Speed / SpeedOfLight
	beam.Gamma = 1 / math.Sqrt(1-beam.Ratio*beam.Ratio)
	beam.Energy = beam.Gamma * ProtonEnergy
	return beam
}

// ratioOf returns v/c of a Lorentz factor.
func ratioOf(gamma float64) float64 { return math.Sqrt(1 - 1/(gamma*gamma)) }

// State returns what can be seen now. It shares no memory with the simulation.
func (s *Simulation) State() State {
	state := State{
		Mode: s.mode, Status: s.status, Run: s.run, Elapsed: s.duration(), Angle: s.angle, Beam: s.beam(),
		KickPower: s.power, Kicks: s.kicks, Turns: uint64(s.turns), Published: s.published,
	}
	if s.mode == Physics {
		state.Sectors = append([]float64(nil), s.ring.sectors[:]...)
	}
	return state
}
