package terminal

import (
	"encoding/json"
	"io"
	"strconv"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// sample is one line of JSON output.
type sample struct {
	Metric string            `json:"metric"`
	Type   program.Type      `json:"type"`
	Unit   string            `json:"unit,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Value  *json.Number      `json:"value,omitempty"`
	State  string            `json:"state,omitempty"`
	Count  *uint64           `json:"count,omitempty"`
	Sum    *float64          `json:"sum,omitempty"`
	// Buckets has the upper bounds of the populated buckets and their counts (not cumulative).
	Buckets   []bucket    `json:"buckets,omitempty"`
	Quantiles []quantile  `json:"quantiles,omitempty"`
	Start     json.Number `json:"start,omitempty"`
}

type bucket struct {
	UpperBound string `json:"le"`
	Count      uint64 `json:"count"`
}

type quantile struct {
	Quantile float64 `json:"quantile"`
	Value    float64 `json:"value"`
}

// WriteJSON writes one JSON object per series and line. Numbers that need 64 bits are exact.
func WriteJSON(w io.Writer, families []*series.Family, filter Filter) error {
	encoder := json.NewEncoder(w)
	for _, f := range families {
		for i, p := range f.Points {
			if !filter.Match(p.Labels) {
				continue
			}
			if err := encoder.Encode(newSample(f.Metric, p, f.Row(i))); err != nil {
				return err
			}
		}
	}
	return nil
}

func newSample(m *program.Metric, p series.Point, values []uint64) sample {
	s := sample{Metric: m.Name, Type: m.Type, Unit: m.Unit, Labels: map[string]string{}}
	if p.Start != 0 {
		s.Start = json.Number(strconv.FormatFloat(float64(p.Start)/1000, 'f', 3, 64))
	}
	series.EachLabel(p.Labels, func(name, value string) bool {
		s.Labels[name] = value
		return true
	})
	switch m.Type {
	case program.Histogram, program.GaugeHistogram:
		var count uint64
		for i, n := range values[1:] {
			if n == 0 {
				continue
			}
			count += n
			s.Buckets = append(s.Buckets, bucket{strconv.FormatFloat(bound(m, i), 'g', -1, 64), n})
		}
		sum := scaled(m, values[0])
		s.Count, s.Sum = &count, &sum
	case program.Summary:
		sum := scaled(m, values[1])
		s.Count, s.Sum = &values[0], &sum
		for i, q := range m.Quantiles {
			s.Quantiles = append(s.Quantiles, quantile{q, scaled(m, values[2+i])})
		}
	case program.StateSet:
		s.State = newRow(m, "", values, nil, 0, true).state
	case program.Info:
	default:
		number := json.Number(strconv.FormatUint(value(values), 10))
		switch {
		case m.Scale.Float || m.Scale.Factor != 0 || m.Scale.Den != 0 && m.Scale.Num != m.Scale.Den:
			number = json.Number(strconv.FormatFloat(scaled(m, values[0]), 'g', -1, 64))
		case len(m.Cells) > 0 && m.Cells[0].Signed:
			number = json.Number(strconv.FormatInt(int64(values[0]), 10))
		}
		s.Value = &number
	}
	return s
}

func value(values []uint64) uint64 {
	if len(values) == 0 {
		return 0
	}
	return values[0]
}
