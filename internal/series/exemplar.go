package series

import (
	"unicode/utf8"
	"unsafe"
)

// maxExemplarRunes bounds the names and values of an exemplar's labels, by OpenMetrics.
const maxExemplarRunes = 128

// keepExemplars takes the newest exemplar of each metric that has them.
func (t *table) keepExemplars(st *seriesState, value []byte, p parts) {
	for i := range t.exemplars {
		x := &t.exemplars[i]
		e := t.metrics[x.metric].metric.Exemplar
		f := t.frame
		for len(f.exemplars[x.metric]) < len(f.series) {
			f.exemplars[x.metric] = append(f.exemplars[x.metric], Exemplar{})
		}
		kept := &f.exemplars[x.metric][st.row]
		for j := range p.count {
			part := value[j*p.stride : j*p.stride+p.size]
			boot := e.Timestamp.Number(part)
			if boot == 0 {
				continue
			}
			at := max(1, t.bootTime+int64(boot/1e6))
			if at <= kept.Timestamp {
				continue
			}
			*kept = Exemplar{Labels: t.exemplarLabels(x, part), Value: e.Value.Number(part), Timestamp: at}
		}
	}
}

// exemplarLabels renders as many whole labels as an exemplar may have.
func (t *table) exemplarLabels(x *exemplarLabels, value []byte) string {
	f := t.frame
	start := len(f.text)
	text := f.text[start:]
	for i := range x.labels {
		before := len(text)
		text, _ = x.labels[i].append(text, value)
		runes := 0
		EachLabel(unsafe.String(unsafe.SliceData(text), len(text)), func(name, value string) bool {
			runes += utf8.RuneCountInString(name) + utf8.RuneCountInString(value)
			return true
		})
		if runes > maxExemplarRunes {
			text = text[:before]
			break
		}
	}
	if len(text) == 0 {
		return ""
	}
	if cap(f.text)-start >= len(text) {
		f.text = f.text[:start+len(text)]
	} else {
		// text moved to an array of its own; what follows goes there as well.
		f.text = text
	}
	return unsafe.String(unsafe.SliceData(text), len(text))
}

type exemplarLabels struct {
	metric int
	labels []labelDecoder
}
