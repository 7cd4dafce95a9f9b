package monitoring

// Library is the dashboard of the built-in Programs: an overview, then a row for each area.
func Library() *Dashboard {
	return &Dashboard{
		UID: "kaon-library", Title: "Kaon: workloads as the kernel sees them",
		Help: "Golden signals of every workload without instrumentation, from Kaon's built-in eBPF programs.",
		Tags: []string{"kaon", "ebpf"}, Refresh: "30s", Span: "1h", Variables: variables(),
		Rows: []Row{overviewRow(), processRow(), cpuRow(), memoryRow(), storageRow(), networkRow(), securityRow(), kernelRow(), sustainabilityRow(), agentRow()},
	}
}

// curves is a TimeSeries.
func curves(title, unit, help string, queries ...Query) Panel {
	return Panel{Title: title, Help: help, Kind: TimeSeries, Unit: unit, Queries: queries}
}

// stacked is a TimeSeries whose values add up.
func stacked(title, unit, help string, queries ...Query) Panel {
	p := curves(title, unit, help, queries...)
	p.Stacked = true
	return p
}

// number is a Stat, red from bad on (0: never).
func number(title, unit, help string, bad float64, expr string) Panel {
	return Panel{Title: title, Help: help, Kind: Stat, Unit: unit, Bad: bad, Width: columns / 6, Queries: []Query{{expr, ""}}}
}

// topWorkloads are the ten workloads with the greatest values of an expression that is summed by them.
func topWorkloads(expr string) Query { return Query{top(10, expr), workloadLegend} }

// overviewRow has the golden signals: latency, traffic, errors, saturation.
func overviewRow() Row {
	noError := `rcode=~"noerror|nxdomain"`
	return Row{Title: "Overview", Panels: []Panel{
		number("Workloads", "short", "Containers, units and other cgroups that have threads.", 0,
			"count("+by(byWorkload, selector("tasks"))+")"),
		number("CPUs in use", "short", "By all workloads.", 0, perSecond(selector("oncpu_seconds_total"), "")),
		number("Network", "Bps", "Sent and received by all workloads, loopback aside.", 0, perSecond(selector("network_bytes_total"), "")),
		number("Disks", "Bps", "Read and written on all block devices.", 0, perSecond(selector("blockio_bytes_total"), "")),
		number("OOM kills", "short", "In the chosen time.", 1, events(selector("oom_kills_total"), "$__range", "")+" or vector(0)"),
		number("Programs of Kaon that do not run", "short", "The row at the end says which.", 1,
			"count("+hostSelector("kaon_program_up")+") - sum("+hostSelector("kaon_program_up")+")"),

		curves("Latency: waiting for a CPU, 99th percentile", "s", "How long threads that could run waited. Above some milliseconds users feel it.",
			topWorkloads(quantile(0.99, selector("runqueue_latency_seconds"), byWorkload))),
		curves("Latency: block devices, 99th percentile", "s", "From the request to its end, by the workload that asked. Below 1 ms for NVMe, 10 ms for cloud disks, 50 ms for turning ones.",
			topWorkloads(quantile(0.99, selector("blockio_latency_seconds"), byWorkload))),
		curves("Latency: DNS, 99th percentile", "s", "From the query to its response. Most programs wait for this before they connect.",
			topWorkloads(quantile(0.99, selector("dns_latency_seconds"), byWorkload))),

		curves("Latency: TCP connecting, 99th percentile", "s", "One round trip; 1 s and more means that the first packet was lost.",
			topWorkloads(quantile(0.99, selector("tcp_connect_latency_seconds"), byWorkload))),
		curves("Latency: TCP round trips, 99th percentile", "s", "Of connections that ended: the network and the peer's kernel.",
			topWorkloads(quantile(0.99, selector("tcp_rtt_seconds"), byWorkload))),

		curves("Traffic: network", "Bps", "Sent and received.",
			Query{top(10, perSecond(selector("network_bytes_total"), byWorkload+", direction")), workloadLegend + " {{direction}}"}),
		curves("Traffic: disks", "Bps", "Read and written. What is written back from the page cache later counts for the root (cgroup /).",
			Query{top(10, perSecond(selector("blockio_bytes_total"), byWorkload+", operation")), workloadLegend + " {{operation}}"}),
		curves("Traffic: processes started and DNS queries", "ops", "What a workload does, whatever its language.",
			Query{top(10, perSecond(selector("process_starts_total"), byWorkload)), workloadLegend + ": starts"},
			Query{top(10, perSecond(selector("dns_queries_total"), byWorkload)), workloadLegend + ": DNS"}),

		curves("Errors: processes that fail", "ops", "Ended with another code than 0, or by a signal.",
			topWorkloads(by(byWorkload, rate(selector("process_exits_total", `code!="0"`))+" or "+rate(selector("process_exits_total", `signal!="0"`))))),
		curves("Errors: DNS without a good response", "ops", "Errors of name servers, and queries that nobody answered. A name that does not exist is no error here.",
			Query{top(10, perSecond(selector("dns_responses_total", not(noError)), byWorkload)), workloadLegend + ": errors"},
			Query{top(10, perSecond(selector("dns_unanswered_total"), byWorkload)), workloadLegend + ": unanswered"}),
		curves("Errors: TCP", "ops", "Connections that fail, segments that are sent again, resets.",
			Query{top(10, perSecond(selector("tcp_connect_failures_total"), byWorkload)), workloadLegend + ": connect"},
			Query{top(10, perSecond(selector("tcp_retransmits_total"), byWorkload)), workloadLegend + ": sent again"},
			Query{top(10, perSecond(selector("tcp_resets_received_total"), byWorkload)), workloadLegend + ": resets"}),
		curves("Errors: packets dropped", "pps", "By the kernel, of sockets whose workload is known.",
			topWorkloads(perSecond(selector("packet_drops_total"), byWorkload))),

		curves("Saturation: threads that wait for a CPU", "short", "Seconds of waiting per second: 1 is a thread that waits all the time.",
			topWorkloads(observed(selector("runqueue_latency_seconds"), byWorkload))),
		curves("Saturation: periods in which the CPU quota was used up", "percentunit", "Above a few percent, latency suffers whatever the CPU usage is.",
			topWorkloads(share(perSecond(selector("cpu_throttled_periods_total"), byWorkload), perSecond(selector("cpu_quota_periods_total"), byWorkload)))),
		curves("Saturation: memory, share of the limit", "percentunit", "Without page cache that is not in use. Near 1, the next allocation stalls or kills.",
			topWorkloads(memoryShare())),
	}}
}

// memoryShare is the part of their limits that workloads need.
func memoryShare() string {
	return "(" + by(byWorkload, selector("memory_usage_bytes")+" - "+selector("memory_inactive_file_bytes")) + ") / " + by(byWorkload, selector("memory_limit_bytes"))
}

// troubles is the title of the panel that shows nothing as long as all is well.
const troubles = "Does not run, or degraded"

// agentRow is about Kaon itself.
func agentRow() Row {
	own := " and on (instance, job) " + hostSelector("kaon_build_info")
	return Row{Title: "Kaon itself", Panels: []Panel{
		number("Agents", "short", "That answer scrapes.", 0, "count("+hostSelector("kaon_build_info")+")"),
		number("Programs that run", "short", "On all agents.", 0, "sum("+hostSelector("kaon_program_up")+")"),
		number("Programs that do not run", "short", "kaon doctor on that machine says why.", 1,
			"count("+hostSelector("kaon_program_up")+") - sum("+hostSelector("kaon_program_up")+")"),
		number("Programs that are degraded", "short", "A hook is missing, or the latest change was not taken.", 1, "sum("+hostSelector("kaon_program_degraded")+")"),
		number("Readings that fail", "short", "Metrics that are missing in the latest scrapes.", 1,
			"count("+hostSelector("kaon_program_read_success")+" == 0) or vector(0)"),
		number("Series of all programs", "short", "In the latest scrapes of all agents.", 0, "sum("+hostSelector("kaon_program_series")+")"),

		curves(troubles, "short", "1 while it is so.",
			Query{hostSelector("kaon_program_up") + " == 0", "{{instance}} {{program}} does not run"},
			Query{hostSelector("kaon_program_degraded") + " == 1", "{{instance}} {{program}} is degraded"}),
		curves("Lost", "ops", "Counts that found no room and went to the overflow series, what was lost altogether, and events at which the kernel skipped a function. 0 is good.",
			Query{top(10, perSecond(hostSelector("kaon_program_failed_inserts_total"), "program")), "{{program}}: to overflow"},
			Query{top(10, perSecond(hostSelector("kaon_program_lost_total"), "program")), "{{program}}: lost"},
			Query{top(10, perSecond(hostSelector("kaon_program_missed_runs_total"), "program")), "{{program}}: skipped"}),
		stacked("Series by program", "short", "At the latest scrapes.", Query{by("program", hostSelector("kaon_program_series")), "{{program}}"}),
		curves("Folded, cut and unresolved series", "short", "Keys beyond the limit are counted in one series (folded) or not shown (cut); unresolved ones have a workload without a name yet.",
			Query{top(10, by("program", hostSelector("kaon_program_folded_series"))), "{{program}}: folded"},
			Query{top(10, by("program", hostSelector("kaon_program_cut_series"))), "{{program}}: cut"},
			Query{top(10, by("program", hostSelector("kaon_program_unresolved_series"))), "{{program}}: unresolved"}),
		curves("Fill of maps", "percentunit", "Entries by what the map can have. LRU maps are full as a rule.",
			Query{top(10, "max by (program, map) ("+hostSelector("kaon_program_map_entries")+" / "+hostSelector("kaon_program_map_capacity")+")"), "{{program}} {{map}}"}),
		curves("Time that reading took", "s", "Of each program at the latest scrape. The whole scrape must end within Prometheus' timeout.",
			Query{top(10, "max by (instance, program) ("+hostSelector("kaon_program_scrape_seconds")+")"), "{{instance}} {{program}}"}),
		curves("Runs of functions", "ops", "Events per second; each costs what the program's page says.",
			Query{top(10, perSecond(hostSelector("kaon_program_runs_total"), "program")), "{{program}}"}),
		curves("CPU of the kernel's functions", "percentunit", "Share of a core. Counted only while the kernel's statistics are on (statistics: true, or kaon top).",
			Query{top(10, perSecond(hostSelector("kaon_program_run_seconds_total"), "program")), "{{program}}"}),
		curves("CPU of the agent", "percentunit", "Share of a core, for scrapes and for following workloads.",
			Query{by("instance", rate(hostSelector("process_cpu_seconds_total"))+own), "{{instance}}"}),
		curves("Memory of the agent", "bytes", "Resident.", Query{by("instance", hostSelector("process_resident_memory_bytes")+own), "{{instance}}"}),
		curves("Workloads", "short", "Cgroups whose names are known, and lookups that found none.",
			Query{by("instance", hostSelector("kaon_workloads")), "{{instance}}"},
			Query{perSecond(hostSelector("kaon_workload_unresolved_total"), "instance"), "{{instance}}: unresolved per second"}),
		curves("Reloads", "short", "Of the configuration, and programs that failed at it.",
			Query{by("instance", "increase("+hostSelector("kaon_reloads_total")+"[$__rate_interval])"), "{{instance}}"},
			Query{by("instance", "increase("+hostSelector("kaon_program_load_failures_total")+"[$__rate_interval])"), "{{instance}}: failures"}),
	}}
}
