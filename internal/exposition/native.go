package exposition

import (
	"encoding/binary"
	"math"

	"github.com/kaon-project/kaon/internal/program"
)

const (
	// defaultNative is how many populated native buckets a histogram shows at most unless it says otherwise.
	defaultNative = 160
	// minSchema is the coarsest schema there is: 65536 to the bucket.
	minSchema = -4
	// maxSpanGap is the largest number of empty buckets that are written rather than skipped by a new span.
	maxSpanGap = 2
)

// nativePlan turns the slots of a histogram into native buckets.
type nativePlan struct {
	schema    int8 // of the slots
	shift     int  // how much coarser it is shown
	limit     int
	first     int // native index of slot 0
	threshold float64

	// Of the latest histogram: the populated buckets.
	indexes   []int
	counts    []uint64
	populated int
	deltas    []byte
}

// reset plans for valid native buckets.
func (p *nativePlan) reset(b *program.Buckets) {
	p.schema, p.shift, p.limit = b.Schema, 0, defaultNative
	if b.NativeSchema != nil && *b.NativeSchema < b.Schema {
		p.shift = int(b.Schema) - int(max(*b.NativeSchema, minSchema))
	}
	if b.MaxNative > 0 {
		p.limit = b.MaxNative
	}
	p.first = b.Low << b.Schema
	p.threshold = math.Ldexp(1, b.Low)
}

// hasNative says whether a metric is shown as a native histogram.
func hasNative(b *program.Buckets) bool {
	return len(b.Bounds) == 0 && len(b.Upper) == 0 && !b.NoNative
}

// coarser returns the index of the bucket that holds the bucket of an index when the schema is lowered by shift.
func coarser(index, shift int) int { return (index-1)>>shift + 1 }

// collect finds the populated buckets of a row of slots and returns the schema at
// which they are few enough.
func (p *nativePlan) collect(slots []uint64) int {
	if len(p.indexes) < len(slots) {
		p.indexes, p.counts = make([]int, len(slots)), make([]uint64, len(slots))
	}
	n, last := 0, len(slots)-1
	overflow := slots[last]
	first, indexes, counts := p.first+1, p.indexes, p.counts
	for i, count := range slots[1:last] {
		if count != 0 {
			indexes[n], counts[n] = first+i, count
			n++
		}
	}
	schema, limit := int(p.schema)-p.shift, p.limit
	if p.shift > 0 {
		n = p.merge(n, p.shift)
	}
	if overflow != 0 {
		limit--
	}
	for n > max(limit, 0) && schema > minSchema {
		schema--
		n = p.merge(n, 1)
	}
	if overflow != 0 {
		indexes[n], counts[n] = infIndex(schema), overflow
		n++
	}
	p.populated = n
	return schema
}

// merge lowers the schema of the first n populated buckets by shift and returns how many remain.
func (p *nativePlan) merge(n, shift int) int {
	kept := 0
	for i, index := range p.indexes[:n] {
		index = coarser(index, shift)
		if kept > 0 && p.indexes[kept-1] == index {
			p.counts[kept-1] += p.counts[i]
			continue
		}
		p.indexes[kept], p.counts[kept] = index, p.counts[i]
		kept++
	}
	return kept
}

// infIndex is the index of the bucket from math.MaxFloat64 to infinity.
func infIndex(schema int) int {
	if schema < 0 {
		return 1024>>-schema + 1
	}
	return 1024<<schema + 1
}

// append appends the native fields of a Histogram message.
func (p *nativePlan) append(dst []byte, slots []uint64) []byte {
	schema := p.collect(slots)
	dst = appendVarintField(dst, histogramSchema, zigzag(int64(schema)))
	dst = appendDoubleField(dst, histogramZeroThreshold, p.threshold)
	dst = appendVarintField(dst, histogramZeroCount, slots[0])
	indexes, counts := p.indexes[:p.populated], p.counts[:p.populated]
	if len(indexes) == 0 {
		// The span that does nothing marks a histogram as native.
		return appendSpan(dst, 0, 0)
	}

	deltas := p.deltas[:0]
	var previous uint64
	spanOffset, spanLength, next := indexes[0], 0, indexes[0]
	for i, index := range indexes {
		gap := index - next
		if gap > maxSpanGap {
			dst = appendSpan(dst, spanOffset, spanLength)
			spanOffset, spanLength = gap, 0
		} else {
			for range gap {
				deltas = appendVarint(deltas, zigzag(-int64(previous)))
				previous = 0
			}
			spanLength += gap
		}
		deltas = appendDelta(deltas, zigzag(int64(counts[i]-previous)))
		previous = counts[i]
		spanLength++
		next = index + 1
	}
	p.deltas = deltas
	dst = appendSpan(dst, spanOffset, spanLength)
	return appendBytesField(dst, histogramPositiveDelta, deltas)
}

// appendDelta is appendVarint for numbers that mostly take two or three bytes.
func appendDelta(dst []byte, v uint64) []byte {
	switch {
	case v < 1<<7:
		return append(dst, byte(v))
	case v < 1<<14:
		return append(dst, byte(v)|0x80, byte(v>>7))
	case v < 1<<21:
		return append(dst, byte(v)|0x80, byte(v>>7)|0x80, byte(v>>14))
	}
	return appendVarint(dst, v)
}

func appendSpan(dst []byte, offset, length int) []byte {
	shift := zigzag(int64(offset))
	if shift < 0x80 && length < 0x80 {
		// The usual case: six bytes, in one go with two that nobody sees.
		const empty = histogramPositiveSpan | 4<<8 | spanOffsetField<<16 | spanLengthField<<32
		return binary.LittleEndian.AppendUint64(dst, empty|shift<<24|uint64(length)<<40)[:len(dst)+6]
	}
	dst, mark := begin(dst, histogramPositiveSpan)
	dst = appendVarintField(dst, spanOffsetField, shift)
	dst = appendVarintField(dst, spanLengthField, uint64(length))
	return end(dst, mark)
}
