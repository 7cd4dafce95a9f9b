package exposition

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strings"

	"github.com/kaon-project/kaon/internal/series"
)

// A tag is a field number and wire type of protobuf in one byte.
const (
	varintType = 0
	doubleType = 1
	bytesType  = 2
)

// Tags of the messages of io.prometheus.client, as in client_model's metrics.proto.
const (
	familyName   = 1<<3 | bytesType
	familyHelp   = 2<<3 | bytesType
	familyType   = 3<<3 | varintType
	familyMetric = 4<<3 | bytesType
	familyUnit   = 5<<3 | bytesType

	labelPair       = 1<<3 | bytesType // of Metric and of Exemplar
	metricGauge     = 2<<3 | bytesType
	metricCounter   = 3<<3 | bytesType
	metricSummary   = 4<<3 | bytesType
	metricUntyped   = 5<<3 | bytesType
	metricHistogram = 7<<3 | bytesType

	labelName  = 1<<3 | bytesType
	labelValue = 2<<3 | bytesType

	scalarValue     = 1<<3 | doubleType // of Gauge, Counter and Untyped
	counterExemplar = 2<<3 | bytesType
	counterCreated  = 3<<3 | bytesType

	summaryCount    = 1<<3 | varintType
	summarySum      = 2<<3 | doubleType
	summaryQuantile = 3<<3 | bytesType
	summaryCreated  = 4<<3 | bytesType
	quantileRank    = 1<<3 | doubleType
	quantileValue   = 2<<3 | doubleType

	histogramCount         = 1<<3 | varintType
	histogramSum           = 2<<3 | doubleType
	histogramBucket        = 3<<3 | bytesType
	histogramSchema        = 5<<3 | varintType
	histogramZeroThreshold = 6<<3 | doubleType
	histogramZeroCount     = 7<<3 | varintType
	histogramPositiveSpan  = 12<<3 | bytesType
	histogramPositiveDelta = 13<<3 | bytesType
	histogramCreated       = 15<<3 | bytesType
	histogramExemplars     = 16<<3 | bytesType // the only tag of two bytes

	bucketCount    = 1<<3 | varintType
	bucketBound    = 2<<3 | doubleType
	bucketExemplar = 3<<3 | bytesType

	spanOffsetField = 1<<3 | varintType
	spanLengthField = 2<<3 | varintType

	exemplarValue     = 2<<3 | doubleType
	exemplarTimestamp = 3<<3 | bytesType

	timestampSeconds = 1<<3 | varintType
	timestampNanos   = 2<<3 | varintType
)

func appendVarint(dst []byte, v uint64) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintLen(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func zigzag(v int64) uint64 { return uint64(v<<1) ^ uint64(v>>63) }

func appendVarintField(dst []byte, tag byte, v uint64) []byte {
	return appendVarint(append(dst, tag), v)
}

func appendDoubleField(dst []byte, tag byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(append(dst, tag), math.Float64bits(v))
}

func appendBytesField[T string | []byte](dst []byte, tag byte, v T) []byte {
	dst = appendVarint(append(dst, tag), uint64(len(v)))
	return append(dst, v...)
}

// beginLong and endLong do as begin and end, for messages that are rarely shorter than 128 bytes.
func beginLong(dst []byte, tag uint64) ([]byte, int) {
	dst = append(appendVarint(dst, tag), 0, 0)
	return dst, len(dst)
}

func endLong(dst []byte, mark int) []byte {
	n := len(dst) - mark
	if n >= 0x80 && n < 1<<14 {
		dst[mark-2], dst[mark-1] = byte(n)|0x80, byte(n>>7)
		return dst
	}
	copy(dst[mark-1:], dst[mark:])
	return end(dst[:len(dst)-1], mark-1)
}

// begin opens a nested message, whose length is not known yet; end closes it,
// moving the message when its length needs more than the byte that was set aside.
func begin(dst []byte, tag uint64) ([]byte, int) {
	dst = append(appendVarint(dst, tag), 0)
	return dst, len(dst)
}

func end(dst []byte, mark int) []byte {
	n := len(dst) - mark
	if n < 0x80 {
		dst[mark-1] = byte(n)
		return dst
	}
	extra := varintLen(uint64(n)) - 1
	for range extra {
		dst = append(dst, 0)
	}
	copy(dst[mark+extra:], dst[mark:mark+n])
	binary.PutUvarint(dst[mark-1:mark+extra], uint64(n))
	return dst
}

func appendTimestamp(dst []byte, tag byte, ms int64) []byte {
	dst, mark := begin(dst, uint64(tag))
	dst = appendVarintField(dst, timestampSeconds, uint64(ms/1000))
	if nanos := ms % 1000 * 1e6; nanos != 0 {
		dst = appendVarintField(dst, timestampNanos, uint64(nanos))
	}
	return end(dst, mark)
}

func appendLabelPair(dst []byte, name, value string) []byte {
	size := 2 + varintLen(uint64(len(name))) + len(name) + varintLen(uint64(len(value))) + len(value)
	if size < 0x80 {
		// All lengths fit a byte each: the usual case.
		dst = append(dst, labelPair, byte(size), labelName, byte(len(name)))
		dst = append(dst, name...)
		dst = append(dst, labelValue, byte(len(value)))
		return append(dst, value...)
	}
	dst = appendVarint(append(dst, labelPair), uint64(size))
	dst = appendBytesField(dst, labelName, name)
	return appendBytesField(dst, labelValue, value)
}

// appendLabelPairs turns a label set in text form into LabelPair messages. What
// is no label set is skipped from there on.
func appendLabelPairs(dst []byte, labels string) []byte {
	if strings.IndexByte(labels, '\\') >= 0 {
		// The rare case: leave it to the general walker.
		series.EachLabel(labels, func(name, value string) bool {
			dst = appendLabelPair(dst, name, value)
			return true
		})
		return dst
	}
	for labels != "" {
		equals := strings.IndexByte(labels, '=')
		if equals < 0 || equals+1 >= len(labels) || labels[equals+1] != '"' {
			return dst
		}
		name, rest := labels[:equals], labels[equals+2:]
		quote := strings.IndexByte(rest, '"')
		if quote < 0 {
			return dst
		}
		dst = appendLabelPair(dst, name, rest[:quote])
		labels = rest[quote+1:]
		if labels != "" && labels[0] == ',' {
			labels = labels[1:]
		}
	}
	return dst
}
