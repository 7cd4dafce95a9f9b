package terminal

import (
	"fmt"
	"math"
	"strings"

	"github.com/kaon-project/kaon/internal/program"
)

// bound returns the upper bound of a slot in the metric's unit.
func bound(m *program.Metric, slot int) float64 {
	b := m.Buckets
	if b.Upper != nil {
		if slot >= len(b.Upper) {
			return math.Inf(1)
		}
		return b.Upper[slot]
	}
	if b.Bounds != nil {
		if slot >= len(b.Bounds) {
			return math.Inf(1)
		}
		return scaled(m, b.Bounds[slot])
	}
	if slot > (b.High-b.Low)<<b.Schema {
		return math.Inf(1)
	}
	return math.Exp2(float64(b.Low) + float64(slot)/float64(int(1)<<b.Schema))
}

// explicit says that the bounds are a list.
func explicit(b *program.Buckets) bool { return b.Bounds != nil || b.Upper != nil }

// Quantile estimates a quantile of a histogram's slots in the metric's unit, by
// interpolation within the bucket: geometric for native buckets, linear
// for explicit ones. What is above the highest bound is reported as that bound.
func Quantile(m *program.Metric, slots []uint64, q float64) float64 {
	var total, seen uint64
	for _, n := range slots {
		total += n
	}
	if total == 0 {
		return math.NaN()
	}
	rank := q * float64(total)
	for i, n := range slots {
		if n == 0 || float64(seen+n) < rank {
			seen += n
			continue
		}
		high := bound(m, i)
		if math.IsInf(high, 1) {
			if i == 0 {
				return high // there is no bound at all
			}
			return bound(m, i-1)
		}
		part := (rank - float64(seen)) / float64(n)
		if i == 0 {
			return high * part
		}
		low := bound(m, i-1)
		if !explicit(m.Buckets) {
			return low * math.Pow(high/low, part)
		}
		return low + (high-low)*part
	}
	return bound(m, len(slots)-2)
}

// bars draws the sum of all rows of a histogram, one line per power of two (or bound), at most height lines.
func (t *table) bars(width, height int) []string {
	m := t.metric
	if m.Buckets == nil || len(t.rows) == 0 {
		return nil
	}
	perBar := 1
	if !explicit(m.Buckets) {
		perBar = 1 << m.Buckets.Schema
	}
	type bar struct {
		high float64
		n    uint64
	}
	var bars []bar
	last := len(t.rows[0].slots) - 1
	for slot := 0; slot <= last; slot++ {
		if slot < 2 || slot == last || (slot-1)%perBar == 0 {
			bars = append(bars, bar{})
		}
		current := &bars[len(bars)-1]
		current.high = bound(m, slot)
		for _, r := range t.rows {
			current.n += r.slots[slot]
		}
	}
	first, end, most := -1, 0, uint64(0)
	for i, b := range bars {
		if b.n > 0 {
			if first < 0 {
				first = i
			}
			end, most = i+1, max(most, b.n)
		}
	}
	if first < 0 {
		return nil
	}
	// Where there are too many, those where most observations are.
	if end-first > height {
		best, most := first, uint64(0)
		for at := first; at+height <= end; at++ {
			var n uint64
			for _, b := range bars[at : at+height] {
				n += b.n
			}
			if n > most {
				best, most = at, n
			}
		}
		first, end = best, best+height
	}
	room := max(width-30, 10)
	var lines []string
	for i, b := range bars[first:end] {
		label := "≤ " + Quantity(b.high, m.Unit)
		if math.IsInf(b.high, 1) && first+i > 0 {
			label = "> " + Quantity(bars[first+i-1].high, m.Unit)
		}
		lines = append(lines, fmt.Sprintf("  %12s %10s %s", label, Quantity(float64(b.n), ""), block(float64(b.n)/float64(most)*float64(room))))
	}
	return lines
}

// block draws a bar of a length in cells, to an eighth.
func block(length float64) string {
	eighths := int(math.Ceil(length * 8))
	s := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		s += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return s
}
