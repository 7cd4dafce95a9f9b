package series

import "bytes"

// move gives a key whose labels changed to the series of its new labels. What a
// shared series has counted under the old name stays there, so that nothing counts twice.
func (t *table) move(k uint32) {
	ks := t.keys.one(k)
	text, known, _ := t.render(t.keyBytes.at(k))
	t.setKnown(ks, known)
	st := t.series.one(ks.series)
	if ks.flags&keyFolded != 0 || bytes.Equal(t.texts.get(st.text), text) {
		return
	}
	if ks.row == 0 {
		t.moveAlone(k, text)
		return
	}
	row := t.rows.at(ks.row - 1)
	t.retain(st, row)
	negative := make([]uint64, len(row))
	at := 0
	for i := range t.metrics {
		t.metrics[i].subtract(negative[at:at+t.metrics[i].stride], row[at:])
		at += t.metrics[i].stride
	}
	t.leave(ks)
	s, folded := t.seriesOf(text)
	if n := t.series.one(s); !n.shared {
		t.share(n)
	}
	t.retain(t.series.one(s), negative)
	t.join(k, s, folded)
}

// moveAlone moves a key that no sum remembers. If the series was its own it takes start and place along.
func (t *table) moveAlone(k uint32, text []byte) {
	ks := t.keys.one(k)
	own := !t.series.one(ks.series).shared
	starts := append(t.oldStarts[:0], t.starts.at(ks.series)...)
	progress := append(t.oldProgress[:0], t.progress.at(ks.series)...)
	t.oldStarts, t.oldProgress = starts, progress
	t.leave(ks)
	admitted := t.admitted
	s, folded := t.seriesOf(text)
	if own && t.admitted != admitted && !t.endedLately(t.series.one(s).hash) {
		copy(t.starts.at(s), starts)
		copy(t.progress.at(s), progress)
	}
	t.join(k, s, folded)
}

// endedLately reports whether a series with this hash may have been shown and ended since.
func (t *table) endedLately(hash uint32) bool {
	if len(t.ended) == maxEnded || len(t.endedBefore) == maxEnded {
		return true
	}
	_, now := t.ended[hash]
	_, before := t.endedBefore[hash]
	return now || before
}
