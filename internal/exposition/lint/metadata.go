package lint

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Types of metrics.
const (
	counter        = "counter"
	gauge          = "gauge"
	histogram      = "histogram"
	gaugeHistogram = "gaugehistogram"
	summary        = "summary"
	info           = "info"
	stateSet       = "stateset"
	unknown        = "unknown"
	untyped        = "untyped"
)

func typesOf(strict bool) []string {
	if strict {
		return []string{counter, gauge, histogram, gaugeHistogram, summary, info, stateSet, unknown}
	}
	return []string{counter, gauge, histogram, summary, untyped}
}

// comment checks a line that begins with #.
func (c *checker) comment(number int, line string, indent int) {
	k := &cursor{c: c, number: number, line: line, at: indent + 1}
	spaced := k.blanks()
	keyword, at := k.word("")
	upper := strings.ToUpper(keyword)
	known := upper == "HELP" || upper == "TYPE" || upper == "UNIT"
	switch {
	case spaced == 0 && (known || upper == "EOF" && c.strict):
		c.note(Error, number, span{indent, at.to}, "a space is missing after #", fmt.Sprintf("to some readers this is a %s line, to others a comment", upper), "write # "+upper)
	case known && keyword != upper, upper == "EOF" && keyword != upper:
		severity := Warning
		if c.strict {
			severity = Error
		}
		c.note(severity, number, at, fmt.Sprintf("%s must be in capitals", keyword), "otherwise the line is a comment", "write # "+upper)
	case !known && c.strict:
		c.note(Error, number, span{}, "comments are not allowed", "in OpenMetrics lines with # are HELP, TYPE, UNIT or # EOF at the end", "remove it")
	case !known && upper == "EOF":
		c.note(Warning, number, span{}, "# EOF is a comment in this format", "it ends an OpenMetrics exposition", "remove it, or send Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8")
	case !known:
	case !c.strict && upper == "UNIT":
		c.note(Warning, number, at, "this format has no units, so this is a comment", "units are a part of OpenMetrics", "remove it, or write OpenMetrics, whose last line is # EOF")
	default:
		if c.strict && k.line[indent+1:at.from] != " " {
			k.error(span{indent + 1, at.from}, fmt.Sprintf("%d blanks stand here", at.from-indent-1), "OpenMetrics has exactly one space between the parts of a line", "write one space")
		}
		c.metadata(k, upper)
	}
}

// metadata checks a HELP, TYPE or UNIT line after its keyword.
func (c *checker) metadata(k *cursor, keyword string) {
	form := "# " + keyword + " NAME " + map[string]string{"HELP": "what it tells", "TYPE": "counter", "UNIT": "seconds"}[keyword]
	from := k.at
	if k.blanks() == 0 || k.end() {
		k.error(span{}, "the "+keyword+" line names no metric", "", "write "+form)
		return
	}
	if c.strict && k.line[from:k.at] != " " {
		k.at = from
		k.separator()
	}
	name, at, ok := k.declaredName()
	if !ok {
		return
	}
	if k.end() && (keyword != "HELP" || c.strict) {
		what := map[string]string{"HELP": "the text", "TYPE": "the type", "UNIT": "the unit"}[keyword]
		k.error(span{}, what+" is missing", "", "write "+form+", with a space before it")
		return
	}
	text := ""
	if !k.end() {
		if c.strict && k.peek() != ' ' {
			k.error(span{k.at, k.at + 1}, "a tab stands here", "OpenMetrics has exactly one space between the parts of a line", "write one space")
		}
		text = k.line[k.at+1:]
		k.at++
	}
	rest := span{k.at, len(k.line)}
	f := c.declare(k, name, at, keyword)
	switch keyword {
	case "HELP":
		c.help(k, f, text, rest)
	case "TYPE":
		c.typeOf(k, f, text, rest)
	case "UNIT":
		c.unit(k, f, text, rest)
	}
}

// declaredName reads the name in a HELP, TYPE or UNIT line.
func (k *cursor) declaredName() (string, span, bool) {
	from := k.at
	if k.peek() != '"' {
		name, at := k.word("")
		k.metricName(name, at)
		return name, at, true
	}
	name, ok := k.quoted("name")
	at := span{from, k.at}
	if !ok {
		return "", at, false
	}
	k.quotedName(name, at)
	if !k.end() && k.peek() != ' ' && k.peek() != '\t' {
		k.fatal(span{k.at, k.at + 1}, "a space is missing after the name", "", "write one space")
		return "", at, false
	}
	return name, at, true
}

// declare returns the family that a HELP, TYPE or UNIT line is about.
func (c *checker) declare(k *cursor, name string, at span, keyword string) *family {
	if f := c.current; f != nil && f.name == name {
		severity, why := Error, "readers have taken the samples for something else by then"
		if keyword == "HELP" && !c.strict {
			severity, why = Warning, "readers expect it first"
		}
		if f.samples > 0 && !(f.late && severity == Error) {
			f.late = f.late || severity == Error
			c.note(severity, k.number, span{}, fmt.Sprintf("this %s line stands after samples of %s", keyword, name), why, "move it before the first sample of "+name)
		}
		return f
	}
	if f := c.families[name]; f != nil {
		c.interleaved(f, k.number, at)
		c.enter(f)
		return f
	}
	return c.newFamily(name, k.number)
}

func (c *checker) help(k *cursor, f *family, text string, at span) {
	if f.helpLine > 0 {
		k.error(span{}, fmt.Sprintf("this is the second HELP line of %s; the first is in line %d", f.name, f.helpLine), "", "keep one of them")
		return
	}
	f.helpLine, f.help = k.number, strings.TrimSpace(text)
	said := false
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			next := byte(0)
			if i+1 < len(text) {
				next = text[i+1]
			}
			if next == '\\' || next == 'n' || next == '"' {
				i++
				continue
			}
			k.escape(at.from+i, true)
		case '"':
			if c.strict && !said {
				said = true
				k.error(span{at.from + i, at.from + i + 1}, "this quote is not escaped", `OpenMetrics escapes quotes in help texts`, `write \"`)
			}
		}
	}
}

func (c *checker) typeOf(k *cursor, f *family, text string, at span) {
	if f.typeLine > 0 {
		k.error(span{}, fmt.Sprintf("this is the second TYPE line of %s; the first is in line %d", f.name, f.typeLine), "a metric has one type", "keep one of them")
		return
	}
	f.typeLine = k.number
	if slices.Contains(typesOf(c.strict), text) {
		f.kind = text
		return
	}
	f.damaged = true
	types := strings.Join(typesOf(c.strict), ", ")
	fix := "write one of " + types
	why := "the types are " + types
	lower := strings.ToLower(strings.TrimSpace(text))
	switch {
	case slices.Contains(typesOf(c.strict), lower):
		f.kind, f.damaged = lower, false
		why, fix = "types are in small letters, with nothing around them", "write "+lower
	case lower == untyped:
		f.kind, f.damaged = unknown, false
		why, fix = "OpenMetrics calls it unknown", "write unknown"
	case lower == unknown:
		f.kind, f.damaged = untyped, false
		why, fix = "this format calls it untyped", "write untyped"
	case !c.strict && slices.Contains(typesOf(true), lower):
		why, fix = "it is a type of OpenMetrics only", "write gauge, or write OpenMetrics, whose last line is # EOF"
	}
	k.error(at, strconv.Quote(text)+" is not a type", why, fix)
}

func (c *checker) unit(k *cursor, f *family, text string, at span) {
	if f.unitLine > 0 {
		k.error(span{}, fmt.Sprintf("this is the second UNIT line of %s; the first is in line %d", f.name, f.unitLine), "a metric has one unit", "keep one of them")
		return
	}
	f.unitLine, f.unit = k.number, text
	if text != "" && !strings.HasSuffix(f.name, "_"+text) {
		fix := "write # UNIT " + f.name + " with the unit that the name ends in, or rename the metric to " + proper(f.name+"_"+text, true)
		if base, ok := strings.CutSuffix(f.name, "_total"); ok && strings.HasSuffix(base, "_"+text) {
			fix = "leave _total out here: write # UNIT " + base + " " + text
		}
		k.error(at, fmt.Sprintf("the name %s does not end in _%s", f.name, text), "a unit is the last part of the name, so that people who see only the name know it", fix)
	}
}
