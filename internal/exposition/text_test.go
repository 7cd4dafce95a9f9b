package exposition

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

func textFormat() Format { return DefaultFormat() }

func openMetricsFormat() Format {
	return Format{Syntax: OpenMetrics, Version: "1.0.0", Escaping: model.UnderscoreEscaping}
}

func protobufFormat() Format {
	return Format{Syntax: Protobuf, Escaping: model.NoEscaping}
}

// encode writes a whole exposition and fails the test on any error.
func encode(t testing.TB, format Format, options Options, families ...*series.Family) string {
	t.Helper()
	groups, err := Group(families)
	if err != nil {
		t.Fatalf("group: %v", err)
	}
	var out bytes.Buffer
	w := NewWriter(&out, format, options)
	for _, g := range groups {
		if err := w.Write(g); err != nil {
			t.Fatalf("write %s: %v", g[0].Metric.Name, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func scalarFamily(typ program.Type, name string, labels string, value uint64) *series.Family {
	return &series.Family{
		Metric: &program.Metric{Name: name, Type: typ, Help: "Help of \"" + name + "\".", Cells: []program.Field{{Size: 8}}},
		Points: []series.Point{{Labels: labels}}, Values: []uint64{value}, Stride: 1,
	}
}

func TestTextOfEachType(t *testing.T) {
	f := func(family *series.Family, options Options, wantText, wantOpenMetrics string) {
		t.Helper()
		if got := encode(t, textFormat(), options, family); got != wantText {
			t.Errorf("text: got\n%swant\n%s", got, wantText)
		}
		if got := encode(t, openMetricsFormat(), options, family); got != wantOpenMetrics+"# EOF\n" {
			t.Errorf("OpenMetrics: got\n%swant\n%s", got, wantOpenMetrics)
		}
	}

	counter := scalarFamily(program.Counter, "reads_total", `a="b"`, math.MaxUint64)
	counter.Points[0].Start = 1700000000123
	counter.Exemplars = []series.Exemplar{{Labels: `id="1"`, Value: 1, Timestamp: 1700000001001}}
	f(counter, Options{CreatedSamples: true}, `# HELP reads_total Help of "reads_total".
# TYPE reads_total counter
reads_total{a="b"} 18446744073709551615
`, `# TYPE reads counter
# HELP reads Help of \"reads_total\".
reads_total{a="b"} 18446744073709551615 # {id="1"} 1 1700000001.001
reads_created{a="b"} 1700000000.123
`)

	seconds := scalarFamily(program.Counter, "cpu_seconds_total", "", 1500000000)
	seconds.Metric.Unit, seconds.Metric.Help = "seconds", ""
	seconds.Metric.Scale = program.Scale{Num: 1, Den: 1e9}
	f(seconds, Options{}, "# TYPE cpu_seconds_total counter\ncpu_seconds_total 1.5\n",
		"# TYPE cpu_seconds counter\n# UNIT cpu_seconds seconds\ncpu_seconds_total 1.5\n")

	odd := scalarFamily(program.Counter, "reads", "", 3)
	odd.Metric.Help = "Back\\slash\nline."
	f(odd, Options{CreatedSamples: true}, "# HELP reads Back\\\\slash\\nline.\n# TYPE reads counter\nreads 3\n",
		"# TYPE reads unknown\n# HELP reads Back\\\\slash\\nline.\nreads 3\n")

	gauge := scalarFamily(program.Gauge, "delta", "", math.MaxUint64)
	gauge.Metric.Help, gauge.Metric.Cells[0].Signed = "", true
	f(gauge, Options{}, "# TYPE delta gauge\ndelta -1\n", "# TYPE delta gauge\ndelta -1\n")

	negative := scalarFamily(program.Counter, "back_total", "", math.MaxUint64)
	negative.Metric.Help, negative.Metric.Cells[0].Signed = "", true
	f(negative, Options{}, "# TYPE back_total counter\nback_total 0\n", "# TYPE back counter\nback_total 0\n")

	unknown := scalarFamily(program.Unknown, "thing", "", 7)
	unknown.Metric.Help = ""
	f(unknown, Options{}, "# TYPE thing untyped\nthing 7\n", "# TYPE thing unknown\nthing 7\n")

	info := &series.Family{Metric: &program.Metric{Name: "build_info", Type: program.Info, Unit: "x"},
		Points: []series.Point{{Labels: `v="1"`}}}
	f(info, Options{}, "# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n", "# TYPE build info\nbuild_info{v=\"1\"} 1\n")

	states := scalarFamily(program.StateSet, "link", `if="eth0"`, 1)
	states.Metric.Help = ""
	states.Metric.States = []program.State{{Name: "down", Value: 0}, {Name: "up", Value: 1}, {Name: "alias", Value: 1}}
	states.Points = append(states.Points, series.Point{})
	states.Values = append(states.Values, 9)
	lines := "link{if=\"eth0\",link=\"down\"} 0\nlink{if=\"eth0\",link=\"up\"} 1\nlink{link=\"down\"} 0\nlink{link=\"up\"} 0\nlink{link=\"9\"} 1\n"
	f(states, Options{}, "# TYPE link gauge\n"+lines, "# TYPE link stateset\n"+lines)

	summary := &series.Family{
		Metric: &program.Metric{Name: "s", Type: program.Summary, Quantiles: []float64{0.5, 1}, Scale: program.Scale{Den: 1000}},
		Points: []series.Point{{Start: 1000}}, Values: []uint64{3, 4500, 1000, 2500}, Stride: 4,
	}
	f(summary, Options{CreatedSamples: true}, "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"1\"} 2.5\ns_sum 4.5\ns_count 3\n",
		"# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"1.0\"} 2.5\ns_sum 4.5\ns_count 3\ns_created 1.000\n")

	// Slots: at most 1; 2; 4; above.
	histogram := &series.Family{
		Metric: &program.Metric{Name: "h", Type: program.Histogram, Buckets: &program.Buckets{Low: 0, High: 2}},
		Points: []series.Point{{Labels: `a="b"`, Start: 1000}}, Values: []uint64{20, 1, 2, 0, 4}, Stride: 5,
		Exemplars: []series.Exemplar{{Value: 2, Timestamp: 5000}},
	}
	f(histogram, Options{CreatedSamples: true}, `# TYPE h histogram
h_bucket{a="b",le="1"} 1
h_bucket{a="b",le="2"} 3
h_bucket{a="b",le="4"} 3
h_bucket{a="b",le="+Inf"} 7
h_sum{a="b"} 20
h_count{a="b"} 7
`, `# TYPE h histogram
h_bucket{a="b",le="1.0"} 1
h_bucket{a="b",le="2.0"} 3 # {} 2 5.000
h_bucket{a="b",le="4.0"} 3
h_bucket{a="b",le="+Inf"} 7
h_sum{a="b"} 20
h_count{a="b"} 7
h_created{a="b"} 1.000
`)

	gaugeHistogram := &series.Family{
		Metric: &program.Metric{Name: "g", Type: program.GaugeHistogram, Scale: program.Scale{Den: 1e9},
			Buckets: &program.Buckets{Bounds: []uint64{1000, 2500000000}}},
		Points: []series.Point{{}}, Values: []uint64{3000000000, 1, 1, 0}, Stride: 4,
	}
	f(gaugeHistogram, Options{}, `# TYPE g histogram
g_bucket{le="1e-06"} 1
g_bucket{le="2.5"} 2
g_bucket{le="+Inf"} 2
g_sum 3
g_count 2
`, `# TYPE g gaugehistogram
g_bucket{le="1e-06"} 1
g_bucket{le="2.5"} 2
g_bucket{le="+Inf"} 2
g_gsum 3
g_gcount 2
`)
}

func TestFamiliesOfOneNameAreOne(t *testing.T) {
	a, b := scalarFamily(program.Counter, "x_total", `p="1"`, 1), scalarFamily(program.Counter, "x_total", `p="2"`, 2)
	b.Metric.Help = "Other."
	empty := scalarFamily(program.Counter, "a_total", "", 1)
	empty.Points = nil
	last := scalarFamily(program.Gauge, "z", "", 1)
	last.Metric.Help = ""
	want := "# HELP x_total Help of \"x_total\".\n# TYPE x_total counter\nx_total{p=\"1\"} 1\nx_total{p=\"2\"} 2\n# TYPE z gauge\nz 1\n"
	if got := encode(t, textFormat(), Options{}, last, a, empty, b); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestRefusedFamiliesLeaveTheRest(t *testing.T) {
	f := func(change func(*series.Family), want string) {
		t.Helper()
		bad, good := scalarFamily(program.Counter, "bad_total", "", 1), scalarFamily(program.Counter, "good_total", "", 1)
		change(bad)
		groups, err := Group([]*series.Family{bad, good, nil})
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
		if len(groups) != 1 || groups[0][0] != good {
			t.Errorf("got %d groups, want the good one", len(groups))
		}
	}
	f(func(f *series.Family) { f.Metric = nil }, "no metric")
	f(func(f *series.Family) { f.Metric.Name = "" }, "no name")
	f(func(f *series.Family) { f.Metric.Name = "\xff" }, "no name")
	f(func(f *series.Family) { f.Metric.Name = "a\x00" }, "no name")
	f(func(f *series.Family) { f.Metric.Labels = []program.Label{{Name: "a\xff"}} }, "no name")
	f(func(f *series.Family) { f.Metric.StaticLabels = []program.StaticLabel{{Name: `a="b`}} }, "no name")
	f(func(f *series.Family) { f.Metric.Type = "x" }, "unknown type")
	f(func(f *series.Family) { f.Stride = 2 }, "needs 1")
	f(func(f *series.Family) { f.Values = nil }, "0 numbers for 1 series")
	f(func(f *series.Family) { f.Exemplars = make([]series.Exemplar, 3) }, "3 exemplars")
	f(func(f *series.Family) { f.Metric.Type = program.Histogram }, "needs buckets")
	f(func(f *series.Family) {
		f.Metric.Type, f.Metric.Buckets = program.Histogram, &program.Buckets{Bounds: []uint64{2, 2}}
	}, "must ascend")
	f(func(f *series.Family) {
		f.Metric.Type, f.Metric.Buckets = program.Histogram, &program.Buckets{Low: 3, High: 3}
	}, "empty")
	f(func(f *series.Family) {
		f.Metric.Type, f.Metric.Buckets, f.Stride = program.Histogram, &program.Buckets{Low: 0, High: 1}, 4
		f.Values = make([]uint64, 4)
		f.Metric.Labels = []program.Label{{Name: "le"}}
	}, `"le"`)
	f(func(f *series.Family) { f.Metric.Type, f.Metric.Quantiles, f.Stride = program.Summary, []float64{2}, 3 }, "not in 0..1")

	x, y := scalarFamily(program.Counter, "x_total", "", 1), scalarFamily(program.Gauge, "x_total", "", 1)
	groups, err := Group([]*series.Family{x, y})
	if err == nil || len(groups) != 1 || len(groups[0]) != 1 || groups[0][0] != x {
		t.Errorf("one name of two types: %v, %v", groups, err)
	}
}

func TestOpenMetricsNamesDoNotClash(t *testing.T) {
	gauge, counter := scalarFamily(program.Gauge, "x", "", 1), scalarFamily(program.Counter, "x_total", "", 2)
	gauge.Metric.Help, counter.Metric.Help = "", ""
	want := "# TYPE x gauge\nx 1\n# TYPE x_total unknown\nx_total 2\n# EOF\n"
	if got := encode(t, openMetricsFormat(), Options{}, gauge, counter); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	w := NewWriter(&bytes.Buffer{}, openMetricsFormat(), Options{})
	summary := &series.Family{Metric: &program.Metric{Name: "y", Type: program.Summary}, Points: make([]series.Point, 1), Stride: 2, Values: make([]uint64, 2)}
	if err := w.Write([]*series.Family{scalarFamily(program.Gauge, "y_sum", "", 1)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Write([]*series.Family{summary}); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want a refusal: y_sum is taken", err)
	}
}

func TestNamesThatNeedEscaping(t *testing.T) {
	f := func(format Format, want string) {
		t.Helper()
		family := scalarFamily(program.Counter, "my.reads_total", `a.b="x\"y"`, 1)
		family.Metric.Help = ""
		family.Metric.Labels = []program.Label{{Name: "a.b"}}
		bare := scalarFamily(program.Gauge, "温度", "", 1)
		bare.Metric.Help = ""
		if got := encode(t, format, Options{}, family, bare); got != want {
			t.Errorf("%s: got\n%swant\n%s", format.ContentType(), got, want)
		}
	}
	f(textFormat(), "# TYPE my_reads_total counter\nmy_reads_total{a_b=\"x\\\"y\"} 1\n# TYPE __ gauge\n__ 1\n")
	f(Format{Syntax: Text, Escaping: model.DotsEscaping},
		"# TYPE my_dot_reads__total counter\nmy_dot_reads__total{a_dot_b=\"x\\\"y\"} 1\n# TYPE ____ gauge\n____ 1\n")
	f(Format{Syntax: Text, Escaping: model.ValueEncodingEscaping},
		"# TYPE U__my_2e_reads__total counter\nU__my_2e_reads__total{U__a_2e_b=\"x\\\"y\"} 1\n# TYPE U___6e29__5ea6_ gauge\nU___6e29__5ea6_ 1\n")
	f(Format{Syntax: OpenMetrics, Escaping: model.NoEscaping},
		"# TYPE \"my.reads\" counter\n{\"my.reads_total\",\"a.b\"=\"x\\\"y\"} 1\n# TYPE \"温度\" gauge\n{\"温度\"} 1\n# EOF\n")
}

func TestWriteErrorIsKept(t *testing.T) {
	w := NewWriter(failingWriter{}, openMetricsFormat(), Options{})
	family := scalarFamily(program.Counter, "x_total", "", 1)
	for range 13 { // 2^13 points exceed a chunk
		family.Points, family.Values = append(family.Points, family.Points...), append(family.Values, family.Values...)
	}
	if err := w.Write([]*series.Family{family}); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("got %v, want the writer's error", err)
	}
	if err := w.Close(); err == nil {
		t.Error("close forgot the error")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("broken pipe") }
