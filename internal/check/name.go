package check

import (
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

var (
	validMetric = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)
	validLabel  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
)

// baseUnits are what Prometheus recommends and a name may end in.
var baseUnits = []string{"seconds", "bytes", "ratio", "volts", "amperes", "joules", "grams", "meters", "celsius", "hertz"}

// names checks names, units, help texts, and that no two families share a sample name.
func (c *checker) names() {
	c.metrics(func(_ *program.Reader, m *program.Metric) {
		where := whereMetric(m)
		switch {
		case m.Name == "" || !utf8.ValidString(m.Name):
			c.error(where, "its name is empty or not UTF-8", "rename it with KAON_NAME")
		case !validMetric.MatchString(m.Name):
			c.warn(where, "its name has other characters than letters, digits and _", "rename it: old scrapers get it escaped")
		}
		if c.spec.ForeignNames {
			if m.Type == program.Counter && !strings.HasSuffix(m.Name, "_total") {
				c.warn(where, "it does not end in _total: in OpenMetrics it is of the type unknown", "rename it together with what queries it")
			}
			return
		}
		c.suffix(where, m)
		c.unit(where, m)
		switch {
		case strings.TrimSpace(m.Help) == "":
			c.warn(where, "it has no help", "say in one sentence what it counts")
		case !strings.HasSuffix(m.Help, "."):
			c.warn(where, fmt.Sprintf("its help %q does not end with a period", m.Help), "write a sentence")
		}
		for _, text := range lint(m) {
			c.warn(where, text, "")
		}
	})
	c.clashes()
}

// suffix checks the endings that have a meaning in expositions.
func (c *checker) suffix(where string, m *program.Metric) {
	want := map[program.Type]string{program.Counter: "_total", program.Info: "_info"}[m.Type]
	if want != "" && !strings.HasSuffix(m.Name, want) {
		c.error(where, fmt.Sprintf("the name of a %s must end in %s", m.Type, want), "rename it to "+m.Name+want)
	}
	for _, s := range []string{"_total", "_info", "_bucket", "_sum", "_count", "_created", "_gsum", "_gcount"} {
		name := strings.TrimSuffix(m.Name, want)
		if strings.HasSuffix(name, s) && m.Type != program.Unknown {
			c.error(where, fmt.Sprintf("the ending %s belongs to other samples than those of a %s", s, m.Type), "rename it, for instance to "+strings.TrimSuffix(name, s)+want)
		}
	}
}

func (c *checker) unit(where string, m *program.Metric) {
	name := strings.TrimSuffix(m.Name, "_total")
	if m.Unit != "" {
		if !strings.HasSuffix(name, "_"+m.Unit) && name != m.Unit {
			c.error(where, fmt.Sprintf("its unit is %s, which its name must end in", m.Unit), "rename it to "+withUnit(m))
		}
		if m.Type == program.Info || m.Type == program.StateSet {
			c.error(where, fmt.Sprintf("a %s has no unit", m.Type), "remove the unit")
		}
		return
	}
	for _, unit := range baseUnits {
		if strings.HasSuffix(name, "_"+unit) {
			c.warn(where, fmt.Sprintf("its name ends in %s, but it has no unit", unit), fmt.Sprintf("write KAON_UNIT(%q)", unit))
		}
	}
}

func withUnit(m *program.Metric) string {
	if name, ok := strings.CutSuffix(m.Name, "_total"); ok {
		return name + "_" + m.Unit + "_total"
	}
	return m.Name + "_" + m.Unit
}

// lint applies promlint's rules, except those about endings and help texts, which are checked with more to say above.
func lint(m *program.Metric) []string {
	types := map[program.Type]dto.MetricType{
		program.Counter: dto.MetricType_COUNTER, program.Histogram: dto.MetricType_HISTOGRAM,
		program.GaugeHistogram: dto.MetricType_GAUGE_HISTOGRAM, program.Summary: dto.MetricType_SUMMARY,
		program.Unknown: dto.MetricType_UNTYPED,
	}
	typ, ok := types[m.Type]
	if !ok {
		typ = dto.MetricType_GAUGE
	}
	sample := &dto.Metric{}
	for _, name := range labelNames(m) {
		sample.Label = append(sample.Label, &dto.LabelPair{Name: proto.String(name), Value: proto.String("x")})
	}
	family := &dto.MetricFamily{Name: proto.String(m.Name), Help: proto.String(m.Help), Type: typ.Enum(), Metric: []*dto.Metric{sample}}
	problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{family}).Lint()
	if err != nil {
		return []string{err.Error()}
	}
	var texts []string
	for _, p := range problems {
		if !strings.Contains(p.Text, "suffix") && !strings.Contains(p.Text, "help") && !strings.Contains(p.Text, `label`+"\"") && !strings.Contains(p.Text, `" label`) {
			texts = append(texts, p.Text)
		}
	}
	return texts
}

// labelNames lists the labels that a metric's series may have.
func labelNames(m *program.Metric) []string {
	var names []string
	workloads := 0
	for _, l := range m.Labels {
		if l.Decoder != "workload" {
			names = append(names, l.Name)
			continue
		}
		prefix := ""
		if workloads++; workloads > 1 { // who else took part
			prefix = l.Name + "_"
		}
		for _, name := range workload.Labels {
			names = append(names, prefix+name)
		}
	}
	for _, l := range m.StaticLabels {
		names = append(names, l.Name)
	}
	if m.CPULabel {
		names = append(names, "cpu")
	}
	return names
}

func (c *checker) labels() {
	c.metrics(func(_ *program.Reader, m *program.Metric) {
		where := whereMetric(m)
		family := strings.TrimSuffix(m.Name, "_total")
		seen := map[string]bool{}
		for _, name := range labelNames(m) {
			const rename = "rename it with KAON_LABEL, or in the manifest"
			switch {
			case name == "le" || name == "quantile" || name == "overflow":
				c.error(where, fmt.Sprintf("the label name %q has a meaning of its own in expositions", name), rename)
			case strings.HasPrefix(name, "__"):
				c.error(where, fmt.Sprintf("the label name %q begins with two underscores, which Prometheus keeps for itself", name), rename)
			case m.Type == program.StateSet && name == family:
				c.error(where, fmt.Sprintf("the label %q has the name of the stateset, which is its states' label", name), rename)
			case !validLabel.MatchString(name):
				c.error(where, fmt.Sprintf("%q is not a label's name", name), "use letters, digits and _: "+rename)
			case seen[name]:
				c.error(where, fmt.Sprintf("it has two labels called %q", name), rename)
			}
			seen[name] = true
		}
	})
}

// clashes finds families whose samples would have the same name. Families that never
// exist together, because of their conditions, may share names.
func (c *checker) clashes() {
	type owner struct {
		metric *program.Metric
		reader *program.Reader
	}
	owners := map[string][]owner{}
	c.metrics(func(r *program.Reader, m *program.Metric) {
		reported := map[*program.Metric]bool{}
		for _, sample := range m.SampleNames() {
			for _, other := range owners[sample] {
				if exclusive(m, other.metric) || reported[other.metric] {
					continue
				}
				reported[other.metric] = true
				if m.Name == other.metric.Name {
					c.error(whereMetric(m), fmt.Sprintf("it is made from both %s and %s", other.reader.Name, r.Name), "give one of them another name with KAON_NAME")
				} else {
					c.error(whereMetric(m), fmt.Sprintf("its samples and those of %s %s are both called %s", other.metric.Type, other.metric.Name, sample), "rename one of them")
				}
			}
			owners[sample] = append(owners[sample], owner{m, r})
		}
	})
}

func exclusive(a, b *program.Metric) bool {
	return a.When != "" && a.When == b.Unless || a.Unless != "" && a.Unless == b.When
}

// Together returns what is wrong between Programs that run in one agent: families with the same name.
func Together(specs []*program.Spec) []Finding {
	var findings []Finding
	owners := map[string]*program.Spec{}
	metrics := map[string]*program.Metric{}
	for _, spec := range specs {
		for i := range spec.Readers {
			for j := range spec.Readers[i].Metrics {
				m := &spec.Readers[i].Metrics[j]
				for _, sample := range m.SampleNames() {
					other := owners[sample]
					if other == nil {
						owners[sample], metrics[sample] = spec, m
						continue
					}
					if other == spec || program.Compatible(m, metrics[sample]) == nil {
						continue
					}
					findings = append(findings, Finding{Error, whereMetric(m),
						fmt.Sprintf("%s and %s both export %s", other.Name, spec.Name, sample),
						"tell them apart by a static label in a manifest, rename one, or don't run both"})
					break
				}
			}
		}
	}
	return findings
}
