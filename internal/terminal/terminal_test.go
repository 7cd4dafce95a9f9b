package terminal

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// labelled renders names and values.
func labelled(pairs ...string) string {
	var text []byte
	for i := 0; i+1 < len(pairs); i += 2 {
		text = series.AppendLabel(text, pairs[i], pairs[i+1])
	}
	return string(text)
}

type point struct {
	labels string
	values []uint64
}

func family(m program.Metric, points ...point) *series.Family {
	f := &series.Family{Metric: &m}
	for _, p := range points {
		f.Stride = len(p.values)
		f.Points = append(f.Points, series.Point{Labels: p.labels, Start: 1700000000000})
		f.Values = append(f.Values, p.values...)
	}
	return f
}

var (
	counterMetric   = program.Metric{Name: "starts_total", Type: program.Counter, Help: "Starts."}
	gaugeMetric     = program.Metric{Name: "balance", Type: program.Gauge, Cells: []program.Field{{Size: 8, Signed: true}}, Help: "Balance."}
	histogramMetric = program.Metric{Name: "wait_seconds", Type: program.Histogram, Unit: "seconds", Scale: program.Scale{Num: 1, Den: 1e9},
		Buckets: &program.Buckets{Schema: 1, Low: -3, High: 0}, Help: "Waiting."} // up to 1/8, six buckets up to 1, above
	boundsMetric = program.Metric{Name: "size_bytes", Type: program.Histogram, Unit: "bytes", Buckets: &program.Buckets{Bounds: []uint64{1024, 4096}}, Help: "Sizes."}
	stateMetric  = program.Metric{Name: "state", Type: program.StateSet, States: []program.State{{Name: "on", Value: 1}, {Name: "off"}}, Help: "State."}
	infoMetric   = program.Metric{Name: "build_info", Type: program.Info, Help: "Build."}
	summary      = program.Metric{Name: "cost_seconds", Type: program.Summary, Unit: "seconds", Scale: program.Scale{Num: 1, Den: 1000}, Quantiles: []float64{0.5}, Help: "Cost."}
)

func all() []*series.Family {
	return []*series.Family{
		family(gaugeMetric, point{labelled("who", "me"), []uint64{math.MaxUint64 - 4}}),
		family(infoMetric, point{labelled("version", "1"), nil}),
		family(counterMetric, point{labelled("namespace", "shop", "pod", "cart"), []uint64{10}}, point{labelled("namespace", "shop", "pod", "pay"), []uint64{12345}}, point{"", []uint64{0}}),
		family(stateMetric, point{labelled("unit", "a"), []uint64{1}}, point{labelled("unit", "b"), []uint64{7}}),
		family(summary, point{"", []uint64{4, 8000, 1500}}),
		family(histogramMetric, point{labelled("device", "sda"), []uint64{3e9, 1, 0, 0, 4, 4, 0, 0, 1}}),
		family(boundsMetric, point{"", []uint64{9000, 1, 2, 1}}),
	}
}

// The golden texts are what a person saw fit.
func TestView(t *testing.T) {
	var v View
	v.Width = 80
	var b strings.Builder
	begin := time.Unix(1700000000, 0)
	if err := v.Update(&b, all(), begin); err != nil {
		t.Fatal(err)
	}
	golden(t, "view-first.txt", b.String())
	b.Reset()
	next := all()
	next[2].Values[0] += 100
	next[5].Values[0] += 5e8
	next[5].Values[4] += 2
	if err := v.Update(&b, next[2:6], begin.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	golden(t, "view-second.txt", b.String())
}

// golden compares with a file in testdata; KAON_UPDATE=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(got), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	got = strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", name)
	if os.Getenv("KAON_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got:\n%s\nwant:\n%s", name, got, want)
	}
}

func TestViewFitsTerminal(t *testing.T) {
	var many []point
	for i := range 50 {
		many = append(many, point{labelled("pod", strings.Repeat("é", i)), []uint64{uint64(i)}})
	}
	families := append(all(), family(counterMetric, many...))
	for _, width := range []int{0, 40, 60, 80, 200} {
		v := View{Width: width, Height: 24, Color: true}
		for i := range 2 {
			var b strings.Builder
			if err := v.Update(&b, families, time.Unix(int64(i), 0)); err != nil {
				t.Fatal(err)
			}
			for line := range strings.SplitSeq(b.String(), "\n") {
				line = strings.NewReplacer("\x1b[1m", "", "\x1b[0m", "").Replace(line)
				if n := utf8.RuneCountInString(line); n > max(width, 40) && width != 0 {
					t.Errorf("width %d: %d cells: %q", width, n, line)
				}
			}
			if !strings.Contains(b.String(), "more\n") {
				t.Errorf("width %d: 50 series in 24 lines:\n%s", width, b.String())
			}
		}
	}
	var b strings.Builder
	if err := new(View).Update(&b, nil, time.Now()); err != nil || b.String() != "nothing yet\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

// A counter that starts anew shows what it has, not what it lacks.
func TestViewAfterRestart(t *testing.T) {
	var v View
	var b strings.Builder
	for i, n := range []uint64{100, 3} {
		b.Reset()
		if err := v.Update(&b, []*series.Family{family(counterMetric, point{"", []uint64{n}})}, time.Unix(int64(i), 0)); err != nil {
			t.Fatal(err)
		}
	}
	if fields := strings.Fields(b.String()); len(fields) < 3 || fields[len(fields)-2] != "3" || fields[len(fields)-1] != "3" {
		t.Errorf("got %q", b.String())
	}
}

// Names of processes must not move the cursor.
func TestHostileLabels(t *testing.T) {
	families := []*series.Family{family(counterMetric, point{labelled("comm", "\x1b[2J\x1b]0;title\x07\xff\r\n\u009b31m"), []uint64{1}})}
	var view, lines strings.Builder
	if err := new(View).Update(&view, families, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := new(Lines).Update(&lines, families, nil, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{view.String(), lines.String()} {
		for _, r := range text {
			if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0) {
				t.Errorf("control character %q in %q", r, text)
			}
		}
	}
	if n := strings.Count(lines.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %q", n, lines.String())
	}
}

func TestLines(t *testing.T) {
	var l Lines
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	update := func(filter Filter, families ...*series.Family) string {
		t.Helper()
		var b strings.Builder
		if err := l.Update(&b, families, filter, at); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	golden(t, "lines.txt", update(nil, all()...))
	if got := update(nil, all()...); got != "" {
		t.Errorf("nothing changed, but it says %q", got)
	}
	next := all()
	next[2].Values[1] += 5
	if got, want := update(nil, next...), "03:04:05 starts_total{namespace=\"shop\",pod=\"pay\"} 12.3k (+5)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	filter, err := ParseFilter([]string{"pod=cart"})
	if err != nil {
		t.Fatal(err)
	}
	next[2].Values[0]++
	next[2].Values[1]++
	if got, want := update(filter, next...), "03:04:05 starts_total{namespace=\"shop\",pod=\"cart\"} 11 (+1)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJSON(t *testing.T) {
	families := append(all(), family(program.Metric{Name: "exact_total", Type: program.Counter}, point{"", []uint64{math.MaxUint64}}))
	var b strings.Builder
	if err := WriteJSON(&b, families, nil); err != nil {
		t.Fatal(err)
	}
	golden(t, "series.json", b.String())
	for line := range strings.Lines(b.String()) {
		var s map[string]any
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Errorf("%v: %s", err, line)
		}
	}
}

func TestOverview(t *testing.T) {
	var o Overview
	find := func(lines []Line, metric string) Line {
		t.Helper()
		for _, l := range lines {
			if l.Metric == metric {
				return l
			}
		}
		t.Fatalf("no line %s: %+v", metric, lines)
		return Line{}
	}
	f := func(got Line, series int, value, rate string) {
		t.Helper()
		if got.Series != series || got.Value != value || got.Rate != rate {
			t.Errorf("got %+v, want %d, %q, %q", got, series, value, rate)
		}
	}
	lines := o.Update(all(), time.Unix(10, 0))
	f(find(lines, "starts_total"), 3, "12.4k", "")
	f(find(lines, "balance"), 1, "-5", "")
	f(find(lines, "wait_seconds"), 1, "10 observations, p50 354 ms, p99 1 s", "")
	f(find(lines, "cost_seconds"), 1, "4 observations", "")
	f(find(lines, "build_info"), 1, "", "")
	next := all()
	next[2].Values[0] += 20
	next[5].Values[4] += 6
	lines = o.Update(next, time.Unix(12, 0))
	f(find(lines, "starts_total"), 3, "12.4k", "10")
	f(find(lines, "wait_seconds"), 1, "16 observations, p50 319 ms, p99 1 s", "3")
	// It went back, its buckets changed, it is there twice: no rate, no crash.
	two := family(counterMetric, point{"", []uint64{7}})
	other := histogramMetric
	other.Buckets = boundsMetric.Buckets
	lines = o.Update([]*series.Family{two, two, family(other, point{"", []uint64{1, 1, 1, 1}})}, time.Unix(14, 0))
	f(find(lines, "starts_total"), 1, "7", "")
	if find(lines, "wait_seconds").Rate != "" || len(lines) != 3 {
		t.Errorf("got %+v", lines)
	}
	two.Values[0] += 4
	for _, line := range o.Update([]*series.Family{two, two}, time.Unix(16, 0)) {
		f(line, 1, "11", "2")
	}
}

func TestQuantity(t *testing.T) {
	f := func(x float64, unit, want string) {
		t.Helper()
		if got := Quantity(x, unit); got != want {
			t.Errorf("%v %s: got %q, want %q", x, unit, got, want)
		}
	}
	f(0, "", "0")
	f(42, "", "42")
	f(9999, "", "9999")
	f(12345, "", "12.3k")
	f(1e6, "", "1M")
	f(0.5, "", "0.50")
	f(-3, "", "-3")
	f(math.NaN(), "seconds", "-")
	f(math.Inf(1), "seconds", "inf")
	f(0, "seconds", "0")
	f(1.5, "seconds", "1.50 s")
	f(0.0123, "seconds", "12.3 ms")
	f(2e-6, "seconds", "2 µs")
	f(5e-9, "seconds", "5 ns")
	f(1024, "bytes", "1 KiB")
	f(1536, "bytes", "1.50 KiB")
	f(100, "bytes", "100 B")
	f(math.MaxUint64, "bytes", "16 EiB")
	f(1e30, "seconds", "1e+30 s")
}

func FuzzQuantity(f *testing.F) {
	for _, x := range []float64{0, 1, -1, 999.96, 0.9996, 1e300, -1e300, 5e-324, math.MaxUint64} {
		f.Add(x)
	}
	f.Fuzz(func(t *testing.T, x float64) {
		for _, unit := range []string{"", "seconds", "bytes", "packets"} {
			if text := Quantity(x, unit); text == "" || utf8.RuneCountInString(text) > 9 && math.Abs(x) > 1e-100 && math.Abs(x) < 1e100 {
				t.Errorf("%v %s: %q", x, unit, text)
			}
		}
	})
}

func TestQuantile(t *testing.T) {
	f := func(m program.Metric, slots []uint64, q, want float64) {
		t.Helper()
		got := Quantile(&m, slots, q)
		if math.IsNaN(want) != math.IsNaN(got) || math.Abs(got-want) > 1e-9 {
			t.Errorf("%s %v: p%v is %v, want %v", m.Name, slots, q*100, got, want)
		}
	}
	native, bounds := histogramMetric, boundsMetric
	f(native, make([]uint64, 8), 0.5, math.NaN())
	f(native, []uint64{0, 0, 0, 0, 0, 0, 2, 0}, 1, 1)
	f(native, []uint64{0, 0, 0, 0, 0, 0, 2, 0}, 0.5, math.Exp2(-0.25)) // the geometric middle of 2^-0.5 and 1
	f(native, []uint64{2, 0, 0, 0, 0, 0, 0, 0}, 0.5, 1.0/16)
	f(native, []uint64{0, 0, 0, 0, 0, 0, 0, 5}, 0.5, 1)
	f(bounds, []uint64{0, 4, 0}, 0.5, 2560)
	f(bounds, []uint64{1, 0, 0}, 0.5, 512)
	f(bounds, []uint64{0, 0, 1}, 0.5, 4096)
}

func TestFilter(t *testing.T) {
	set := labelled("namespace", "shop", "pod", "cart-1", "quote", `a"b\c`)
	f := func(want bool, conditions ...string) {
		t.Helper()
		filter, err := ParseFilter(conditions)
		if err != nil {
			t.Fatal(err)
		}
		if filter.Match(set) != want {
			t.Errorf("%q: want %v", conditions, want)
		}
	}
	f(true)
	f(true, "namespace=shop")
	f(false, "namespace=sho")
	f(true, "namespace!=sho")
	f(true, "pod=~cart-.*")
	f(false, "pod=~cart") // anchored
	f(false, "pod=~art-1")
	f(true, "pod!~cart")
	f(true, "absent=")
	f(false, "absent!=")
	f(true, "absent!=x")
	f(true, `quote=a"b\c`)
	f(false, "namespace=shop", "pod=pay")
	f(true, "pod=~x|cart-1")
	for _, wrong := range []string{"", "pod", "=x", "pod!x", "pod=~(", "pod=~a)|(b"} {
		if _, err := ParseFilter([]string{wrong}); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func TestFilterFamilies(t *testing.T) {
	filter, err := ParseFilter([]string{"pod=pay"})
	if err != nil {
		t.Fatal(err)
	}
	families := all()
	kept := filter.Families(families)
	for i, f := range kept {
		want := 0
		if f.Metric.Name == "starts_total" {
			want = 1
			if f.Row(0)[0] != 12345 {
				t.Errorf("the value is %v", f.Row(0))
			}
		}
		if len(f.Points) != want {
			t.Errorf("%s has %d series, want %d", f.Metric.Name, len(f.Points), want)
		}
		if len(families[i].Points) == 0 {
			t.Error("the original changed")
		}
	}
}

// Whatever a label's value is, asking for it finds it, and asking for another does not.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", "a", `"`, "\\", "\n", "=~", ".*", "ü", "\xff", "a,b=\"c\""} {
		f.Add(s, "x=~"+s)
	}
	f.Fuzz(func(t *testing.T, value, condition string) {
		set := labelled("a", "1", "x", value, "z", "2")
		if filter, err := ParseFilter([]string{condition}); err == nil {
			filter.Match(set)
		}
		if !utf8.ValidString(value) || strings.ContainsRune(value, 0) || len(value) > series.MaxLabelValue/4 {
			return
		}
		for condition, want := range map[string]bool{"x=" + value: value == "" || value[0] != '~', "x!=" + value: false, "x=" + value + "!": false} {
			if strings.HasPrefix(condition, "x=~") || strings.HasPrefix(condition, "x!~") {
				continue
			}
			filter, err := ParseFilter([]string{condition})
			if err != nil {
				t.Fatalf("%q: %v", condition, err)
			}
			if got := filter.Match(set); got != want {
				t.Errorf("%q on %q: %v", condition, set, got)
			}
		}
	})
}

func TestDifference(t *testing.T) {
	before := map[string]counts{
		"a/f": {program: "a", function: "f", runs: 100, kernelRuns: 90, runtime: 9000, hasKernel: true},
		"a/g": {program: "a", function: "g", runs: 50},
		"a/r": {program: "a", function: "r", runs: 50},
	}
	after := map[string]counts{
		"a/f": {program: "a", function: "f", runs: 300, kernelRuns: 190, runtime: 19000, hasKernel: true},
		"a/g": {program: "a", function: "g", runs: 50},
		"a/r": {program: "a", function: "r", runs: 2}, // it was loaded again
		"a/n": {program: "a", function: "n", runs: 2}, // new
	}
	costs := difference(before, after, 2)
	if len(costs) != 2 || costs[0].Function != "f" || costs[1].Function != "g" {
		t.Fatalf("got %+v", costs)
	}
	c := costs[0]
	if c.RunsPerSecond != 100 || *c.NanosecondsPerRun != 100 || math.Abs(*c.CPUPercent-0.0005) > 1e-12 {
		t.Errorf("got %+v, %v, %v", c, *c.NanosecondsPerRun, *c.CPUPercent)
	}
	if costs[1].NanosecondsPerRun != nil || costs[1].RunsPerSecond != 0 {
		t.Errorf("got %+v", costs[1])
	}
}

func TestParams(t *testing.T) {
	f := func(want string, programs []string, set ...string) {
		t.Helper()
		options := RunOptions{Programs: programs, Set: set}
		config, err := options.config()
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			for _, p := range config.Programs {
				got += p.Source + " " + strings.Join(pairs(p.Params), ",") + ";"
			}
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q %q: got %q, want %q", programs, set, got, want)
		}
	}
	f("packets xdp=true;exec ;", []string{"packets", "exec"}, "xdp=true")
	f("packets xdp=true;exec ;", []string{"packets", "exec"}, "packets.xdp=true")
	f("packets interfaces=a=b;", []string{"packets"}, "interfaces=a=b")
	f("error: --set \"exec.xdp=true\": none of the programs", []string{"packets", "exec"}, "exec.xdp=true")
	f("error: --set \"colour=red\": none of the programs", []string{"packets", "exec"}, "colour=red")
	f("error: --set \"colour\": want NAME=VALUE", []string{"packets"}, "colour")
	f("error: nothing: no such built-in", []string{"nothing"})
}

func pairs(params map[string]agent.Text) []string {
	var all []string
	for name, value := range params {
		all = append(all, name+"="+string(value))
	}
	return all
}

// Several gauges are a range, a metric without series is no line.
func TestOverviewOfGauges(t *testing.T) {
	var o Overview
	lines := o.Update([]*series.Family{
		family(gaugeMetric, point{"", []uint64{3}}, point{labelled("who", "me"), []uint64{math.MaxUint64 - 4}}),
		family(counterMetric),
	}, time.Unix(10, 0))
	if len(lines) != 1 || lines[0].Value != "-5 to 3" {
		t.Errorf("got %+v", lines)
	}
}

// Where a histogram has more bars than there is room, those with most observations are drawn.
func TestBarsFit(t *testing.T) {
	m := histogramMetric
	m.Buckets = &program.Buckets{Schema: 0, Low: 0, High: 20}
	slots := make([]uint64, 22)
	for i := range slots {
		slots[i] = 1
	}
	slots[12], slots[13], slots[14] = 50, 90, 60
	lines := (&table{metric: &m, rows: []row{{slots: slots}}}).bars(80, 3)
	if len(lines) != 3 || !strings.Contains(lines[0], "50 ") || !strings.Contains(lines[1], "90 ") || !strings.Contains(lines[2], "60 ") {
		t.Errorf("got %q", lines)
	}
}
