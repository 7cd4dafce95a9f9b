package exposition

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// Benchmarks report the CPU time that a series costs, garbage collection included, which a busy
// machine disturbs less than the time of day. Run them together to compare with client_golang's in the same run.

const benchSeries = 10000

func benchLabels(i int) []string {
	return []string{"shop", fmt.Sprintf("cart-5d8f7c9b6-%05d", i), "server", []string{"read", "write"}[i%2]}
}

var benchLabelNames = []string{"namespace", "pod", "container", "operation"}

func benchPoints(n int) []series.Point {
	points := make([]series.Point, n)
	for i := range points {
		values := benchLabels(i)
		points[i] = series.Point{Labels: labelText(benchLabelNames[0], values[0], benchLabelNames[1], values[1],
			benchLabelNames[2], values[2], benchLabelNames[3], values[3]), Start: 1700000000000}
	}
	return points
}

func benchCounters(sc program.Scale) *series.Family {
	f := &series.Family{Metric: &program.Metric{Name: "kaon_file_operations_total", Help: "Operations on files.", Type: program.Counter,
		Labels: stringLabels(benchLabelNames...), Scale: sc}, Points: benchPoints(benchSeries), Stride: 1}
	random := rand.New(rand.NewPCG(1, 1))
	for range f.Points {
		f.Values = append(f.Values, 1e7+random.Uint64N(9e7))
	}
	return f
}

// benchHistograms have the default buckets, 20 of the 27 octaves populated.
func benchHistograms(noNative bool, maxClassic int) *series.Family {
	b := &program.Buckets{Schema: 2, Low: -20, High: 6, NoNative: noNative, MaxClassic: maxClassic}
	f := &series.Family{Metric: &program.Metric{Name: "kaon_block_io_duration_seconds", Type: program.Histogram, Buckets: b,
		Labels: stringLabels(benchLabelNames...), Scale: program.Scale{Num: 1, Den: 1e9}}, Points: benchPoints(1000), Stride: 107}
	random := rand.New(rand.NewPCG(1, 1))
	for range f.Points {
		row := make([]uint64, 107)
		row[0] = random.Uint64N(1e12)
		for octave := range 20 {
			row[8+octave*4] = random.Uint64N(1e5)
		}
		f.Values = append(f.Values, row...)
	}
	return f
}

// cpuTime starts a measurement; the function that it returns reports it per series.
func cpuTime(b *testing.B) func(series int) {
	now := func() int64 {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
			b.Fatal(err)
		}
		return t.Nano()
	}
	begun := now()
	return func(series int) {
		b.ReportMetric(float64(now()-begun)/float64(b.N*series), "cpu-ns/series")
	}
}

func benchWrite(b *testing.B, format Format, family *series.Family) {
	b.Helper()
	group := []*series.Family{family}
	w := NewWriter(io.Discard, format, Options{})
	b.ReportAllocs()
	cpu := cpuTime(b)
	for b.Loop() {
		w.Reset(io.Discard, format, Options{})
		if err := w.Write(group); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
	cpu(len(family.Points))
	b.ReportMetric(float64(w.Written())/float64(len(family.Points)), "B/series")
}

func BenchmarkCounters(b *testing.B) {
	counters, scaled := benchCounters(program.Scale{}), benchCounters(program.Scale{Num: 1, Den: 1e9})
	b.Run("text", func(b *testing.B) { benchWrite(b, textFormat(), counters) })
	b.Run("openmetrics", func(b *testing.B) { benchWrite(b, openMetricsFormat(), counters) })
	b.Run("text-nanoseconds", func(b *testing.B) { benchWrite(b, textFormat(), scaled) })
	b.Run("protobuf", func(b *testing.B) { benchWrite(b, protobufFormat(), counters) })
	b.Run("handler-text", func(b *testing.B) { benchHandler(b, NewHandler(fixed(counters), HandlerOptions{}), "identity") })
	b.Run("handler-text-gzip", func(b *testing.B) { benchHandler(b, NewHandler(fixed(counters), HandlerOptions{}), "gzip") })

	// What an exporter that collects at each scrape does with client_golang.
	registry := prometheus.NewRegistry()
	registry.MustRegister(constants{prometheus.NewDesc("kaon_file_operations_total", "Operations on files.", benchLabelNames, nil), counters.Values})
	theirs := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	b.Run("client_golang-text", func(b *testing.B) { benchHandler(b, theirs, "identity") })
	b.Run("client_golang-text-gzip", func(b *testing.B) { benchHandler(b, theirs, "gzip") })
}

type constants struct {
	desc   *prometheus.Desc
	values []uint64
}

func (c constants) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }
func (c constants) Collect(ch chan<- prometheus.Metric) {
	for i, value := range c.values {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(value), benchLabels(i)...)
	}
}

func benchHandler(b *testing.B, h http.Handler, encoding string) {
	b.Helper()
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept-Encoding", encoding)
	b.ReportAllocs()
	cpu := cpuTime(b)
	for b.Loop() {
		h.ServeHTTP(&discard{header: http.Header{}}, request)
	}
	cpu(benchSeries)
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

func BenchmarkHistograms(b *testing.B) {
	classic, both := benchHistograms(true, 0), benchHistograms(false, 0)
	b.Run("text-27", func(b *testing.B) { benchWrite(b, textFormat(), classic) })
	b.Run("openmetrics-27", func(b *testing.B) { benchWrite(b, openMetricsFormat(), classic) })
	b.Run("protobuf-27", func(b *testing.B) { benchWrite(b, protobufFormat(), classic) })
	b.Run("protobuf-native-and-27", func(b *testing.B) { benchWrite(b, protobufFormat(), both) })
	b.Run("protobuf-native-and-1", func(b *testing.B) { benchWrite(b, protobufFormat(), benchHistograms(false, 1)) })
	b.Run("native-fields", func(b *testing.B) {
		var plan nativePlan
		plan.reset(both.Metric.Buckets)
		var dst []byte
		cpu := cpuTime(b)
		for b.Loop() {
			for i := range both.Points {
				dst = plan.append(dst[:0], both.Row(i)[1:])
			}
		}
		cpu(len(both.Points))
	})
}

// A series must cost no allocation, whatever its type and format.
func TestSeriesDoNotAllocate(t *testing.T) {
	f := func(format Format, family *series.Family) {
		t.Helper()
		short := *family
		short.Points = family.Points[:1]
		short.Exemplars = nil
		measure := func(family *series.Family) float64 {
			w := NewWriter(io.Discard, format, Options{CreatedSamples: true})
			group := []*series.Family{family}
			return testing.AllocsPerRun(5, func() {
				w.Reset(io.Discard, format, Options{CreatedSamples: true})
				if err := w.Write(group); err != nil {
					t.Fatal(err)
				}
			})
		}
		if one, all := measure(&short), measure(family); all > one+2 {
			t.Errorf("%s: %s: %v allocations for 1 series, %v for %d", format.ContentType(), family.Metric.Name, one, all, len(family.Points))
		}
	}
	for _, format := range []Format{textFormat(), openMetricsFormat(), protobufFormat()} {
		f(format, benchCounters(program.Scale{}))
		f(format, benchCounters(program.Scale{Num: 1, Den: 1e9}))
		f(format, benchHistograms(false, 0))
	}
}
