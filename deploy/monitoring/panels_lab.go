package monitoring

// speedOfLight in metres per second, as a line to compare with.
const speedOfLight = "299792458"

// labVariables are labels by which a lab in a cluster is chosen. One that runs elsewhere has neither.
func labVariables() []variable {
	return []variable{
		{label: "namespace", metrics: []string{"accelerator_info"}},
		{label: "pod", metrics: []string{"accelerator_info"}, within: []string{"namespace"}},
	}
}

// Lab is the dashboard of the accelerator lab: the workshop's, the same with the names that metrics should have, and
// the lab's pod as the agents see it.
func Lab() *Dashboard {
	return &Dashboard{
		UID: "kaon-lab", Title: "Kaon: the accelerator lab",
		Help: "The particle accelerator of `kaon lab`, by what it says itself and by what the kernel says of it.",
		Tags: []string{"kaon", "lab"}, Refresh: "5s", Span: "5m", Variables: labVariables(),
		Rows: []Row{originalRow(), labRow(), labKernelRow()},
	}
}

// ofLab is a metric of the chosen labs.
func ofLab(metric string, matchers ...string) string {
	text := metric + "{"
	for _, m := range matchers {
		text += m + ","
	}
	for i, v := range labVariables() {
		if i > 0 {
			text += ","
		}
		text += v.filter()
	}
	return text + "}"
}

// originalRow is the workshop's dashboard: its names, its units, its formulas. Compatible mode has these metrics.
func originalRow() Row {
	state := ofLab("accelerator_state")
	return Row{Title: "With the names of the workshop", Panels: []Panel{
		{Title: "Beam speed", Help: "The speed in m/s, whatever its name says, with that of light above it. It is filled while the run is a success.",
			Kind: TimeSeries, Unit: "velocityms", Width: 18, Queries: []Query{
				{"max(" + ofLab("beam_speed_km_s") + ")", "Beam speed"},
				{"vector(" + speedOfLight + ")", "Speed of light"},
				{"(" + state + " == 2) / 2 * " + speedOfLight, "Success"},
			}},
		{Title: "Status", Help: "What the accelerator does. A number that means a state: the next row has it as one.",
			Kind: Stat, Unit: "short", Bad: 3, Width: 6, Queries: []Query{{state, ""}},
			Names: []string{"Stopped", "Running", "Success", "Overloaded", "Timeout"}},
		{Title: "Beam energy", Help: "By the workshop's formula, in electronvolts.", Kind: TimeSeries, Unit: "ev", Width: columns / 2,
			Queries: []Query{{ofLab("beam_energy_mev") + " * 1000000", "Beam energy"}}},
		{Title: "Kick power", Help: "KICK_POWER of the program, while a beam runs: 30 to 49 wins, 50 overloads.", Kind: TimeSeries, Unit: "percent", Width: columns / 2,
			Queries: []Query{{ofLab("kick_power"), "Kick power"}}},
	}}
}

// labRow tells the same, and more, by metrics that are named and typed as they should be.
func labRow() Row {
	state := `accelerator_state!=""` // in physics mode it is a stateset
	return Row{Title: "With the names that metrics should have", Panels: []Panel{
		curves("Speed", "percentunit", "As a share of the speed of light.", Query{ofLab("accelerator_beam_speed_ratio"), "{{pod}}"}),
		curves("Energy of a proton", "ev", "Rest energy included: the speed hardly grows any more, this does.", Query{ofLab("accelerator_beam_energy_electronvolts"), "{{pod}}"}),
		curves("State", "short", "1 for the state that holds.",
			Query{ofLab("accelerator_status") + " == 1", "{{accelerator_status}}"}, Query{ofLab("accelerator_state", state) + " == 1", "{{accelerator_state}}"}),
		curves("Kicks", "ops", "How often the kick program is asked, by what the lab says. In the last row is what the kernel says.",
			Query{perSecond(ofLab("accelerator_kicks_total"), "pod"), "{{pod}}"}),
		curves("Turns", "ops", "11,245 a second in the LHC.", Query{perSecond(ofLab("accelerator_turns_total"), "pod"), "{{pod}}"}),
		stacked("Runs that ended", "short", "In the last five minutes, by how.", Query{by("result", "increase("+ofLab("accelerator_runs_total")+"[5m])"), "{{result}}"}),
		curves("Duration of runs, median", "s", "Simulated time. From the native histogram where Prometheus takes it.",
			Query{quantile(0.5, ofLab("accelerator_run_duration_seconds"), "pod"), "{{pod}}"}),
		curves("Temperature of the magnets", "kelvin", "Of the hottest sector, and of the coldest. Physics mode: above its limit a magnet quenches.",
			Query{"max by (pod) (" + ofLab("accelerator_magnet_temperature_kelvin") + ")", "{{pod}} hottest"},
			Query{"min by (pod) (" + ofLab("accelerator_magnet_temperature_kelvin") + ")", "{{pod}} coldest"}),
		curves("Protons in the beam", "short", "Physics mode: what is lost heats the magnets.", Query{ofLab("accelerator_beam_protons"), "{{pod}}"}),
		curves("Injected CPU time", "percentunit", "Share of a CPU, as the injection says itself.", Query{perSecond(ofLab("accelerator_injected_cpu_seconds_total"), "pod"), "{{pod}}"}),
		curves("Injected memory", "bytes", "As the injection says itself.", Query{ofLab("accelerator_injected_memory_bytes"), "{{pod}}"}),
	}}
}

// labKernelRow is the lab without its help: by the agents, which know its pod, and by the lab's own programs where it may load them.
func labKernelRow() Row {
	// Agents' series of the labs' pods, and of no other.
	pod := func(metric string) string { return ofLab(metric, `pod!=""`) }
	labs := " and on (namespace, pod) " + ofLab("accelerator_info")
	byPod := "namespace, pod"
	return Row{Title: "As the kernel sees it", Panels: []Panel{
		curves("Kicks: app and kernel", "ops", "The kernel's by a uprobe, where the lab is allowed to have one and its /kernel/metrics is scraped. Both are the same.",
			Query{perSecond(ofLab("accelerator_kicks_total"), ""), "app says"},
			Query{perSecond(ofLab("accelerator_kernel_kicks_total"), ""), "kernel says"}),
		curves("CPU", "percentunit", "Of the lab's pod, by the agents (program oncpu). An injection shows here, too.",
			Query{perSecond(pod("oncpu_seconds_total"), byPod) + labs, "{{pod}}"}),
		curves("Memory", "bytes", "Anonymous memory of the lab's pod, by the agents (program memory), and of single cgroups of the lab by its own program.",
			Query{by(byPod, pod("memory_anon_bytes")) + labs, "{{pod}}"},
			Query{by("cgroup", ofLab("accelerator_kernel_resident_memory_bytes")), "{{cgroup}}"}),
		curves("Programs started", "ops", "An injection is a process of its own.", Query{perSecond(pod("process_starts_total"), byPod) + labs, "{{pod}}"}),
		curves("Network", "Bps", "Pages and scrapes, by direction.", Query{perSecond(pod("network_bytes_total"), byPod+", direction") + labs, "{{pod}} {{direction}}"}),
		curves("Waiting for a CPU, 99th percentile", "s", "Injected CPU time makes others wait, the lab among them.",
			Query{"(" + quantile(0.99, pod("runqueue_latency_seconds"), byPod) + ")" + labs, "{{pod}}"}),
	}}
}
