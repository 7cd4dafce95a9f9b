package exposition

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// ErrRefused is wrapped by errors about one family: nothing of it was written, the rest is unaffected.
var ErrRefused = errors.New("family left out")

// Group sorts families by name and puts those of the same name (of several
// Programs, told apart by static labels) together. Families that can't be
// written are left out and named in the error, which wraps ErrRefused; groups are valid all the same.
// Nothing is copied: groups point to the given families.
func Group(families []*series.Family) (groups [][]*series.Family, err error) {
	var problems []error
	valid := make([]*series.Family, 0, len(families))
	for _, f := range families {
		if err := check(f); err != nil {
			problems = append(problems, err)
		} else if len(f.Points) > 0 {
			valid = append(valid, f)
		}
	}
	sort.SliceStable(valid, func(i, j int) bool { return valid[i].Metric.Name < valid[j].Metric.Name })
	for start := 0; start < len(valid); {
		first := valid[start].Metric
		end, kept := start+1, start+1
		for ; end < len(valid) && valid[end].Metric.Name == first.Name; end++ {
			if other := valid[end].Metric; other.Type != first.Type {
				problems = append(problems, fmt.Errorf("%w: %s is a %s here and a %s in another Program: rename one of them",
					ErrRefused, first.Name, other.Type, first.Type))
				continue
			}
			valid[kept] = valid[end]
			kept++
		}
		groups = append(groups, valid[start:kept:kept])
		start = end
	}
	return groups, errors.Join(problems...)
}

// check finds families whose rows don't fit their metric, which would make encoders read nonsense.
func check(f *series.Family) error {
	if f == nil || f.Metric == nil {
		return fmt.Errorf("%w: it has no metric", ErrRefused)
	}
	m := f.Metric
	if m.Name == "" || !isName(m.Name) {
		return fmt.Errorf("%w: %q is no name: it must be UTF-8, without NUL and not empty", ErrRefused, m.Name)
	}
	labels := m.Labels
	if m.Exemplar != nil {
		labels = slices.Concat(labels, m.Exemplar.Labels)
	}
	for i := range labels {
		if name := labels[i].Name; !isName(name) || strings.ContainsAny(name, `="`) {
			return fmt.Errorf("%w: %s has a label %q, which is no name", ErrRefused, m.Name, name)
		}
	}
	for i := range m.StaticLabels {
		if name := m.StaticLabels[i].Name; !isName(name) || strings.ContainsAny(name, `="`) {
			return fmt.Errorf("%w: %s has a static label %q, which is no name", ErrRefused, m.Name, name)
		}
	}
	want := 1
	reserved := ""
	switch m.Type {
	case program.Counter, program.Gauge, program.Unknown:
	case program.StateSet:
		reserved = m.Name
	case program.Info:
		want = f.Stride
	case program.Summary:
		want, reserved = 2+len(m.Quantiles), "quantile"
		for _, q := range m.Quantiles {
			if !(q >= 0 && q <= 1) {
				return fmt.Errorf("%w: %s has the quantile %v, which is not in 0..1", ErrRefused, m.Name, q)
			}
		}
	case program.Histogram, program.GaugeHistogram:
		slots, err := slotCount(m.Buckets)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrRefused, m.Name, err)
		}
		want, reserved = 1+slots, "le"
	default:
		return fmt.Errorf("%w: %s has the unknown type %q", ErrRefused, m.Name, m.Type)
	}
	switch {
	case f.Stride != want || f.Stride < 0:
		return fmt.Errorf("%w: %s has rows of %d numbers, a %s like this needs %d", ErrRefused, m.Name, f.Stride, m.Type, want)
	case len(f.Values) < f.Stride*len(f.Points):
		return fmt.Errorf("%w: %s has %d numbers for %d series of %d", ErrRefused, m.Name, len(f.Values), len(f.Points), f.Stride)
	case f.Exemplars != nil && len(f.Exemplars) != len(f.Points):
		return fmt.Errorf("%w: %s has %d exemplars for %d series", ErrRefused, m.Name, len(f.Exemplars), len(f.Points))
	}
	if reserved != "" {
		for i := range m.Labels {
			if m.Labels[i].Name == reserved {
				return fmt.Errorf("%w: %s has a label %q, which is reserved in a %s: rename it", ErrRefused, m.Name, reserved, m.Type)
			}
		}
		for i := range m.StaticLabels {
			if m.StaticLabels[i].Name == reserved {
				return fmt.Errorf("%w: %s has a static label %q, which is reserved in a %s: rename it", ErrRefused, m.Name, reserved, m.Type)
			}
		}
	}
	return nil
}

// isName says whether a name can be written at all, escaped or quoted.
func isName(name string) bool { return utf8.ValidString(name) && strings.IndexByte(name, 0) < 0 }
