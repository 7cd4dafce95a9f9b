package series

import (
	"encoding/binary"
	"slices"

	"github.com/kaon-project/kaon/internal/program"
)

// frame is the memory of what one collection of a table shows.
type frame struct {
	series []uint32
	// One for each metric; metrics that are not cumulative share the points.
	points    [][]Point
	values    [][]uint64
	exemplars [][]Exemplar
	text      []byte // labels of exemplars
}

func (f *frame) row(t *table, metric int, row uint32) []uint64 {
	n := t.metrics[metric].stride
	at := int(row) * n
	return f.values[metric][at : at+n]
}

func (f *frame) reset(t *table) {
	n := t.admitted + t.admitted/16 + 1
	f.series = empty(f.series, n)
	f.text = nil
	if f.points == nil {
		f.points = make([][]Point, len(t.metrics))
		f.values = make([][]uint64, len(t.metrics))
		f.exemplars = make([][]Exemplar, len(t.metrics))
	}
	for i := range t.metrics {
		f.values[i] = empty(f.values[i], n*t.metrics[i].stride)
		f.exemplars[i] = f.exemplars[i][:0]
	}
}

// empty returns s without elements and with room for n, but not for many more.
func empty[T any](s []T, n int) []T {
	if cap(s) < n || cap(s) > n+n/5+64 {
		return make([]T, 0, n)
	}
	return s[:0]
}

// parts says how a reader's value is laid out: one part, or one for each CPU.
type parts struct{ count, stride, size int }

// begin starts a collection. start is when series that are new in it began,
// now is the time, both in Unix milliseconds. rename says that names of things may have changed.
func (t *table) begin(f *frame, start, now int64, rename bool) {
	t.epoch++
	t.frame, t.start, t.now, t.rename = f, start, now, t.rename || rename
	t.seen, t.overflowed, t.untracked = 0, 0, 0
	t.lastKey = ^uint32(0)
	clear(t.untrackedRow)
	f.reset(t)
}

// record takes one key and its value in. renamed says that this key's names changed.
// skipZero leaves out a key that is not known yet and whose value is zero, as most of a large array are.
func (t *table) record(key, value []byte, p parts, renamed, skipZero bool) {
	if t.spread != nil {
		key, t.metrics[0].slot = t.spread.split(key)
	}
	if !t.cpu {
		// A series without labels is shown from the beginning, by its first key.
		if skipZero && (len(t.labels) > 0 || t.seen > 0) && allZero(value) {
			if _, _, known := t.find(key); !known {
				return
			}
		}
		t.recordOne(key, value, p, renamed)
		return
	}
	one := parts{1, p.stride, p.size}
	copy(t.keyAndCPU, key)
	for cpu := range p.count {
		binary.LittleEndian.PutUint32(t.keyAndCPU[len(key):], uint32(cpu))
		part := value[cpu*p.stride : cpu*p.stride+p.size]
		if !t.zeros && allZero(part) {
			if _, _, known := t.find(t.keyAndCPU); !known {
				continue
			}
		}
		t.recordOne(t.keyAndCPU, part, one, renamed)
	}
}

func (t *table) recordOne(key, value []byte, p parts, renamed bool) {
	k, hash, found := t.find(key)
	if found && t.keys.one(k).flags&keyDropped != 0 {
		if !t.reconsider(k, key) {
			return
		}
		_, hash, found = t.find(key)
	}
	if !found {
		var ok bool
		if k, ok = t.admit(key, hash); !ok {
			t.untracked++
			if t.cumulative {
				t.numbers(value, p, t.scratch)
				t.sum(t.untrackedRow, t.scratch)
			}
			return
		}
	}
	if k == noKey {
		return
	}
	ks := t.keys.one(k)
	again := ks.epoch == t.epoch
	if again && !t.additive {
		return
	}
	if !again {
		ks.epoch = t.epoch
		t.seen++
	}
	if ks.flags&keyDropped != 0 {
		return
	}
	if ks.flags&keyPending != 0 {
		t.addPending(ks, value, p)
		return
	}
	// Within a read a key stays where it was counted first.
	if found && !again && (renamed || t.rename || t.retries && ks.flags&keyUnresolved != 0) {
		t.move(k)
	}
	if ks.flags&keyFolded != 0 && !t.cumulative {
		return
	}
	st := t.series.one(ks.series)
	first := st.epoch != t.epoch
	if first {
		t.show(ks.series, st)
	}
	if !t.retains || !st.shared {
		for i := range t.metrics {
			c := &t.metrics[i]
			row := t.frame.row(t, i, st.row)
			for j := range p.count {
				c.merge(value[j*p.stride:j*p.stride+p.size], row, first && j == 0)
			}
		}
	} else {
		t.addShared(ks, st, value, p)
	}
	t.keepExemplars(st, value, p)
}

// reconsider says whether a key that was no series is one now: its names may have become known.
func (t *table) reconsider(k uint32, key []byte) bool {
	ks := t.keys.one(k)
	if ks.epoch == t.epoch {
		return false
	}
	if t.rename || t.retries && ks.flags&keyUnresolved != 0 {
		if _, known, drop := t.render(key); !drop || known {
			t.forgetDropped(k)
			return true
		}
	}
	ks.epoch = t.epoch
	t.seen++
	return false
}

// addShared adds a key's numbers to a series that sums over several, and remembers them.
func (t *table) addShared(ks *keyState, st *seriesState, value []byte, p parts) {
	t.numbers(value, p, t.scratch)
	isNew := ks.row == 0
	if isNew {
		ks.row = t.rows.alloc() + 1
	}
	if !isNew {
		at := 0
		for i := range t.metrics {
			c := &t.metrics[i]
			last := t.rows.at(ks.row - 1)[at : at+c.stride]
			if c.progress(t.scratch[at:]) < c.progress(last) {
				// It started again: what it had counted before is kept.
				base := t.base(st)[at : at+c.stride]
				last = t.rows.at(ks.row - 1)[at : at+c.stride]
				c.retain(base, last)
				c.retain(t.frame.row(t, i, st.row), last)
			}
			at += c.stride
		}
	}
	copy(t.rows.at(ks.row-1), t.scratch)
	t.addTo(st, t.scratch)
}

// addPending keeps the numbers of a key until it is known where they belong.
func (t *table) addPending(ks *keyState, value []byte, p parts) {
	t.numbers(value, p, t.scratch)
	if ks.row == 0 {
		ks.row = t.rows.alloc() + 1
	}
	t.sum(t.rows.at(ks.row-1), t.scratch)
}

// admitPending gives the keys that came when the table was full what room there is now.
func (t *table) admitPending() {
	for _, k := range t.pending {
		ks := t.keys.one(k)
		ks.flags &^= keyPending
		text, _, _ := t.render(t.keyBytes.at(k))
		s, folded := t.seriesOf(text)
		t.join(k, s, folded)
		st := t.series.one(s)
		if !folded || t.cumulative {
			if st.epoch != t.epoch {
				t.show(s, st)
			}
			t.addTo(st, t.rows.at(ks.row-1))
		}
		if !t.retains || !st.shared {
			t.rows.release(ks.row - 1)
			ks.row = 0
		}
	}
	t.pending = t.pending[:0]
}

// addTo adds numbers to the row that a series has in this collection.
func (t *table) addTo(st *seriesState, numbers []uint64) {
	at := 0
	for i := range t.metrics {
		c := &t.metrics[i]
		c.add(t.frame.row(t, i, st.row), numbers[at:])
		at += c.stride
	}
}

func (t *table) sum(dst, src []uint64) {
	at := 0
	for i := range t.metrics {
		c := &t.metrics[i]
		c.add(dst[at:at+c.stride], src[at:])
		at += c.stride
	}
}

// numbers extracts the numbers of all metrics from a value.
func (t *table) numbers(value []byte, p parts, row []uint64) {
	clear(row)
	at := 0
	for i := range t.metrics {
		c := &t.metrics[i]
		for j := range p.count {
			c.merge(value[j*p.stride:j*p.stride+p.size], row[at:at+c.stride], j == 0)
		}
		at += c.stride
	}
}

// recordOverflow takes in the value of the entry that counts what the program could not insert.
func (t *table) recordOverflow(value []byte, p parts) {
	if !t.cumulative {
		return
	}
	t.numbers(value, p, t.scratch)
	t.overflowed += t.metrics[0].progress(t.scratch)
	if !slices.ContainsFunc(t.scratch, func(n uint64) bool { return n != 0 }) {
		return
	}
	st := t.series.one(overflowSeries)
	if st.epoch != t.epoch {
		t.show(overflowSeries, st)
	}
	t.addTo(st, t.scratch)
}

// show gives a series a row in this collection, with its base in it.
func (t *table) show(s uint32, st *seriesState) {
	f := t.frame
	st.epoch, st.row = t.epoch, uint32(len(f.series))
	f.series = append(f.series, s)
	for i := range t.metrics {
		n := t.metrics[i].stride
		if n == 1 {
			f.values[i] = append(f.values[i], 0)
			continue
		}
		at := len(f.values[i])
		f.values[i] = slices.Grow(f.values[i], n)[:at+n]
		clear(f.values[i][at:])
	}
	if st.base != 0 {
		t.addTo(st, t.rows.at(st.base-1))
	}
}

// abandon ends a collection that failed. Keys that were not given a series are forgotten.
func (t *table) abandon() {
	t.frame = nil
	for _, k := range t.pending {
		ks := t.keys.one(k)
		if ks.row != 0 {
			t.rows.release(ks.row - 1)
		}
		t.setKnown(ks, true)
		t.unlink(k)
	}
	t.pending = t.pending[:0]
}

// finish ends a collection that read everything: keys that were not seen are
// gone. The frame's points are complete then.
func (t *table) finish() {
	if t.seen < t.live {
		for k := range t.keys.next {
			if ks := t.keys.one(k); ks.flags&keyLive != 0 && ks.epoch != t.epoch {
				t.forget(k, nil)
			}
		}
	}
	if t.idle > 0 && t.admitted >= t.limit {
		t.removeIdle(uint32(t.now/1000) - idleSeries)
	}
	t.admitPending()
	t.foldUntracked()
	if t.idle > 0 {
		for s := range t.series.next {
			if st := t.series.one(s); st.live && st.idleSince != 0 && st.epoch != t.epoch {
				t.show(s, st)
			}
		}
	}
	if st := t.series.one(overflowSeries); st.base != 0 && st.epoch != t.epoch {
		t.show(overflowSeries, st)
	}
	t.complete()
	t.frame, t.rename = nil, false
	t.ended, t.endedBefore = t.endedBefore, t.ended
	clear(t.ended)
	t.compact()
}

// foldUntracked adds what was not remembered key by key to the overflow
// series. Its sum may only grow: what it lost belonged to keys that vanished.
func (t *table) foldUntracked() {
	if t.retains && (t.untracked > 0 || t.previousUntracked > 0) {
		st := t.series.one(overflowSeries)
		at := 0
		for i := range t.metrics {
			c := &t.metrics[i]
			for j := at; j < at+c.largest; j++ {
				if lost := t.previousUntrackedRow[j] - t.untrackedRow[j]; t.untrackedRow[j] < t.previousUntrackedRow[j] {
					t.base(st)[j] += lost
					if st.epoch == t.epoch {
						t.frame.row(t, i, st.row)[j-at] += lost
					}
				}
			}
			at += c.stride
		}
	}
	if t.cumulative && t.untracked > 0 {
		st := t.series.one(overflowSeries)
		if st.epoch != t.epoch {
			t.show(overflowSeries, st)
		}
		t.addTo(st, t.untrackedRow)
	}
	t.untrackedRow, t.previousUntrackedRow = t.previousUntrackedRow, t.untrackedRow
	t.previousUntracked = t.untracked
}

func (t *table) removeIdle(before uint32) {
	for s := range t.series.next {
		if st := t.series.one(s); st.live && st.idleSince != 0 && st.idleSince < before {
			t.removeSeries(s)
		}
	}
}

// complete makes the points of the frame and keeps the starts of series.
func (t *table) complete() {
	f := t.frame
	for i := range t.exemplars {
		e := &f.exemplars[t.exemplars[i].metric]
		for len(*e) < len(f.series) {
			*e = append(*e, Exemplar{})
		}
	}
	for i := range t.metrics {
		t.metrics[i].floor(f.values[i])
		if i > 0 && !t.cumulative {
			f.points[i] = f.points[0]
			continue
		}
		points := f.points[i]
		if len(f.series) > cap(points) || cap(points) > cap(f.series) {
			points = make([]Point, cap(f.series))
		}
		clear(points[:cap(points)][len(f.series):]) // no old labels, which would hold their memory
		points = points[:len(f.series)]
		c := &t.metrics[i]
		for row, s := range f.series {
			st := t.series.one(s)
			p := &points[row]
			p.Labels, p.Start = t.label(st), 0
			if !t.cumulative {
				continue
			}
			at := row * c.stride
			now := c.progress(f.values[i][at : at+c.stride])
			last, start := &t.progress.at(s)[i], &t.starts.at(s)[i]
			if now < *last {
				*start = t.start
			}
			*last, p.Start = now, *start
		}
		f.points[i] = points
	}
}

// family returns metric i of a frame.
func (f *frame) family(t *table, i int) Family {
	fam := Family{Metric: t.metrics[i].metric, Points: f.points[i], Values: f.values[i], Stride: t.metrics[i].stride}
	if fam.Metric.Type == program.Info {
		fam.Values = nil
	}
	if len(f.exemplars[i]) == len(f.points[i]) {
		fam.Exemplars = f.exemplars[i]
	}
	return fam
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
