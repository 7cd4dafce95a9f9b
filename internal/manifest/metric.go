package manifest

import (
	"fmt"
	"maps"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// place is where a metric stands in the spec.
type place struct{ reader, metric int }

func (a *applier) metrics(metrics []v1alpha1.Metric) {
	var entries []struct {
		field string
		place place
	}
	removed := map[place]bool{}
	declared := a.families()
	names := slices.Sorted(maps.Keys(declared))
	for i := range metrics {
		m, field := &metrics[i], fmt.Sprintf("spec.metrics[%d]", i)
		if m.From != nil && m.Metric != "" || m.From == nil && m.Metric == "" {
			fix := "write metric: FAMILY to change what the source declares, or from: {...} for a new one"
			if m.Metric == "" && m.Name != "" && declared[m.Name] != nil {
				fix = "write metric: " + m.Name
			}
			a.problem(field, v1alpha1.WantOneMetric, fix)
			continue
		}
		var places []place
		if m.From != nil {
			if m.Disabled {
				continue
			}
			p, ok := a.create(field, m)
			if !ok {
				continue
			}
			places = []place{p}
		} else {
			if places = declared[m.Metric]; len(places) == 0 {
				a.problem(field+".metric", fmt.Sprintf("%s has no metric %q", a.spec.Name, m.Metric), choice(m.Metric, names))
				continue
			}
			if first, twice := a.changed["metric "+m.Metric]; twice {
				a.problem(field+".metric", fmt.Sprintf("%s is already changed by %s", m.Metric, first), "merge the two")
				continue
			}
			a.changed["metric "+m.Metric] = field
		}
		for _, p := range places {
			if m.Disabled {
				removed[p] = true
				continue
			}
			reader := &a.spec.Readers[p.reader]
			a.change(field, reader, &reader.Metrics[p.metric], m)
			entries = append(entries, struct {
				field string
				place place
			}{field, p})
		}
	}
	// What was changed is checked as a whole, after everything is in its place.
	total := 0
	for r := range a.spec.Readers {
		total += len(a.spec.Readers[r].Metrics)
	}
	if total > MaxMetrics {
		a.problem("spec.metrics", fmt.Sprintf("the Program would have %d metrics", total), fmt.Sprintf("at most %d are allowed", MaxMetrics))
	}
	for _, e := range entries {
		if removed[e.place] {
			continue
		}
		metric := &a.spec.Readers[e.place.reader].Metrics[e.place.metric]
		a.checkLabels(e.field, metric)
		for r := range a.spec.Readers {
			for j := range a.spec.Readers[r].Metrics {
				other := place{r, j}
				o := &a.spec.Readers[r].Metrics[j]
				if other != e.place && !removed[other] && o.Name == metric.Name && o.When == metric.When && o.Unless == metric.Unless {
					a.problem(e.field, fmt.Sprintf("the metric %s is also made from %s", metric.Name, a.spec.Readers[r].Name), "give one of them another name")
				}
			}
		}
	}
	for r := range a.spec.Readers {
		reader := &a.spec.Readers[r]
		kept := reader.Metrics[:0]
		for j := range reader.Metrics {
			if !removed[place{r, j}] {
				kept = append(kept, reader.Metrics[j])
			}
		}
		reader.Metrics = kept
	}
}

// families returns where each family stands; in several places if they exclude each other by when and unless.
func (a *applier) families() map[string][]place {
	families := map[string][]place{}
	for r := range a.spec.Readers {
		for j := range a.spec.Readers[r].Metrics {
			name := a.spec.Readers[r].Metrics[j].Name
			families[name] = append(families[name], place{r, j})
		}
	}
	return families
}

var metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*$`)

// change applies m to a metric that exists, or that create just made.
func (a *applier) change(field string, reader *program.Reader, metric *program.Metric, m *v1alpha1.Metric) {
	name := metric.Name
	if typ := program.Type(m.Type); m.Type != "" && typ != metric.Type {
		if kin(typ) == "" || kin(typ) != kin(metric.Type) {
			a.problem(field+".type", fmt.Sprintf("a %s can't become a %s", metric.Type, typ), "make a new metric by from")
		}
		if metric.Type == program.Counter {
			name = strings.TrimSuffix(name, "_total")
		}
		metric.Type = typ
	}
	if m.Name != "" {
		if name = m.Name; !metricName.MatchString(name) || len(name) > 255 {
			a.problem(field+".name", fmt.Sprintf("%q can't be a metric's name", name), "use letters, digits and _")
		}
	}
	metric.Name = object.FamilyName(name, metric.Type)
	if m.Help != "" {
		metric.Help = m.Help
	}
	if m.Scale != "" {
		scale, err := parseScale(string(m.Scale))
		switch {
		case err != "":
			a.problem(field+".scale", err, "write NUMERATOR/DENOMINATOR or a decimal number")
		case metric.Type == program.Info || metric.Type == program.StateSet:
			a.problem(field+".scale", fmt.Sprintf("metrics of type %s have no number to scale", metric.Type), "remove it")
		case metric.Buckets != nil && len(metric.Buckets.Bounds) == 0 && m.From == nil && scale != metric.Scale:
			a.problem(field+".scale", "the program counts its buckets in the unit already", "remove it, or change the program")
		default:
			metric.Scale = scale
		}
	}
	if m.Unit != "" {
		metric.Unit = m.Unit
	}
	if (m.Unit != "" || m.Name != "") && metric.Unit != "" {
		stem := strings.TrimSuffix(metric.Name, "_total")
		if !strings.HasSuffix(stem, "_"+metric.Unit) && stem != metric.Unit {
			a.problem(field, fmt.Sprintf("the unit is %s, but the name %s does not end in it", metric.Unit, metric.Name),
				"call it "+object.FamilyName(stem+"_"+metric.Unit, metric.Type))
		}
	}
	if m.Labels != nil {
		a.labels(field+".labels", reader, metric, m.Labels)
	}
	a.staticLabels(field+".staticLabels", metric, m.StaticLabels)
	if m.CPULabel != nil {
		if *m.CPULabel && !a.perCPU(reader) {
			a.problem(field+".cpuLabel", fmt.Sprintf("%s is no per-CPU map", reader.Name), "remove it")
		}
		metric.CPULabel = *m.CPULabel
	}
	if m.Limit != 0 {
		metric.Limit = m.Limit
	}
	if m.States != nil && m.From == nil {
		a.problem(field+".states", "only new metrics can be given states", "make a new metric by from")
	}
	a.buckets(field, metric, m)
}

// kin groups the types that can be turned into each other.
func kin(t program.Type) string {
	switch t {
	case program.Counter, program.Gauge, program.Unknown:
		return "number"
	case program.Histogram, program.GaugeHistogram:
		return "histogram"
	}
	return ""
}

func (a *applier) perCPU(reader *program.Reader) bool {
	m := a.spec.Collection.Maps[reader.Name]
	if reader.Kind != program.MapReader || m == nil {
		return false
	}
	switch m.Type {
	case ebpf.PerCPUHash, ebpf.PerCPUArray, ebpf.LRUCPUHash, ebpf.PerCPUCGroupStorage:
		return true
	}
	return false
}

// parseScale returns an exact ratio, or what is wrong.
func parseScale(text string) (program.Scale, string) {
	bad := fmt.Sprintf("the scale %q is not a ratio above 0", text)
	if len(text) > 64 {
		return program.Scale{}, "the scale is too long"
	}
	if num, den, ok := strings.Cut(text, "/"); ok {
		n, err1 := strconv.ParseUint(strings.TrimSpace(num), 10, 64)
		d, err2 := strconv.ParseUint(strings.TrimSpace(den), 10, 64)
		if err1 != nil || err2 != nil || n == 0 || d == 0 {
			return program.Scale{}, bad
		}
		return reduced(new(big.Rat).SetFrac(new(big.Int).SetUint64(n), new(big.Int).SetUint64(d)))
	}
	// The float only bounds the size: huge exponents would make huge ratios.
	if f, err := strconv.ParseFloat(text, 64); err != nil || !(f >= 1e-19 && f <= 1e19) {
		return program.Scale{}, bad
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return program.Scale{}, bad
	}
	return reduced(r)
}

func reduced(r *big.Rat) (program.Scale, string) {
	if !r.Num().IsUint64() || !r.Denom().IsUint64() {
		return program.Scale{}, "the scale does not fit in a ratio of 64-bit numbers"
	}
	return program.Scale{Num: r.Num().Uint64(), Den: r.Denom().Uint64()}, ""
}
