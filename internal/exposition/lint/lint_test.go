package lint

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what is said into the golden files")

// The files of testdata are expositions with mistakes; beside each stands what is said of it.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("testdata/*.prom")
	if err != nil || len(files) < 6 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := Check(string(body), Options{Name: filepath.Base(file)}).Text(&out); err != nil {
			t.Fatal(err)
		}
		golden := strings.TrimSuffix(file, ".prom") + ".golden"
		if *update {
			if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != string(want) {
			t.Errorf("%s: is said:\n%s\nwant:\n%s", file, out.String(), want)
		}
	}
}

// mistake is an exposition that is wrong, and a part of what must be said.
type mistake struct {
	body string
	line int
	what string
}

// om makes an OpenMetrics exposition of lines.
func om(lines ...string) string { return strings.Join(append(lines, "# EOF"), "\n") + "\n" }

func text(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

// refusedOpenMetrics are mistakes for which Prometheus or the strict parser refuses the exposition.
func refusedOpenMetrics() []mistake {
	long := strings.Repeat("é", 127)
	return []mistake{
		// framing
		{"a 1\n", 1, "# EOF is missing"},
		{"a 1", 1, "# EOF is missing"},
		{"# EOF\na 1\n", 2, "stands after # EOF"},
		{"# EOF\n\n", 2, "stands after # EOF"},
		{"# EOF \n", 1, "something after # EOF"},
		{"a 1\n#EOF\n", 2, "space is missing after #"},
		{"a 1\n# eof\n", 2, "capitals"},
		{om("a 1", "", "b 1"), 2, "empty"},
		{om("# a comment", "a 1"), 1, "comments"},
		{om("#"), 1, "comments"},
		{"\uFEFF" + om("a 1"), 1, "BOM"},
		{strings.ReplaceAll(om("# TYPE a gauge", "a 1"), "\n", "\r\n"), 1, "carriage return"},
		{om("a 1\r"), 1, "carriage return"},
		// blanks
		{om(" a 1"), 1, "begins with a blank"},
		{om("a  1"), 1, "2 blanks"},
		{om("a\t1"), 1, "tab"},
		{om("a 1 "), 1, "at the end"},
		{om("a{b=\"c\"}1"), 1, "space is missing"},
		{om(`a{b="c" } 1`), 1, "between the braces"},
		{om(`a{b="c", d="e"} 1`), 1, "between the braces"},
		{om(`a {b="c"} 1`), 1, "before the brace"},
		{om("# TYPE  a gauge"), 1, "2 blanks"},
		{om("#  TYPE a gauge"), 1, "2 blanks"},
		{om("# TYPE a  gauge"), 1, "not a type"},
		{om("# HELP a\tx"), 1, "a tab"},
		{om("# TYPE a gauge "), 1, "not a type"},
		// metadata
		{om("# TYPE a"), 1, "the type is missing"},
		{om("# HELP a"), 1, "the text is missing"},
		{om("# UNIT a"), 1, "the unit is missing"},
		{om("# TYPE"), 1, "names no metric"},
		{om("# TYPE a-b gauge"), 1, "not a metric's name"},
		{om("# TYPE a untyped"), 1, "not a type"},
		{om("# TYPE a Gauge"), 1, "not a type"},
		{om("# TYPE a meter"), 1, "not a type"},
		{om("# type a gauge"), 1, "capitals"},
		{om("#TYPE a gauge"), 1, "space is missing"},
		{om("# TYPE a gauge", "# TYPE a gauge"), 2, "second TYPE"},
		{om("# HELP a x", "# HELP a x"), 2, "second HELP"},
		{om("# UNIT a_s s", "# UNIT a_s s"), 2, "second UNIT"},
		{om("# TYPE a gauge", "a 1", "# HELP a x"), 3, "after samples"},
		{om("a 1", "# TYPE a gauge"), 2, "after samples"},
		{om("# UNIT a seconds"), 1, "does not end in _seconds"},
		{om("# UNIT seconds seconds"), 1, "does not end in _seconds"},
		{om("# TYPE a counter", "# UNIT a_seconds_total seconds"), 2, "leave _total out"},
		{om("# TYPE a_u info", "# UNIT a_u u", "a_u_info 1"), 2, "has no unit"},
		{om("# TYPE a_u stateset", "# UNIT a_u u"), 2, "has no unit"},
		// families
		{om("# TYPE a gauge", "a 1", "# TYPE b gauge", "b 1", `a{x="y"} 1`), 5, "goes on here"},
		{om("# TYPE a gauge", "a 1", "# TYPE b gauge", "b 1", "# TYPE a gauge"), 5, "goes on here"},
		{om("# TYPE a counter", "a_total 1", "# TYPE a_total gauge", "a_total 1"), 3, "belongs to two metrics"},
		{om("# TYPE a summary", "a_sum 1", "a_count 1", "# TYPE a_count gauge"), 4, "belongs to two metrics"},
		{om("# TYPE a histogram", "# TYPE a_bucket gauge"), 2, "belongs to two metrics"},
		{om("# TYPE a gauge", `a{x="1"} 1`, `a{x="2"} 1 `), 3, "at the end"},
		// names and labels
		{om("0a 1"), 1, "not a metric's name"},
		{om("a.b 1"), 1, "not a metric's name"},
		{om("é 1"), 1, "not a metric's name"},
		{om(`a{0="b"} 1`), 1, "not a label's name"},
		{om(`a{a-b="b"} 1`), 1, "not a label's name"},
		{om(`a{a:b="b"} 1`), 1, "colon between"},
		{om(`a{="b"} 1`), 1, "name is missing"},
		{om(`a{b} 1`), 1, "no value"},
		{om(`a{b=} 1`), 1, "not in double quotes"},
		{om(`a{b=c} 1`), 1, "not in double quotes"},
		{om(`a{b='c'} 1`), 1, "not in double quotes"},
		{om(`a{b="c} 1`), 1, "no closing quote"},
		{om(`a{b="c\"} 1`), 1, "no closing quote"},
		{om("a{b=\"c\nd\"} 1"), 1, "no closing quote"},
		{om(`a{b="c" 1`), 1, "can't stand here"},
		{om(`a{b="c"`), 1, "not closed"},
		{om(`a{b="c",} 1`), 1, "comma after the last label"},
		{om(`a{,} 1`), 1, "name is missing"},
		{om(`a{b="c",,d="e"} 1`), 1, "name is missing"},
		{om(`a{b="c"d="e"} 1`), 1, "comma is missing"},
		{om(`a{b="c"}} 1`), 1, "space is missing"},
		{om(`a{b="1",b="2"} 1`), 1, "twice"},
		{om(`{b="1"} 1`), 1, "no metric's name"},
		{om(`a{"b"} 1`), 1, "two names"},
		{om("a{b=\"\xff\"} 1"), 1, "not UTF-8"},
		{om("# HELP a \xff"), 1, "not UTF-8"},
		// values
		{om("a"), 1, "value is missing"},
		{om("a "), 1, "value is missing"},
		{om(`a{b="c"}`), 1, "value is missing"},
		{om("a x"), 1, "not a number"},
		{om("a 1,5"), 1, "not a number"},
		{om("a 1_000"), 1, "not a number"},
		{om("a 0x10"), 1, "not a number"},
		{om("a 0x1p4"), 1, "not a number"},
		{om("a 5s"), 1, "not a number"},
		{om("a 50%"), 1, "not a number"},
		{om(`a "5"`), 1, "not a number"},
		{om("a true"), 1, "not a number"},
		{om("a --5"), 1, "not a number"},
		{om("a 1e"), 1, "not a number"},
		{om("a ."), 1, "not a number"},
		{om("a 1e999"), 1, "does not fit"},
		// timestamps
		{om("a 1 x"), 1, "not a timestamp"},
		{om("a 1 NaN"), 1, "not a time"},
		{om("a 1 +Inf"), 1, "not a time"},
		{om("a 1 2 3"), 1, "too much"},
		{om("a 1 2", "a 1 1"), 2, "earlier"},
		{om("a 1 2", "a 1"), 2, "some have none"},
		{om("a 1 2 "), 1, "at the end"},
		// counters
		{om("# TYPE a counter", "a 1"), 2, "no sample called a"},
		{om("# TYPE a_total counter", "a_total 1"), 2, "leave _total out"},
		{om("# TYPE a counter", "a_total -1"), 2, "negative"},
		{om("# TYPE a counter", "a_total NaN"), 2, "NaN"},
		{om("# TYPE a counter", `a_total{x="1"} 1`, `a_total{x="2"} 1`, `a_created{x="1"} 1`), 4, "another metric stands between"},
		// histograms
		{om("# TYPE a histogram", `a_bucket 1`), 2, "le is missing"},
		{om("# TYPE a histogram", `a_bucket{le="x"} 1`), 2, "le is not a number"},
		{om("# TYPE a histogram", `a_bucket{le="NaN"} 1`), 2, "le is not a number"},
		{om("# TYPE a histogram", `a_bucket{le="inf"} 1`), 2, "written +Inf"},
		{om("# TYPE a histogram", `a_bucket{le="1.0"} 1`), 2, "has no bucket"},
		{om("# TYPE a histogram", "a_sum 1", "a_count 1"), 2, "has no bucket"},
		{om("# TYPE a histogram", `a_bucket{le="2.0"} 1`, `a_bucket{le="1.0"} 1`, `a_bucket{le="+Inf"} 1`), 3, "not in order"},
		{om("# TYPE a histogram", `a_bucket{le="1.0"} 1`, `a_bucket{le="1"} 1`, `a_bucket{le="+Inf"} 1`), 3, "two buckets"},
		{om("# TYPE a histogram", `a_bucket{le="1.0"} 2`, `a_bucket{le="+Inf"} 1`), 3, "counts less"},
		{om("# TYPE a histogram", `a_bucket{le="+Inf"} 1`, "a_count 2", "a_sum 1"), 3, "is not that of the bucket"},
		{om("# TYPE a histogram", `a_bucket{le="+Inf"} 1`, "a_count 1"), 2, "no _sum"},
		{om("# TYPE a histogram", `a_bucket{le="+Inf"} 1`, "a_sum 1"), 2, "no _count"},
		{om("# TYPE a histogram", `a_bucket{le="+Inf"} 1.5`), 2, "whole number"},
		{om("# TYPE a histogram", `a_bucket{le="+Inf"} 1`, "a_count 1", "a_sum -1"), 4, "negative"},
		{om("# TYPE a histogram", `a_bucket{le="+Inf"} -1`), 2, "negative"},
		{om("# TYPE a histogram", `a_bucket{le="-1.0"} 1`, `a_bucket{le="+Inf"} 1`, "a_count 1", "a_sum 1"), 2, "negative le"},
		{om("# TYPE a histogram", `a_bucket{le="+Inf"} 1`, `a_count{le="+Inf"} 1`, "a_sum 1"), 3, "for the buckets alone"},
		{om("# TYPE a histogram", "a 1"), 2, "no sample called a"},
		{om("# TYPE a gaugehistogram", `a_bucket{le="+Inf"} 1`, "a_gcount 1"), 2, "no _gsum"},
		{om("# TYPE a gaugehistogram", `a_bucket{le="+Inf"} 1`, "a_gcount 1", "a_gsum -1"), 2, "negative _gsum"},
		{om("# TYPE a gaugehistogram", `a_bucket{le="+Inf"} 1`, "a_gcount 1", "a_gsum NaN"), 4, "NaN"},
		// summaries
		{om("# TYPE a summary", "a 1"), 2, "quantile is missing"},
		{om("# TYPE a summary", `a{quantile="1.5"} 1`), 2, "from 0 to 1"},
		{om("# TYPE a summary", `a{quantile="half"} 1`), 2, "from 0 to 1"},
		{om("# TYPE a summary", `a{quantile="0.5"} -1`), 2, "negative"},
		{om("# TYPE a summary", "a_count 1.5"), 2, "whole number"},
		{om("# TYPE a summary", "a_sum NaN"), 2, "NaN"},
		{om("# TYPE a summary", "a_count -1"), 2, "negative"},
		// info and stateset
		{om("# TYPE a info", `a_info{b="c"} 2`), 2, "info is 1"},
		{om("# TYPE a info", `a{b="c"} 1`), 2, "no sample called a"},
		{om("# TYPE a_info info", `a_info{b="c"} 1`), 2, "leave _info out"},
		{om("# TYPE a stateset", "a 1"), 2, "label a is missing"},
		{om("# TYPE a stateset", `a{a="x"} 2`), 2, "0 or 1"},
		// exemplars
		{om("# TYPE a gauge", `a 1 # {b="c"} 1`), 2, "can't have an exemplar"},
		{om("# TYPE a summary", `a_count 1 # {b="c"} 1`), 2, "can't have an exemplar"},
		{om("# TYPE a counter", `a_total 1 # {b="`+long+`ab"} 1`), 2, "130 characters"},
		{om("# TYPE a counter", `a_total 1 # {b="c"}`), 2, "exemplar's value is missing"},
		{om("# TYPE a counter", `a_total 1 # {b="c"} x`), 2, "not a number"},
		{om("# TYPE a counter", `a_total 1 # {b="c"} 1 x`), 2, "not a timestamp"},
		{om("# TYPE a counter", `a_total 1 # {b} 1`), 2, "no value"},
		{om("# TYPE a counter", `a_total 1 # {b="c",} 1`), 2, "comma after"},
		{om("# TYPE a counter", `a_total 1 #{b="c"} 1`), 2, "space is missing"},
		{om("# TYPE a counter", `a_total 1 # counted`), 2, "neither a timestamp nor an exemplar"},
		{om("# TYPE a counter", `a_total 1 # {b="c"} 1 1 1`), 2, "too much"},
	}
}

// ownOpenMetrics are mistakes that the parsers let pass, and that the specification forbids or a server answers with other numbers.
func ownOpenMetrics() []mistake {
	return []mistake{
		{om("# HELP a x \"y\""), 1, "not escaped"},
		{om("a 1", "a 1"), 2, "already, in line 1"},
		{om(`a{b="c",d="e"} 1`, `a{d="e",b="c"} 1`), 2, "already, in line 1"},
		{om("a 1", `a{b=""} 1`), 2, "already, in line 1"},
		{om(`a{__b="c"} 1`), 1, "reserved"},
		{om(`a{__name__="c"} 1`), 1, "the metric's name itself"},
		{om("# TYPE a counter", "a_total 1", "a_created NaN"), 3, "not a time"},
		{om("# TYPE a summary", `a_sum{quantile="1.0"} 1`, `a_count 1`), 2, "for the samples named a"},
		{om("# TYPE a histogram", `a_bucket{le="1.0"} 1 # {} 2`, `a_bucket{le="+Inf"} 1`), 2, "greater than 1.0"},
		{om("# TYPE a histogram", `a_bucket{le="1.0"} 1`, `a_bucket{le="+Inf"} 2 # {} 0.5`), 3, "belongs to an earlier bucket"},
		{om("# TYPE a gaugehistogram", `a_bucket{le="+Inf"} 1`, "a_count 1"), 3, "no sample called a_count"},
		{om("a{b=\"\x00\"} 1"), 1, "zero byte"},
		{om(`{b="c","a"} 1`), 1, "name stands here"},
		{om(`{""} 1`), 1, "name is empty"},
	}
}

// refusedText are mistakes for which Prometheus' server or its text library refuses the exposition.
func refusedText() []mistake {
	return []mistake{
		{"a 1", 1, "line feed"},
		{strings.ReplaceAll(text("# TYPE a gauge", "a 1"), "\n", "\r\n"), 1, "carriage return"},
		{"\uFEFFa 1\n", 1, "BOM"},
		{text("a"), 1, "value is missing"},
		{text("a x"), 1, "not a number"},
		{text("a 1_000"), 1, "not a number"},
		{text("a 0x1p4"), 1, "not a number"},
		{text("a 1,5"), 1, "not a number"},
		{text("a 1 2 3"), 1, "too much"},
		{text("a 1", "#TYPE a gauge"), 2, "space is missing"},
		{text("a 1", "# HELP a x", "# TYPE a gauge"), 3, "after samples"},
		{text("a 1 1.5"), 1, "not a timestamp"},
		{text("a 1 -1"), 1, "not a timestamp"},
		{text("a 1 99999999999999999999"), 1, "not a timestamp"},
		{text("a 1 # {b=\"c\"} 1"), 1, "no exemplars"},
		{text("# TYPE a info"), 1, "not a type"},
		{text("# TYPE a unknown", "a 1"), 1, "not a type"},
		{text("# TYPE a gauge "), 1, "not a type"},
		{text("# TYPE a  gauge"), 1, "not a type"},
		{text("# TYPE a gauge", "# TYPE a counter"), 2, "second TYPE"},
		{text("# HELP a x", "# HELP a y"), 2, "second HELP"},
		{text("a 1", "# TYPE a gauge"), 2, "after samples"},
		{text("# TYPE a summary", "a_sum 1", "a_count 1", "# TYPE a_count gauge"), 4, "belongs to two metrics"},
		{text("a-b 1"), 1, "not a metric's name"},
		{text(`a{b=c} 1`), 1, "not in double quotes"},
		{text(`a{b="c"d="e"} 1`), 1, "comma is missing"},
		{text(`a{b="1",b="2"} 1`), 1, "twice"},
		{text(`a{b="\d"} 1`), 1, "means nothing"},
		{text(`# HELP a \d`), 1, "means nothing"},
		{text(`a{b="c} 1`), 1, "no closing quote"},
		{text("a{b=\"c\nd\"} 1"), 1, "no closing quote"},
		{text(`a{__name__="c"} 1`), 1, "the metric's name itself"},
		{text("a{b=\"\xff\"} 1"), 1, "not UTF-8"},
		{text("# TYPE a histogram", `a_bucket{le="x"} 1`), 2, "le is not a number"},
		{text("# TYPE a summary", `a{quantile="x"} 1`), 2, "from 0 to 1"},
	}
}

// ownText are mistakes that the parsers let pass.
func ownText() []mistake {
	return []mistake{
		{text("# TYPE a counter", "a -1"), 2, "negative"},
		{text("# TYPE a counter", "a NaN"), 2, "NaN"},
		{text("a 1", "b 1", `a{x="y"} 1`), 3, "goes on here"},
		{text("a 1", "a 2"), 2, "already, in line 1"},
		{text("a 1 1700000000000", "a 2 1700000001000"), 2, "already, in line 1"},
		{text("# TYPE a histogram", `a_bucket{le="1"} 1`, "a_sum 1", "a_count 1"), 2, "has no bucket"},
		{text("# TYPE a histogram", `a_bucket{le="+Inf"} 1`, "a_sum 1", "a_count 2"), 4, "is not that of the bucket"},
		{text("# TYPE a histogram", `a_bucket{le="2"} 1`, `a_bucket{le="1"} 1`, `a_bucket{le="+Inf"} 1`, "a_sum 1", "a_count 1"), 3, "not in order"},
		{text("# TYPE a histogram", `a_bucket{le="1"} 2`, `a_bucket{le="+Inf"} 1`, "a_sum 1", "a_count 1"), 3, "counts less"},
		{text("# HELP a x", "# TYPE"), 2, "names no metric"},
		{text("# TYPE a"), 1, "the type is missing"},
	}
}

// doubtful are what a warning is about, and nothing else.
func doubtful() []mistake {
	const help = "# HELP a x"
	return []mistake{
		{text("# TYPE a gauge", "a 1"), 1, "has no help"},
		{text("# HELP a x", "a 1"), 1, "has no TYPE"},
		{text("# HELP a A", "# TYPE a gauge", "a 1"), 1, "is its name"},
		{text(help, "# TYPE a counter", "a 1"), 1, "does not end in _total"},
		{text("# HELP a_total x", "# TYPE a_total gauge", "a_total 1"), 1, "ends in _total"},
		{text("# HELP a_count x", "# TYPE a_count gauge", "a_count 1"), 1, "ends in _count"},
		{text("# HELP a_gauge x", "# TYPE a_gauge gauge", "a_gauge 1"), 1, "says its type"},
		{text("# HELP a_ms x", "# TYPE a_ms gauge", "a_ms 1"), 1, "is in ms"},
		{text("# HELP a_percent x", "# TYPE a_percent gauge", "a_percent 1"), 1, "is in percent"},
		{text("# HELP aB x", "# TYPE aB gauge", "aB 1"), 1, "camelCase"},
		{text("# HELP a:b x", "# TYPE a:b gauge", "a:b 1"), 1, "recording rule"},
		{text(help, "# TYPE a gauge", `a{fooBar="1"} 1`), 3, "camelCase"},
		{text(help, "# TYPE a gauge", `a{le="1"} 1`), 3, "buckets of histograms"},
		{text(help, "# TYPE a gauge", `a{quantile="1"} 1`), 3, "summaries"},
		{text(help, "# TYPE a gauge", `a{__x="1"} 1`), 3, "reserved"},
		{text(help, "# TYPE a gauge", "a inf"), 3, "+Inf"},
		{text(help, "# TYPE a gauge", "a nan"), 3, "NaN"},
		{text(help, "# TYPE a gauge", "a 1 \t"), 3, "at the end"},
		{text("# TYPE a gauge", "a 1", help), 3, "after samples"},
		{text(help, "# TYPE a gauge", "# UNIT a x", "a 1"), 3, "no units"},
		{text(help, "# TYPE a gauge", "# Type a gauge", "a 1"), 3, "capitals"},
		{text("# nothing"), 0, "no samples"},
		{om(help, "# TYPE a histogram", `a_bucket{le="1"} 1`, `a_bucket{le="+Inf"} 1`), 3, "1.0"},
		{om(help, "# TYPE a summary", `a{quantile="1"} 1`), 3, "1.0"},
		{om(help, "# TYPE a gauge", "a 1 1700000000"), 3, "have timestamps"},
		{om(help, "# TYPE a gauge", `a{b="\d"} 1`), 3, "means nothing"},
		{om(`# HELP "a.b" x`, `# TYPE "a.b" gauge`, `{"a.b"} 1`), 1, "names in quotes"},
	}
}

func TestMistakes(t *testing.T) {
	f := func(format Format, severity Severity, mistakes []mistake) {
		t.Helper()
		for _, m := range mistakes {
			report := Check(m.body, Options{Format: format})
			found := false
			for _, finding := range report.Findings {
				if finding.Line == m.line && finding.Severity == severity && strings.Contains(finding.What+finding.Fix, m.what) {
					found = true
				}
			}
			if !found {
				t.Errorf("%q: nothing in line %d says %q: %+v", m.body, m.line, m.what, report.Findings)
			}
			if (severity == Error) != report.Failed() {
				t.Errorf("%q: failed is %v", m.body, report.Failed())
			}
			if severity == Warning && len(report.Findings) != 1 {
				t.Errorf("%q: one finding is enough: %+v", m.body, report.Findings)
			}
		}
	}
	f(OpenMetrics, Error, refusedOpenMetrics())
	f(OpenMetrics, Error, ownOpenMetrics())
	f(Text, Error, refusedText())
	f(Text, Error, ownText())
	f("", Warning, doubtful())
}

// Timestamps in the other format's unit are told besides that there are any.
func TestUnitsOfTimestamps(t *testing.T) {
	f := func(body, what string) {
		t.Helper()
		report := Check(body, Options{})
		found := false
		for _, finding := range report.Findings {
			found = found || strings.Contains(finding.What, what)
		}
		if !found || report.Failed() {
			t.Errorf("%q: %+v", body, report.Findings)
		}
	}
	f(om("a 1 1700000000123"), "in the year 5138")
	f(text("a 1 1700000000"), "in 1973")
	f(om("# TYPE a counter", "a_total 1", "a_created 1700000000123"), "in the year 5138")
}

// All mistakes are told, not the first alone.
func TestEveryMistakeIsTold(t *testing.T) {
	var lines []string
	for i := range 100 {
		lines = append(lines, fmt.Sprintf("a{b=%d}  x", i))
	}
	report := Check(om(lines...), Options{})
	for _, what := range []string{"not in double quotes", "2 blanks", "not a number"} {
		n := 0
		for _, finding := range report.Findings {
			if strings.Contains(finding.What, what) {
				n++
			}
		}
		if n != 100 {
			t.Errorf("%s: %d times", what, n)
		}
	}
}

func TestLimits(t *testing.T) {
	report := Check(strings.Repeat("a", MaxBytes+1), Options{})
	if !report.Failed() || !strings.Contains(report.Findings[0].What, "at most 67108864 are read") {
		t.Errorf("%+v", report.Findings)
	}
	report = Check(strings.Repeat("-\n", MaxFindings), Options{})
	if len(report.Findings) != MaxFindings || report.Left == 0 {
		t.Errorf("%d findings, %d left", len(report.Findings), report.Left)
	}
	labels := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `l%d="",`, i)
		}
		return om("# TYPE a gauge", "a{"+strings.TrimSuffix(b.String(), ",")+"} 1")
	}
	if report := Check(labels(MaxLabels), Options{}); report.Failed() {
		t.Errorf("as many labels as there may be: %+v", report.Findings)
	}
	many := Check(labels(MaxLabels+1), Options{})
	if !many.Failed() || !strings.Contains(fmt.Sprint(many.Findings), "one label more than 200") {
		t.Errorf("one label more: %+v", many.Findings)
	}
	var out strings.Builder
	if err := report.Text(&out); err != nil || !strings.Contains(out.String(), " more findings\n") {
		t.Error("nothing says that there are more findings")
	}
	long := Check(om(`a{b="`+strings.Repeat("é", 100_000)+`"} x`), Options{})
	if f := long.Findings[0]; len(f.Text) > 1000 || !strings.Contains(f.Text, "} x") {
		t.Errorf("a long line is shown as %q", f.Text)
	}
}

// What the terminal would obey is shown, not sent.
func TestFindingsArePrintable(t *testing.T) {
	report := Check(om("a{b=\"\x1b[2J\u202e\"} 1 # \x1b[31m", "# TYPE a \x1b[31m"), Options{})
	var out strings.Builder
	if err := report.Text(&out); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\u202e") || !strings.Contains(out.String(), "␛[2J") {
		t.Errorf("%q", out.String())
	}
}
