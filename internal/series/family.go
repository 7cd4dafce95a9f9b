// Package series turns what readers yield (raw keys and values) into series:
// decoded labels, sums, limits, and the life of each series.
package series

import "github.com/kaon-project/kaon/internal/program"

// Family is one metric at one moment. The collector that made it owns its
// memory and reuses it: it is valid until the Snapshot it belongs to is released.
type Family struct {
	Metric *program.Metric
	// Points has one entry per series, in no particular order, each label set once.
	Points []Point
	// Values holds Stride raw numbers for each point, in the order of
	// Metric.Cells with arrays flattened: a scalar's number; a histogram's
	// sum and slots; a summary's count, sum and quantiles. Signed cells hold
	// the bits of an int64. Infos have none (Stride 0).
	Values []uint64
	Stride int
	// Exemplars is nil or parallel to Points; an exemplar without a timestamp is absent.
	Exemplars []Exemplar
}

// Point is one series at one moment.
type Point struct {
	// Labels in text form, see AppendLabel: `namespace="shop",pod="a"`, empty if there are none.
	Labels string
	// Start is when the series began to count, in Unix milliseconds; 0 if
	// unknown. Meaningful for counters, histograms and summaries.
	Start int64
}

// Exemplar is one observation that stands for many.
type Exemplar struct {
	// Labels in text form, names and values together at most 128 runes.
	Labels string
	// Value in raw units; Metric.Scale applies.
	Value uint64
	// Timestamp in Unix milliseconds; 0 means that there is no exemplar.
	Timestamp int64
}

// Row returns the raw numbers of point i.
func (f *Family) Row(i int) []uint64 {
	return f.Values[i*f.Stride : (i+1)*f.Stride : (i+1)*f.Stride]
}
