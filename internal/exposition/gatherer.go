package exposition

import (
	"bytes"
	"errors"
	"fmt"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// WriteGathered writes families of client_golang, as a Gatherer returns them. A family whose name
// is taken is left out: the returned error names it and is ErrRefused.
func (w *Writer) WriteGathered(families []*dto.MetricFamily) error {
	var encoderOptions []expfmt.EncoderOption
	if w.options.CreatedSamples {
		encoderOptions = append(encoderOptions, expfmt.WithCreatedLines())
	}
	// The encoder is never closed: the end mark is written by Close.
	format := w.format
	if format.Syntax == Text {
		format.Version = "" // the encoder knows no 1.0.0, which differs in the names that are allowed alone
	}
	encoder := expfmt.NewEncoder(appender{w}, expfmt.Format(format.ContentType()), encoderOptions...)
	var refused []error
	for _, f := range families {
		if w.err != nil {
			return w.err
		}
		if len(f.GetMetric()) == 0 {
			continue
		}
		m := program.Metric{Name: f.GetName(), Type: typeOf(f.GetType()), Unit: f.GetUnit()}
		if err := w.describe(&m); err != nil {
			refused = append(refused, err)
			continue
		}
		if m.Unit != "" && !unitFits(&m) {
			f = &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type, Metric: f.Metric}
		}
		if m.Type == program.Counter && w.family.typ == program.Unknown {
			f = untyped(f)
		}
		start := len(w.buf)
		if err := encoder.Encode(f); err != nil {
			w.buf = w.buf[:start]
			refused = append(refused, fmt.Errorf("%w: %s: %w", ErrRefused, f.GetName(), err))
			continue
		}
		w.more()
	}
	if w.err != nil {
		return w.err
	}
	return errors.Join(refused...)
}

// untyped returns a family of counters without their type, for OpenMetrics, where the name
// of a counter without _total may be another family's: client_golang itself has go_memstats_alloc_bytes
// along with go_memstats_alloc_bytes_total.
func untyped(f *dto.MetricFamily) *dto.MetricFamily {
	result := &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: dto.MetricType_UNTYPED.Enum()}
	for _, m := range f.Metric {
		result.Metric = append(result.Metric, &dto.Metric{Label: m.Label, Untyped: &dto.Untyped{Value: proto.Float64(m.GetCounter().GetValue())}, TimestampMs: m.TimestampMs})
	}
	return result
}

// appender is an io.Writer that appends to a Writer's buffer.
type appender struct{ w *Writer }

func (a appender) Write(b []byte) (int, error) {
	a.w.buf = append(a.w.buf, b...)
	return len(b), nil
}

func typeOf(t dto.MetricType) program.Type {
	switch t {
	case dto.MetricType_COUNTER:
		return program.Counter
	case dto.MetricType_GAUGE:
		return program.Gauge
	case dto.MetricType_SUMMARY:
		return program.Summary
	case dto.MetricType_HISTOGRAM:
		return program.Histogram
	case dto.MetricType_GAUGE_HISTOGRAM:
		return program.GaugeHistogram
	}
	return program.Unknown
}

// MetricFamilies converts families to client_golang's form, sorted by name. Nothing
// in it refers to the given memory. Like Group it returns what is valid along with an error.
func MetricFamilies(families []*series.Family) ([]*dto.MetricFamily, error) {
	groups, problems := Group(families)
	var out bytes.Buffer
	w := NewWriter(&out, utf8Protobuf(), Options{})
	for _, group := range groups {
		if err := w.Write(group); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	result := make([]*dto.MetricFamily, 0, len(groups))
	decode := protodelim.UnmarshalOptions{MaxSize: -1, UnmarshalOptions: proto.UnmarshalOptions{}}
	for out.Len() > 0 {
		f := &dto.MetricFamily{}
		if err := decode.UnmarshalFrom(&out, f); err != nil {
			return nil, fmt.Errorf("decode our own protobuf: %w", err)
		}
		result = append(result, f)
	}
	return result, problems
}
