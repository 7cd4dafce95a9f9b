package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// label is one name and value, and where they stand.
type label struct {
	name, value  string
	nameAt, from span
}

// find returns the label of that name, nil if there is none.
func find(labels []label, name string) *label {
	for i := range labels {
		if labels[i].name == name {
			return &labels[i]
		}
	}
	return nil
}

// key makes a map's key of labels without one of them; their order does not matter. Empty values may count as absent.
func key(labels []label, without string, dropEmpty bool) string {
	parts := make([]string, 0, len(labels))
	for _, l := range labels {
		if l.name != without && (l.value != "" || !dropEmpty) {
			parts = append(parts, l.name+"\x00"+l.value) // no line has a zero byte
		}
	}
	slices.Sort(parts)
	return strings.Join(parts, "\x00")
}

// shown writes labels without one of them as in a line, "" if there are no others.
func shown(labels []label, without string) string {
	var parts []string
	for _, l := range labels {
		if l.name != without {
			parts = append(parts, l.name+"="+strconv.Quote(l.value))
		}
	}
	if parts == nil {
		return ""
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// labelSet reads labels between braces. In a sample the first may be the metric's name in quotes, which is returned. An exemplar has no name.
func (k *cursor) labelSet(exemplar bool) (labels []label, name string, named bool) {
	open := k.at
	k.at++
	for first := true; ; first = false {
		k.inside()
		if k.end() {
			k.fatal(span{open, len(k.line)}, "the braces are not closed", "", "write } after the last label")
			return labels, name, named
		}
		if k.peek() == '}' {
			if !first && k.c.strict {
				k.error(span{k.at - 1, k.at}, "there is a comma after the last label", "OpenMetrics has commas between labels only", "remove it")
			}
			k.at++
			return labels, name, named
		}
		from := k.at
		l, isName, ok := k.oneLabel()
		if !ok {
			return labels, name, named
		}
		switch {
		case !isName:
			if find(labels, l.name) != nil {
				k.error(l.nameAt, fmt.Sprintf("the label %s is there twice", l.name), "a label has one value", "remove or rename one of them")
			}
			if len(labels) == MaxLabels {
				k.fatal(span{from, k.at}, fmt.Sprintf("this is one label more than %d", MaxLabels), "a line with more is not read on", "make several metrics of it")
				return labels, name, named
			}
			labels = append(labels, l)
		case exemplar:
			k.fatal(span{from, k.at}, "this label has no value", "", `labels are written name="value"`)
			return labels, name, named
		case named || !first:
			k.error(span{from, k.at}, "the metric's name stands here", "in braces it is the first part, once", "move it to the beginning of the braces")
		default:
			name, named = l.name, true
		}
		k.inside()
		switch next := k.peek(); {
		case next == '}':
			k.at++
			return labels, name, named
		case next == ',':
			k.at++
		case k.end():
			// said at the loop's beginning
		case next == '"' || isNameByte(next, true, false):
			k.error(span{k.at, k.at + 1}, "a comma is missing before this label", "", `labels are written {a="1",b="2"}`)
		default:
			k.fatal(span{k.at, k.at + 1}, fmt.Sprintf("%q can't stand here", rune(next)), "after a label's value comes a comma or the closing brace", `labels are written {a="1",b="2"}`)
			return labels, name, named
		}
	}
}

// oneLabel reads name="value", or a name in quotes alone.
func (k *cursor) oneLabel() (l label, isName, ok bool) {
	from := k.at
	if k.peek() == '"' {
		if l.name, ok = k.quoted("name"); !ok {
			return l, false, false
		}
		l.nameAt = span{from, k.at}
		k.quotedName(l.name, l.nameAt)
		k.inside()
		if next := k.peek(); next == ',' || next == '}' {
			return l, true, true
		}
		k.reserved(l.name, l.nameAt)
	} else {
		l.name, l.nameAt = k.word(`=:,}"'`)
		k.labelName(l.name, l.nameAt)
		k.inside()
	}
	switch k.peek() {
	case '=':
		k.at++
	case ':':
		k.error(span{k.at, k.at + 1}, "a label's name and value have a colon between them", "", `write = instead, as in `+proper(l.name, false)+`="value"`)
		k.at++
	default:
		k.fatal(span{from, max(k.at, from+1)}, "this label has no value", "", `labels are written name="value"`)
		return l, false, false
	}
	k.inside()
	valueFrom := k.at
	if k.peek() != '"' {
		value, at := k.word(",}")
		k.broken = true
		k.error(span{at.from, max(at.to, at.from+1)}, "the label's value is not in double quotes", "without them readers can't tell where it ends", fmt.Sprintf(`write %s="%s"`, proper(l.name, false), strings.Trim(value, `"'`)))
		l.value, l.from = value, at
		return l, false, true
	}
	if l.value, ok = k.quoted("label's value"); !ok {
		return l, false, false
	}
	l.from = span{valueFrom, k.at}
	return l, false, true
}

// maxExemplar is how many characters an exemplar's labels may have, names and values together.
const maxExemplar = 128

// exemplar is what stands after # in a sample's line.
type exemplar struct {
	at    span
	value float64
}

// readExemplar reads from # to the line's end.
func (k *cursor) readExemplar() *exemplar {
	e := &exemplar{at: span{k.at, len(k.line)}}
	if !k.c.strict {
		k.fatal(e.at, "this format has no exemplars", "they are a part of OpenMetrics; here the line has too many parts",
			"remove it, or write OpenMetrics, whose last line is # EOF")
		return nil
	}
	k.at++
	k.separator()
	if k.peek() != '{' {
		k.fatal(e.at, "this is neither a timestamp nor an exemplar", "comments can't stand in a line", `an exemplar is written # {trace_id="abc"} 0.5`)
		return nil
	}
	labels, _, _ := k.labelSet(true)
	if k.broken {
		return nil
	}
	length := 0
	for _, l := range labels {
		length += utf8.RuneCountInString(l.name) + utf8.RuneCountInString(l.value)
	}
	if length > maxExemplar {
		k.error(e.at, fmt.Sprintf("the exemplar's labels have %d characters", length), fmt.Sprintf("names and values together may have %d", maxExemplar), "shorten them, for instance to the trace's id alone")
	}
	if k.end() {
		k.fatal(e.at, "the exemplar's value is missing", "", `an exemplar is written # {trace_id="abc"} 0.5`)
		return nil
	}
	k.separator()
	value, at := k.word("")
	var ok bool
	if e.value, ok = k.value(value, at); !ok {
		return nil
	}
	if k.end() {
		return e
	}
	k.separator()
	stamp, at := k.word("")
	k.seconds(stamp, at)
	k.rest()
	return e
}
