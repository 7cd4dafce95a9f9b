package agent

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/program"
)

// Status tells how all Programs are, in the order of the configuration.
func (a *Agent) Status() []Status { return a.status(true) }

// status leaves out the maps' ids and bytes unless asked to ask the kernel for them, which takes longer than all else.
func (a *Agent) status(kernelMaps bool) []Status {
	units := a.all()
	all := make([]Status, 0, len(units))
	for _, u := range units {
		all = append(all, u.status(kernelMaps))
	}
	return all
}

// Ready returns why the agent is not ready: the Programs that are down although they are not
// optional, or that nothing was applied yet.
func (a *Agent) Ready() error {
	a.mu.RLock()
	reloads := a.reloads
	a.mu.RUnlock()
	if reloads == 0 {
		return errors.New("the programs are being loaded")
	}
	var errs []error
	for _, u := range a.all() {
		u.use.RLock()
		if u.instance == nil && !u.config.Optional {
			errs = append(errs, fmt.Errorf("program %s is down: %w", u.name, u.err))
		}
		u.use.RUnlock()
	}
	return errors.Join(errs...)
}

func (u *unit) status(kernelMaps bool) Status {
	u.use.RLock()
	defer u.use.RUnlock()
	s := Status{Name: u.name, Source: u.source, State: Down, Optional: u.config.Optional, Since: u.since, ScrapeSeconds: float64(u.scrape.Load()) / 1e9}
	if u.err != nil {
		s.Reason = u.err.Error()
	}
	if u.spec != nil {
		s.Help, s.Params = u.spec.Help, u.spec.Params
	}
	if u.instance == nil || u.collector == nil {
		return s
	}
	s.State = Up
	if degraded := errors.Join(u.err, u.instance.Degraded(), u.sets.problem()); degraded != nil {
		s.State, s.Reason = Degraded, degraded.Error()
	}
	s.LoadSeconds, s.ReloadGapSeconds = u.instance.LoadDuration().Seconds(), u.instance.ReloadGap().Seconds()
	s.Hooks, s.Selection = u.hooks(), u.selection()
	lost, err := u.instance.Lost()
	if err != nil {
		lost = map[string]uint64{}
	}
	for name, n := range u.streams.Short() {
		lost["short_records_"+name] = n
	}
	for name, n := range u.streams.Lost() {
		lost["lost_records_"+name] = n
	}
	if n := u.badSpans.Load(); n > 0 {
		lost["bad_spans"] = n
	}
	s.Lost = lost
	u.readers(&s, kernelMaps)
	return s
}

func (u *unit) selection() *SelectionStatus {
	if u.config.selection() == nil {
		return nil
	}
	s := &SelectionStatus{InKernel: u.spec.Selecting()}
	s.Cgroups, s.LeftOut = u.sets.selected()
	return s
}

func (u *unit) hooks() []HookStatus {
	stats := map[string]engine.FunctionStats{}
	if all, err := u.instance.Stats(); err == nil {
		for _, f := range all {
			stats[f.Function] = f
		}
	}
	var hooks []HookStatus
	for _, h := range u.instance.Hooks() {
		status := HookStatus{
			Function: h.Function, Kind: h.Kind, Target: h.Target, State: string(h.State), Attached: h.Attached,
			ProgramID: uint32(h.ProgramID), VerifiedInstructions: h.VerifiedInstructions,
			Runs: stats[h.Function].Runs, RunSeconds: stats[h.Function].Runtime.Seconds(), Missed: stats[h.Function].Missed,
		}
		if h.Err != nil {
			status.Reason = h.Err.Error()
		}
		for _, t := range h.Targets {
			if t.Err == nil && t.Name != h.Target {
				status.Targets = append(status.Targets, t.Name)
			}
		}
		hooks = append(hooks, status)
	}
	return hooks
}

// readers adds what the collector knows of maps and metrics and, if asked to, what the kernel knows of the maps.
func (u *unit) readers(s *Status, kernelMaps bool) {
	for _, r := range u.collector.Stats() {
		if m := u.instance.Map(r.Reader); m != nil {
			status := MapStatus{Name: r.Reader, Type: m.Type().String(), Entries: r.Entries, Capacity: r.Capacity, FailedInserts: r.FailedInserts}
			if kernelMaps {
				status.ask(m)
			}
			s.Maps = append(s.Maps, status)
		}
		reader := ReaderStatus{Name: r.Reader, Series: r.Series, Folded: r.FoldedSeries, Cut: r.CutSeries, Unresolved: r.Unresolved, Reaped: r.Reaped, Seconds: r.Duration.Seconds()}
		if r.Err != nil {
			reader.Reason = r.Err.Error()
		}
		s.Readers = append(s.Readers, reader)
	}
}

// ask adds what the kernel knows of a map.
func (s *MapStatus) ask(m *ebpf.Map) {
	info, err := m.Info()
	if err != nil {
		return
	}
	if id, ok := info.ID(); ok {
		s.ID = uint32(id)
	}
	if bytes, ok := info.Memlock(); ok {
		s.Bytes = bytes
	}
}

// Figures returns a collector of the agent's own metrics.
func (a *Agent) Figures(version string) prometheus.Collector {
	return &figures{agent: a, version: version}
}

type figures struct {
	agent   *Agent
	version string
}

// Describe sends nothing: which metrics there are depends on the Programs.
func (f *figures) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (f *figures) Collect(out chan<- prometheus.Metric) {
	send := func(kind prometheus.ValueType, name, help string, value float64, labels ...string) {
		names, values := make([]string, 0, 4), make([]string, 0, 4)
		for i := 0; i+1 < len(labels); i += 2 {
			names, values = append(names, labels[i]), append(values, labels[i+1])
		}
		metric, err := prometheus.NewConstMetric(prometheus.NewDesc("kaon_"+name, help, names, nil), kind, value, values...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(prometheus.NewDesc("kaon_"+name, help, names, nil), err)
		}
		out <- metric
	}
	gauge := func(name, help string, value float64, labels ...string) {
		send(prometheus.GaugeValue, name, help, value, labels...)
	}
	counter := func(name, help string, value float64, labels ...string) {
		send(prometheus.CounterValue, name, help, value, labels...)
	}
	gauge("build_info", "Always 1; the labels tell what runs.", 1, "version", f.version, "goversion", runtime.Version(), "goarch", runtime.GOARCH)
	f.agent.mu.RLock()
	reloads, failures := f.agent.reloads, f.agent.failures
	f.agent.mu.RUnlock()
	counter("reloads_total", "Times that the configuration was applied.", float64(reloads))
	counter("program_load_failures_total", "Programs (or changes to them) that could not be read or loaded.", float64(failures))
	counter("scrape_left_out_series_total", "Series that did not fit into an exposition (limits.series).", float64(f.agent.leftOut.Load()))
	sent, lost := f.agent.spanStats()
	counter("spans_sent_total", "Spans that a receiver has taken.", float64(sent))
	counter("spans_lost_total", "Spans that no receiver has taken, or that found no room until one would.", float64(lost))
	for _, s := range distinct(f.agent.status(false)) {
		f.program(gauge, counter, s)
	}
	w := f.agent.workloads.Stats()
	gauge("workloads", "Cgroups whose names are known.", float64(w.Known))
	gauge("workload_tombstones", "Cgroups that are gone and whose names are kept.", float64(w.Tombstones))
	counter("workload_unresolved_total", "Times that a cgroup's name was asked for and not known.", float64(w.Unresolved))
	counter("workload_events_total", "Changes of cgroups that the kernel told of.", float64(w.Events))
	counter("workload_lost_events_total", "Changes of cgroups that got lost; each loss makes Kaon list all cgroups again.", float64(w.Lost))
	counter("workload_walks_total", "Times that all cgroups were listed.", float64(w.Walks))
	counter("workload_walk_seconds_total", "Time that listing them took.", w.WalkSeconds)
	counter("workload_evicted_tombstones_total", "Names of cgroups that are gone, forgotten because there were too many.", float64(w.Evicted))
	counter("workload_resolutions_total", "New cgroups whose names the kernel told.", float64(w.Resolutions))
	counter("workload_resolution_seconds_total", "Time from their making until their names were known, in all.", w.ResolutionSeconds)
	if f.agent.names == nil {
		return
	}
	counter("kube_lookups_total", "Times that the names of a pod were asked for.", float64(w.PodLookups))
	counter("kube_lookups_missed_total", "Times that no source knew the pod.", float64(w.PodMisses))
	for _, s := range f.agent.names.Stats() {
		gauge("kube_connected", "Whether the source of the names of pods tells of changes now.", boolFloat(s.Connected), "source", s.Source)
		gauge("kube_pods", "Pods whose names are known.", float64(s.Pods), "source", s.Source)
		gauge("kube_retained_pods", "Pods that are gone and whose names are kept.", float64(s.Retained), "source", s.Source)
		counter("kube_events_total", "Changes of pods that the source told of.", float64(s.Events), "source", s.Source)
		counter("kube_watch_errors_total", "Times that the source could not be asked.", float64(s.Errors), "source", s.Source)
		if !s.LastSync.IsZero() {
			gauge("kube_last_sync_timestamp_seconds", "When the source told something last.", float64(s.LastSync.UnixMilli())/1000, "source", s.Source)
		}
	}
}

// distinct leaves one status of each name: of those that want the same name, the one that has it.
func distinct(all []Status) []Status {
	better := func(a, b Status) int { return cmp.Compare(boolFloat(a.State == Down), boolFloat(b.State == Down)) }
	slices.SortStableFunc(all, better)
	seen := map[string]bool{}
	return slices.DeleteFunc(all, func(s Status) bool {
		twice := seen[s.Name]
		seen[s.Name] = true
		return twice
	})
}

type sendFunc func(name, help string, value float64, labels ...string)

func (f *figures) program(gauge, counter sendFunc, s Status) {
	labels := func(more ...string) []string { return append([]string{"program", s.Name}, more...) }
	up := 0.0
	if s.State != Down {
		up = 1
	}
	gauge("program_up", "Whether the program runs.", up, labels()...)
	gauge("program_degraded", "Whether something that is not optional is missing, or the latest change was not taken.",
		boolFloat(s.State == Degraded), labels()...)
	if s.State == Down {
		return
	}
	gauge("program_load_seconds", "Time that loading and attaching took.", s.LoadSeconds, labels()...)
	gauge("program_reload_gap_seconds", "Time for which nothing was attached during the latest reload.", s.ReloadGapSeconds, labels()...)
	gauge("program_scrape_seconds", "Time that the latest reading of the program's maps took.", s.ScrapeSeconds, labels()...)
	for _, h := range s.Hooks {
		f.hook(gauge, counter, s.Name, h)
	}
	if s.Selection != nil {
		gauge("program_selected_cgroups", "Cgroups of selected pods by which the kernel selects; 0 if that is left to user space.", float64(s.Selection.Cgroups), labels()...)
		gauge("program_selected_cgroups_left_out", "Cgroups of selected pods that found no room there: what happens in them is not counted.", float64(s.Selection.LeftOut), labels()...)
	}
	for _, m := range s.Maps {
		gauge("program_map_entries", "Entries of the map at the latest reading.", float64(m.Entries), labels("map", m.Name)...)
		gauge("program_map_capacity", "Entries that the map can have.", float64(m.Capacity), labels("map", m.Name)...)
		counter("program_failed_inserts_total", "Updates that found the map full and went to its overflow entry.", float64(m.FailedInserts), labels("map", m.Name)...)
	}
	for _, r := range s.Readers {
		gauge("program_series", "Series at the latest reading.", float64(r.Series), labels("reader", r.Name)...)
		gauge("program_folded_series", "Keys beyond the limit, which are counted in the series with overflow=\"true\".", float64(r.Folded), labels("reader", r.Name)...)
		gauge("program_cut_series", "Keys beyond the limit, which are not shown.", float64(r.Cut), labels("reader", r.Name)...)
		gauge("program_unresolved_series", "Keys with a label whose name is not known yet.", float64(r.Unresolved), labels("reader", r.Name)...)
		counter("program_reaped_total", "Keys of workloads that are gone, which were removed from the map.", float64(r.Reaped), labels("reader", r.Name)...)
		gauge("program_read_success", "Whether the latest reading succeeded.", boolFloat(r.Reason == ""), labels("reader", r.Name)...)
		gauge("program_read_seconds", "Time that the latest reading took.", r.Seconds, labels("reader", r.Name)...)
	}
	names := make([]string, 0, len(s.Lost))
	for name := range s.Lost {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		counter("program_lost_total", "Updates and records that the program itself could not store.", float64(s.Lost[name]), labels("counter", name)...)
	}
}

func (f *figures) hook(gauge, counter sendFunc, name string, h HookStatus) {
	labels := []string{"program", name, "function", h.Function, "kind", string(h.Kind), "target", h.Target}
	gauge("program_hook_attached", "Whether the function is attached.", boolFloat(h.Attached), labels...)
	if !h.Attached {
		return
	}
	short := []string{"program", name, "function", h.Function}
	if h.VerifiedInstructions > 0 {
		gauge("program_verified_instructions", "Instructions that the verifier looked at.", float64(h.VerifiedInstructions), short...)
	}
	if h.Kind != program.Iterator {
		counter("program_runs_total", "Times that the function ran.", float64(h.Runs), short...)
	}
	counter("program_missed_runs_total", "Times that the kernel did not run the function although its event happened.", float64(h.Missed), short...)
	if h.RunSeconds > 0 {
		counter("program_run_seconds_total", "Time that the function ran while the kernel's statistics were on.", h.RunSeconds, short...)
	}
}

func boolFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
