package program

import (
	"fmt"
	"slices"
	"strings"
)

// SampleNames returns every name that the family of a metric takes in an exposition.
func (m *Metric) SampleNames() []string {
	base := m.base()
	switch m.Type {
	case Counter:
		return []string{base, base + "_total", base + "_created"}
	case Info:
		return []string{base, base + "_info"}
	case Histogram, Summary:
		names := []string{base, base + "_sum", base + "_count", base + "_created"}
		if m.Type == Histogram {
			names = append(names, base+"_bucket")
		}
		return names
	case GaugeHistogram:
		return []string{base, base + "_bucket", base + "_gsum", base + "_gcount", base + "_sum", base + "_count"}
	}
	return []string{base}
}

// base is what all names of the family begin with.
func (m *Metric) base() string {
	switch m.Type {
	case Counter:
		return trimSuffix(m.Name, "_total")
	case Info:
		return trimSuffix(m.Name, "_info")
	}
	return m.Name
}

func trimSuffix(s, suffix string) string {
	if n := len(s) - len(suffix); n > 0 && s[n:] == suffix {
		return s[:n]
	}
	return s
}

// Excludes reports whether the conditions of two metrics of one Program never hold together.
func (m *Metric) Excludes(o *Metric) bool {
	return m.When != "" && m.When == o.Unless || m.Unless != "" && m.Unless == o.When
}

// Compatible reports why two metrics of different Programs can't be in one
// exposition: nil if they share no name, or if they are one family (same name, type
// and unit) whose series differ in a static label.
func Compatible(a, b *Metric) error {
	if first, second := a.base(), b.base(); !strings.HasPrefix(first, second) && !strings.HasPrefix(second, first) {
		return nil // as nearly always
	}
	names := b.SampleNames()
	shared := slices.IndexFunc(a.SampleNames(), func(name string) bool { return slices.Contains(names, name) })
	if shared < 0 {
		return nil
	}
	if a.Name != b.Name {
		return fmt.Errorf("the metrics %s and %s share the name %s", a.Name, b.Name, a.SampleNames()[shared])
	}
	if a.Type != b.Type || a.Unit != b.Unit {
		return fmt.Errorf("the metric %s is a %s in %q here and a %s in %q there", a.Name, a.Type, a.Unit, b.Type, b.Unit)
	}
	for _, l := range a.StaticLabels {
		for _, other := range b.StaticLabels {
			if l.Name == other.Name && l.Value != other.Value {
				return nil
			}
		}
	}
	return fmt.Errorf("the metric %s has no static label that tells its series apart", a.Name)
}
