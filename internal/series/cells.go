package series

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/kaon-project/kaon/internal/program"
)

// ErrMetric is wrapped by NewCollector's errors about a metric that can't be read.
var ErrMetric = errors.New("metric can't be read")

// cells knows how a value becomes the numbers of one metric's row.
type cells struct {
	metric *program.Metric
	runs   []run
	stride int
	// largest are the numbers of which several keys' largest is taken, from
	// here on: a summary's quantiles, a stateset's state. What comes before is summed.
	largest int
	signed  bool // of what largest compares
	// Where the number that must never go back is: count numbers, added up.
	check, checkCount int
	// spread: the value is one number of the row, the one at slot.
	spread bool
	slot   int
}

// run is Count equal numbers that follow each other.
type run struct {
	field program.Field
	count int
	plain bool // little-endian uint64
}

// cumulative types only go up, and have a start.
func cumulative(t program.Type) bool {
	return t == program.Counter || t == program.Histogram || t == program.Summary
}

func newCells(m *program.Metric, valueSize uint32, spread *program.Spread) (cells, error) {
	c := cells{metric: m}
	if m.Type == program.Info {
		return c, nil
	}
	if spread != nil {
		if m.Type != program.Histogram || m.Buckets == nil || valueSize < 8 {
			return c, fmt.Errorf("%w: %s: keys that are buckets make histograms only, of values of 8 bytes", ErrMetric, m.Name)
		}
		c.spread, c.stride, c.check = true, 1+m.Buckets.Slots(), 1
		c.largest, c.checkCount = c.stride, c.stride-1
		return c, nil
	}
	for _, f := range m.Cells {
		n := uint64(max(f.Count, 1))
		if end := uint64(f.Offset) + uint64(f.Size)*n; f.Size == 0 || f.Size > 8 || end > uint64(valueSize) {
			return c, fmt.Errorf("%w: %s: a cell at offset %d of %d bytes, %d times, does not fit a value of %d bytes",
				ErrMetric, m.Name, f.Offset, f.Size, n, valueSize)
		}
		c.runs = append(c.runs, run{f, int(n), f.Size == 8 && !f.BigEndian && f.BitSize == 0})
		c.stride += int(n)
	}
	c.largest, c.checkCount = c.stride, 1
	want := 1
	switch m.Type {
	case program.Histogram, program.GaugeHistogram:
		want, c.check, c.checkCount = 2, 1, c.stride-1
	case program.Summary:
		want, c.largest = 2+len(m.Quantiles), 2
	case program.StateSet:
		c.largest = 0
	}
	if len(m.Cells) != want {
		return c, fmt.Errorf("%w: %s: a %s takes %d cells, not %d", ErrMetric, m.Name, m.Type, want, len(m.Cells))
	}
	if want > c.largest || m.Type == program.StateSet {
		c.signed = m.Cells[len(m.Cells)-1].Signed
	}
	return c, nil
}

// merge adds the value's numbers to row. first says that row holds no key's numbers yet.
func (c *cells) merge(value []byte, row []uint64, first bool) {
	if c.spread {
		row[c.slot] += binary.LittleEndian.Uint64(value)
		return
	}
	at := 0
	for i := range c.runs {
		r := &c.runs[i]
		dst := row[at : at+r.count]
		if r.plain && at+r.count <= c.largest {
			src := value[r.field.Offset:]
			src = src[:8*len(dst)]
			for j := range dst {
				dst[j] += binary.LittleEndian.Uint64(src[8*j:])
			}
			at += r.count
			continue
		}
		f := r.field
		for j := range dst {
			n := f.Number(value)
			if at+j < c.largest {
				dst[j] += n
			} else if first || c.larger(n, dst[j]) {
				dst[j] = n
			}
			f.Offset += f.Size
		}
		at += r.count
	}
}

// add adds the numbers of one row to another.
func (c *cells) add(dst, src []uint64) {
	src = src[:len(dst)]
	for i := range dst {
		if i < c.largest {
			dst[i] += src[i]
		} else if c.larger(src[i], dst[i]) {
			dst[i] = src[i]
		}
	}
}

// retain adds the sums of src to a base: what stays when src's key is gone.
func (c *cells) retain(dst, src []uint64) {
	for i := range c.largest {
		dst[i] += src[i]
	}
}

// subtract takes the numbers of one row from another, modulo 2^64: a sum that
// includes what was taken is right again.
func (c *cells) subtract(dst, src []uint64) {
	for i := range c.largest {
		dst[i] -= src[i]
	}
}

// floor makes what is negative in the rows of a gauge histogram zero. Parts of a value that are
// read while it changes may add up to less than nothing.
func (c *cells) floor(rows []uint64) {
	if c.metric.Type != program.GaugeHistogram {
		return
	}
	for i, n := range rows {
		if int64(n) < 0 && (i%c.stride != 0 || !c.runs[0].field.Signed) {
			rows[i] = 0
		}
	}
}

func (c *cells) larger(a, b uint64) bool {
	if c.signed {
		return int64(a) > int64(b)
	}
	return a > b
}

// progress is the number that never goes back while a series lives: a
// counter's number, the count of a histogram or summary.
func (c *cells) progress(row []uint64) uint64 {
	if c.checkCount == 1 {
		return row[c.check]
	}
	n := uint64(0)
	for _, v := range row[c.check : c.check+c.checkCount] {
		n += v
	}
	return n
}
