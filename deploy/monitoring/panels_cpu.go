package monitoring

func cpuRow() Row {
	return Row{Title: "CPU", Area: "CPU", Panels: []Panel{
		curves("CPUs in use", "short", "1 is a CPU that does nothing else.", topWorkloads(perSecond(selector("oncpu_seconds_total"), byWorkload))),
		curves("What threads wait for", "short", "Seconds per second, without those that wait for work. runqueue and preempted: a CPU; io: a disk; blocked: a lock of the kernel.",
			Query{top(10, perSecond(selector("offcpu_seconds_total", `reason!~"sleeping|idle|stopped"`), byWorkload+", reason")), workloadLegend + " {{reason}}"}),
		curves("Seconds of waiting for a CPU by second of running", "short", "Above 1, a workload waits longer than it runs.",
			topWorkloads(share(perSecond(selector("offcpu_seconds_total", `reason=~"runqueue|preempted"`), byWorkload), perSecond(selector("oncpu_seconds_total"), byWorkload)))),
		curves("Waiting for a CPU, 99th percentile", "s", "Above some milliseconds users feel it; 100 ms is the period of CPU quotas.",
			topWorkloads(quantile(0.99, selector("runqueue_latency_seconds"), byWorkload))),
		curves("Waiting for a CPU, 50th percentile", "s", "If this is high as well, it is not a rare event.",
			topWorkloads(quantile(0.5, selector("runqueue_latency_seconds"), byWorkload))),
		curves("Context switches", "ops", "Involuntary ones are those that lose their CPU to others.",
			Query{top(10, perSecond(selector("context_switches_voluntary_total"), byWorkload)), workloadLegend + " voluntary"},
			Query{top(10, perSecond(selector("context_switches_involuntary_total"), byWorkload)), workloadLegend + " involuntary"}),
		curves("Periods in which the quota was used up", "percentunit", "Above a few percent, latency suffers.",
			topWorkloads(share(perSecond(selector("cpu_throttled_periods_total"), byWorkload), perSecond(selector("cpu_quota_periods_total"), byWorkload)))),
		curves("Time denied by the quota", "short", "Seconds per second; CPUs add up.",
			topWorkloads(perSecond(selector("cpu_throttled_seconds_total"), byWorkload))),
		curves("CPU quotas", "s", "CPU time that may be used in each period, which mostly is 0.1 s.", topWorkloads(by(byWorkload, selector("cpu_quota_seconds")))),
		stacked("Soft interrupts", "percentunit", "Share of a CPU by vector. net_rx is packets, at the expense of whoever runs there.",
			Query{observed(hostSelector("softirq_duration_seconds"), "vector"), "{{vector}}"}),
		curves("Soft interrupts, 99.9th percentile", "s", "How long a thread may be held up.",
			Query{quantile(0.999, hostSelector("softirq_duration_seconds"), "vector"), "{{vector}}"}),
		curves("Hard interrupts", "percentunit", "Share of a CPU by handler.",
			Query{top(10, observed(hostSelector("hardirq_duration_seconds"), "name")), "{{name}}"}),
		curves("Hard interrupts per second", "ops", "By handler.", Query{top(10, observations(hostSelector("hardirq_duration_seconds"), "name")), "{{name}}"}),
		curves("CPUs in use, sampled", "short", "In user space and in the kernel, by the program profile.",
			Query{top(10, perSecond(selector("cpu_sampled_seconds_total"), byWorkload+", mode")), workloadLegend + " {{mode}}"}),
		curves("Share of CPU time in the kernel", "percentunit", "System calls, page faults and interrupts, by the program profile.",
			topWorkloads(share(perSecond(selector("cpu_samples_total", `mode="kernel"`), byWorkload), perSecond(selector("cpu_samples_total"), byWorkload)))),
	}}
}

func kernelRow() Row {
	return Row{Title: "Kernel", Area: "kernel", Panels: []Panel{
		curves("System calls", "ops", "By workload. syscalls does not run by default.", topWorkloads(perSecond(selector("syscalls_total"), byWorkload))),
		curves("System calls by name", "ops", "Of all chosen workloads.", Query{top(10, perSecond(selector("syscalls_total"), "syscall")), "{{syscall}}"}),
		curves("System calls that fail", "ops", "Without errors that are part of normal life.",
			Query{top(10, perSecond(selector("syscall_errors_total", `errno!~"EAGAIN|ETIMEDOUT|EINTR|EINPROGRESS"`), byWorkload+", syscall, errno")), workloadLegend + " {{syscall}} {{errno}}"}),
		curves("System calls, 99th percentile", "s", "Time from entry to return, sleep included. Needs the param latency of syscalls.",
			Query{top(10, quantile(0.99, selector("syscall_duration_seconds"), "syscall")), "{{syscall}}"}),
		curves("Timers that expire", "ops", "By the function that they call: what wakes CPUs.",
			Query{top(10, perSecond(hostSelector("timer_expirations_total"), "function")), "{{function}}"}),
		curves("Lateness of timers, 99th percentile", "s", "Late timers: interrupts were off, the CPU slept deeply, or the hypervisor ran somebody else.",
			Query{top(10, quantile(0.99, hostSelector("timer_latency_seconds", `kind="hrtimer"`), "function")), "{{function}}"}),
		curves("CPU of BPF programs", "percentunit", "Everybody's, share of a core. Counted while the kernel's statistics are on (kernel.bpf_stats_enabled).",
			Query{top(10, perSecond(hostSelector("bpf_program_run_seconds_total"), "name, type")), "{{type}} {{name}}"}),
		curves("Runs of BPF programs", "ops", "Counted while the kernel's statistics are on.",
			Query{top(10, perSecond(hostSelector("bpf_program_runs_total"), "name, type")), "{{type}} {{name}}"}),
		stacked("BPF programs and maps", "short", "That there are. Churn is an agent that loads again and again.",
			Query{"count(" + hostSelector("bpf_program_memory_bytes") + ")", "programs"},
			Query{"count(" + hostSelector("bpf_map_max_entries") + ")", "maps"}),
		curves("Memory of BPF programs", "bytes", "Instructions and machine code.",
			Query{by("", hostSelector("bpf_program_memory_bytes")), "instructions"},
			Query{by("", hostSelector("bpf_program_jited_bytes")), "machine code"}),
		curves("Fill of BPF maps", "percentunit", "Hash maps that are full refuse what is new; LRU maps forget what is old.",
			Query{top(10, "max by (name, type) ("+hostSelector("bpf_map_entries")+" / "+hostSelector("bpf_map_max_entries")+")"), "{{type}} {{name}}"}),
		curves("Greatest BPF maps", "bytes", "A lower bound of what the map takes when it is full.",
			Query{top(10, by("name, type", hostSelector("bpf_map_max_entries")+" * "+hostSelector("bpf_map_entry_bytes"))), "{{type}} {{name}}"}),
	}}
}

func sustainabilityRow() Row {
	packages := []string{`zone=~"intel-rapl:[0-9]+"`, `part!="psys"`}
	return Row{Title: "Sustainability", Area: "sustainability", Panels: []Panel{
		curves("Power of workloads", "watt", "Modelled: CPU time, times the watts of a busy CPU (param busy_milliwatts).",
			topWorkloads(perSecond(selector("energy_joules_total"), byWorkload))),
		curves("CO2 of workloads", "massg", "Grams per hour. Modelled: energy, times the carbon intensity of the electricity (param grams_per_kwh).",
			topWorkloads("3600 * "+perSecond(selector("energy_co2_grams_total"), byWorkload))),
		curves("Power of the machines", "watt", "Modelled: what workloads and idle CPUs take. Measured: what the processors' meters (RAPL) say, where there are such.",
			Query{perSecond(hostSelector("energy_joules_total"), "") + " + " + perSecond(hostSelector("energy_idle_joules_total"), ""), "modelled"},
			Query{perSecond(hostSelector("energy_idle_joules_total"), ""), "modelled: idle"},
			Query{perSecond(hostSelector("energy_rapl_joules_total", packages...), ""), "measured: processors"}),
		curves("CO2 of idle CPUs", "massg", "Grams per hour, of no workload.",
			Query{"3600 * " + perSecond(hostSelector("energy_idle_co2_grams_total"), "instance"), "{{instance}}"}),
		curves("Processors' meters", "watt", "By zone; a zone may contain others.",
			Query{top(10, perSecond(hostSelector("energy_rapl_joules_total"), "instance, zone, part")), "{{instance}} {{zone}} {{part}}"}),
	}}
}
