package exposition

import (
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// sampleName is a sample's name as it is written before a label set and alone.
type sampleName struct{ open, bare string }

// sample returns the name of the family's samples with a suffix.
func (w *Writer) sample(suffix string) sampleName {
	name := w.family.name + suffix
	if isLegacyName(name, true) {
		return sampleName{name + "{", name + " "}
	}
	name = quoted(name)
	return sampleName{"{" + name + ",", "{" + name + "} "}
}

// append appends everything before the number.
func (n *sampleName) append(dst []byte, labels string) []byte {
	if labels == "" {
		return append(dst, n.bare...)
	}
	dst = append(dst, n.open...)
	dst = append(dst, labels...)
	return append(dst, "} "...)
}

// appendWith does so with one label more.
func (n *sampleName) appendWith(dst []byte, labels string, label []byte) []byte {
	dst = append(dst, n.open...)
	if labels != "" {
		dst = append(dst, labels...)
		dst = append(dst, ',')
	}
	dst = append(dst, label...)
	return append(dst, "} "...)
}

// labels returns the label set of a series with its foreign names written anew.
func (w *Writer) labels(p *series.Point, foreign bool) string {
	if foreign {
		return relabel(p.Labels, w.format.Escaping, true)
	}
	return p.Labels
}

func (w *Writer) textFamily(group []*series.Family) {
	w.textMetadata(group[0].Metric)
	for _, f := range group {
		switch f.Metric.Type {
		case program.Histogram, program.GaugeHistogram:
			w.textHistograms(f)
		case program.Summary:
			w.textSummaries(f)
		case program.StateSet:
			w.textStateSets(f)
		case program.Info:
			w.textInfos(f)
		default:
			w.textScalars(f)
		}
	}
}

func (w *Writer) textMetadata(m *program.Metric) {
	name := w.family.name
	if !isLegacyName(name, true) {
		name = quoted(name)
	}
	openMetrics := w.format.Syntax == OpenMetrics
	help := func() {
		if m.Help != "" {
			w.buf = append(append(append(w.buf, "# HELP "...), name...), ' ')
			w.buf = append(appendEscapedText(w.buf, m.Help, openMetrics), '\n')
		}
	}
	if !openMetrics {
		help()
	}
	w.buf = append(append(append(w.buf, "# TYPE "...), name...), ' ')
	w.buf = append(append(w.buf, w.typeName()...), '\n')
	if !openMetrics {
		return
	}
	if w.family.unit != "" {
		w.buf = append(append(append(w.buf, "# UNIT "...), name...), ' ')
		w.buf = append(append(w.buf, w.family.unit...), '\n')
	}
	help()
}

func (w *Writer) typeName() string {
	if w.format.Syntax == OpenMetrics {
		return string(w.family.typ)
	}
	switch w.family.typ {
	case program.GaugeHistogram:
		return "histogram"
	case program.Info, program.StateSet:
		return "gauge"
	case program.Unknown:
		return "untyped"
	}
	return string(w.family.typ)
}

// more writes out what there is when it is enough, and says whether to go on.
func (w *Writer) more() bool {
	if len(w.buf) >= chunkSize {
		w.flush()
	}
	return w.err == nil
}

// isSigned says whether raw numbers of a cell are negative where their highest bit
// is set. Counters never are: a negative one is shown as 0, because a server would refuse it.
func isSigned(m *program.Metric, cell int) bool {
	return cell < len(m.Cells) && m.Cells[cell].Signed
}

// scalar returns the raw number to show.
func scalar(raw uint64, counter, signed bool) uint64 {
	if counter && signed && int64(raw) < 0 {
		return 0
	}
	return raw
}

func (w *Writer) textScalars(f *series.Family) {
	counter := f.Metric.Type == program.Counter
	openMetrics := w.format.Syntax == OpenMetrics && w.family.typ == program.Counter
	suffix := ""
	if openMetrics {
		suffix = "_total"
	}
	name := w.sample(suffix)
	signed := isSigned(f.Metric, 0)
	sc := newScale(f.Metric.Scale)
	plain := sc.plain() && !signed
	foreign := hasForeignLabels(f.Metric)
	created := w.createdName()
	exemplars := f.Exemplars
	if !openMetrics {
		exemplars = nil
	}
	for i := range f.Points {
		p := &f.Points[i]
		labels := w.labels(p, foreign)
		w.buf = name.append(w.buf, labels)
		if plain {
			w.buf = strconv.AppendUint(w.buf, f.Values[i], 10)
		} else {
			w.buf = sc.append(w.buf, scalar(f.Values[i], counter, signed), signed)
		}
		if exemplars != nil {
			w.buf = appendTextExemplar(w.buf, &exemplars[i], &sc, foreign, w.format.Escaping)
		}
		w.buf = append(w.buf, '\n')
		w.textCreated(&created, labels, p.Start)
		if !w.more() {
			return
		}
	}
}

// createdName returns the name of _created samples, or none if there are to be none.
func (w *Writer) createdName() sampleName {
	if w.format.Syntax != OpenMetrics || !w.options.CreatedSamples {
		return sampleName{}
	}
	switch w.family.typ {
	case program.Counter, program.Histogram, program.Summary:
		return w.sample("_created")
	}
	return sampleName{}
}

func (w *Writer) textCreated(name *sampleName, labels string, start int64) {
	if name.open != "" && start > 0 {
		w.buf = name.append(w.buf, labels)
		w.buf = append(appendMillis(w.buf, start), '\n')
	}
}

// maxExemplarRunes is what OpenMetrics allows for the names and values of an exemplar's labels.
const maxExemplarRunes = 128

// usable says whether an exemplar is there and short enough.
func usable(e *series.Exemplar) bool {
	if e.Timestamp <= 0 {
		return false
	}
	if len(e.Labels) <= maxExemplarRunes {
		return true
	}
	runes := 0
	series.EachLabel(e.Labels, func(name, value string) bool {
		runes += utf8.RuneCountInString(name) + utf8.RuneCountInString(value)
		return runes <= maxExemplarRunes
	})
	return runes <= maxExemplarRunes
}

func appendTextExemplar(dst []byte, e *series.Exemplar, sc *scale, foreign bool, escaping model.EscapingScheme) []byte {
	if !usable(e) {
		return dst
	}
	labels := e.Labels
	if foreign {
		labels = relabel(labels, escaping, true)
	}
	dst = append(append(append(dst, " # {"...), labels...), "} "...)
	dst = append(sc.append(dst, e.Value, false), ' ')
	return appendMillis(dst, e.Timestamp)
}

func (w *Writer) textInfos(f *series.Family) {
	suffix := ""
	if w.family.typ == program.Info && w.format.Syntax == OpenMetrics {
		suffix = "_info"
	}
	name := w.sample(suffix)
	foreign := hasForeignLabels(f.Metric)
	for i := range f.Points {
		labels := w.labels(&f.Points[i], foreign)
		w.buf = append(name.append(w.buf, labels), '1', '\n')
		if !w.more() {
			return
		}
	}
}

// state is one state of a stateset with its label rendered.
type state struct {
	value int64
	name  string
	label []byte
}

// planStates collects the states to show: each name and each value once.
func (w *Writer) planStates(m *program.Metric) {
	w.states = w.states[:0]
	for i := range m.States {
		s := &m.States[i]
		name := s.Name
		if name == "" {
			name = strconv.FormatInt(s.Value, 10)
		}
		known := false
		for j := range w.states {
			known = known || w.states[j].value == s.Value || w.states[j].name == name
		}
		if !known {
			w.states = append(w.states, state{value: s.Value, name: name})
		}
	}
}

// hasState says whether a stateset knows the number.
func (w *Writer) hasState(value int64) bool {
	for i := range w.states {
		if w.states[i].value == value {
			return true
		}
	}
	return false
}

// unknownState names a number that has no name.
func (w *Writer) unknownState(raw uint64, signed bool) string {
	name := strconv.FormatUint(raw, 10)
	if signed {
		name = strconv.FormatInt(int64(raw), 10)
	}
	for i := range w.states {
		if w.states[i].name == name {
			return name + "?" // a state is called like another one's number
		}
	}
	return name
}

func (w *Writer) textStateSets(f *series.Family) {
	name := w.sample("")
	labelName := escapeLabelName(w.family.name, w.format.Escaping)
	if !isLegacyName(labelName, false) {
		labelName = quoted(labelName)
	}
	w.planStates(f.Metric)
	for i := range w.states {
		w.states[i].label = series.AppendLabel(nil, labelName, w.states[i].name)
	}
	foreign, signed := hasForeignLabels(f.Metric), isSigned(f.Metric, 0)
	for i := range f.Points {
		labels := w.labels(&f.Points[i], foreign)
		raw := f.Values[i]
		for j := range w.states {
			w.buf = name.appendWith(w.buf, labels, w.states[j].label)
			digit := byte('0')
			if w.states[j].value == int64(raw) {
				digit = '1'
			}
			w.buf = append(w.buf, digit, '\n')
		}
		if !w.hasState(int64(raw)) {
			w.head = series.AppendLabel(w.head[:0], labelName, w.unknownState(raw, signed))
			w.buf = append(name.appendWith(w.buf, labels, w.head), '1', '\n')
		}
		if !w.more() {
			return
		}
	}
}

func (w *Writer) textSummaries(f *series.Family) {
	openMetrics := w.format.Syntax == OpenMetrics
	m := f.Metric
	name, sumName, countName := w.sample(""), w.sample("_sum"), w.sample("_count")
	created := w.createdName()
	sc := newScale(m.Scale)
	foreign := hasForeignLabels(m)
	labelsOf := make([][]byte, len(m.Quantiles))
	for q, quantile := range m.Quantiles {
		labelsOf[q] = append(appendBound([]byte(`quantile="`), quantile, openMetrics), '"')
	}
	for i := range f.Points {
		p := &f.Points[i]
		labels := w.labels(p, foreign)
		row := f.Row(i)
		for q := range m.Quantiles {
			signed := isSigned(m, 2+q)
			// OpenMetrics has no negative quantiles and sums.
			if openMetrics && signed && int64(row[2+q]) < 0 {
				continue
			}
			w.buf = name.appendWith(w.buf, labels, labelsOf[q])
			w.buf = append(sc.append(w.buf, row[2+q], signed), '\n')
		}
		signed := isSigned(m, 1)
		if !(openMetrics && signed && int64(row[1]) < 0) {
			w.buf = sumName.append(w.buf, labels)
			w.buf = append(sc.append(w.buf, row[1], signed), '\n')
		}
		w.buf = countName.append(w.buf, labels)
		w.buf = append(strconv.AppendUint(w.buf, row[0], 10), '\n')
		w.textCreated(&created, labels, p.Start)
		if !w.more() {
			return
		}
	}
}

func (w *Writer) textHistograms(f *series.Family) {
	openMetrics := w.format.Syntax == OpenMetrics
	m := f.Metric
	bucketName, sumName, countName := w.sample("_bucket"), w.sample("_sum"), w.sample("_count")
	if openMetrics && m.Type == program.GaugeHistogram {
		sumName, countName = w.sample("_gsum"), w.sample("_gcount")
	}
	created := w.createdName()
	sc := newScale(m.Scale)
	signed := isSigned(m, 0)
	foreign := hasForeignLabels(m)
	w.classic.reset(m.Buckets, &sc)
	w.renderTails(openMetrics)

	for i := range f.Points {
		p := &f.Points[i]
		labels := w.labels(p, foreign)
		row := f.Row(i)
		exemplarBucket := -1
		if openMetrics && f.Exemplars != nil && usable(&f.Exemplars[i]) {
			exemplarBucket = w.classic.bucketOf(sc.float(f.Exemplars[i].Value, false))
		}

		head := append(w.head[:0], bucketName.open...)
		if labels != "" {
			head = append(append(head, labels...), ',')
		}
		w.head = head
		slots, slot := row[1:], 0
		var total uint64
		buf := w.buf
		for j := range w.tails {
			next := len(slots)
			if j < len(w.classic.ends) {
				next = w.classic.ends[j] + 1
			}
			total += sum(slots[slot:next])
			slot = next
			buf = append(buf, head...)
			buf = append(buf, w.tails[j]...)
			buf = strconv.AppendUint(buf, total, 10)
			if j == exemplarBucket {
				buf = appendTextExemplar(buf, &f.Exemplars[i], &sc, foreign, w.format.Escaping)
			}
			buf = append(buf, '\n')
		}
		w.buf = buf
		// OpenMetrics has no negative sum here, and no count without a sum.
		if !(openMetrics && signed && int64(row[0]) < 0) {
			w.buf = sumName.append(w.buf, labels)
			w.buf = append(sc.append(w.buf, row[0], signed), '\n')
			w.buf = countName.append(w.buf, labels)
			w.buf = append(strconv.AppendUint(w.buf, total, 10), '\n')
		}
		w.textCreated(&created, labels, p.Start)
		if !w.more() {
			return
		}
	}
}

// renderTails renders the le label of each classic bucket with what follows it.
func (w *Writer) renderTails(openMetrics bool) {
	w.tails, w.arena = w.tails[:0], w.arena[:0]
	// Room first: the tails point into the arena.
	if need := 40 * (len(w.classic.bounds) + 1); cap(w.arena) < need {
		w.arena = make([]byte, 0, need)
	}
	for j := range len(w.classic.bounds) + 1 {
		start := len(w.arena)
		w.arena = append(w.arena, `le="`...)
		if j < len(w.classic.bounds) {
			w.arena = appendBound(w.arena, w.classic.bounds[j], openMetrics)
		} else {
			w.arena = append(w.arena, "+Inf"...)
		}
		w.arena = append(w.arena, `"} `...)
		w.tails = append(w.tails, w.arena[start:len(w.arena):len(w.arena)])
	}
}
