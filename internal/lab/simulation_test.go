package lab

import (
	"fmt"
	"math"
	"reflect"
	"testing"
	"testing/quick"
	"time"
)

func constant(power float64) Kicker { return func(uint64, Beam) float64 { return power } }

func newSimulation(t testing.TB, mode Mode, seed uint64, kicker Kicker) *Simulation {
	t.Helper()
	s, err := New(mode, seed, kicker)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func finish(t testing.TB, s *Simulation) Result {
	t.Helper()
	s.Start()
	for range 1_000_000 {
		if result, ended := s.Step(); ended {
			return result
		}
	}
	t.Fatal("the run never ends")
	return Result{}
}

// What a kick power leads to, in both modes: too weak below 30, too strong from 50.
func TestOutcomes(t *testing.T) {
	for _, mode := range []Mode{Compatible, Physics} {
		for power := 0; power <= 60; power++ {
			want := Succeeded
			switch {
			case power < 30:
				want = TimedOut
			case power >= 50:
				want = Overload
			}
			for seed := range uint64(3) {
				if got := finish(t, newSimulation(t, mode, seed, constant(float64(power)))); got.Outcome != want {
					t.Errorf("%s: power %d, seed %d: %+v, want %s", mode, power, seed, got, want)
				}
			}
		}
	}
}

// The kicks and seconds until the beam is fast enough, from the sum of its laps.
func TestCompatibleTimes(t *testing.T) {
	for _, c := range []struct {
		power   float64
		kicks   uint64
		seconds float64
	}{{30, 19, 29.56}, {35, 16, 25.7}, {40, 14, 22.9}, {45, 13, 21.1}, {49, 12, 19.7}} {
		s := newSimulation(t, Compatible, 0, constant(c.power))
		s.Start()
		for s.State().Status == Running {
			s.Step()
		}
		state := s.State()
		if state.Kicks != c.kicks || state.Status != Success || math.Abs(state.Elapsed.Seconds()-c.seconds) > 0.2 {
			t.Errorf("power %v: %d kicks, %s at %v; want %d at %v s", c.power, state.Kicks, state.Status, state.Elapsed, c.kicks, c.seconds)
		}
		if state.Beam.Ratio != topRatio || math.Abs(state.Beam.Energy-6.993e12) > 1e9 {
			t.Errorf("power %v: %+v", c.power, state.Beam)
		}
		result := finish(t, newSimulation(t, Compatible, 0, constant(c.power)))
		if result.Duration != 30*time.Second {
			t.Errorf("power %v: the run lasts %v", c.power, result.Duration)
		}
	}
	overload := finish(t, newSimulation(t, Compatible, 0, constant(50)))
	if overload.Kicks != 1 || math.Abs(overload.Duration.Seconds()-2*math.Pi) > 0.02 {
		t.Errorf("overload: %+v", overload)
	}
}

func TestCompatiblePublishes(t *testing.T) {
	s := newSimulation(t, Compatible, 0, constant(DefaultKickPower))
	if got := s.State(); got.Published != (Published{}) || got.Status != Stopped {
		t.Errorf("before: %+v", got)
	}
	s.Start()
	if got := s.State().Published; got != (Published{Running, speedFactor}) {
		t.Errorf("launched: %+v", got)
	}
	// One lap, then up to the next POST.
	s.Advance(6400 * time.Millisecond)
	if got := s.State(); got.Kicks != 1 || math.Abs(got.Published.Speed-1.54*speedFactor) > 1 {
		t.Errorf("after a lap: %+v", got)
	}
	if result, ended := s.Abort(); !ended || result.Outcome != Aborted || s.State().Published != (Published{}) {
		t.Errorf("aborted: %+v, %+v", result, s.State())
	}
	if _, ended := s.Abort(); ended {
		t.Error("aborted twice")
	}
}

func TestOriginalEnergy(t *testing.T) {
	for speed, want := range map[float64]float64{0: 198842, SpeedOfLight * topRatio: 6284797} {
		if got := OriginalEnergy(speed); math.Abs(got-want) > 1 {
			t.Errorf("%v m/s: %v, want %v", speed, got, want)
		}
	}
}

// The LHC's figures come out of its constants.
func TestPhysicsFigures(t *testing.T) {
	near := func(what string, got, want, by float64) {
		t.Helper()
		if !(math.Abs(got-want) <= by) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	near("turns per second", SpeedOfLight/Circumference, 11245, 1)
	s := newSimulation(t, Physics, 1, constant(40))
	s.Start()
	near("gamma at injection", s.State().Beam.Gamma, 479.6, 0.1)
	for s.State().Status == Running {
		s.Step()
	}
	top := s.State()
	near("seconds of ramp", top.Elapsed.Seconds(), 1164, 2)
	near("gamma", top.Beam.Gamma, 7247.4, 0.1)
	near("1 - beta", 1-top.Beam.Ratio, 9.52e-9, 1e-11)
	near("turns", float64(top.Turns), 11245*1164, 30000)
	if len(top.Sectors) != 8 || top.Beam.Temperature < 2.5 || top.Beam.Temperature > 3.2 || !(top.Beam.Protons < nominalProtons) {
		t.Errorf("%+v", top)
	}
	// A beam that is no longer ramped lets the magnets cool.
	s.Advance(400 * time.Second)
	near("cooled", s.State().Beam.Temperature, coldMass, 0.1)
}

// The same seed gives the same run, and another one another.
func TestDeterministic(t *testing.T) {
	trace := func(seed uint64) []State {
		s := newSimulation(t, Physics, seed, func(turn uint64, _ Beam) float64 { return float64(20 + turn%7) })
		s.Start()
		var states []State
		for range 100 {
			s.Step()
			states = append(states, s.State())
		}
		return states
	}
	if !reflect.DeepEqual(trace(7), trace(7)) {
		t.Error("the same seed gives another run")
	}
	if reflect.DeepEqual(trace(7), trace(8)) {
		t.Error("the seed changes nothing")
	}
}

// However time is divided, the run is the same.
func TestTimeWarp(t *testing.T) {
	for _, mode := range []Mode{Compatible, Physics} {
		property := func(power uint8, seed uint16, pieces []uint32) bool {
			kicker := constant(float64(power % 101))
			whole := newSimulation(t, mode, uint64(seed), kicker)
			divided := newSimulation(t, mode, uint64(seed), kicker)
			whole.Start()
			divided.Start()
			var total time.Duration
			for _, piece := range pieces {
				d := time.Duration(piece % 1e9)
				total += d
				divided.Advance(d)
			}
			whole.Advance(total)
			return fmt.Sprint(whole.State()) == fmt.Sprint(divided.State())
		}
		if err := quick.Check(property, &quick.Config{MaxCount: 50}); err != nil {
			t.Error(mode, err)
		}
	}
}

// A kicker that answers nonsense leaves a finite beam.
func TestBadPower(t *testing.T) {
	for _, power := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), -5, 1e300} {
		for _, mode := range []Mode{Compatible, Physics} {
			if got := finish(t, newSimulation(t, mode, 0, constant(power))); math.IsNaN(got.Beam.Energy) || math.IsInf(got.Beam.Energy, 0) {
				t.Errorf("%s, power %v: %+v", mode, power, got)
			}
		}
	}
}

func TestUnknownMode(t *testing.T) {
	if _, err := New("chaos", 0, constant(1)); err == nil {
		t.Error("taken")
	}
}
