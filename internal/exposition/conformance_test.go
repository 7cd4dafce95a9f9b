package exposition

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/kaon-project/kaon/internal/exposition/lint"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// scraped is what a Prometheus server understands of an exposition.
type scraped struct {
	samples    map[string]float64 // by series as Prometheus prints it
	histograms map[string]*histogram.Histogram
	exemplars  map[string]string
	starts     map[string]int64
	types      map[string]string
	units      map[string]string
	help       map[string]string
}

// scrape parses with the parser that the server uses.
func scrape(body, contentType string) (*scraped, error) {
	s := &scraped{map[string]float64{}, map[string]*histogram.Histogram{}, map[string]string{}, map[string]int64{},
		map[string]string{}, map[string]string{}, map[string]string{}}
	p, err := textparse.New([]byte(body), contentType, nil, textparse.ParserOptions{KeepClassicOnClassicAndNativeHistograms: true})
	if err != nil {
		return nil, err
	}
	isProtobuf := strings.Contains(contentType, "protobuf")
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		var l labels.Labels
		switch entry {
		case textparse.EntryType:
			name, typ := p.Type()
			s.types[string(name)] = string(typ)
		case textparse.EntryUnit:
			name, unit := p.Unit()
			s.units[string(name)] = string(unit)
		case textparse.EntryHelp:
			name, help := p.Help()
			s.help[string(name)] = string(help)
		case textparse.EntrySeries:
			_, timestamp, value := p.Series()
			p.Labels(&l)
			key := l.String()
			if _, twice := s.samples[key]; twice {
				return nil, fmt.Errorf("%s is there twice", key)
			}
			if timestamp != nil {
				return nil, fmt.Errorf("%s has a timestamp", key)
			}
			s.samples[key] = value
			var e exemplar.Exemplar
			for p.Exemplar(&e) {
				s.exemplars[key] += fmt.Sprintf("%s %v %d;", e.Labels, e.Value, e.Ts)
			}
			if isProtobuf { // in text they are _created samples
				s.starts[key] = p.StartTimestamp()
			}
		case textparse.EntryHistogram:
			_, _, h, _ := p.Histogram()
			p.Labels(&l)
			key := l.String()
			if h == nil {
				return nil, fmt.Errorf("%s is a float histogram", key)
			}
			if err := h.Validate(); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			s.histograms[key] = h.Copy()
			var e exemplar.Exemplar
			for p.Exemplar(&e) {
				s.exemplars[key] += fmt.Sprintf("%s %v %d;", e.Labels, e.Value, e.Ts)
			}
			s.starts[key] = p.StartTimestamp()
		}
	}
}

func mustScrape(t testing.TB, body, contentType string) *scraped {
	t.Helper()
	s, err := scrape(body, contentType)
	if err != nil {
		t.Fatalf("%s: Prometheus refuses it: %v\n%q", contentType, err, body)
	}
	return s
}

// awkward are label values that broke somebody's exposition.
var awkward = []string{
	"plain", "", " ", "\xff\xfe", "a\xc3", "new\nline", "cr\r\nlf", `quo"te`, `back\slash`, `end\`, `"} 1` + "\n# EOF", `a="b",c="d"`,
	"{}", "ünïcödé", "日本", "\u2028", "\x00", "\x1b[31m", strings.Repeat("é", 2000), `\n`, `\"`,
}

func labelText(pairs ...string) string {
	var dst []byte
	for i := 0; i < len(pairs); i += 2 {
		dst = series.AppendLabel(dst, pairs[i], pairs[i+1])
	}
	return string(dst)
}

func stringLabels(names ...string) []program.Label {
	var result []program.Label
	for _, n := range names {
		result = append(result, program.Label{Name: n, Decoder: "string"})
	}
	return result
}

// zoo has a family of every kind, with awkward labels.
func zoo() []*series.Family {
	signed := []program.Field{{Size: 8, Signed: true}}
	one := program.Label{Name: "comm"}
	counter := &series.Family{
		Metric: &program.Metric{Name: "reads_total", Help: "He said \"x\\y\"\nand left.\xff", Type: program.Counter, Labels: []program.Label{one}},
		Stride: 1,
	}
	for i, value := range awkward {
		counter.Points = append(counter.Points, series.Point{Labels: labelText("comm", value, "n", strconv.Itoa(i)), Start: 1700000000000 + int64(i)})
		counter.Values = append(counter.Values, uint64(i)*1000)
		counter.Exemplars = append(counter.Exemplars, series.Exemplar{Labels: labelText("id", value), Value: uint64(i), Timestamp: int64(i) * 1000})
	}
	counter.Values[0] = math.MaxUint64

	bytes := &series.Family{
		Metric: &program.Metric{Name: "read_bytes_total", Type: program.Counter, Unit: "bytes", Scale: program.Scale{Num: 4096}},
		Points: []series.Point{{}}, Values: []uint64{3}, Stride: 1,
	}
	odd := &series.Family{
		Metric: &program.Metric{Name: "odd", Help: "A counter without the suffix.", Type: program.Counter, Unit: "seconds"},
		Points: []series.Point{{Start: 5}}, Values: []uint64{3}, Stride: 1, Exemplars: []series.Exemplar{{Value: 1, Timestamp: 1}},
	}
	gauge := &series.Family{
		Metric: &program.Metric{Name: "delta_seconds", Type: program.Gauge, Unit: "seconds", Cells: signed, Scale: program.Scale{Num: 1, Den: 1e9}},
		Points: []series.Point{{Labels: `a="1"`}, {Labels: `a="2"`}, {}}, Values: []uint64{1, minus(1500000000), 1 << 63}, Stride: 1,
	}
	unknown := &series.Family{
		Metric: &program.Metric{Name: "thing", Type: program.Unknown},
		Points: []series.Point{{}}, Values: []uint64{3}, Stride: 1,
	}
	info := &series.Family{
		Metric: &program.Metric{Name: "kernel_info", Type: program.Info, Unit: "info"},
		Points: []series.Point{{Labels: labelText("release", "6.18\n")}},
	}
	plainInfo := &series.Family{
		Metric: &program.Metric{Name: "facts", Type: program.Info},
		Points: []series.Point{{Labels: labelText("a", "b")}},
	}
	states := &series.Family{
		Metric: &program.Metric{Name: "link_state", Type: program.StateSet, Cells: signed, States: []program.State{
			{Name: "down", Value: 0}, {Name: "up \"fast\"", Value: 1}, {Name: "", Value: 2}, {Name: "up again", Value: 1}, {Name: "7", Value: 3}}},
		Points: []series.Point{{Labels: `if="a"`}, {Labels: `if="b"`}, {}}, Values: []uint64{1, minus(4), 7}, Stride: 1,
	}
	summary := &series.Family{
		Metric: &program.Metric{Name: "wait_seconds", Type: program.Summary, Unit: "seconds", Quantiles: []float64{0, 0.5, 0.99, 1},
			Scale: program.Scale{Num: 1, Den: 1e9}},
		Points: []series.Point{{Start: 1700000000001}, {Labels: `a="1"`}},
		Values: []uint64{2, 3e9, 1e9, 1e9, 2e9, 2e9, 0, 0, 0, 0, 0, 0}, Stride: 6,
	}
	histogramOf := func(name string, typ program.Type, b program.Buckets, scale program.Scale, rows ...[]uint64) *series.Family {
		f := &series.Family{Metric: &program.Metric{Name: name, Type: typ, Buckets: &b, Scale: scale}}
		for i, row := range rows {
			f.Points = append(f.Points, series.Point{Labels: labelText("row", strconv.Itoa(i), "comm", awkward[i%len(awkward)]), Start: 1700000000000})
			f.Values = append(f.Values, row...)
			f.Stride = len(row)
			f.Exemplars = append(f.Exemplars, series.Exemplar{Labels: labelText("id", awkward[i%len(awkward)]), Value: 3, Timestamp: 1700000000500})
		}
		return f
	}
	small := program.Buckets{Low: 0, High: 2} // <=1, <=2, <=4, more
	latency := histogramOf("latency_seconds", program.Histogram, program.Buckets{Schema: 2, Low: -20, High: 6}, program.Scale{Num: 1, Den: 1e9},
		append([]uint64{123456789012}, ramp(106)...), make([]uint64, 107))
	latency.Metric.Unit = "seconds"
	sizes := histogramOf("sizes", program.Histogram, small, program.Scale{}, []uint64{20, 1, 2, 0, 4}, []uint64{0, 0, 0, 0, 0}, []uint64{1, 1, 0, 0, 0})
	queue := histogramOf("queue", program.GaugeHistogram, small, program.Scale{}, []uint64{20, 1, 2, 0, 4})
	explicit := histogramOf("explicit_seconds", program.Histogram, program.Buckets{Bounds: []uint64{1e6, 1e9}}, program.Scale{Num: 1, Den: 1e9}, []uint64{5e9, 1, 2, 3})
	empty := &series.Family{Metric: &program.Metric{Name: "none_total", Type: program.Counter}, Stride: 1}
	return []*series.Family{counter, bytes, odd, gauge, unknown, info, plainInfo, states, summary, latency, sizes, queue, explicit, empty}
}

// minus returns the bits of a negative int64.
func minus(n int64) uint64 { return uint64(-n) }

// ramp returns 1, 2, ... n.
func ramp(n int) []uint64 {
	result := make([]uint64, n)
	for i := range result {
		result[i] = uint64(i) + 1
	}
	return result
}

func seriesKey(name string, pairs ...string) string {
	return labels.FromStrings(append([]string{model.MetricNameLabel, name}, pairs...)...).String()
}

func TestPrometheusUnderstandsEveryType(t *testing.T) {
	want := map[string]float64{
		seriesKey("read_bytes_total"):                                    12288,
		seriesKey("odd"):                                                 3,
		seriesKey("delta_seconds", "a", "1"):                             1e-9,
		seriesKey("delta_seconds", "a", "2"):                             -1.5,
		seriesKey("delta_seconds"):                                       -9223372036.854775808,
		seriesKey("thing"):                                               3,
		seriesKey("facts", "a", "b"):                                     1,
		seriesKey("explicit_seconds_sum", "row", "0", "comm", "plain"):   5,
		seriesKey("explicit_seconds_count", "row", "0", "comm", "plain"): 6,
		seriesKey("explicit_seconds_bucket", "row", "0", "comm", "plain", "le", "0.001"): 1,
		seriesKey("explicit_seconds_bucket", "row", "0", "comm", "plain", "le", "1.0"):   3,
		seriesKey("explicit_seconds_bucket", "row", "0", "comm", "plain", "le", "+Inf"):  6,
		seriesKey("kernel_info", "release", "6.18\n"):                                    1,
	}
	for i, value := range awkward {
		value = strings.ReplaceAll(strings.ToValidUTF8(value, "\uFFFD"), "\x00", "\uFFFD")
		if awkward[i] == "\xff\xfe" {
			value = "\uFFFD\uFFFD" // one for each byte of \xff\xfe
		}
		if len(value) > series.MaxLabelValue {
			value = value[:series.MaxLabelValue]
		}
		key := seriesKey("reads_total", "n", strconv.Itoa(i), "comm", value)
		if value == "" {
			key = seriesKey("reads_total", "n", strconv.Itoa(i))
		}
		want[key] = float64(i) * 1000
		if i == 0 {
			want[key] = math.MaxUint64
		}
	}
	for iface, current := range map[string]string{"a": `up "fast"`, "b": "-4", "": ""} {
		for _, state := range []string{"down", `up "fast"`, "2", "7"} {
			pairs := []string{"link_state", state, "if", iface}
			if iface == "" {
				pairs = pairs[:2]
			}
			want[seriesKey("link_state", pairs...)] = 0
			if state == current {
				want[seriesKey("link_state", pairs...)] = 1
			}
		}
	}
	want[seriesKey("link_state", "link_state", "-4", "if", "b")] = 1
	want[seriesKey("link_state", "link_state", "7?")] = 1
	for i, quantile := range []string{"0.0", "0.5", "0.99", "1.0"} {
		want[seriesKey("wait_seconds", "quantile", quantile)] = []float64{1, 1, 2, 2}[i]
		want[seriesKey("wait_seconds", "quantile", quantile, "a", "1")] = 0
	}
	want[seriesKey("wait_seconds_sum")], want[seriesKey("wait_seconds_count")] = 3, 2
	want[seriesKey("wait_seconds_sum", "a", "1")], want[seriesKey("wait_seconds_count", "a", "1")] = 0, 0
	bucketsOf := func(name, sum, count string, row []string, numbers ...float64) {
		for i, le := range []string{"1.0", "2.0", "4.0", "+Inf"} {
			want[seriesKey(name+"_bucket", append(row, "le", le)...)] = numbers[1+i]
		}
		want[seriesKey(name+sum, row...)], want[seriesKey(name+count, row...)] = numbers[0], numbers[4]
	}
	bucketsOf("sizes", "_sum", "_count", []string{"row", "0", "comm", "plain"}, 20, 1, 3, 3, 7)
	bucketsOf("sizes", "_sum", "_count", []string{"row", "1"}, 0, 0, 0, 0, 0)
	bucketsOf("sizes", "_sum", "_count", []string{"row", "2", "comm", " "}, 1, 1, 1, 1, 1)

	f := func(format Format, options Options, gaugeSum, gaugeCount string) {
		t.Helper()
		got := mustScrape(t, encode(t, format, options, zoo()...), format.ContentType())
		expected := maps.Clone(want)
		keep := want
		want = expected
		bucketsOf("queue", gaugeSum, gaugeCount, []string{"row", "0", "comm", "plain"}, 20, 1, 3, 3, 7)
		want = keep
		for key, value := range expected {
			if number, ok := got.samples[key]; !ok || number != value {
				t.Errorf("%s: %s: got %v (present: %v), want %v", format.ContentType(), key, number, ok, value)
			}
		}
		for _, key := range slices.Sorted(maps.Keys(got.samples)) {
			if _, ok := expected[key]; !ok && !strings.Contains(key, "latency_seconds") && !strings.Contains(key, "_created") {
				t.Errorf("%s: unexpected %s", format.ContentType(), key)
			}
		}
		if n := got.samples[seriesKey("latency_seconds_bucket", "row", "0", "comm", "plain", "le", "64.0")]; n != 105*106/2 {
			t.Errorf("%s: the last classic bucket has %v", format.ContentType(), n)
		}
		if len(got.types) == 0 || got.help["odd"] != "A counter without the suffix." {
			t.Errorf("%s: metadata is missing: %v", format.ContentType(), got.help)
		}
	}
	f(textFormat(), Options{}, "_sum", "_count")
	f(openMetricsFormat(), Options{}, "_gsum", "_gcount")
	f(openMetricsFormat(), Options{CreatedSamples: true}, "_gsum", "_gcount")
	f(protobufFormat(), Options{}, "_sum", "_count")
}

func TestMetadata(t *testing.T) {
	f := func(format Format, name, typ, unit string) {
		t.Helper()
		got := mustScrape(t, encode(t, format, Options{}, zoo()...), format.ContentType())
		if got.types[name] != typ || got.units[name] != unit {
			t.Errorf("%s: %s: got type %q and unit %q, want %q and %q", format.ContentType(), name, got.types[name], got.units[name], typ, unit)
		}
	}
	f(openMetricsFormat(), "read_bytes", "counter", "bytes")
	f(openMetricsFormat(), "odd", "unknown", "")
	f(openMetricsFormat(), "kernel", "info", "")
	f(openMetricsFormat(), "facts", "gauge", "")
	f(openMetricsFormat(), "link_state", "stateset", "")
	f(openMetricsFormat(), "queue", "gaugehistogram", "")
	f(openMetricsFormat(), "latency_seconds", "histogram", "seconds")
	f(textFormat(), "read_bytes_total", "counter", "")
	f(textFormat(), "kernel_info", "gauge", "")
	f(textFormat(), "queue", "histogram", "")
	f(textFormat(), "thing", "unknown", "")
	f(protobufFormat(), "read_bytes_total", "counter", "bytes")
	f(protobufFormat(), "queue", "gaugehistogram", "")
}

func TestStartsAndExemplars(t *testing.T) {
	families := zoo()
	om := mustScrape(t, encode(t, openMetricsFormat(), Options{CreatedSamples: true}, families...), openMetricsFormat().ContentType())
	pb := mustScrape(t, encode(t, protobufFormat(), Options{}, families...), protobufFormat().ContentType())
	key := seriesKey("reads_total", "n", "3", "comm", "\uFFFD\uFFFD")
	wantExemplar := `{id="` + "\uFFFD\uFFFD" + `"} 3 3000;`
	for name, got := range map[string]*scraped{"OpenMetrics": om, "protobuf": pb} {
		if got.exemplars[key] != wantExemplar {
			t.Errorf("%s: got exemplar %q, want %q", name, got.exemplars[key], wantExemplar)
		}
		bucket := seriesKey("sizes_bucket", "row", "0", "comm", "plain", "le", "4.0")
		if got.exemplars[bucket] != `{id="plain"} 3 1700000000500;` {
			t.Errorf("%s: bucket le=4: got exemplar %q (all: %v)", name, got.exemplars[bucket], got.exemplars)
		}
		// The one with 2,000 runes is too long.
		for i, value := range awkward {
			if len(value) > 1000 {
				for key, e := range got.exemplars {
					if strings.Contains(key, fmt.Sprintf(`n="%d"`, i)) {
						t.Errorf("%s: a long exemplar is there: %q", name, e)
					}
				}
			}
		}
	}
	if got := om.samples[seriesKey("reads_created", "n", "0", "comm", "plain")]; got != 1700000000 {
		t.Errorf("created: got %v", got)
	}
	if got := pb.starts[seriesKey("reads_total", "n", "0", "comm", "plain")]; got != 1700000000000 {
		t.Errorf("protobuf counter start: got %v", got)
	}
	native := seriesKey("sizes", "row", "0", "comm", "plain")
	if pb.histograms[native] == nil || pb.starts[native] != 1700000000000 || pb.exemplars[native] != `{id="plain"} 3 1700000000500;` {
		t.Errorf("native: %v, start %v, exemplar %q", pb.histograms[native], pb.starts[native], pb.exemplars[native])
	}
}

func TestPrometheusUnderstandsForeignNames(t *testing.T) {
	f := func(format Format, metric, label string) {
		t.Helper()
		counter := scalarFamily(program.Counter, "disk.reads_total", labelText("device.name", `s"d\a`, "op", "read"), 5)
		counter.Metric.Labels = stringLabels("device.name", "op")
		counter.Exemplars = []series.Exemplar{{Labels: labelText("trace.id", "x"), Value: 1, Timestamp: 1000}}
		counter.Metric.Exemplar = &program.Exemplar{Labels: stringLabels("trace.id")}
		got := mustScrape(t, encode(t, format, Options{}, counter), format.ContentType())
		if got.samples[seriesKey(metric, label, `s"d\a`, "op", "read")] != 5 {
			t.Errorf("%s: got %v", format.ContentType(), got.samples)
		}
	}
	for _, syntax := range []Syntax{Text, OpenMetrics, Protobuf} {
		f(Format{Syntax: syntax, Escaping: model.NoEscaping}, "disk.reads_total", "device.name")
		f(Format{Syntax: syntax, Escaping: model.UnderscoreEscaping}, "disk_reads_total", "device_name")
		f(Format{Syntax: syntax, Escaping: model.DotsEscaping}, "disk_dot_reads__total", "device_dot_name")
		f(Format{Syntax: syntax, Escaping: model.ValueEncodingEscaping}, "U__disk_2e_reads__total", "U__device_2e_name")
	}
}

// strictParser is Python: it answers each body of a JSON list with an error or "".
const strictParser = `
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
result = []
for body in json.load(sys.stdin):
    try:
        list(text_string_to_metric_families(body))
        result.append("")
    except Exception as e:
        result.append(repr(e))
json.dump(result, sys.stdout)
`

func strictOpenMetrics(t *testing.T, bodies ...string) []string {
	t.Helper()
	python := ""
	for _, candidate := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(candidate, "-c", "import prometheus_client.openmetrics.parser").Run() == nil {
			python = candidate
			break
		}
	}
	if python == "" {
		t.Skip("needs python3-prometheus-client (the strict OpenMetrics parser): apt-get install python3-prometheus-client")
	}
	input, err := json.Marshal(bodies)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(python, "-c", strictParser)
	command.Stdin = strings.NewReader(string(input))
	output, err := command.Output()
	if err != nil {
		t.Fatalf("python: %v", err)
	}
	var result []string
	if err := json.Unmarshal(output, &result); err != nil || len(result) != len(bodies) {
		t.Fatalf("python answered %q: %v", output, err)
	}
	return result
}

// strictZoo is the zoo without the exemplars that Debian's strict parser (0.16)
// reads wrongly: it takes a quote or a brace in a label value for the value's end.
func strictZoo() []*series.Family {
	families := zoo()
	for _, f := range families {
		for i := range f.Exemplars {
			if strings.ContainsAny(f.Exemplars[i].Labels, `\{}`) {
				f.Exemplars[i] = series.Exemplar{}
			}
		}
	}
	return families
}

func TestStrictParserAcceptsOpenMetrics(t *testing.T) {
	var bodies, what []string
	add := func(name string, format Format, options Options, families ...*series.Family) {
		bodies, what = append(bodies, encode(t, format, options, families...)), append(what, name)
	}
	values := Format{Syntax: OpenMetrics, Escaping: model.ValueEncodingEscaping}
	add("nothing", openMetricsFormat(), Options{})
	add("zoo", openMetricsFormat(), Options{}, strictZoo()...)
	add("zoo with start times", openMetricsFormat(), Options{CreatedSamples: true}, strictZoo()...)
	for _, f := range strictZoo() {
		add(f.Metric.Name, openMetricsFormat(), Options{CreatedSamples: true}, f)
		f.Metric.Name = "my." + f.Metric.Name
		f.Metric.Labels = append(f.Metric.Labels, stringLabels("a.b")...)
		for i := range f.Points {
			f.Points[i].Labels += "," + labelText("a.b", "x", "a_b", "y")
			f.Points[i].Labels = strings.TrimPrefix(f.Points[i].Labels, ",")
		}
		add(f.Metric.Name, openMetricsFormat(), Options{CreatedSamples: true}, f)
		add(f.Metric.Name+" as values", values, Options{CreatedSamples: true}, f)
	}
	negative := []program.Field{{Signed: true}, {Signed: true}, {Signed: true}}
	add("negative sums", openMetricsFormat(), Options{},
		&series.Family{Metric: &program.Metric{Name: "h", Type: program.Histogram, Cells: negative, Buckets: &program.Buckets{Low: 0, High: 1}},
			Points: make([]series.Point, 1), Values: []uint64{minus(5), 1, 1, 1}, Stride: 4},
		&series.Family{Metric: &program.Metric{Name: "g", Type: program.GaugeHistogram, Cells: negative, Buckets: &program.Buckets{Low: 0, High: 1}},
			Points: make([]series.Point, 1), Values: []uint64{minus(5), 1, 1, 1}, Stride: 4},
		&series.Family{Metric: &program.Metric{Name: "s", Type: program.Summary, Cells: negative, Quantiles: []float64{0.5}},
			Points: make([]series.Point, 1), Values: []uint64{1, minus(5), minus(5)}, Stride: 3})
	add("names that clash", openMetricsFormat(), Options{},
		scalarFamily(program.Gauge, "x", "", 1), scalarFamily(program.Counter, "x_total", "", 1), scalarFamily(program.Gauge, "x_created", "", 1))
	add("odd names", openMetricsFormat(), Options{},
		scalarFamily(program.Counter, "_total", "", 1), scalarFamily(program.Gauge, "a:b", "", 1), scalarFamily(program.StateSet, "c:d", "", 1),
		scalarFamily(program.Gauge, "0", "", 1), scalarFamily(program.Gauge, "a b", "", 1), scalarFamily(program.Gauge, "e\nf", "", 1))
	for i, problem := range strictOpenMetrics(t, bodies...) {
		if problem != "" {
			t.Errorf("%s: %s\n%s", what[i], problem, bodies[i])
		}
	}
}

// The checker has nothing against what is written here: hints about names and help texts of the zoo are the only findings.
func TestCheckerAccepts(t *testing.T) {
	for _, format := range []Format{textFormat(), openMetricsFormat()} {
		for _, options := range []Options{{}, {CreatedSamples: true}} {
			body := encode(t, format, options, zoo()...)
			report := lint.Check(body, lint.Options{})
			if report.Samples < 100 || (report.Format == lint.OpenMetrics) != (format.Syntax == OpenMetrics) {
				t.Errorf("%d samples of %s", report.Samples, report.Format)
			}
			for _, f := range report.Findings {
				if f.Severity == lint.Error {
					t.Errorf("%s: %+v", format.ContentType(), f)
				}
			}
		}
	}
}

func TestStrictParserIsStrict(t *testing.T) {
	for i, problem := range strictOpenMetrics(t, "x 1\n", "# TYPE x counter\nx 1\n# EOF\n", "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n# EOF\n") {
		if problem == "" {
			t.Errorf("it accepts bad body %d", i)
		}
	}
}
