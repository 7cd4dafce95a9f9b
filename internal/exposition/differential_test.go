package exposition

import (
	"bytes"
	"context"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/histogram"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// promhttpBody asks client_golang's handler for a format.
func promhttpBody(t testing.TB, registry *prometheus.Registry, format Format) (body, contentType string) {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", format.ContentType())
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(recorder, request)
	return recorder.Body.String(), recorder.Header().Get("Content-Type")
}

// slotOf finds a value's slot by the definition of program.Buckets.
func slotOf(b *program.Buckets, value float64) int {
	last := (b.High - b.Low) << b.Schema
	return sort.Search(last+1, func(slot int) bool { return value <= nativeBound(b.Low<<b.Schema+slot, b.Schema) })
}

func populated(h *histogram.Histogram) map[[2]float64]uint64 {
	result := map[[2]float64]uint64{}
	for it := h.PositiveBucketIterator(); it.Next(); {
		if b := it.At(); b.Count != 0 {
			result[[2]float64{b.Lower, b.Upper}] = b.Count
		}
	}
	return result
}

// randomValue spreads over more than the range of b, often on a power of two and, if
// asked for, on the other bounds. Those are irrational: which float64 stands for
// them is a matter of rounding, on which we and client_golang may differ by the last bit.
func randomValue(random *rand.Rand, b *program.Buckets, onBounds bool) float64 {
	exponent := float64(b.Low) - 2 + random.Float64()*float64(b.High-b.Low+4)
	switch choice := random.IntN(4); {
	case choice == 0:
		return math.Ldexp(1, int(exponent))
	case choice == 1 && onBounds:
		index := int(exponent * float64(int(1)<<b.Schema))
		return nativeBound(index, b.Schema)
	}
	return math.Exp2(exponent)
}

func TestSameAsClientGolang(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	registry := prometheus.NewRegistry()
	var families []*series.Family

	counters := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "reads_total", Help: `Reads "of" a\b` + "\nfile."}, []string{"comm", "op"})
	gauges := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "depth", Help: "Depth."}, []string{"comm", "op"})
	registry.MustRegister(counters, gauges)
	counter := &series.Family{Metric: &program.Metric{Name: "reads_total", Help: `Reads "of" a\b` + "\nfile.", Type: program.Counter}, Stride: 1}
	gauge := &series.Family{Metric: &program.Metric{Name: "depth", Help: "Depth.", Type: program.Gauge, Cells: []program.Field{{Signed: true}}}, Stride: 1}
	for _, comm := range []string{"a", "quo\"te", "back\\slash", "new\nline", "日本", `end\`, "{}=,"} {
		for _, op := range []string{"read", "write"} {
			n := random.Uint64() >> 12
			counters.WithLabelValues(comm, op).Add(float64(n))
			counter.Points = append(counter.Points, series.Point{Labels: labelText("comm", comm, "op", op)})
			counter.Values = append(counter.Values, n)
			depth := random.Int64N(1<<40) - 1<<39
			gauges.WithLabelValues(comm, op).Set(float64(depth))
			gauge.Points = append(gauge.Points, series.Point{Labels: labelText("comm", comm, "op", op)})
			gauge.Values = append(gauge.Values, uint64(depth))
		}
	}
	families = append(families, counter, gauge)

	summaries := prometheus.NewDesc("wait_seconds", "Waits.", nil, nil)
	registry.MustRegister(constant{prometheus.MustNewConstSummary(summaries, 7, 2.5, map[float64]float64{0.5: 0.25, 0.99: 1})})
	families = append(families, &series.Family{
		Metric: &program.Metric{Name: "wait_seconds", Help: "Waits.", Type: program.Summary, Quantiles: []float64{0.5, 0.99}, Scale: program.Scale{Den: 1e9}},
		Points: []series.Point{{}}, Values: []uint64{7, 2.5e9, 25e7, 1e9}, Stride: 4,
	})

	// Explicit bounds.
	bounds := []float64{0.001, 0.01, 0.1, 1, 10}
	classic := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "run_seconds", Help: "Runs.", Buckets: bounds})
	registry.MustRegister(classic)
	raw := []uint64{1e6, 1e7, 1e8, 1e9, 1e10}
	row := make([]uint64, 2+len(raw))
	for range 1000 {
		nanos := uint64(math.Exp(random.Float64() * 25))
		if random.IntN(5) == 0 {
			nanos = raw[random.IntN(len(raw))]
		}
		classic.Observe(float64(nanos) / 1e9)
		row[0] += nanos
		row[1+sort.Search(len(raw), func(i int) bool { return nanos <= raw[i] })]++
	}
	families = append(families, &series.Family{
		Metric: &program.Metric{Name: "run_seconds", Help: "Runs.", Type: program.Histogram, Buckets: &program.Buckets{Bounds: raw}, Scale: program.Scale{Den: 1e9}},
		Points: []series.Point{{}}, Values: row, Stride: len(row),
	})

	for _, format := range []Format{textFormat(), openMetricsFormat(), protobufFormat()} {
		theirs, contentType := promhttpBody(t, registry, format)
		if contentType != format.ContentType() {
			t.Errorf("content type: theirs is %q, ours %q", contentType, format.ContentType())
		}
		want := mustScrape(t, theirs, contentType)
		got := mustScrape(t, encode(t, format, Options{}, families...), format.ContentType())
		if len(want.samples) < 40 {
			t.Fatalf("client_golang gave only %d samples", len(want.samples))
		}
		for key, value := range want.samples {
			number, ok := got.samples[key]
			// Their sums of floats are rounded, ours are exact.
			if !ok || math.Abs(number-value) > 1e-12*math.Abs(value) {
				t.Errorf("%s: %s: got %v (present: %v), want %v", contentType, key, number, ok, value)
			}
		}
		if len(got.samples) != len(want.samples) {
			t.Errorf("%s: got %d samples, want %d", contentType, len(got.samples), len(want.samples))
		}
		if !maps.Equal(got.types, want.types) || !maps.Equal(got.help, want.help) {
			t.Errorf("%s: got metadata %v %v, want %v %v", contentType, got.types, got.help, want.types, want.help)
		}
	}
}

// constant is a Collector of one metric.
type constant struct{ metric prometheus.Metric }

func (c constant) Describe(ch chan<- *prometheus.Desc) { ch <- c.metric.Desc() }
func (c constant) Collect(ch chan<- prometheus.Metric) { ch <- c.metric }

func TestNativeHistogramsAreClientGolangs(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	f := func(b program.Buckets, shown int8, observations int) {
		t.Helper()
		registry := prometheus.NewRegistry()
		theirs := prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "h", Help: "H.",
			NativeHistogramBucketFactor:  math.Exp2(math.Exp2(-float64(shown)) * 1.01), // just above the schema's growth
			NativeHistogramZeroThreshold: math.Ldexp(1, b.Low),
		})
		registry.MustRegister(theirs)
		slots := (b.High-b.Low)<<b.Schema + 2
		row := make([]uint64, 1+slots)
		for range observations {
			value := randomValue(random, &b, false)
			if value > math.Ldexp(1, b.High) {
				// Above the range ours is only in the bucket of infinity, by design.
				theirs.Observe(math.Inf(1))
			} else {
				theirs.Observe(value)
			}
			row[1+slotOf(&b, value)]++
		}
		family := &series.Family{Metric: &program.Metric{Name: "h", Help: "H.", Type: program.Histogram, Buckets: &b},
			Points: []series.Point{{}}, Values: row, Stride: len(row)}

		body, contentType := promhttpBody(t, registry, protobufFormat())
		want := mustScrape(t, body, contentType).histograms[seriesKey("h")]
		got := mustScrape(t, encode(t, protobufFormat(), Options{}, family), protobufFormat().ContentType()).histograms[seriesKey("h")]
		if got == nil || want == nil {
			t.Fatalf("no native histogram: ours %v, theirs %v", got, want)
		}
		if got.Schema != want.Schema || got.Schema != int32(shown) || got.ZeroThreshold != want.ZeroThreshold || got.ZeroCount != want.ZeroCount || got.Count != want.Count {
			t.Errorf("%+v: got schema %d zero %d@%v count %d, want schema %d zero %d@%v count %d", b, got.Schema, got.ZeroCount, got.ZeroThreshold, got.Count,
				want.Schema, want.ZeroCount, want.ZeroThreshold, want.Count)
		}
		if !maps.Equal(populated(got), populated(want)) {
			t.Errorf("%+v: got %v\nwant %v", b, populated(got), populated(want))
		}
		if !slices.Equal(got.PositiveSpans, want.PositiveSpans) || !slices.Equal(got.PositiveBuckets, want.PositiveBuckets) {
			t.Errorf("%+v: got spans %v deltas %v\nwant %v %v", b, got.PositiveSpans, got.PositiveBuckets, want.PositiveSpans, want.PositiveBuckets)
		}
	}
	lower := func(schema int8) *int8 { return &schema }
	for schema := int8(0); schema <= 8; schema++ {
		for _, observations := range []int{0, 1, 3, 40, 2000} {
			f(program.Buckets{Schema: schema, Low: -20, High: 6, MaxNative: 1 << 20}, schema, observations)
			f(program.Buckets{Schema: schema, Low: 3, High: 40, MaxNative: 1 << 20}, schema, observations)
		}
	}
	for shown := int8(-4); shown <= 5; shown++ {
		f(program.Buckets{Schema: 5, Low: 0, High: 64, MaxNative: 1 << 20, NativeSchema: lower(shown)}, shown, 500)
		f(program.Buckets{Schema: 5, Low: -16, High: 32, MaxNative: 1 << 20, NativeSchema: lower(shown)}, shown, 500)
	}
	f(program.Buckets{Schema: 3, Low: -20, High: 10, NativeSchema: lower(5), MaxNative: 1 << 20}, 3, 100)
}

func TestMaxNativeLowersTheResolution(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	f := func(b program.Buckets, max int) {
		t.Helper()
		slots := (b.High-b.Low)<<b.Schema + 2
		row := make([]uint64, 1+slots)
		for i := 1; i < len(row); i++ {
			row[i] = random.Uint64N(5)
		}
		family := &series.Family{Metric: &program.Metric{Name: "h", Type: program.Histogram, Buckets: &b},
			Points: []series.Point{{}}, Values: row, Stride: len(row)}
		fine := b
		fine.MaxNative = 1 << 20
		full := &series.Family{Metric: &program.Metric{Name: "h", Type: program.Histogram, Buckets: &fine}, Points: family.Points, Values: row, Stride: len(row)}
		got := mustScrape(t, encode(t, protobufFormat(), Options{}, family), protobufFormat().ContentType()).histograms[seriesKey("h")]
		want := mustScrape(t, encode(t, protobufFormat(), Options{}, full), protobufFormat().ContentType()).histograms[seriesKey("h")]
		if n := len(populated(got)); n > max {
			t.Errorf("%d populated buckets, the limit is %d", n, max)
		}
		// Prometheus' own reduction must give the same; the overflow bucket is compared by its count.
		overflow := func(h *histogram.Histogram) uint64 {
			for bounds, n := range populated(h) {
				if math.IsInf(bounds[1], 1) {
					return n
				}
			}
			return 0
		}
		if overflow(got) != row[len(row)-1] || overflow(want) != row[len(row)-1] {
			t.Errorf("overflow: %d and %d, want %d", overflow(got), overflow(want), row[len(row)-1])
		}
		if err := want.ReduceResolution(got.Schema); err != nil && got.Schema != want.Schema {
			t.Fatal(err)
		}
		reduced, ours := populated(want), populated(got)
		for bounds := range reduced {
			if bounds[1] > math.Ldexp(1, b.High+20) {
				delete(reduced, bounds)
			}
		}
		for bounds := range ours {
			if bounds[1] > math.Ldexp(1, b.High+20) {
				delete(ours, bounds)
			}
		}
		if !maps.Equal(ours, reduced) {
			t.Errorf("schema %d: got %v\nwant %v", got.Schema, ours, reduced)
		}
	}
	f(program.Buckets{Schema: 3, Low: -20, High: 6}, 160)
	f(program.Buckets{Schema: 5, Low: -20, High: 6}, 160)
	f(program.Buckets{Schema: 5, Low: -20, High: 6, MaxNative: 20}, 20)
	f(program.Buckets{Schema: 2, Low: -20, High: 6, MaxNative: 4}, 4)
}

func TestClassicBucketsCountExactly(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	f := func(b program.Buckets, wantBuckets int) {
		t.Helper()
		slots := (b.High-b.Low)<<b.Schema + 2
		row := make([]uint64, 1+slots)
		values := make([]float64, 3000)
		for i := range values {
			values[i] = randomValue(random, &b, true)
			row[1+slotOf(&b, values[i])]++
		}
		sc := newScale(program.Scale{})
		var plan classicPlan
		plan.reset(&b, &sc)
		if wantBuckets > 0 && len(plan.bounds) != wantBuckets {
			t.Errorf("%+v: %d buckets, want %d: %v", b, len(plan.bounds), wantBuckets, plan.bounds)
		}
		limit := b.MaxClassic
		if limit == 0 {
			limit = defaultClassic
		}
		if len(plan.bounds) > limit || len(plan.bounds) == 0 || len(b.ClassicBounds) == 0 && plan.bounds[len(plan.bounds)-1] != math.Ldexp(1, b.High) {
			t.Errorf("%+v: buckets %v", b, plan.bounds)
		}
		family := &series.Family{Metric: &program.Metric{Name: "h", Type: program.Histogram, Buckets: &b},
			Points: []series.Point{{}}, Values: row, Stride: len(row)}
		for _, format := range []Format{textFormat(), protobufFormat()} {
			got := mustScrape(t, encode(t, format, Options{}, family), format.ContentType())
			for _, bound := range append(slices.Clone(plan.bounds), math.Inf(1)) {
				count := 0.0
				for _, v := range values {
					if v <= bound {
						count++
					}
				}
				key := seriesKey("h_bucket", "le", string(appendBound(nil, bound, true)))
				if n, ok := got.samples[key]; !ok || n != count {
					t.Errorf("%+v: %s: got %v (present: %v), want %v", b, key, n, ok, count)
				}
			}
		}
	}
	f(program.Buckets{Schema: 2, Low: -20, High: 6}, 27)
	f(program.Buckets{Schema: 0, Low: 0, High: 63}, 0)
	f(program.Buckets{Schema: 3, Low: 0, High: 2}, 17)
	f(program.Buckets{Schema: 5, Low: -3, High: 61}, 0)
	f(program.Buckets{Schema: 0, Low: 0, High: 1}, 2)
	for limit := 1; limit <= 60; limit++ {
		f(program.Buckets{Schema: 2, Low: -7, High: 13, MaxClassic: limit}, 0)
	}
	f(program.Buckets{Schema: 2, Low: -20, High: 6, ClassicBounds: []float64{0.001, 0.0009765625, 1.189207115002721, 1, 1e9}}, 3)
	f(program.Buckets{Schema: 2, Low: -20, High: 6, ClassicBounds: []float64{0.001}}, 27)
}

func TestGathererGivesTheSame(t *testing.T) {
	families := zoo()
	released := false
	gatherer := NewGatherer(t.Context(), func(_ context.Context, names []string) (Snapshot, error) {
		return Snapshot{Families: families, Release: func() { released = true }}, nil
	})
	gathered, err := gatherer.Gather()
	if err != nil || !released {
		t.Fatalf("gather: %v, released: %v", err, released)
	}
	var out bytes.Buffer
	w := NewWriter(&out, openMetricsFormat(), Options{})
	if err := w.WriteGathered(gathered); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := mustScrape(t, encode(t, openMetricsFormat(), Options{}, families...), openMetricsFormat().ContentType())
	got := mustScrape(t, out.String(), openMetricsFormat().ContentType())
	for key, value := range want.samples {
		// expfmt renames a counter that lacks _total and has its own names for gauge histograms.
		if number, ok := got.samples[key]; (!ok || number != value) && !strings.Contains(key, "queue_") && !strings.Contains(key, `"odd"`) {
			t.Errorf("%s: got %v, want %v", key, got.samples[key], value)
		}
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "later"}, func() float64 { return 1 }))
	all, err := prometheus.Gatherers{gatherer, registry}.Gather()
	if err != nil || len(all) != len(gathered)+1 {
		t.Errorf("gatherers: %d families, %v", len(all), err)
	}
}
