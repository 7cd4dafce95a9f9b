package series

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"unsafe"

	"github.com/kaon-project/kaon/internal/program"
)

// A table is the memory of the metrics of one reader that have the same
// labels: which keys there are, which series each belongs to, and what must be
// remembered so that no sum goes back when a key vanishes.
//
// A series of one key needs no memory of values: it ends with its key, and has a
// new start when it returns. Where several keys sum into one series (dropped labels,
// names that look the same, folding), the series is shared: each key's last
// numbers are kept in a row, and move to the series' base when the key vanishes.
type table struct {
	metrics []cells
	// cumulative: all metrics are (what goes over the limit is folded), or none is (it is cut).
	cumulative bool
	// additive readers may yield a key several times, to be added up; they
	// report totals themselves, so nothing is retained for them.
	additive bool
	// retains: sums must outlive their keys.
	retains bool
	width   int // numbers of all metrics
	limit   int
	labels  []labelDecoder
	// exemplars of the metrics that have them.
	exemplars []exemplarLabels
	bootTime  int64 // of CLOCK_BOOTTIME's zero, Unix milliseconds
	static    []program.StaticLabel
	cpu       bool
	// spread: keys that differ in the slot's number only are one.
	spread *spread
	// zeros: a CPU's zero is a series.
	zeros bool
	// named: a label is the workload that rules its keys' lives.
	named bool
	// retries says that names which are not known yet are asked for at each read.
	retries bool
	dropped int // keys that are no series

	keySize    int
	seed       maphash.Seed
	keys       arena[keyState]
	keyBytes   arena[byte]
	keyIndex   index
	rows       arena[uint64] // last numbers of keys, bases of series
	live       int           // keys
	folded     int           // keys in the overflow series, or cut
	foldLimit  int           // how many of those are remembered
	unresolved int           // keys with a label whose name is not known yet
	lastKey    uint32        // the key that was found last: readers mostly keep their order

	series      arena[seriesState]
	starts      arena[int64]  // Unix milliseconds, one for each metric
	progress    arena[uint64] // numbers that never go back, one for each metric
	seriesIndex index
	texts       texts
	admitted    int
	idle        int // shared series without keys
	// Hashes of series that ended since the read before the last: if one returns it needs a new start.
	ended, endedBefore map[uint32]struct{}

	// Keys that were not remembered in the last complete read, and their sums.
	previousUntracked    int
	previousUntrackedRow []uint64

	free []*frame // guarded by the Collector

	// The collection in progress; frame is nil between collections.
	frame        *frame
	epoch        uint32
	start, now   int64 // Unix milliseconds: of series that are new; of this collection
	seen         int   // keys
	overflowed   uint64
	untracked    int
	untrackedRow []uint64
	pending      []uint32 // keys that came when the table was full
	rename       bool     // names may have changed: render all keys anew
	scratch      []uint64
	oldStarts    []int64
	oldProgress  []uint64
	text         []byte
	keyAndCPU    []byte
}

type keyState struct {
	hash, epoch, series uint32
	row                 uint32 // number + 1 of the last numbers, if the series is shared
	flags               uint8
}

const (
	keyLive       = 1 << iota
	keyFolded     // in the overflow series, or cut
	keyUnresolved // a label's name is not known yet
	keyPending    // whether there is room shows when the read is through
	keyDropped    // a label says that it is no series
)

type seriesState struct {
	hash, epoch, row uint32
	text             uint32
	keys             uint32
	first            uint32 // the only key, if it is not shared
	base             uint32 // number + 1
	idleSince        uint32 // Unix seconds
	shared, live     bool
}

// overflowSeries is the number of the series that what goes over the limit is folded into.
const overflowSeries = 0

// idleSeries is how long a shared series without keys keeps its place when
// others need it, in seconds.
const idleSeries = 5 * 60

func newTable(reader *program.Reader, metrics []*program.Metric, labels []labelDecoder, info readerInfo, started int64) (*table, error) {
	m := metrics[0]
	t := &table{
		cumulative: cumulative(m.Type), additive: info.additive, limit: m.Limit,
		labels: labels, static: m.StaticLabels, cpu: m.CPULabel && info.perCPU,
		keySize: int(reader.KeySize), seed: maphash.MakeSeed(),
	}
	t.retains = t.cumulative && !info.additive
	for _, l := range labels {
		if _, ok := l.decoder.(*workloads); ok {
			t.named = true
		}
	}
	if t.limit <= 0 {
		t.limit = program.DefaultLimit
	}
	for _, m := range metrics {
		c, err := newCells(m, reader.ValueSize, reader.Spread)
		if err != nil {
			return nil, err
		}
		t.metrics = append(t.metrics, c)
		t.width += c.stride
	}
	t.zeros = reader.Zeros
	if reader.Spread != nil {
		if t.cpu || len(metrics) > 1 {
			return nil, fmt.Errorf("%w: %s: keys that are buckets make one histogram of all CPUs", ErrMetric, m.Name)
		}
		t.spread = newSpread(reader, m)
	}
	if t.cpu {
		t.keySize += 4
	}
	t.keys = newArena[keyState](1)
	t.keyBytes = newArena[byte](t.keySize)
	t.rows = newArena[uint64](t.width)
	t.series = newArena[seriesState](1)
	t.starts = newArena[int64](len(metrics))
	t.progress = newArena[uint64](len(metrics))
	perKey := 24 + t.keySize
	if t.retains {
		perKey += 8 * t.width
	}
	t.foldLimit = max(4<<20/perKey, t.limit+1024)
	t.scratch = make([]uint64, t.width)
	t.untrackedRow = make([]uint64, t.width)
	t.previousUntrackedRow = make([]uint64, t.width)
	t.keyAndCPU = make([]byte, t.keySize)

	t.text = AppendLabel(nil, OverflowLabel, "true")
	for _, l := range t.static {
		t.text = AppendLabel(t.text, l.Name, l.Value)
	}
	t.start = started
	s := t.newSeriesState(t.texts.add(t.text), 0)
	t.series.one(s).shared = true
	return t, nil
}

// find returns the number of a key, and its hash if it is not known.
func (t *table) find(key []byte) (k, hash uint32, found bool) {
	if next := t.lastKey + 1; next < t.keys.next && t.keys.one(next).flags&keyLive != 0 && bytes.Equal(t.keyBytes.at(next), key) {
		t.lastKey = next
		return next, 0, true
	}
	hash = uint32(maphash.Bytes(t.seed, key))
	k, found = t.keyIndex.find(hash, func(i uint32) bool {
		return t.keys.one(i).hash == hash && bytes.Equal(t.keyBytes.at(i), key)
	})
	if found {
		t.lastKey = k
	}
	return k, hash, found
}

func (t *table) keyHash(k uint32) uint32    { return t.keys.one(k).hash }
func (t *table) seriesHash(s uint32) uint32 { return t.series.one(s).hash }

// admit takes a new key in. ok is false if it is not remembered: there are too many over the limit.
func (t *table) admit(key []byte, hash uint32) (k uint32, ok bool) {
	text, known, drop := t.render(key)
	if drop {
		if t.dropped >= t.foldLimit {
			return noKey, true
		}
		k = t.remember(key, hash, known)
		t.keys.one(k).flags |= keyDropped
		t.dropped++
		return k, true
	}
	// A key whose numbers were in the untracked sum must stay there: elsewhere they would count twice.
	if t.folded+len(t.pending) >= t.foldLimit || t.retains && t.previousUntracked > 0 {
		return 0, false
	}
	s, full := t.seriesOf(text)
	k = t.remember(key, hash, known)
	if full {
		// Series whose keys vanished still take up room: decide when all was read.
		t.keys.one(k).flags |= keyPending
		t.pending = append(t.pending, k)
	} else {
		t.join(k, s, false)
	}
	return k, true
}

// noKey is the number of a key that is neither remembered nor counted.
const noKey = ^uint32(0)

// remember makes an entry for a key.
func (t *table) remember(key []byte, hash uint32, known bool) uint32 {
	k := t.keys.alloc()
	for t.keyBytes.next < t.keys.next {
		t.keyBytes.alloc()
	}
	copy(t.keyBytes.at(k), key)
	*t.keys.one(k) = keyState{hash: hash, epoch: t.epoch - 1, flags: keyLive}
	t.keyIndex.insert(hash, k, t.keyHash)
	t.live++
	t.lastKey = k
	t.setKnown(t.keys.one(k), known)
	return k
}

func (t *table) setKnown(ks *keyState, known bool) {
	switch was := ks.flags&keyUnresolved == 0; {
	case was && !known:
		ks.flags |= keyUnresolved
		t.unresolved++
	case !was && known:
		ks.flags &^= keyUnresolved
		t.unresolved--
	}
}

// render returns the labels of a key in text form, valid until the next call, and whether all names in it are
// known. drop says that the key is no series.
func (t *table) render(key []byte) (text []byte, known, drop bool) {
	text, known = t.text[:0], true
	for i := range t.labels {
		l := &t.labels[i]
		var ok bool
		if c, isChain := l.decoder.(chain); isChain {
			var skip bool
			text, ok, skip = c.append(text, &l.label, key)
			drop = drop || skip
		} else {
			text, ok = l.append(text, key)
		}
		known = known && ok
	}
	if t.cpu {
		cpu := program.Field{Offset: uint32(t.keySize - 4), Size: 4}
		text = appendUint(text, "cpu", cpu.Number(key))
	}
	for _, l := range t.static {
		text = AppendLabel(text, l.Name, l.Value)
	}
	t.text = text
	return text, known, drop
}

// seriesOf returns the series of a label set, a new one if there is room, else the overflow series.
func (t *table) seriesOf(text []byte) (s uint32, folded bool) {
	hash := uint32(maphash.Bytes(t.seed, text))
	s, found := t.seriesIndex.find(hash, func(i uint32) bool {
		st := t.series.one(i)
		return st.hash == hash && bytes.Equal(t.texts.get(st.text), text)
	})
	if found {
		return s, false
	}
	if t.admitted >= t.limit {
		return overflowSeries, true
	}
	s = t.newSeriesState(t.texts.add(text), hash)
	t.seriesIndex.insert(hash, s, t.seriesHash)
	t.admitted++
	return s, false
}

func (t *table) newSeriesState(text, hash uint32) uint32 {
	s := t.series.alloc()
	for t.starts.next < t.series.next {
		t.starts.alloc()
		t.progress.alloc()
	}
	clear(t.progress.at(s))
	for i := range t.starts.at(s) {
		t.starts.at(s)[i] = t.start
	}
	*t.series.one(s) = seriesState{hash: hash, text: text, epoch: t.epoch - 1, live: true}
	return s
}

// join makes a key one of a series' keys.
func (t *table) join(k, s uint32, folded bool) {
	ks, st := t.keys.one(k), t.series.one(s)
	if st.keys == 1 && !st.shared {
		t.share(st)
	}
	if st.keys == 0 {
		st.first = k
		if st.idleSince != 0 {
			st.idleSince = 0
			t.idle--
		}
	}
	st.keys++
	ks.series = s
	if folded {
		ks.flags |= keyFolded
		t.folded++
	}
}

// share makes a series remember its keys' numbers from now on. If its only
// key was read already, the series' row holds that key's numbers.
func (t *table) share(st *seriesState) {
	st.shared = true
	if st.keys != 1 || !t.retains || t.frame == nil || st.epoch != t.epoch {
		return
	}
	ks := t.keys.one(st.first)
	ks.row = t.rows.alloc() + 1
	row := t.rows.at(ks.row - 1)
	at := 0
	for i := range t.metrics {
		at += copy(row[at:], t.frame.row(t, i, st.row))
	}
}

// leave takes a key out of its series, which ends if it holds nothing else.
func (t *table) leave(ks *keyState) {
	if ks.flags&keyFolded != 0 {
		ks.flags &^= keyFolded
		t.folded--
	}
	s := ks.series
	st := t.series.one(s)
	st.keys--
	if st.keys > 0 || s == overflowSeries {
		return
	}
	if t.retains && st.shared {
		st.idleSince = uint32(t.now / 1000)
		t.idle++
		return
	}
	t.removeSeries(s)
}

func (t *table) removeSeries(s uint32) {
	st := t.series.one(s)
	if len(t.ended) < maxEnded && t.cumulative {
		if t.ended == nil {
			t.ended = map[uint32]struct{}{}
		}
		t.ended[st.hash] = struct{}{}
	}
	t.seriesIndex.remove(st.hash, s, t.seriesHash)
	t.texts.drop(st.text)
	if st.base != 0 {
		t.rows.release(st.base - 1)
	}
	if st.idleSince != 0 {
		t.idle--
	}
	*st = seriesState{}
	t.series.release(s)
	t.admitted--
}

// maxEnded bounds how many ended series are remembered.
const maxEnded = 4096

// forget removes a key that vanished; the numbers it had stay in sums. last are its
// exact last numbers, nil if what was read last must do.
func (t *table) forget(k uint32, last []uint64) {
	ks := t.keys.one(k)
	if ks.flags&keyDropped != 0 {
		t.forgetDropped(k)
		return
	}
	switch st := t.series.one(ks.series); {
	case ks.row != 0:
		if last == nil {
			last = t.rows.at(ks.row - 1)
		}
		t.retain(st, last)
		t.rows.release(ks.row - 1)
	case t.retains && st.shared:
		// It became a sum only now, and what this key had counted is lost: it starts anew.
		for i := range t.metrics {
			t.progress.at(ks.series)[i] = math.MaxUint64
		}
	}
	t.setKnown(ks, true)
	t.leave(ks)
	t.unlink(k)
}

// forgetDropped removes a key that is no series.
func (t *table) forgetDropped(k uint32) {
	t.setKnown(t.keys.one(k), true)
	t.dropped--
	t.unlink(k)
}

// unlink frees a key's entry.
func (t *table) unlink(k uint32) {
	ks := t.keys.one(k)
	t.keyIndex.remove(ks.hash, k, t.keyHash)
	*ks = keyState{}
	t.keys.release(k)
	t.live--
}

// forgetKey removes a key that was deleted, with its last value (nil: it was gone before).
func (t *table) forgetKey(key, value []byte, p parts) {
	one := func(key, value []byte, p parts) {
		k, _, found := t.find(key)
		if !found {
			return
		}
		if value == nil || t.keys.one(k).row == 0 {
			t.forget(k, nil)
			return
		}
		t.numbers(value, p, t.scratch)
		t.forget(k, t.scratch)
	}
	if !t.cpu {
		one(key, value, p)
		return
	}
	copy(t.keyAndCPU, key)
	for cpu := range p.count {
		binary.LittleEndian.PutUint32(t.keyAndCPU[len(key):], uint32(cpu))
		var part []byte
		if value != nil {
			part = value[cpu*p.stride:][:p.size]
		}
		one(t.keyAndCPU, part, parts{1, p.stride, p.size})
	}
}

// retain moves numbers into a series' base.
func (t *table) retain(st *seriesState, numbers []uint64) {
	base := t.base(st)
	at := 0
	for i := range t.metrics {
		c := &t.metrics[i]
		c.retain(base[at:at+c.stride], numbers[at:])
		if t.frame != nil && st.epoch == t.epoch {
			c.retain(t.frame.row(t, i, st.row), numbers[at:])
		}
		at += c.stride
	}
}

func (t *table) base(st *seriesState) []uint64 {
	if st.base == 0 {
		st.base = t.rows.alloc() + 1
	}
	return t.rows.at(st.base - 1)
}

// label returns the label set of a series. The memory is never overwritten.
func (t *table) label(st *seriesState) string {
	b := t.texts.get(st.text)
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// compact rewrites the texts if most of them are dead.
func (t *table) compact() {
	if !t.texts.wasteful() {
		return
	}
	old := t.texts
	t.texts = texts{}
	for s := range t.series.next {
		if st := t.series.one(s); st.live {
			st.text = t.texts.add(old.get(st.text))
		}
	}
}
