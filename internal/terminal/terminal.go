// Package terminal shows series to a person: a live view of tables and
// histograms, plain lines, JSON.
package terminal

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// View renders what was collected as tables, and remembers the last collection
// so that counters show a rate. The zero View shows everything without colours.
type View struct {
	// Width and Height of the terminal in cells; Height 0 means no limit of lines.
	Width, Height int
	// Color marks headings with ANSI sequences.
	Color  bool
	Filter Filter

	last     map[string][]uint64
	lastTime time.Time
}

// row is one series, ready to be sorted and printed.
type row struct {
	labels string
	rate   float64   // per second since the last collection; for gauges their value
	total  float64   // counters and gauges: the value in the metric's unit
	slots  []uint64  // histograms: since the last collection, or in all if nothing was added
	sum    float64   // histograms and summaries: mean's numerator over the same time
	count  uint64    // of slots
	extra  []float64 // summaries: quantiles
	state  string
}

// Update renders the families; at is when they were collected. What it shows of a
// counter or histogram is the change since the last Update, where there was one.
func (v *View) Update(w io.Writer, families []*series.Family, at time.Time) error {
	elapsed := at.Sub(v.lastTime).Seconds()
	first := v.last == nil
	next := map[string][]uint64{}
	var tables []*table
	for _, f := range families {
		t := &table{metric: f.Metric, live: !first}
		for i, p := range f.Points {
			values := slices.Clone(f.Row(i))
			key := f.Metric.Name + "{" + p.Labels
			next[key] = values
			if !v.Filter.Match(p.Labels) {
				continue
			}
			t.rows = append(t.rows, newRow(f.Metric, p.Labels, values, v.last[key], elapsed, first))
		}
		if len(t.rows) > 0 {
			tables = append(tables, t)
		}
	}
	v.last, v.lastTime = next, at
	return v.write(w, tables)
}

func newRow(m *program.Metric, labels string, values, before []uint64, elapsed float64, first bool) row {
	r := row{labels: labels}
	delta := slices.Clone(values)
	if !first && len(before) == len(values) {
		for i := range delta {
			if delta[i] -= before[i]; delta[i] > values[i] { // started anew
				delta[i] = values[i]
			}
		}
	}
	switch m.Type {
	case program.Histogram, program.GaugeHistogram:
		if m.Type == program.GaugeHistogram {
			delta = values
		}
		r.slots, r.sum = delta[1:], scaled(m, delta[0])
		for _, n := range r.slots {
			r.count += n
		}
		r.rate = float64(r.count)
		for _, n := range values[1:] {
			r.total += float64(n)
		}
	case program.Summary:
		r.count, r.sum, r.total = delta[0], scaled(m, delta[1]), float64(values[0])
		r.rate = float64(r.count)
		for _, q := range values[2:] {
			r.extra = append(r.extra, scaled(m, q))
		}
	case program.Info:
		r.total = 1
		return r
	case program.StateSet:
		r.state = fmt.Sprint(int64(values[0]))
		for _, s := range m.States {
			if s.Value == int64(values[0]) {
				r.state = s.Name
			}
		}
		return r
	case program.Counter:
		r.rate, r.total = scaled(m, delta[0]), scaled(m, values[0])
	default:
		r.total = scaled(m, values[0])
		r.rate = r.total
		return r
	}
	if !first && elapsed > 0 {
		r.rate /= elapsed
	}
	return r
}

// scaled converts a raw number to the metric's unit.
func scaled(m *program.Metric, raw uint64) float64 {
	if m.Scale.Float {
		return math.Float64frombits(raw)
	}
	value := float64(raw)
	if len(m.Cells) > 0 && m.Cells[0].Signed {
		value = float64(int64(raw))
	}
	if m.Scale.Factor != 0 {
		return value * m.Scale.Factor
	}
	if m.Scale.Den != 0 {
		value = value * float64(m.Scale.Num) / float64(m.Scale.Den)
	}
	return value
}

// write prints the tables within the height, which they share evenly.
func (v *View) write(w io.Writer, tables []*table) error {
	width := v.Width
	if width <= 0 {
		width = 100
	}
	var b strings.Builder
	if len(tables) == 0 {
		b.WriteString("nothing yet\n")
	}
	budget := math.MaxInt
	if v.Height > 0 && len(tables) > 0 {
		budget = max(v.Height/len(tables)-2, 3)
	}
	for i, t := range tables {
		if i > 0 {
			b.WriteByte('\n')
		}
		slices.SortFunc(t.rows, func(a, b row) int {
			return cmp.Or(-cmp.Compare(a.rate, b.rate), -cmp.Compare(a.total, b.total), strings.Compare(a.labels, b.labels))
		})
		t.write(&b, width, budget, v.Color)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// table is one metric.
type table struct {
	metric *program.Metric
	rows   []row
	live   bool
}

func (t *table) write(b *strings.Builder, width, budget int, color bool) {
	columns := t.columns()
	const columnWidth = 11
	for len(columns) > 1 && columnWidth*len(columns)+25 > width {
		columns = columns[:len(columns)-1]
	}
	left := max(width-columnWidth*len(columns)-1, 24)
	title := printable(t.metric.Name)
	if color {
		b.WriteString("\x1b[1m")
	}
	b.WriteString(pad(title, left))
	for _, c := range columns {
		fmt.Fprintf(b, "%*s", columnWidth, c.name)
	}
	if color {
		b.WriteString("\x1b[0m")
	}
	b.WriteByte('\n')
	bars := t.bars(width, max(budget/2, 3))
	shown := min(len(t.rows), max(budget-len(bars), 1))
	for _, r := range t.rows[:shown] {
		b.WriteString(pad("  "+readable(r.labels), left))
		for _, c := range columns {
			fmt.Fprintf(b, "%*s", columnWidth, c.text(r))
		}
		b.WriteByte('\n')
	}
	if more := len(t.rows) - shown; more > 0 {
		fmt.Fprintf(b, "  … %d more\n", more)
	}
	for _, line := range bars {
		b.WriteString(line)
		b.WriteByte('\n')
	}
}

type column struct {
	name string
	text func(row) string
}

func (t *table) columns() []column {
	m := t.metric
	unit := m.Unit
	number := func(x float64) string { return Quantity(x, unit) }
	perSecond := column{"per second", func(r row) string { return Quantity(r.rate, "") }}
	switch m.Type {
	case program.Counter:
		perSecond.text = func(r row) string { return number(r.rate) }
		total := column{"total", func(r row) string { return number(r.total) }}
		if !t.live {
			return []column{total}
		}
		return []column{perSecond, total}
	case program.Histogram, program.GaugeHistogram:
		quantile := func(q float64) column {
			return column{fmt.Sprintf("p%g", q*100), func(r row) string {
				if r.count == 0 {
					return "-"
				}
				return number(Quantile(m, r.slots, q))
			}}
		}
		columns := []column{{"mean", func(r row) string { return mean(r, number) }}, quantile(0.5), quantile(0.9), quantile(0.99)}
		if m.Type == program.Histogram && t.live {
			return append([]column{perSecond}, columns...)
		}
		return append([]column{{"count", func(r row) string { return Quantity(float64(r.count), "") }}}, columns...)
	case program.Summary:
		columns := []column{{"count", func(r row) string { return Quantity(r.total, "") }}, {"mean", func(r row) string { return mean(r, number) }}}
		for i, q := range m.Quantiles {
			columns = append(columns, column{fmt.Sprintf("p%g", q*100), func(r row) string { return number(r.extra[i]) }})
		}
		return columns
	case program.Info:
		return nil
	case program.StateSet:
		return []column{{"state", func(r row) string { return printable(r.state) }}}
	}
	return []column{{"value", func(r row) string { return number(r.total) }}}
}

func mean(r row, number func(float64) string) string {
	if r.count == 0 {
		return "-"
	}
	return number(r.sum / float64(r.count))
}

// readable turns a label set into something for the eye.
func readable(labels string) string {
	if labels == "" {
		return "(all)"
	}
	var b strings.Builder
	series.EachLabel(labels, func(name, value string) bool {
		if b.Len() > 0 {
			b.WriteString("  ")
		}
		b.WriteString(name + "=" + printable(value))
		return true
	})
	return b.String()
}

// printable replaces what would move a terminal's cursor or change its colours.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s)
}

// pad cuts or fills s to width cells.
func pad(s string, width int) string {
	n := utf8.RuneCountInString(s)
	if n <= width {
		return s + strings.Repeat(" ", width-n)
	}
	runes := []rune(s)
	return string(runes[:width-1]) + "…"
}
