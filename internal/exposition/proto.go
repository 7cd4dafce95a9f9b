package exposition

import (
	"math"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// maxBuffered is how much of a family in protobuf is kept while its length is
// found out. What is beyond is encoded twice: once to be measured.
const maxBuffered = 1 << 20

// protoFamily writes a MetricFamily message after its length.
func (w *Writer) protoFamily(group []*series.Family) {
	m := group[0].Metric
	var head []byte
	head = appendBytesField(head, familyName, w.family.name)
	if m.Help != "" {
		head = appendBytesField(head, familyHelp, strings.ToValidUTF8(m.Help, "\uFFFD"))
	}
	head = appendVarintField(head, familyType, uint64(protoType(m.Type)))
	if w.family.unit != "" {
		head = appendBytesField(head, familyUnit, w.family.unit)
	}

	body, size := w.body[:0], 0
	restFamily, restPoint := len(group), 0
	for g, f := range group {
		e := w.protoEncoder(f)
		for i := range f.Points {
			if restFamily < len(group) {
				n := len(body)
				body = e.metric(body, i)
				size += len(body) - n
				body = body[:n]
				continue
			}
			body = e.metric(body, i)
			if len(body) >= maxBuffered {
				restFamily, restPoint = g, i+1
			}
		}
	}
	w.body = body

	w.buf = appendVarint(w.buf, uint64(len(head)+len(body)+size))
	w.buf = append(w.buf, head...)
	for len(body) > 0 {
		n := min(len(body), chunkSize)
		w.buf = append(w.buf, body[:n]...)
		body = body[n:]
		if !w.more() {
			return
		}
	}
	for g := restFamily; g < len(group); g++ {
		e := w.protoEncoder(group[g])
		for i := restPoint; i < len(group[g].Points); i++ {
			w.buf = e.metric(w.buf, i)
			if !w.more() {
				return
			}
		}
		restPoint = 0
	}
}

func protoType(t program.Type) dto.MetricType {
	switch t {
	case program.Counter:
		return dto.MetricType_COUNTER
	case program.Gauge, program.Info, program.StateSet:
		return dto.MetricType_GAUGE
	case program.Summary:
		return dto.MetricType_SUMMARY
	case program.Histogram:
		return dto.MetricType_HISTOGRAM
	case program.GaugeHistogram:
		return dto.MetricType_GAUGE_HISTOGRAM
	}
	return dto.MetricType_UNTYPED
}

// protoEncoder encodes the series of one family as Metric messages.
type protoEncoder struct {
	w       *Writer
	f       *series.Family
	sc      scale
	signed  bool // the scalar or the sum
	foreign bool
	native  bool
}

func (w *Writer) protoEncoder(f *series.Family) protoEncoder {
	m := f.Metric
	e := protoEncoder{w: w, f: f, sc: newScale(m.Scale), foreign: hasForeignLabels(m)}
	switch m.Type {
	case program.Histogram, program.GaugeHistogram:
		w.classic.reset(m.Buckets, &e.sc)
		if e.native = hasNative(m.Buckets); e.native {
			w.native.reset(m.Buckets)
		}
		e.signed = isSigned(m, 0)
	case program.Summary:
		e.signed = isSigned(m, 1)
	case program.StateSet:
		w.planStates(m)
		e.signed = isSigned(m, 0)
	default:
		e.signed = isSigned(m, 0)
	}
	return e
}

// metric appends the Metric of point i; for a stateset one for each state.
func (e *protoEncoder) metric(dst []byte, i int) []byte {
	f := e.f
	switch f.Metric.Type {
	case program.StateSet:
		return e.stateSet(dst, i)
	case program.Histogram, program.GaugeHistogram:
		dst, mark := beginLong(dst, familyMetric)
		dst = e.labels(dst, f.Points[i].Labels)
		return endLong(e.histogram(dst, i), mark)
	}
	dst, mark := begin(dst, familyMetric)
	dst = e.labels(dst, f.Points[i].Labels)
	switch f.Metric.Type {
	case program.Counter:
		dst = e.counter(dst, i)
	case program.Gauge:
		dst = appendScalar(dst, metricGauge, e.sc.float(f.Values[i], e.signed))
	case program.Info:
		dst = appendScalar(dst, metricGauge, 1)
	case program.Summary:
		dst = e.summary(dst, i)
	default:
		dst = appendScalar(dst, metricUntyped, e.sc.float(f.Values[i], e.signed))
	}
	return end(dst, mark)
}

// labels appends the label set of a Metric or an Exemplar: both have it in the same field.
func (e *protoEncoder) labels(dst []byte, labels string) []byte {
	if !e.foreign {
		return appendLabelPairs(dst, labels)
	}
	series.EachLabel(relabel(labels, e.w.format.Escaping, false), func(name, value string) bool {
		dst = appendLabelPair(dst, name, value)
		return true
	})
	return dst
}

func appendScalar(dst []byte, tag byte, value float64) []byte {
	return appendDoubleField(append(dst, tag, 9), scalarValue, value)
}

func (e *protoEncoder) counter(dst []byte, i int) []byte {
	f := e.f
	dst, mark := begin(dst, metricCounter)
	dst = appendDoubleField(dst, scalarValue, e.sc.float(scalar(f.Values[i], true, e.signed), false))
	if f.Exemplars != nil {
		dst = e.exemplar(dst, counterExemplar, &f.Exemplars[i])
	}
	if start := f.Points[i].Start; start > 0 {
		dst = appendTimestamp(dst, counterCreated, start)
	}
	return end(dst, mark)
}

func (e *protoEncoder) exemplar(dst []byte, tag uint64, x *series.Exemplar) []byte {
	if !usable(x) {
		return dst
	}
	dst, mark := begin(dst, tag)
	dst = e.labels(dst, x.Labels)
	dst = appendDoubleField(dst, exemplarValue, e.sc.float(x.Value, false))
	dst = appendTimestamp(dst, exemplarTimestamp, x.Timestamp)
	return end(dst, mark)
}

func (e *protoEncoder) summary(dst []byte, i int) []byte {
	f, row := e.f, e.f.Row(i)
	dst, mark := begin(dst, metricSummary)
	dst = appendVarintField(dst, summaryCount, row[0])
	dst = appendDoubleField(dst, summarySum, e.sc.float(row[1], e.signed))
	for q, rank := range f.Metric.Quantiles {
		dst = append(dst, summaryQuantile, 18)
		dst = appendDoubleField(dst, quantileRank, rank)
		dst = appendDoubleField(dst, quantileValue, e.sc.float(row[2+q], isSigned(f.Metric, 2+q)))
	}
	if start := f.Points[i].Start; start > 0 {
		dst = appendTimestamp(dst, summaryCreated, start)
	}
	return end(dst, mark)
}

func (e *protoEncoder) stateSet(dst []byte, i int) []byte {
	raw := e.f.Values[i]
	states := e.w.states
	for j := range states {
		value := 0.0
		if states[j].value == int64(raw) {
			value = 1
		}
		dst = e.state(dst, i, states[j].name, value)
	}
	if !e.w.hasState(int64(raw)) {
		dst = e.state(dst, i, e.w.unknownState(raw, e.signed), 1)
	}
	return dst
}

func (e *protoEncoder) state(dst []byte, i int, name string, value float64) []byte {
	dst, mark := begin(dst, familyMetric)
	dst = e.labels(dst, e.f.Points[i].Labels)
	dst = appendLabelPair(dst, escapeLabelName(e.w.family.name, e.w.format.Escaping), strings.ToValidUTF8(name, "\uFFFD"))
	dst = appendScalar(dst, metricGauge, value)
	return end(dst, mark)
}

// histogram appends a Histogram with its classic buckets and, if it has them, its native ones.
func (e *protoEncoder) histogram(dst []byte, i int) []byte {
	f, w, row := e.f, e.w, e.f.Row(i)
	slots := row[1:]
	exemplarBucket := -1
	if f.Exemplars != nil && usable(&f.Exemplars[i]) {
		exemplarBucket = w.classic.bucketOf(e.sc.float(f.Exemplars[i].Value, false))
	}

	dst, mark := beginLong(dst, metricHistogram)
	var cumulative uint64
	slot := 0
	for j, bound := range w.classic.bounds {
		next := w.classic.ends[j] + 1
		cumulative += sum(slots[slot:next])
		slot = next
		dst = e.bucket(dst, i, cumulative, bound, j == exemplarBucket)
	}
	cumulative += sum(slots[slot:])
	dst = e.bucket(dst, i, cumulative, math.Inf(1), len(w.classic.bounds) == exemplarBucket)
	dst = appendVarintField(dst, histogramCount, cumulative)
	dst = appendDoubleField(dst, histogramSum, e.sc.float(row[0], e.signed))
	if e.native {
		dst = w.native.append(dst, slots)
	}
	if start := f.Points[i].Start; start > 0 {
		dst = appendTimestamp(dst, histogramCreated, start)
	}
	if e.native && exemplarBucket >= 0 {
		dst = e.exemplar(dst, histogramExemplars, &f.Exemplars[i])
	}
	return endLong(dst, mark)
}

func (e *protoEncoder) bucket(dst []byte, i int, count uint64, bound float64, exemplar bool) []byte {
	dst, mark := begin(dst, histogramBucket)
	dst = appendVarintField(dst, bucketCount, count)
	dst = appendDoubleField(dst, bucketBound, bound)
	if exemplar {
		dst = e.exemplar(dst, bucketExemplar, &e.f.Exemplars[i])
	}
	return end(dst, mark)
}
