package exposition

import (
	"fmt"
	"io"
	"strings"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// chunkSize is about how much is collected before it is written out.
const chunkSize = 64 << 10

// Writer writes one exposition. It is for one goroutine. It allocates a little per
// family and nothing per series; Reset makes it usable again with its memory.
type Writer struct {
	out     io.Writer
	format  Format
	options Options
	buf     []byte
	written int64
	err     error
	// claimed are the names that families written so far own.
	claimed map[string]struct{}

	family  family
	classic classicPlan
	native  nativePlan
	// tails holds the rendered le label of each classic bucket, +Inf last.
	tails  [][]byte
	arena  []byte
	head   []byte
	body   []byte
	states []state
}

// NewWriter returns a Writer that writes to out in chunks.
func NewWriter(out io.Writer, format Format, options Options) *Writer {
	w := &Writer{claimed: map[string]struct{}{}}
	w.Reset(out, format, options)
	return w
}

// Reset begins another exposition.
func (w *Writer) Reset(out io.Writer, format Format, options Options) {
	w.out, w.format, w.options = out, format, options
	w.buf, w.written, w.err = w.buf[:0], 0, nil
	clear(w.claimed)
}

// Written returns how many bytes went to the io.Writer.
func (w *Writer) Written() int64 { return w.written }

// Write writes one family, given as an entry of Group's result: the
// families of one name, of the same type; help and unit are the first's. An error that
// is ErrRefused leaves the exposition intact; after any other it is incomplete and must be aborted.
func (w *Writer) Write(group []*series.Family) error {
	if w.err != nil {
		return w.err
	}
	series := 0
	for _, f := range group {
		if err := check(f); err != nil {
			return err
		}
		if f.Metric.Name != group[0].Metric.Name || f.Metric.Type != group[0].Metric.Type {
			return fmt.Errorf("%w: %s %s and %s %s are no group", ErrRefused,
				group[0].Metric.Type, group[0].Metric.Name, f.Metric.Type, f.Metric.Name)
		}
		series += len(f.Points)
	}
	if series == 0 {
		return nil
	}
	if err := w.describe(group[0].Metric); err != nil {
		return err
	}
	if w.format.Syntax == Protobuf {
		w.protoFamily(group)
	} else {
		w.textFamily(group)
	}
	return w.err
}

// Close ends the exposition and writes out what is left.
func (w *Writer) Close() error {
	if w.err == nil && w.format.Syntax == OpenMetrics {
		w.buf = append(w.buf, "# EOF\n"...)
	}
	w.flush()
	return w.err
}

func (w *Writer) flush() {
	if w.err == nil && len(w.buf) > 0 {
		var n int
		n, w.err = w.out.Write(w.buf)
		w.written += int64(n)
	}
	w.buf = w.buf[:0]
}

// family is what is the same for all series of one family in one format.
type family struct {
	// name is escaped; in OpenMetrics it lacks _total and _info.
	name string
	typ  program.Type
	unit string
}

var openMetricsSuffixes = map[program.Type][]string{
	program.Counter:        {"", "_total", "_created"},
	program.Summary:        {"", "_count", "_sum", "_created"},
	program.Histogram:      {"", "_count", "_sum", "_bucket", "_created"},
	program.GaugeHistogram: {"", "_gcount", "_gsum", "_bucket"},
	program.Info:           {"", "_info"},
}

// describe sets w.family and claims its names.
func (w *Writer) describe(m *program.Metric) error {
	f := family{name: escapeMetricName(m.Name, w.format.Escaping), typ: m.Type, unit: m.Unit}
	if m.Type == program.Info || m.Type == program.StateSet || !unitFits(m) {
		f.unit = ""
	}
	if w.format.Syntax != OpenMetrics {
		w.family = f
		return w.claim(f.name, "")
	}
	// A metric is never renamed. What lacks its type's suffix has another type in OpenMetrics.
	full := f.name
	switch m.Type {
	case program.Counter:
		if base, ok := strings.CutSuffix(full, "_total"); ok && base != "" {
			f.name = base
		} else {
			f.typ = program.Unknown
		}
	case program.Info:
		if base, ok := strings.CutSuffix(full, "_info"); ok && base != "" {
			f.name = base
		} else {
			f.typ = program.Gauge
		}
	case program.StateSet:
		if escapeLabelName(full, w.format.Escaping) != full {
			f.typ = program.Gauge // the label can't be called like the family
		}
	}
	if !strings.HasSuffix(f.name, "_"+f.unit) {
		f.unit = "" // escaping changed it, or there is a suffix that stays
	}
	err := w.claim(f.name, f.typ)
	if err != nil && f.name != full {
		// Another family has the name without the suffix: keep both.
		f.name, f.typ, f.unit = full, program.Unknown, ""
		err = w.claim(f.name, f.typ)
	}
	w.family = f
	return err
}

// unitFits says whether a metric's name ends in its unit, but for _total. Servers refuse others.
func unitFits(m *program.Metric) bool {
	name := m.Name
	if m.Type == program.Counter {
		name = strings.TrimSuffix(name, "_total")
	}
	return strings.HasSuffix(name, "_"+m.Unit) && isLegacyName("_"+m.Unit, true)
}

// claim takes the names that a family of a type owns in OpenMetrics, or fails if one is taken.
func (w *Writer) claim(name string, typ program.Type) error {
	suffixes := openMetricsSuffixes[typ]
	if suffixes == nil {
		suffixes = []string{""}
	}
	for _, suffix := range suffixes {
		if _, taken := w.claimed[name+suffix]; taken {
			return fmt.Errorf("%w: %s: the name %s belongs to another family: rename one of them", ErrRefused, name, name+suffix)
		}
	}
	for _, suffix := range suffixes {
		w.claimed[name+suffix] = struct{}{}
	}
	return nil
}
