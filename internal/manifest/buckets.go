package manifest

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/program"
)

// buckets changes which buckets of a histogram are shown.
func (a *applier) buckets(field string, metric *program.Metric, m *v1alpha1.Metric) {
	if m.Buckets == nil && m.Native == nil {
		return
	}
	if metric.Buckets == nil {
		at := field + ".buckets"
		if m.Buckets == nil {
			at = field + ".native"
		}
		a.problem(at, fmt.Sprintf("%s is a %s, which has no buckets", metric.Name, metric.Type), "remove it")
		return
	}
	if b := m.Buckets; b != nil {
		at := field + ".buckets"
		switch {
		case (b.Max != 0) == (b.Bounds != nil):
			a.problem(at, v1alpha1.WantOneBucket, "")
		case b.Max != 0:
			metric.Buckets.MaxClassic, metric.Buckets.ClassicBounds = b.Max, nil
		default:
			a.bounds(at+".bounds", metric, b.Bounds)
		}
	}
	n := m.Native
	if n == nil {
		return
	}
	at := field + ".native"
	switch {
	case n.Disabled:
		if n.Schema != nil || n.MaxBuckets != 0 {
			a.problem(at, "it is disabled, so the rest has no meaning", "remove one or the other")
		}
		metric.Buckets.NoNative = true
	case len(metric.Buckets.Bounds) > 0:
		a.problem(at, fmt.Sprintf("the program counts %s by explicit bounds, which are no native buckets", metric.Name), "remove it")
	default:
		metric.Buckets.NoNative = false
		if n.MaxBuckets != 0 {
			metric.Buckets.MaxNative = n.MaxBuckets
		}
		if n.Schema == nil {
			return
		}
		if *n.Schema > int(metric.Buckets.Schema) {
			a.problem(at+".schema", fmt.Sprintf("the program counts with schema %d; %d would be finer", metric.Buckets.Schema, *n.Schema),
				fmt.Sprintf("write at most %d", metric.Buckets.Schema))
			return
		}
		schema := int8(*n.Schema)
		metric.Buckets.NativeSchema = &schema
	}
}

// tolerance is how far, relatively, a bound may lie beside one that the program counts by: 2^(1/4) can't be
// written down. Six digits are enough.
const tolerance = 1e-5

// bounds sets the classic bounds to those of the slots that are meant.
func (a *applier) bounds(field string, metric *program.Metric, wanted []float64) {
	possible := slotBounds(metric)
	var exact []float64
	for i, w := range wanted {
		at := fmt.Sprintf("%s[%d]", field, i)
		if i > 0 && w <= wanted[i-1] {
			a.problem(at, "bounds must ascend", "sort them")
			return
		}
		next, _ := slices.BinarySearch(possible, w)
		var near []float64
		if next > 0 {
			near = append(near, possible[next-1])
		}
		if next < len(possible) {
			near = append(near, possible[next])
		}
		j := slices.IndexFunc(near, func(p float64) bool { return math.Abs(p-w) <= tolerance*math.Abs(p) })
		if j >= 0 {
			exact = append(exact, near[j])
			continue
		}
		fix := "the nearest are "
		for k, p := range near {
			if k > 0 {
				fix += " and "
			}
			fix += strconv.FormatFloat(p, 'g', 6, 64)
		}
		a.problem(at, fmt.Sprintf("the program does not count by the bound %s", strconv.FormatFloat(w, 'g', -1, 64)), fix)
	}
	metric.Buckets.ClassicBounds, metric.Buckets.MaxClassic = exact, 0
}

// slotBounds are the upper bounds of a histogram's slots in its unit, ascending, without the last's.
func slotBounds(metric *program.Metric) []float64 {
	b := metric.Buckets
	var list []float64
	if len(b.Upper) > 0 {
		return b.Upper
	}
	if len(b.Bounds) > 0 {
		ratio := 1.0
		for _, raw := range b.Bounds {
			if s := metric.Scale; s.Num != 0 && s.Den != 0 {
				list = append(list, float64(raw)*float64(s.Num)/float64(s.Den))
			} else {
				list = append(list, float64(raw)*ratio)
			}
		}
		return list
	}
	perPower := 1 << b.Schema
	for i := b.Low * perPower; i <= b.High*perPower; i++ {
		list = append(list, math.Ldexp(math.Exp2(float64(i&(perPower-1))/float64(perPower)), i>>b.Schema))
	}
	return list
}
