package monitoring

import (
	"context"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/inject"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// kernelObject counts kicks.
const kernelObject = "../../internal/lab/kernelview/bpf/lab.bpf.o"

func newLab(t *testing.T, mode lab.Mode, now func() time.Time) *lab.Lab {
	t.Helper()
	l, err := lab.NewLab(lab.Options{Mode: mode, File: "kick.star", Source: []byte("KICK_POWER = 40\n"), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// gather is what a lab exposes: its own metrics and those of what it injects.
func gather(l *lab.Lab, j *inject.Injector) exposition.Gather {
	return func(ctx context.Context, names []string) (exposition.Snapshot, error) {
		snapshot, err := l.Gather(ctx, names)
		snapshot.Families = append(snapshot.Families, j.Families()...)
		return snapshot, err
	}
}

// exposedWithLab is what agents and labs expose, in both modes, and the kernel's view.
func exposedWithLab(t *testing.T) map[string]metric {
	t.Helper()
	all := exposed(t)
	// Of the target, when the lab is a pod.
	target := []string{"namespace", "pod", "container"}
	for _, mode := range []lab.Mode{lab.Physics, lab.Compatible} {
		snapshot, err := gather(newLab(t, mode, nil), inject.NewInjector())(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range snapshot.Families {
			m := metric{kind: f.Metric.Type, states: f.Metric.States, values: map[string][]string{}, labels: slices.Clone(target)}
			for _, p := range f.Points {
				series.EachLabel(p.Labels, func(name, value string) bool {
					m.values[name] = append(m.values[name], value)
					return true
				})
			}
			m.labels = append(m.labels, slices.Sorted(maps.Keys(m.values))...)
			if before, ok := all[f.Metric.Name]; ok && before.kind == program.StateSet {
				// A number in one mode, a stateset in the other.
				m.labels = append(m.labels, f.Metric.Name)
			}
			all[f.Metric.Name] = m
		}
	}
	spec, err := object.Load(kernelObject)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range spec.Readers {
		for i := range r.Metrics {
			m := describe("", &r.Metrics[i])
			m.labels = append(m.labels, target...)
			slices.Sort(m.labels)
			m.labels = slices.Compact(m.labels)
			all[r.Metrics[i].Name] = m
		}
	}
	return all
}

// Every expression of the lab's dashboard is PromQL of metrics and labels that there are, and no panel about what agents say of a lab's
// pod is dead.
func TestLabExpressions(t *testing.T) {
	all := exposedWithLab(t)
	engine := newEngine(t)
	for _, e := range expressionsOf(Lab()) {
		check(t, all, e.where, e.expr)
		if e.row.Title != labKernelRow().Title {
			continue // TestLabPanels
		}
		if result := evaluate(t, engine, newMemory(t, library(t, all, e.expr)), e.expr, 15*time.Minute); len(result) == 0 {
			t.Errorf("%s shows nothing: %s", e.where, e.expr)
		}
	}
}

// Against a lab that runs: each panel about what it says itself has a result at some time, in one of the modes.
func TestLabPanels(t *testing.T) {
	engine := newEngine(t)
	text, native := map[lab.Mode]*scrapes{}, map[lab.Mode]*scrapes{}
	const seconds = 100
	for _, mode := range []lab.Mode{lab.Compatible, lab.Physics} {
		now := time.Unix(0, 0)
		l, injector := newLab(t, mode, func() time.Time { return now }), inject.NewInjector()
		handler := exposition.NewHandler(gather(l, injector), exposition.HandlerOptions{})
		text[mode], native[mode] = &scrapes{}, &scrapes{}
		warp := time.Duration(1)
		if mode == lab.Physics {
			warp = 60
		}
		for second := range seconds {
			at := time.Duration(second) * time.Second
			now = time.Unix(second0+int64(second), 0)
			l.Start() // again, if a run has ended
			l.Advance(warp * time.Second)
			for accept, s := range map[string]*scrapes{
				"text/plain": text[mode],
				"application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited": native[mode],
			} {
				request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
				request.Header.Set("Accept", accept)
				recorder := httptest.NewRecorder()
				handler.ServeHTTP(recorder, request)
				if recorder.Code != 200 {
					t.Fatalf("%d: %s", recorder.Code, recorder.Body)
				}
				s.parse(t, recorder.Body.Bytes(), recorder.Header().Get("Content-Type"),
					labels.FromStrings("namespace", "kaon", "pod", "kaon-lab-0", "container", "lab", "instance", "10.0.0.1:9498", "job", "kaon-lab"), at)
			}
		}
	}
	for _, e := range expressionsOf(Lab()) {
		if e.row.Title == labKernelRow().Title {
			continue // TestLabExpressions, and TestAgent for the metrics
		}
		for kind, all := range map[string]map[lab.Mode]*scrapes{"classic": text, "native": native} {
			shown := false
			for _, s := range all {
				memory := s.memory()
				for second := 5; second < seconds && !shown; second++ {
					result := evaluate(t, engine, memory, e.expr, time.Duration(second)*time.Second)
					shown = slices.ContainsFunc(result, func(s promql.Sample) bool { return !math.IsNaN(s.F) })
				}
			}
			if !shown {
				t.Errorf("%s shows nothing with %s histograms: %s", e.where, kind, e.expr)
			}
		}
	}
}

// second0 is when the lab of the test was started, in Unix time.
const second0 = 1_700_000_000
