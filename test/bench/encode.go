package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/model"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

const counters, histograms = 10_000, 1000

var started = time.Unix(1700000000, 0)

var labelNames = []string{"namespace", "pod", "container", "operation"}

func labelValues(i int) []string {
	return []string{"shop", fmt.Sprintf("cart-5d8f7c9b6-%05d", i), "server", []string{"read", "write"}[i%2]}
}

func points(n int) []series.Point {
	all := make([]series.Point, n)
	for i := range all {
		var text []byte
		for j, value := range labelValues(i) {
			text = series.AppendLabel(text, labelNames[j], value)
		}
		all[i] = series.Point{Labels: string(text), Start: 1700000000000}
	}
	return all
}

func counterFamily() *series.Family {
	f := &series.Family{Metric: &program.Metric{Name: "file_operations_total", Help: "Operations on files.", Type: program.Counter},
		Points: points(counters), Stride: 1, Values: make([]uint64, counters)}
	random := rand.New(rand.NewPCG(1, 1))
	for i := range f.Values {
		f.Values[i] = 1e7 + random.Uint64N(9e7)
	}
	return f
}

// histogramFamily has the default slots; 20 of the 26 octaves are populated.
func histogramFamily(noNative bool, maxClassic int) *series.Family {
	f := &series.Family{Metric: &program.Metric{Name: "block_io_duration_seconds", Help: "Time of block I/O.", Type: program.Histogram,
		Scale:   program.Scale{Num: 1, Den: 1e9},
		Buckets: &program.Buckets{Schema: 2, Low: -20, High: 6, NoNative: noNative, MaxClassic: maxClassic}},
		Points: points(histograms), Stride: 107, Values: make([]uint64, 107*histograms)}
	random := rand.New(rand.NewPCG(1, 1))
	for i := range histograms {
		row := f.Row(i)
		row[0] = random.Uint64N(1e12)
		for octave := range 20 {
			row[8+octave*4] = random.Uint64N(1e5)
		}
	}
	return f
}

func measureEncoding(ctx context.Context, o options) ([]figure, error) {
	counter := counterFamily()
	text := exposition.Format{Syntax: exposition.Text, Escaping: model.UnderscoreEscaping}
	protobuf := exposition.Format{Syntax: exposition.Protobuf, Escaping: model.UnderscoreEscaping}
	theirCounters := promhttpOf(constantCounters{prometheus.NewDesc(counter.Metric.Name, counter.Metric.Help, labelNames, nil), counter})
	both := histogramFamily(false, 0)
	classic := histogramFamily(true, 0)
	desc := prometheus.NewDesc(both.Metric.Name, both.Metric.Help, labelNames, nil)
	theirClassic := promhttpOf(constantHistograms{desc, both, false})
	theirNative := promhttpOf(constantHistograms{desc, both, true})

	const protobufAccept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
	jobs := []struct {
		figure
		ours, theirs func() error
		n            int
	}{
		{figure{what: "encode one counter series, text, CPU", unit: "ns", atMost: 30, atLeast: 50, baselineName: "MustNewConstMetric, registry, promhttp"},
			encoder(text, counter), request(theirCounters, ""), counters},
		{figure{what: "encode one histogram with 27 classic buckets, text, CPU", unit: "ns", atMost: 2000, baselineName: "NewConstHistogram, registry, promhttp"},
			encoder(text, classic), request(theirClassic, ""), histograms},
		{figure{what: "encode one native histogram, protobuf, CPU", unit: "ns", atMost: 400, baselineName: "NewConstNativeHistogram, registry, promhttp",
			note: "with one classic bucket, the least that there can be"},
			encoder(protobuf, histogramFamily(false, 1)), request(theirNative, protobufAccept), histograms},
		{figure{what: "encode one histogram, native and 27 classic buckets, protobuf, CPU", unit: "ns", baselineName: "NewConstHistogram, registry, promhttp (classic only)"},
			encoder(protobuf, both), request(theirClassic, protobufAccept), histograms},
	}
	var figures []figure
	for _, j := range jobs {
		for range o.repeats {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			ours, err := perItem(j.ours, j.n, o)
			if err != nil {
				return nil, err
			}
			theirs, err := perItem(j.theirs, j.n, o)
			if err != nil {
				return nil, err
			}
			j.samples, j.baseline = append(j.samples, ours), append(j.baseline, theirs)
		}
		figures = append(figures, j.figure)
	}
	allocations, err := allocationsPerItem(jobs[0].ours, counters)
	if err != nil {
		return nil, err
	}
	theirAllocations, err := allocationsPerItem(jobs[0].theirs, counters)
	if err != nil {
		return nil, err
	}
	return append(figures, figure{what: "allocations for one counter series, text", unit: "", samples: []float64{math.Floor(allocations*1000) / 1000},
		atMost: 0.001, baselineName: "the same", baseline: []float64{theirAllocations}, note: "what an exposition needs as a whole is spread over its 10,000 series: below 0.001 is none per series"}), nil
}

func encoder(format exposition.Format, family *series.Family) func() error {
	w := exposition.NewWriter(io.Discard, format, exposition.Options{})
	group := []*series.Family{family}
	return func() error {
		w.Reset(io.Discard, format, exposition.Options{})
		if err := w.Write(group); err != nil {
			return err
		}
		return w.Close()
	}
}

func promhttpOf(c prometheus.Collector) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true, ErrorHandling: promhttp.HTTPErrorOnError})
}

func request(handler http.Handler, accept string) func() error {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	return func() error {
		w := &discard{header: http.Header{}, status: http.StatusOK}
		handler.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			return fmt.Errorf("the baseline answers %d", w.status)
		}
		return nil
	}
}

type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

type constantCounters struct {
	desc   *prometheus.Desc
	family *series.Family
}

func (c constantCounters) Describe(out chan<- *prometheus.Desc) { out <- c.desc }
func (c constantCounters) Collect(out chan<- prometheus.Metric) {
	for i, value := range c.family.Values {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(value), labelValues(i)...)
	}
}

type constantHistograms struct {
	desc   *prometheus.Desc
	family *series.Family
	native bool
}

func (c constantHistograms) Describe(out chan<- *prometheus.Desc) { out <- c.desc }
func (c constantHistograms) Collect(out chan<- prometheus.Metric) {
	b := c.family.Metric.Buckets
	for i := range c.family.Points {
		row := c.family.Row(i)
		sum := float64(row[0]) / 1e9
		var count uint64
		if !c.native {
			buckets := make(map[float64]uint64, 27)
			for slot, n := range row[1 : len(row)-1] {
				if count += n; slot%4 == 0 {
					buckets[math.Exp2(float64(b.Low+slot/4))] = count
				}
			}
			out <- prometheus.MustNewConstHistogram(c.desc, count+row[len(row)-1], sum, buckets, labelValues(i)...)
			continue
		}
		buckets := make(map[int]int64, 20)
		for slot, n := range row[2 : len(row)-1] {
			if count += n; n > 0 {
				buckets[b.Low<<b.Schema+1+slot] = int64(n)
			}
		}
		metric, err := prometheus.NewConstNativeHistogram(c.desc, count, sum, buckets, nil, 0, int32(b.Schema), 0, started, labelValues(i)...)
		if err != nil {
			metric = prometheus.NewInvalidMetric(c.desc, err)
		}
		out <- metric
	}
}

// perItem runs a job for at least 50 ms (once in a short run) and returns the CPU time per item.
func perItem(job func() error, n int, o options) (float64, error) {
	runtime.GC()
	begun, err := ownCPU()
	if err != nil {
		return 0, err
	}
	for done := 1; ; done++ {
		if err := job(); err != nil {
			return 0, err
		}
		now, err := ownCPU()
		if err != nil {
			return 0, err
		}
		if now-begun >= 50e6 || o.repeats < 3 {
			return float64(now-begun) / float64(done*n), nil
		}
	}
}

func allocationsPerItem(job func() error, n int) (float64, error) {
	if err := job(); err != nil {
		return 0, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := job(); err != nil {
		return 0, err
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(n), nil
}

func ownCPU() (int64, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return t.Nano(), err
}
