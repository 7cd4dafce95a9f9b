package terminal

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// Line is one metric of one program in an overview: all of its series together.
type Line struct {
	Metric string
	Type   program.Type
	Help   string
	Series int
	// Value says in words what there is: a total, a sum, quantiles.
	Value string
	// Rate is per second since the last overview, "" for what has none.
	Rate string
}

// Overview sums metrics up, one line each. It remembers the last collection for rates; the
// zero Overview is ready.
type Overview struct {
	last     map[string][]uint64
	lastTime time.Time
}

// Update returns the lines for what was collected at a time.
func (o *Overview) Update(families []*series.Family, at time.Time) []Line {
	elapsed := at.Sub(o.lastTime).Seconds()
	next := map[string][]uint64{}
	occurrences := map[string]int{}
	var lines []Line
	for _, f := range families {
		if len(f.Points) == 0 {
			continue
		}
		// Several programs may have a metric of the same name.
		key := fmt.Sprintf("%s %d", f.Metric.Name, occurrences[f.Metric.Name])
		occurrences[f.Metric.Name]++
		sum := make([]uint64, f.Stride)
		for i := range f.Points {
			for j, n := range f.Row(i) {
				sum[j] += n
			}
		}
		next[key] = sum
		before := o.last[key]
		if len(before) != len(sum) || elapsed <= 0 {
			before = nil // new, or its buckets changed with a reload
		}
		lines = append(lines, overviewLine(f, sum, before, elapsed))
	}
	o.last, o.lastTime = next, at
	return lines
}

func overviewLine(f *series.Family, sum, before []uint64, elapsed float64) Line {
	m := f.Metric
	line := Line{Metric: m.Name, Type: m.Type, Help: m.Help, Series: len(f.Points)}
	switch m.Type {
	case program.Histogram, program.GaugeHistogram:
		slots := slices.Clone(sum[1:])
		var count, was uint64
		for i := range slots {
			count += slots[i]
			if before != nil {
				was += before[1+i]
			}
		}
		line.Value = fmt.Sprintf("%s observations", Quantity(float64(count), ""))
		if p := Quantile(m, slots, 0.5); !math.IsNaN(p) {
			line.Value += fmt.Sprintf(", p50 %s, p99 %s", Quantity(p, m.Unit), Quantity(Quantile(m, slots, 0.99), m.Unit))
		}
		if before != nil && m.Type == program.Histogram && count >= was {
			line.Rate = Quantity(float64(count-was)/elapsed, "")
		}
	case program.Counter:
		line.Value = Quantity(scaled(m, sum[0]), m.Unit)
		if before != nil && sum[0] >= before[0] {
			line.Rate = Quantity(scaled(m, sum[0]-before[0])/elapsed, m.Unit)
		}
	case program.Summary:
		line.Value = fmt.Sprintf("%s observations", Quantity(float64(sum[0]), ""))
	case program.Info, program.StateSet:
	default:
		// The sum of gauges need not mean anything.
		low, high := math.Inf(1), math.Inf(-1)
		for i := range f.Points {
			x := scaled(m, f.Row(i)[0])
			low, high = min(low, x), max(high, x)
		}
		line.Value = Quantity(low, m.Unit)
		if low != high {
			line.Value += " to " + Quantity(high, m.Unit)
		}
	}
	return line
}
