package programs_test

import "github.com/kaon-project/kaon/internal/program"

func sustainabilityArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"energy": {"energy_joules_total": program.Counter, "energy_co2_grams_total": program.Counter,
				"energy_idle_joules_total": program.Counter, "energy_idle_co2_grams_total": program.Counter,
				"energy_rapl_joules_total": program.Counter},
		},
		costs: []cost{
			{program: "energy", event: "two context switches", cause: switchThreads},
			{program: "energy", params: []string{"idle_milliwatts=0"}, event: "two context switches", cause: switchThreads},
		},
	}
}
