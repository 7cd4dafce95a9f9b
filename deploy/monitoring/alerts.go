package monitoring

import (
	"strings"
	"time"
)

// Alerts of the library and of Kaon itself.
func Alerts() []Alert {
	return append(workloadAlerts(), agentAlerts()...)
}

// metricOf selects all series, or those that match.
func metricOf(name string, matchers ...string) string {
	return name + "{" + strings.Join(matchers, ",") + "}"
}

// inRule makes an expression one of a rule file, where Grafana's variables are not known.
func inRule(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "{}", "").Replace(expr)
}

// agentAlerts are about Kaon: whether what the others ask for is there and right.
func agentAlerts() []Alert {
	const here = "{{ $labels.program }} on {{ $labels.instance }}"
	perProgram := func(metric string) string { return perSecond(metricOf(metric), "instance, program") }
	alerts := []Alert{
		{Name: "KaonDown", Expr: `up{job=~".*kaon.*"} == 0`, For: 5 * time.Minute, Severity: Critical,
			Summary: "Kaon on {{ $labels.instance }} does not answer",
			Help:    "Nothing is measured there, and every other alert of this machine is silent. 5 minutes outlast a restart or an upgrade."},
		{Name: "KaonProgramDown", Expr: "kaon_program_up == 0", For: 10 * time.Minute, Severity: Warning,
			Summary: "{{ $labels.program }} does not run on {{ $labels.instance }}",
			Help:    "Its metrics are missing there. `kaon doctor` on that machine says why. 10 minutes outlast a reload."},
		{Name: "KaonProgramDegraded", Expr: "kaon_program_degraded == 1", For: 15 * time.Minute, Severity: Warning,
			Summary: here + " is degraded",
			Help:    "Something that is not optional is missing, so that it counts less than it should; or its latest change was not taken and the old one runs on."},
		{Name: "KaonReadingFails", Expr: "kaon_program_read_success == 0", For: 10 * time.Minute, Severity: Warning,
			Summary: "{{ $labels.reader }} of " + here + " can't be read",
			Help:    "Its series are missing in every scrape since. A single failure may be a map that was changing."},
		{Name: "KaonCountsLost", Expr: perProgram("kaon_program_lost_total") + " > 0", For: 15 * time.Minute, Severity: Warning,
			Summary: here + " loses {{ $value | humanize }} counts per second",
			Help:    "Neither the series nor the overflow series has them: sums are too small. Bursts pass; 15 minutes are no burst."},
		{Name: "KaonMapFull", Expr: perProgram("kaon_program_failed_inserts_total") + " > 0", For: 15 * time.Minute, Severity: Warning,
			Summary: "A map of " + here + " is full",
			Help:    "What is new is counted in the series with overflow=\"true\": sums are right, but it is not known whose they are."},
		{Name: "KaonSeriesFolded", Expr: "sum by (instance, program) (kaon_program_folded_series) + sum by (instance, program) (kaon_program_cut_series) > 0", For: 15 * time.Minute, Severity: Warning,
			Summary: "{{ $value }} series of " + here + " are beyond the limit",
			Help:    "Counters and histograms beyond the limit are added up in the series with overflow=\"true\", gauges are not shown."},
		{Name: "KaonSeriesLeftOut", Expr: by("instance", "rate(kaon_scrape_left_out_series_total[5m])") + " > 0", For: 10 * time.Minute, Severity: Warning,
			Summary: "Kaon on {{ $labels.instance }} leaves whole programs out of scrapes",
			Help:    "An exposition would have more series than limits.series allows. What does not fit is missing, not folded."},
		{Name: "KaonScrapeSlow", Expr: "max by (instance, program) (kaon_program_scrape_seconds) > 2", For: 15 * time.Minute, Severity: Warning,
			Summary: here + " takes {{ $value | humanizeDuration }} to read",
			Help:    "Prometheus gives up after 10 s by default, and then has nothing of this machine. 2 s for one program is the way there: most take milliseconds."},
		{Name: "KaonWorkloadsUnresolved", Expr: share("sum by (instance) (kaon_program_unresolved_series)", "sum by (instance) (kaon_program_series)") + " > 0.05", For: 30 * time.Minute, Severity: Warning,
			Summary: "{{ $value | humanizePercentage }} of the series on {{ $labels.instance }} have a workload without a name",
			Help:    "Names that come late are normal for seconds. If every twentieth series has none for half an hour, Kaon does not see the cgroups or lost track of them."},
		{Name: "KaonReloadFails", Expr: "increase(kaon_program_load_failures_total[15m]) > 0", For: time.Minute, Severity: Warning,
			Summary: "Kaon on {{ $labels.instance }} could not take a change",
			Help:    "A program or a new configuration could not be read or loaded. What ran before runs on, so that nothing else shows it."},
		{Name: "KaonMissesEvents", Expr: share(perProgram("kaon_program_missed_runs_total"), perProgram("kaon_program_runs_total")) + " > 0.01", For: 15 * time.Minute, Severity: Warning,
			Summary: "The kernel leaves out {{ $value | humanizePercentage }} of the runs of " + here,
			Help:    "Its events happened and were not counted, because the function was interrupted on the same CPU. One in a hundred is where rates begin to be wrong."},
	}
	for i := range alerts {
		alerts[i].Expr = inRule(alerts[i].Expr)
	}
	return alerts
}
