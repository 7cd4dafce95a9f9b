package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sort"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

// MaxKeys bounds the keys of one Aggregate; records with further keys are
// counted together. Where keys and values are large there are fewer, so that all take at most maxBytes.
const (
	MaxKeys  = 100_000
	maxBytes = 64 << 20
	// mapBytes is about what a key takes besides its bytes and its value's.
	mapBytes = 64
)

// ErrMetric is returned for a metric that an Aggregate can't make.
var ErrMetric = errors.New("records can't make this metric")

// Aggregate counts, adds up or observes the records of a stream by some of their
// fields. It is safe for concurrent use.
type Aggregate struct {
	spec    program.Aggregate
	metric  program.Metric
	keySize int
	cells   int // 8-byte numbers in a value
	maxKeys int

	mu       sync.Mutex
	values   map[string][]uint64
	overflow []uint64 // nil until there are too many keys
	key      []byte
	// reset is when everything is forgotten next; zero: never.
	reset time.Time
	clock func() time.Time
}

// NewAggregate returns an empty Aggregate for the one metric of a StreamReader.
func NewAggregate(spec *program.Aggregate, metric *program.Metric) (*Aggregate, error) {
	a := &Aggregate{spec: *spec, metric: *metric, values: map[string][]uint64{}, clock: time.Now}
	if spec.Reset > 0 {
		a.reset = a.clock().Add(spec.Reset)
	}
	for _, f := range spec.Keys {
		a.keySize += int(f.Size * max(f.Count, 1))
	}
	for _, f := range metric.Cells {
		a.cells += int(max(f.Count, 1))
	}
	want := 1
	switch metric.Type {
	case program.Histogram:
		if b := metric.Buckets; b == nil || b.Schema < 0 || b.Schema > 8 {
			return nil, fmt.Errorf("%w: %s: a histogram needs buckets, of a schema from 0 to 8", ErrMetric, metric.Name)
		}
		want = 1 + metric.Buckets.Slots()
	case program.Summary:
		want = 2
	}
	if a.cells != want || want < 1 {
		return nil, fmt.Errorf("%w: %s: its value has %d numbers, a %s like this %d", ErrMetric, metric.Name, a.cells, metric.Type, want)
	}
	a.maxKeys = max(1, min(MaxKeys, maxBytes/(mapBytes+a.keySize+8*a.cells)))
	return a, nil
}

// Sizes returns the bytes of each key and value.
func (a *Aggregate) Sizes() (key, value int) { return a.keySize, 8 * a.cells }

// Capacity is the number of keys that are told apart.
func (a *Aggregate) Capacity() int { return a.maxKeys }

// Add takes a record in. Records that are too short for a field are ignored; rings don't hand them out.
func (a *Aggregate) Add(record []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	a.key = a.key[:0]
	for _, f := range a.spec.Keys {
		b := f.Bytes(record)
		if b == nil {
			return
		}
		a.key = append(a.key, b...)
	}
	n := uint64(1)
	if v := a.spec.Value; v != nil {
		if v.Bytes(record) == nil {
			return
		}
		n = v.Number(record)
	}
	row := a.values[string(a.key)]
	switch {
	case row != nil:
	case len(a.values) < a.maxKeys:
		row = make([]uint64, a.cells)
		a.values[string(a.key)] = row
	default:
		if a.overflow == nil {
			a.overflow = make([]uint64, a.cells)
		}
		row = a.overflow
	}
	a.observe(row, n)
}

// expire forgets everything when its time has come.
func (a *Aggregate) expire() {
	if a.reset.IsZero() {
		return
	}
	if now := a.clock(); !now.Before(a.reset) {
		a.values, a.overflow = map[string][]uint64{}, nil
		a.reset = a.reset.Add(now.Sub(a.reset)/a.spec.Reset*a.spec.Reset + a.spec.Reset)
	}
}

// observe changes one value by one record.
func (a *Aggregate) observe(row []uint64, n uint64) {
	switch a.metric.Type {
	case program.Histogram:
		row[0] += n
		row[1+Slot(a.metric.Buckets, a.metric.Scale, n)]++
	case program.Summary:
		row[0]++
		row[1] += n
	default:
		row[0] += n
	}
}

// Each calls yield with each key and its value, 8-byte numbers in the machine's byte order. overflow
// marks the value of the records whose keys were too many; its key is empty. Both are valid during the call.
func (a *Aggregate) Each(yield func(key, value []byte, overflow bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	value := make([]byte, 8*a.cells)
	for key, row := range a.values {
		encode(value, row)
		a.key = append(a.key[:0], key...)
		yield(a.key, value, false)
	}
	if a.overflow != nil {
		encode(value, a.overflow)
		yield(nil, value, true)
	}
}

func encode(value []byte, row []uint64) {
	for i, n := range row {
		binary.NativeEndian.PutUint64(value[8*i:], n)
	}
}

// Remove forgets a key and returns its last value, nil if there was none.
func (a *Aggregate) Remove(key []byte) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	row := a.values[string(key)]
	if row == nil {
		return nil
	}
	delete(a.values, string(key))
	value := make([]byte, 8*a.cells)
	encode(value, row)
	return value
}

// Adopt takes over what an Aggregate of the same specification gathered before a reload.
func (a *Aggregate) Adopt(old *Aggregate) {
	old.mu.Lock()
	values, overflow := old.values, old.overflow
	old.values, old.overflow = map[string][]uint64{}, nil
	old.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	for key, row := range a.values {
		if before := values[key]; before != nil {
			for i := range row {
				before[i] += row[i]
			}
			continue
		}
		values[key] = row
	}
	a.values = values
	switch {
	case a.overflow == nil:
		a.overflow = overflow
	case overflow != nil:
		for i := range overflow {
			a.overflow[i] += overflow[i]
		}
	}
}

// Slot returns the slot of a histogram in which a raw number belongs; see program.Buckets. Numbers
// on a bound that is irrational may be one slot off, as in client libraries.
func Slot(b *program.Buckets, scale program.Scale, n uint64) int {
	if len(b.Bounds) > 0 {
		return sort.Search(len(b.Bounds), func(i int) bool { return n <= b.Bounds[i] })
	}
	last := b.Slots() - 1
	if n == 0 {
		return 0
	}
	var index int
	if scale.Den <= 1 && scale.Num <= 1 && b.Schema == 0 {
		index = bits.Len64(n - 1) // exact
	} else {
		x := float64(n)
		if scale.Den != 0 {
			x = x * float64(scale.Num) / float64(scale.Den)
		}
		index = int(math.Ceil(math.Log2(x) * float64(int(1)<<b.Schema)))
	}
	return min(max(index-b.Low<<b.Schema, 0), last)
}
