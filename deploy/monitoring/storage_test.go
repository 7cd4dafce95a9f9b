package monitoring

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// interval between the samples of a series.
const interval = 15 * time.Second

// memory is what the engine of Prometheus asks: series that a test wrote down.
type memory struct{ series []*storage.SeriesEntry }

// newMemory reads series in the notation of Prometheus' tests, one a line: `name{label="value"} 0+15x60`.
func newMemory(t *testing.T, text string) *memory {
	t.Helper()
	m := &memory{}
	p := parser.NewParser(parser.Options{})
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		set, values, err := p.ParseSeriesDesc(line)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		var samples []chunks.Sample
		for i, v := range values {
			if !v.Omitted {
				samples = append(samples, sample{t: int64(i) * interval.Milliseconds(), v: v.Value, h: v.Histogram})
			}
		}
		m.series = append(m.series, storage.NewListSeries(set, samples))
	}
	return m
}

type sample struct {
	t int64
	v float64
	h *histogram.FloatHistogram
}

func (s sample) T() int64                      { return s.t }
func (s sample) ST() int64                     { return 0 }
func (s sample) F() float64                    { return s.v }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return s.h }
func (s sample) Copy() chunks.Sample           { return s }

func (s sample) Type() chunkenc.ValueType {
	if s.h != nil {
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

func (m *memory) Querier(int64, int64) (storage.Querier, error) { return m, nil }

func (m *memory) Select(_ context.Context, _ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	set := &seriesSet{at: -1}
	for _, s := range m.series {
		match := true
		for _, matcher := range matchers {
			match = match && matcher.Matches(s.Labels().Get(matcher.Name))
		}
		if match {
			set.series = append(set.series, s)
		}
	}
	return set
}

func (m *memory) LabelValues(context.Context, string, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (m *memory) LabelNames(context.Context, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	return nil, nil, nil
}

func (m *memory) Close() error { return nil }

type seriesSet struct {
	series []*storage.SeriesEntry
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

func newEngine(t *testing.T) *promql.Engine {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 10_000_000, Timeout: time.Minute, Parser: parser.NewParser(parser.Options{}),
		NoStepSubqueryIntervalFn: func(int64) int64 { return time.Minute.Milliseconds() }})
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

// evaluate asks for the value of an expression that long after the first samples.
func evaluate(t *testing.T, engine *promql.Engine, m *memory, expr string, at time.Duration) promql.Vector {
	t.Helper()
	query, err := engine.NewInstantQuery(t.Context(), m, nil, expr, time.Unix(0, 0).Add(at))
	if err != nil {
		t.Fatalf("%v: %s", err, expr)
	}
	defer query.Close()
	result := query.Exec(t.Context())
	if result.Err != nil {
		t.Fatalf("%v: %s", result.Err, expr)
	}
	vector, err := result.Vector()
	if err != nil {
		t.Fatalf("%v: %s", err, expr)
	}
	return append(promql.Vector(nil), vector...)
}
