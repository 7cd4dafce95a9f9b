package monitoring

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
	"github.com/kaon-project/kaon/programs"
)

// metric is what can be known of a family without an agent.
type metric struct {
	kind   program.Type
	labels []string
	states []program.State
	// values are those that a label can have, where the Program says so.
	values map[string][]string
	// program that exposes it, and its area; empty for the agent's own.
	program, area string
	// optional metrics are exposed if a param says so.
	optional bool
}

// targetLabels are those that Prometheus adds.
func targetLabels() []string { return []string{"instance", "job", "node"} }

// exposed is everything that an agent with the whole library exposes, by family.
func exposed(t *testing.T) map[string]metric {
	t.Helper()
	all := map[string]metric{
		"up": {kind: program.Gauge},
		// Of client_golang and package server.
		"process_cpu_seconds_total": {kind: program.Counter}, "process_resident_memory_bytes": {kind: program.Gauge},
		"process_start_time_seconds": {kind: program.Gauge},
		"kaon_scrapes_total":         {kind: program.Counter, labels: []string{"result"}},
	}
	for _, name := range programs.Names() {
		spec, err := programs.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range spec.Readers {
			for i := range r.Metrics {
				all[r.Metrics[i].Name] = describe(name, &r.Metrics[i])
			}
		}
	}
	// The agent's own: a test of package agent holds the page to what is exposed.
	page, err := os.ReadFile("../../docs/reference/self-metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([a-z, ]*) \\|").FindAllStringSubmatch(string(page), -1) {
		all[row[1]] = metric{kind: program.Type(row[2]), labels: strings.FieldsFunc(row[3], func(r rune) bool { return r == ',' || r == ' ' })}
	}
	return all
}

func describe(name string, m *program.Metric) metric {
	known := metric{kind: m.Type, states: m.States, values: map[string][]string{}, program: name, area: programs.Area(name), optional: m.When != ""}
	workloads := 0
	for _, l := range m.Labels {
		if l.Decoder != "workload" {
			known.labels = append(known.labels, l.Name)
			for _, s := range l.Enum {
				known.values[l.Name] = append(known.values[l.Name], s.Name)
			}
			continue
		}
		prefix := "" // a second one's labels have its name in front
		if workloads++; workloads > 1 {
			prefix = l.Name + "_"
		}
		for _, name := range workload.Labels {
			known.labels = append(known.labels, prefix+name)
		}
	}
	if m.CPULabel {
		known.labels = append(known.labels, "cpu")
	}
	return known
}

// substitute replaces Grafana's variables as Grafana does with nothing chosen.
func substitute(expr string) string {
	expr = strings.NewReplacer("$__rate_interval", "5m", "$__range", "10m").Replace(expr)
	return regexp.MustCompile(`\$[a-z]+`).ReplaceAllString(expr, ".*")
}

// expression is one of the dashboard's or of an alert, and where it stands.
type expression struct {
	where, expr string
	row         *Row
	panel       *Panel
}

// expressions are those that are about what agents expose.
func expressions() []expression {
	all := expressionsOf(Library())
	for _, a := range Alerts() {
		all = append(all, expression{where: "alert " + a.Name, expr: a.Expr})
	}
	return all
}

func expressionsOf(d *Dashboard) []expression {
	var all []expression
	for _, row := range d.Rows {
		for _, p := range row.Panels {
			for i, q := range p.Queries {
				all = append(all, expression{fmt.Sprintf("panel %q in %q, query %d", p.Title, row.Title, i+1), substitute(q.Expr), &row, &p})
			}
		}
	}
	return all
}

func parse(t *testing.T, expr string) parser.Expr {
	t.Helper()
	parsed, err := parser.NewParser(parser.Options{}).ParseExpr(expr)
	if err != nil {
		t.Fatalf("%v: %s", err, expr)
	}
	return parsed
}

func selectors(t *testing.T, expr string) []*parser.VectorSelector {
	t.Helper()
	var found []*parser.VectorSelector
	parser.Inspect(parse(t, expr), func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok {
			found = append(found, v)
		}
		return nil
	})
	return found
}

// check demands that an expression asks for metrics, labels and values that there are.
func check(t *testing.T, all map[string]metric, where, expr string) {
	t.Helper()
	var known []string // labels of all metrics in it
	for _, v := range selectors(t, expr) {
		m, suffix, ok := family(all, v.Name)
		if !ok {
			t.Errorf("%s: nothing exposes %s", where, v.Name)
			continue
		}
		mine := slices.Concat(m.labels, targetLabels(), workload.Labels[:])
		if suffix == "_bucket" {
			mine = append(mine, "le")
		}
		if m.kind == program.StateSet {
			mine = append(mine, v.Name)
		}
		for _, matcher := range v.LabelMatchers {
			if matcher.Name != "__name__" && !slices.Contains(mine, matcher.Name) {
				t.Errorf("%s: %s has no label %s", where, v.Name, matcher.Name)
			}
			for _, value := range alternatives(matcher) {
				if possible := m.values[matcher.Name]; possible != nil && value != "" && !slices.Contains(possible, value) {
					t.Errorf("%s: %s of %s is never %q", where, matcher.Name, v.Name, value)
				}
			}
		}
		known = append(known, mine...)
	}
	parser.Inspect(parse(t, expr), func(node parser.Node, _ []parser.Node) error {
		if a, ok := node.(*parser.AggregateExpr); ok {
			for _, l := range a.Grouping {
				if !slices.Contains(known, l) {
					t.Errorf("%s: groups by %s, which none of its metrics has", where, l)
				}
			}
		}
		return nil
	})
}

// alternatives are the values that a matcher names, if it names any.
func alternatives(m *labels.Matcher) []string {
	var values []string
	for value := range strings.SplitSeq(m.Value, "|") {
		if regexp.QuoteMeta(value) == value {
			values = append(values, value)
		}
	}
	return values
}

// Every expression is PromQL of metrics and labels that there are.
func TestExpressions(t *testing.T) {
	all := exposed(t)
	for _, e := range expressions() {
		check(t, all, e.where, e.expr)
	}
}

// So is every query of the pages that belong to it.
func TestQueriesOfPages(t *testing.T) {
	all := exposed(t)
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range append(pages, "../../docs/how-to/golden-signals.md", "../../docs/how-to/queries.md") {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?ms)^```promql\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
			for query := range strings.SplitSeq(block[1], "\n\n") {
				found++
				check(t, all, filepath.Base(path), query)
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d queries", found)
	}
}

// family finds the metric of a series' name.
func family(all map[string]metric, name string) (m metric, suffix string, ok bool) {
	if m, ok = all[name]; ok {
		return m, "", true
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, cut := strings.CutSuffix(name, suffix); cut {
			if m, ok := all[base]; ok && (m.kind == program.Histogram || m.kind == program.Summary) {
				return m, suffix, true
			}
		}
	}
	return metric{}, "", false
}

// library is series of the metrics that an expression asks for: of two workloads, all counters growing, with labels as they are asked for.
func library(t *testing.T, all map[string]metric, expr string) string {
	matchers := map[string][]*labels.Matcher{}
	for _, v := range selectors(t, expr) {
		name := v.Name
		if _, ok := all[name]; !ok {
			name = name[:strings.LastIndex(name, "_")]
		}
		matchers[name] = append(matchers[name], v.LabelMatchers...)
	}
	value := func(name, label string) string {
		var candidates []string
		match := func(string) bool { return true }
		for _, m := range matchers[name] {
			if m.Name != label {
				continue
			}
			if m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp {
				candidates = append(candidates, alternatives(m)...)
			}
			before := match
			match = func(value string) bool { return before(value) && m.Matches(value) }
		}
		candidates = append(append(candidates, all[name].values[label]...), label+"-1", "intel-rapl:0")
		if i := slices.IndexFunc(candidates, match); i >= 0 {
			return candidates[i]
		}
		return candidates[0]
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(matchers)) {
		m := all[name]
		for i, container := range []string{"web", "db"} {
			set := fmt.Sprintf(`instance="a:9497",job="kaon",n="%d"`, i)
			for _, l := range m.labels {
				value := value(name, l)
				switch l {
				case "container":
					value = container
				case "le":
					continue
				}
				set += fmt.Sprintf(",%s=%q", l, value)
			}
			grow := fmt.Sprintf("0+%dx60", 15*(i+1))
			switch m.kind {
			case program.Histogram:
				for _, le := range []string{"0.001", "1", "+Inf"} {
					fmt.Fprintf(&b, "%s_bucket{%s,le=%q} %s\n", name, set, le, grow)
				}
				fmt.Fprintf(&b, "%s_sum{%s} %s\n%s_count{%s} %s\n", name, set, grow, name, set, grow)
			case program.Counter:
				fmt.Fprintf(&b, "%s{%s} %s\n", name, set, grow)
			case program.StateSet:
				for _, s := range m.states {
					fmt.Fprintf(&b, "%s{%s,%s=%q} 1x60\n", name, set, name, s.Name)
				}
			default:
				fmt.Fprintf(&b, "%s{%s} %dx60\n", name, set, i)
			}
		}
	}
	return b.String()
}

// No panel is dead: with the library's series there, each query has a result.
func TestPanels(t *testing.T) {
	all := exposed(t)
	engine := newEngine(t)
	for _, e := range expressions() {
		if e.panel == nil {
			continue // TestAlerts
		}
		if result := evaluate(t, engine, newMemory(t, library(t, all, e.expr)), e.expr, 15*time.Minute); len(result) == 0 {
			t.Errorf("%s shows nothing: %s", e.where, e.expr)
		}
	}
}
