package terminal

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// Lines prints one line for each series that changed since the last update: for
// pipes and logs. The zero Lines is ready.
type Lines struct {
	last map[string][]uint64
}

// Update prints the changes; at is when the families were collected.
func (l *Lines) Update(w io.Writer, families []*series.Family, filter Filter, at time.Time) error {
	next := map[string][]uint64{}
	var b strings.Builder
	for _, f := range families {
		m := f.Metric
		for i, p := range f.Points {
			if !filter.Match(p.Labels) {
				continue
			}
			values := slices.Clone(f.Row(i))
			key := m.Name + "{" + p.Labels
			next[key] = values
			before, known := l.last[key]
			if known && slices.Equal(before, values) {
				continue
			}
			r := newRow(m, p.Labels, values, before, 1, !known)
			fmt.Fprintf(&b, "%s %s", at.Format(time.TimeOnly), m.Name)
			if p.Labels != "" {
				fmt.Fprintf(&b, "{%s}", printable(p.Labels))
			}
			b.WriteByte(' ')
			b.WriteString(lineValue(m, r))
			b.WriteByte('\n')
		}
	}
	l.last = next
	_, err := io.WriteString(w, b.String())
	return err
}

func lineValue(m *program.Metric, r row) string {
	number := func(x float64) string { return Quantity(x, m.Unit) }
	switch m.Type {
	case program.Counter:
		return fmt.Sprintf("%s (+%s)", number(r.total), number(r.rate))
	case program.Histogram, program.GaugeHistogram:
		return fmt.Sprintf("count %s p50 %s p99 %s", Quantity(float64(r.count), ""), number(Quantile(m, r.slots, 0.5)), number(Quantile(m, r.slots, 0.99)))
	case program.Summary:
		return fmt.Sprintf("count %s mean %s", Quantity(r.total, ""), mean(r, number))
	case program.StateSet:
		return printable(r.state)
	}
	return number(r.total)
}
