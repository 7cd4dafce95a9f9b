package manifest

import (
	"fmt"
	"slices"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// spread makes a histogram of a map whose keys are slots.
func (a *applier) spread(field string, reader *program.Reader, metric *program.Metric, h *v1alpha1.Histogram, value []object.Member) {
	if h.Sum != "" || h.Slots != "" || h.Bounds != nil || h.Schema != 0 || h.Low != 0 || h.High != 0 {
		a.problem(field, "with key there are upper, first, numbers and sumNumber only", "remove the rest")
	}
	if metric.Type != program.Histogram {
		a.problem(field+".key", fmt.Sprintf("keys that are slots make no %s", metric.Type), "write type: histogram")
	}
	if len(reader.Metrics) > 0 || reader.Spread != nil {
		a.problem(field+".key", "the map has another metric, too", "it can have only this one")
		return
	}
	if len(value) != 1 || value[0].Field.Size != 8 || value[0].Field.Count > 1 {
		a.problem(field+".key", "the value of such a map is one number of 8 bytes", "")
		return
	}
	if len(h.Upper) == 0 {
		a.problem(field+".upper", "it is empty", "write the upper bound of each slot")
		return
	}
	for i := 1; i < len(h.Upper); i++ {
		if !(h.Upper[i] > h.Upper[i-1]) {
			a.problem(fmt.Sprintf("%s.upper[%d]", field, i), "bounds must ascend", "sort them")
			return
		}
	}
	s := &program.Spread{First: int64(h.First), Sum: float64(h.First + len(h.Upper))}
	if h.Numbers != nil {
		if len(h.Numbers) != len(h.Upper) || !slices.IsSorted(h.Numbers) || h.First != 0 {
			a.problem(field+".numbers", "there is one for each bound, ascending, and no first", "")
			return
		}
		s.Numbers, s.Sum = h.Numbers, h.Numbers[len(h.Numbers)-1]+1
	}
	if h.SumNumber != nil {
		s.Sum = *h.SumNumber
	}
	i := slices.IndexFunc(reader.Key, func(l program.Label) bool { return l.Member == h.Key })
	if i < 0 || reader.Key[i].Field.Size > 8 || reader.Key[i].Field.Count > 1 || reader.Key[i].Field.BitSize > 0 {
		var names []string
		for _, l := range reader.Key {
			names = append(names, l.Member)
		}
		a.problem(field+".key", fmt.Sprintf("the key has no number %q", h.Key), choice(h.Key, names))
		return
	}
	s.Bucket = reader.Key[i].Field
	reader.Key[i].Name = "" // no label
	reader.Spread = s
	metric.Buckets = &program.Buckets{Upper: h.Upper}
	metric.Cells = []program.Field{value[0].Field}
	metric.Labels = []program.Label{}
	for _, l := range reader.Key {
		if l.Name != "" {
			metric.Labels = append(metric.Labels, l)
		}
	}
}
