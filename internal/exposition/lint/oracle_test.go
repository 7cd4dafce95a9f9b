package lint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	promexemplar "github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
)

// server parses as Prometheus' server does.
func server(body string, format Format) error {
	var p textparse.Parser
	if format == OpenMetrics {
		p = textparse.NewOpenMetricsParser([]byte(body), labels.NewSymbolTable())
	} else {
		p = textparse.NewPromParser([]byte(body), labels.NewSymbolTable(), false)
	}
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if entry == textparse.EntrySeries {
			var l labels.Labels
			p.Labels(&l)
			if name, twice := l.HasDuplicateLabelNames(); twice {
				return fmt.Errorf("label %s twice", name)
			}
			for e := (promexemplar.Exemplar{}); p.Exemplar(&e); {
			}
		}
	}
}

// library parses as Prometheus' library for Go does. It knows the older format only.
func library(body string) error {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	_, err := parser.TextToMetricFamilies(strings.NewReader(body))
	return err
}

// strict asks the strict OpenMetrics parser, Debian's python3-prometheus-client: "" is what it accepts.
func strict(t *testing.T, bodies ...string) []string {
	t.Helper()
	const script = `
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
	command := exec.Command(python, "-c", script)
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

// What these tables call refused is refused by somebody else too, so that the checker is not stricter there than others.
func TestParsersRefuseThese(t *testing.T) {
	var bodies []string
	for _, m := range refusedOpenMetrics() {
		bodies = append(bodies, m.body)
	}
	for i, problem := range strict(t, bodies...) {
		if problem == "" && server(bodies[i], OpenMetrics) == nil {
			t.Errorf("all parsers accept %q", bodies[i])
		}
	}
	for _, m := range refusedText() {
		if server(m.body, Text) == nil && library(m.body) == nil {
			t.Errorf("all parsers accept %q", m.body)
		}
	}
}

// good are expositions with nothing wrong in them.
func good() (openMetrics, text []string) {
	openMetrics = []string{
		"# EOF", "# EOF\n",
		om("# TYPE a gauge", "# HELP a x", "a 1"),
		om("# HELP a x", "# TYPE a counter", `a_total{b="c"} 1`, `a_created{b="c"} 1700000000.5`, `a_total{b="d"} 17`),
		om("# TYPE a_seconds counter", "# UNIT a_seconds seconds", "# HELP a_seconds x", "a_seconds_total 1.5e+06"),
		om("# HELP a He said \\\"x\\\".\\nThen \\\\.", "# TYPE a gauge", `a{b="\\\n\""} NaN`, `a{b="} # {"} -Inf`),
		om("# HELP a x", "# TYPE a unknown", "a -0"),
		om("# HELP a x", "# TYPE a gauge", "a{} 1"),
		om("# HELP a ", "# UNIT a ", "# TYPE a gauge"),
		om("# HELP a x", "# TYPE a histogram", `a_bucket{b="c",le="0.5"} 1 # {t="i"} 0.25 1700000000.5`, `a_bucket{b="c",le="+Inf"} 2 # {} 1`, `a_sum{b="c"} 2`, `a_count{b="c"} 2`,
			`a_bucket{b="d",le="+Inf"} 0`),
		om("# HELP a x", "# TYPE a histogram", `a_bucket{le="-1.0"} 1`, `a_bucket{le="+Inf"} 2`),
		om("# HELP a x", "# TYPE a gaugehistogram", `a_bucket{le="0.0"} 1`, `a_bucket{le="+Inf"} 2`, "a_gsum 2", "a_gcount 2"),
		om("# HELP a x", "# TYPE a summary", `a{quantile="0.5"} 1`, `a{quantile="1.0"} NaN`, "a_sum 2", "a_count 2", "a_created 1"),
		om("# HELP a x", "# TYPE a info", `a_info{b="c"} 1`, `a_info{b="d"} 1`),
		om("# HELP a x", "# TYPE a stateset", `a{a="on",b="c"} 1`, `a{a="off",b="c"} 0`),
		om("# HELP a x", "# TYPE a counter", `a_total 1 # {b="`+strings.Repeat("é", 127)+`"} 1`),
		om("# HELP b x", "# TYPE b gauge", "b 1", "# HELP a x", "# TYPE a gauge", "a 1"),
	}
	text = []string{
		"", "\n", "# a comment\n\n#\n",
		"# HELP a x\n# TYPE a gauge\na 1\n",
		"# HELP a_total x\n# TYPE a_total counter\na_total{b=\"c\",} 1\n \ta_total  {\tb = \"d\" , c=\"\\\\\\n\\\"\" }  +Inf\n",
		"# HELP a x\n# TYPE a untyped\na{} NaN\n",
		"# HELP a\n# TYPE a gauge\n",
		"#\tHELP \ta  x \\\\ \\n y\n#  TYPE  a\tsummary\na{quantile=\"0.5\"} -1\na_sum NaN\na_count 2\n",
		"# HELP a x\n# TYPE a histogram\na_bucket{le=\"1\"} 1\na_bucket{le=\"1e1\"} 1\na_bucket{le=\"+Inf\"} 2\na_sum -1\na_count 2\n",
	}
	return openMetrics, text
}

func TestGoodExpositions(t *testing.T) {
	openMetrics, texts := good()
	for i, problem := range strict(t, openMetrics...) {
		report := Check(openMetrics[i], Options{})
		if err := server(openMetrics[i], OpenMetrics); err != nil || problem != "" {
			t.Errorf("%q is not good: %v %s", openMetrics[i], err, problem)
		}
		if report.Failed() || report.Samples > 0 && !strings.Contains(openMetrics[i], "a ") && len(report.Findings) > 0 {
			t.Errorf("%q: %+v", openMetrics[i], report.Findings)
		}
	}
	for _, body := range texts {
		if err := errors.Join(server(body, Text), library(body)); err != nil {
			t.Errorf("%q is not good: %v", body, err)
		}
		if report := Check(body, Options{Format: Text}); report.Failed() {
			t.Errorf("%q: %+v", body, report.Findings)
		}
	}
}

// mutate changes a text a little, at random.
func mutate(random *rand.Rand, body string) string {
	const inserted = " \n{}\"\\=,#_-+.:0159aeEinfNaNltotal\té"
	for range 1 + random.IntN(3) {
		if len(body) == 0 {
			return body
		}
		at := random.IntN(len(body))
		switch random.IntN(5) {
		case 0:
			body = body[:at] + body[at+1:]
		case 1:
			part := random.IntN(len(inserted) - 1)
			body = body[:at] + inserted[part:part+1] + body[at:]
		case 2: // a piece twice
			to := min(len(body), at+1+random.IntN(12))
			body = body[:to] + body[at:]
		case 3: // two lines change places
			lines := strings.SplitAfter(body, "\n")
			i, j := random.IntN(len(lines)), random.IntN(len(lines))
			lines[i], lines[j] = lines[j], lines[i]
			body = strings.Join(lines, "")
		case 4: // a line of another place twice
			lines := strings.SplitAfter(body, "\n")
			i, j := random.IntN(len(lines)), random.IntN(len(lines))
			lines[i] += lines[j]
			body = strings.Join(lines, "")
		}
	}
	return body
}

// What the checker accepts, all parsers accept: tried with good expositions that were changed a little.
func TestAcceptedByParsers(t *testing.T) {
	openMetrics, texts := good()
	random := rand.New(rand.NewPCG(1, 2))
	const each = 800
	var accepted []string
	for _, body := range openMetrics {
		for range each {
			changed := strings.ToValidUTF8(mutate(random, body), "?")
			if Check(changed, Options{Format: OpenMetrics}).Failed() {
				continue
			}
			if err := server(changed, OpenMetrics); err != nil {
				t.Errorf("the server refuses %q: %v", changed, err)
			}
			if !misread(changed) {
				accepted = append(accepted, changed)
			}
		}
	}
	for i, problem := range strict(t, accepted...) {
		if problem != "" {
			t.Errorf("the strict parser refuses %q: %s", accepted[i], problem)
		}
	}
	n := 0
	for _, body := range texts {
		for range each {
			changed := mutate(random, body)
			report := Check(changed, Options{Format: Text})
			if report.Failed() {
				continue
			}
			n++
			err := server(changed, Text)
			if !warned(report) {
				err = errors.Join(err, library(changed))
			}
			if err != nil {
				t.Errorf("a parser refuses %q: %v", changed, err)
			}
		}
	}
	t.Logf("%d and %d changed expositions were accepted", len(accepted), n)
	if len(accepted) < 100 || n < 100 {
		t.Errorf("%d and %d changed expositions were accepted: too few to tell anything", len(accepted), n)
	}
}

// warned says whether there is a warning of what the library refuses though it is allowed.
func warned(r *Report) bool {
	return slices.ContainsFunc(r.Findings, func(f Finding) bool { return strings.Contains(f.What, "at the end of the line") })
}

// misread says whether Debian's strict parser (0.16) can't read something that is right: names in quotes, which are newer than it,
// and exemplars in whose labels are braces, quotes or commas.
func misread(body string) bool {
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "{") || strings.Contains(line, `{"`) || strings.Contains(line, `,"`) || strings.HasPrefix(line, "# ") && strings.Contains(line, ` "`) && !strings.HasPrefix(line, "# HELP a") {
			return true
		}
		if _, after, ok := strings.Cut(line, " # {"); ok && strings.ContainsAny(after, `\{,`) {
			return true
		}
	}
	return false
}

func FuzzCheck(f *testing.F) {
	openMetrics, texts := good()
	for _, body := range openMetrics {
		f.Add(body, true)
	}
	for _, body := range texts {
		f.Add(body, false)
	}
	for _, m := range append(refusedOpenMetrics(), ownOpenMetrics()...) {
		f.Add(m.body, true)
	}
	for _, m := range append(refusedText(), ownText()...) {
		f.Add(m.body, false)
	}
	f.Fuzz(func(t *testing.T, body string, isOpenMetrics bool) {
		format := Text
		if isOpenMetrics {
			format = OpenMetrics
		}
		report := Check(body, Options{Format: format})
		var out strings.Builder
		if err := report.Text(&out); err != nil {
			t.Fatal(err)
		}
		for _, finding := range report.Findings {
			if finding.What == "" || finding.Line < 0 || finding.Line > report.Lines || finding.Column > 0 && finding.Width < 1 {
				t.Fatalf("%+v", finding)
			}
		}
		if report.Failed() {
			return
		}
		if err := server(body, format); err != nil {
			t.Fatalf("the server refuses %q: %v", body, err)
		}
		if format == Text {
			if err := library(body); err != nil && !warned(report) {
				t.Fatalf("the library refuses %q: %v", body, err)
			}
		}
	})
}
