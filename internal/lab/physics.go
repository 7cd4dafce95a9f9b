package lab

import "math/rand/v2"

// The Large Hadron Collider. Sources: O. Brüning et al. (editors), "LHC Design Report, volume I", CERN-2004-003
// (circumference, revolution frequency, injection, bunches, dipoles, temperatures); 6.8 TeV is what the LHC runs at
// since 2022 (CERN, Run 3). What is a rule of the game rather than a measured figure says so.
const (
	// physicsStepsPerSecond of simulated time; one kick stands for the 5,622 turns of a step.
	physicsStepsPerSecond = 2
	// Circumference of the ring in metres. Divided by the speed of light: 11,245 turns a second.
	Circumference   = 26_658.883
	injectionEnergy = 450e9  // eV
	topEnergy       = 6.8e12 // eV
	// nominalProtons: 2808 bunches of 1.15e11.
	nominalProtons = 2808 * 1.15e11

	// energyPerPower is the energy in eV that a proton gains in a turn for each unit of kick power: a power of
	// 40 is the 485 keV of the design's ramp of 20 minutes.
	energyPerPower = 485e3 / 40
	// physicsTimeout in seconds, a rule of the game: the default power is too weak here too.
	physicsTimeout = 1600

	// The ring is cooled in eight sectors, with superfluid helium at 1.9 K.
	sectorCount    = 8
	coldMass       = 1.9
	coolingSeconds = 60.0 // a rule of the game
	// rampHeat in kelvin is how much warmer the worst sector becomes at a power of 50. Eddy currents in the cables
	// heat with the square of the ramp's rate; the factor is a rule of the game.
	rampHeat = 1.6
	// lossHeat in kelvin for each joule of protons that hit a sector, a rule of the game.
	lossHeat = 1e-7
	// beamLifetime in seconds: 20 hours.
	beamLifetime = 20 * 3600.0

	// The dipoles' field in tesla at the design energy in eV, and at which temperature the cable leaves the
	// superconducting state: 9.2 K without field (NbTi), at the design field 1.4 K above 1.9 K; a straight line between.
	designField   = 8.33
	designEnergy  = 7e12
	quenchNoField = 9.2
	quenchDesign  = coldMass + 1.4

	joulesPerElectronvolt = 1.602176634e-19 // exact (SI)
)

// ring is what physics mode has and compatible mode has not.
type ring struct {
	energy, protons float64
	sectors         [sectorCount]float64
	// quality of each sector's cooling: how much of rampHeat it takes.
	quality [sectorCount]float64
	chance  *rand.Rand
}

func newRing(chance *rand.Rand) ring {
	r := ring{chance: chance}
	for i := range r.sectors {
		r.sectors[i] = coldMass
		r.quality[i] = 0.98 + 0.02*chance.Float64()
	}
	r.quality[chance.IntN(sectorCount)] = 1
	return r
}

func (r *ring) hottest() float64 {
	hottest := r.sectors[0]
	for _, t := range r.sectors {
		hottest = max(hottest, t)
	}
	return hottest
}

// quenchTemperature of the dipoles in kelvin at a beam energy in eV: the field rises with the energy.
func quenchTemperature(energy float64) float64 {
	field := designField * energy / designEnergy
	return quenchNoField - (quenchNoField-quenchDesign)*field/designField
}

func (s *Simulation) stepPhysics() {
	const dt = 1.0 / physicsStepsPerSecond
	if s.elapsed() >= physicsTimeout {
		if s.status == Success {
			s.finish(Succeeded, Stopped)
		} else {
			s.finish(TimedOut, Timeout)
		}
		return
	}
	r := &s.ring
	turns := ratioOf(r.energy/ProtonEnergy) * SpeedOfLight / Circumference * dt
	power := 0.0
	if s.status == Running {
		power = s.kick(uint64(s.turns) + 1)
		r.energy += power * energyPerPower * turns
		if r.energy >= topEnergy {
			r.energy, s.status = topEnergy, Success
			s.publish()
		}
	} else {
		s.power = 0
	}
	s.turns += turns

	for i := range r.sectors {
		relative := power / overloadPower
		level := coldMass + rampHeat*relative*relative*r.quality[i]
		r.sectors[i] += (level - r.sectors[i]) * dt / coolingSeconds
	}
	lost := r.protons * dt / beamLifetime * 2 * r.chance.Float64()
	r.protons -= lost
	r.sectors[r.chance.IntN(sectorCount)] += lost * r.energy * joulesPerElectronvolt * lossHeat

	if r.hottest() > quenchTemperature(r.energy) {
		s.finish(Overload, Overloaded)
	}
}
