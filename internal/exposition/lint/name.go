package lint

import (
	"fmt"
	"strconv"
	"strings"
)

func isNameByte(ch byte, first, colon bool) bool {
	return ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch == '_' || colon && ch == ':' || !first && ch >= '0' && ch <= '9'
}

// isName says whether a name can stand without quotes. Colons are for metrics only.
func isName(name string, colon bool) bool {
	for i := range len(name) {
		if !isNameByte(name[i], i == 0, colon) {
			return false
		}
	}
	return name != ""
}

// proper makes a name of something that is none.
func proper(name string, colon bool) string {
	var b strings.Builder
	last := byte('_')
	for i := range len(name) {
		ch := name[i]
		switch {
		case isNameByte(ch, false, colon):
			if b.Len() == 0 && ch >= '0' && ch <= '9' {
				b.WriteByte('_')
			}
			b.WriteByte(ch)
			last = ch
		case last != '_':
			b.WriteByte('_')
			last = '_'
		}
	}
	if b.Len() == 0 {
		return "a_name"
	}
	return b.String()
}

// metricName checks a name that stands without quotes.
func (k *cursor) metricName(name string, at span) {
	switch {
	case name == "":
		k.error(span{at.from, at.from + 1}, "a metric's name is missing here", "", "write a name of letters, digits and _, not a digit first")
	case !isName(name, true):
		k.error(at, fmt.Sprintf("%s is not a metric's name", strconv.Quote(name)), "names have letters, digits and _, and don't begin with a digit",
			"write "+proper(name, true))
	}
}

func (k *cursor) labelName(name string, at span) {
	switch {
	case name == "":
		k.error(span{at.from, at.from + 1}, "a label's name is missing here", "", `labels are written name="value", with commas between them`)
	case !isName(name, false):
		k.error(at, fmt.Sprintf("%s is not a label's name", strconv.Quote(name)), "names have letters, digits and _, and don't begin with a digit",
			"write "+proper(name, false))
	default:
		k.reserved(name, at)
		if hasCamel(name) && !k.c.said["label "+name] {
			k.c.said["label "+name] = true
			k.warn(at, "the label "+name+" is written in camelCase", "names are in small letters, with _ between words", "write "+snake(name))
		}
	}
}

// reserved checks the names that Prometheus keeps for itself.
func (k *cursor) reserved(name string, at span) {
	switch {
	case name == "__name__":
		k.error(at, "the label __name__ is the metric's name itself", "readers get two names", "write the name before the braces")
	case strings.HasPrefix(name, "__"):
		severity := Warning
		if k.c.strict {
			severity = Error
		}
		k.c.note(severity, k.number, at, "labels that begin with __ are reserved", "Prometheus removes them after relabelling", "write "+proper(strings.TrimLeft(name, "_"), false))
	}
}

// quotedName checks a name in quotes.
func (k *cursor) quotedName(name string, at span) {
	switch {
	case name == "":
		k.error(at, "the name is empty", "", "write a name")
	case !k.c.options.QuotedNames && !k.c.said["quoted"]:
		k.c.said["quoted"] = true
		k.warn(at, "names in quotes are understood by few readers", "a server takes them only if it asked for escaping=allow-utf-8, as Prometheus 3 does",
			"write "+proper(name, true)+" without quotes if others shall read it too")
	}
}
