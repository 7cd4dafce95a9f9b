package agent

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/kaon-project/kaon/internal/workload"
)

var update = flag.Bool("update", false, "write docs/reference/self-metrics.md anew")

// The page of the agent's own metrics is made from what it exports.
func TestFiguresDocument(t *testing.T) {
	cgroup := newCgroup(t)
	// With statistics, so that all that there can be is there.
	a, err := New(Options{CgroupRoot: cgroup, Statistics: true, Names: &noPods{}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	apply(t, a, ProgramConfig{Source: "testdata/calls.bpf.o", Params: number, Resolved: selectingProgram(t, chose(podUID(1)), nil).Resolved, StaticLabels: map[string]string{"by": "map"}}, ProgramConfig{Source: "testdata/stream.yaml", StaticLabels: map[string]string{"by": "stream"}})
	call(t, newPod(t, cgroup, 1), "caller", 1)
	values(t, a, "")
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(a.Figures("v1")); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# The agent's own metrics

Beside ` + "`go_*`, `process_*` and `kaon_scrape*`" + ` (bytes, duration and number of scrapes), the agent exports what follows. A label
"program" is the Program's name; "reader" and "map" are names of maps in its object. Where the kernel's statistics of BPF programs are on (` + "`statistics: true`" + `), there is
` + "`kaon_program_run_seconds_total`" + ` beside the runs. Where pods have names (` + "`kubernetes.enabled`" + `), there is ` + "`kaon_kube_*`" + `, whose label "source" is ` + "`api`" + ` (the API server)
or ` + "`logs`" + ` (the names of log files). Programs with a ` + "`workloadSelector`" + ` have ` + "`kaon_program_selected_cgroups*`" + `. The Programs' own metrics are on the Programs' pages.

| metric | type | labels | tells |
|---|---|---|---|
`)
	for _, f := range families {
		names := map[string]bool{}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				names[l.GetName()] = true
			}
		}
		labels := make([]string, 0, len(names))
		for name := range names {
			labels = append(labels, name)
		}
		sort.Strings(labels)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	const path = "../../docs/reference/self-metrics.md"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && os.Getenv("KAON_VM") != "" {
		t.Skip("needs the documentation beside it")
	}
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s is out of date: make docs\n%s", path, b.String())
	}
	lint(t, families)
}

// noPods is a source of names of pods that has none.
type noPods struct{}

func (*noPods) Identify(string, string) workload.PodIdentity { return workload.PodIdentity{} }
func (*noPods) ExtraLabels() []string                        { return nil }
func (*noPods) Stats() []workload.PodStats {
	return []workload.PodStats{{Source: "api", LastSync: time.Unix(1, 0)}}
}

func lint(t *testing.T, families []*dto.MetricFamily) {
	t.Helper()
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	problems, err := promlint.New(&text).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
