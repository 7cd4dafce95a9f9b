package program_test

import (
	"testing"

	"github.com/kaon-project/kaon/internal/program"
)

func TestCompatible(t *testing.T) {
	metric := func(name string, typ program.Type, labels ...string) *program.Metric {
		m := &program.Metric{Name: name, Type: typ}
		for _, value := range labels {
			m.StaticLabels = append(m.StaticLabels, program.StaticLabel{Name: "of", Value: value})
		}
		return m
	}
	f := func(a, b *program.Metric, want bool) {
		t.Helper()
		for _, pair := range [][2]*program.Metric{{a, b}, {b, a}} {
			if err := program.Compatible(pair[0], pair[1]); (err == nil) != want {
				t.Errorf("%s %s and %s %s: %v", pair[0].Type, pair[0].Name, pair[1].Type, pair[1].Name, err)
			}
		}
	}
	f(metric("a", program.Gauge), metric("b", program.Gauge), true)
	f(metric("a", program.Gauge), metric("a", program.Gauge), false)
	f(metric("a", program.Gauge, "x"), metric("a", program.Gauge, "y"), true)
	f(metric("a", program.Gauge, "x"), metric("a", program.Counter, "y"), false)
	f(metric("a_total", program.Counter), metric("a", program.Gauge), false)
	f(metric("a_total", program.Counter), metric("a_created", program.Gauge), false)
	f(metric("a_total", program.Counter), metric("a_totals", program.Gauge), true)
	f(metric("a_total", program.Gauge), metric("a", program.Gauge), true)
	f(metric("a_info", program.Info), metric("a", program.Counter), false)
	f(metric("a", program.Histogram), metric("a_count", program.Gauge), false)
	f(metric("a", program.Histogram), metric("a_count", program.Histogram), false)
	f(metric("a", program.Histogram), metric("a_counts_total", program.Counter), true)
	f(metric("a", program.GaugeHistogram), metric("a_gcount", program.Gauge), false)
	f(metric("a", program.Summary), metric("a_bucket", program.Gauge), true)
}
