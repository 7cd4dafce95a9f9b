package lab

import "math"

// The rules of camptocamp/openmetrics-accelerator-lab, which lives in its page's animation frames.
const (
	// compatibleStepsPerSecond is a browser's usual number of frames.
	compatibleStepsPerSecond = 60
	// publishSteps are the 200 ms between two POSTs of the page.
	publishSteps = compatibleStepsPerSecond / 5
	// speedFactor turns the particle's radians per second into metres per second.
	speedFactor = 24_982_704
	// topRatio of the speed of light is what a successful beam is held at.
	topRatio = 0.999999991
	// overloadPower is the weakest kick that overloads, and the divisor of every kick.
	overloadPower     = 50
	compatibleTimeout = 30 // seconds
	maxPower          = 100
	// DefaultKickPower is what the workshop begins with: too weak.
	DefaultKickPower = 27
	// restMass is the original's m0, in TeV.
	restMass = 0.000938
)

func (s *Simulation) stepCompatible() {
	if s.elapsed() >= compatibleTimeout {
		if s.status == Success {
			s.finish(Succeeded, Stopped)
		} else {
			s.finish(TimedOut, Timeout)
		}
		return
	}
	last := s.angle
	s.angle = math.Mod(s.angle+s.omega/compatibleStepsPerSecond, 2*math.Pi)
	if last > s.angle {
		s.turns++
		power := s.kick(uint64(s.turns))
		s.omega += power / overloadPower
		if s.omega*speedFactor >= SpeedOfLight {
			s.omega = SpeedOfLight * topRatio / speedFactor
			s.status = Success
			s.publish()
		}
		if power >= overloadPower {
			s.finish(Overload, Overloaded)
			return
		}
	}
	if s.status == Running && s.steps%publishSteps == 0 {
		s.publish()
	}
}

// OriginalEnergy is the workshop's formula for beam_energy_mev. Its speed is taken for kilometres per second,
// which it is not; the number is kept because the workshop's dashboard shows it.
func OriginalEnergy(speed float64) float64 {
	return restMass * math.Sqrt(SpeedOfLight/2*math.Abs(SpeedOfLight-speed*1000))
}

// Omega returns the particle's radians per second at a speed in metres per second.
func Omega(speed float64) float64 { return speed / speedFactor }
