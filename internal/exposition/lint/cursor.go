package lint

import (
	"fmt"
	"strings"
)

// cursor walks through a line.
type cursor struct {
	c      *checker
	number int
	line   string
	at     int
	// broken is set when something was wrong enough that the line's meaning is not known.
	broken bool
}

func (k *cursor) end() bool { return k.at >= len(k.line) }

// peek returns the next byte, 0 at the end.
func (k *cursor) peek() byte {
	if k.end() {
		return 0
	}
	return k.line[k.at]
}

func (k *cursor) error(at span, what, why, fix string) { k.c.note(Error, k.number, at, what, why, fix) }
func (k *cursor) warn(at span, what, why, fix string) {
	k.c.note(Warning, k.number, at, what, why, fix)
}

// fatal is an error after which the line is not read on.
func (k *cursor) fatal(at span, what, why, fix string) {
	k.broken = true
	k.error(at, what, why, fix)
}

// word returns the bytes up to one of stops, a blank or the end.
func (k *cursor) word(stops string) (string, span) {
	from := k.at
	for !k.end() && !strings.ContainsRune(" \t"+stops, rune(k.line[k.at])) {
		k.at++
	}
	return k.line[from:k.at], span{from, k.at}
}

// blanks skips blanks and returns how many there were.
func (k *cursor) blanks() int {
	from := k.at
	for k.peek() == ' ' || k.peek() == '\t' {
		k.at++
	}
	return k.at - from
}

// separator skips what stands between two parts: exactly one space in OpenMetrics.
func (k *cursor) separator() {
	from := k.at
	k.blanks()
	if got := k.line[from:k.at]; k.c.strict && got != " " {
		what := fmt.Sprintf("%d blanks stand here", len(got))
		switch {
		case got == "":
			what = "a space is missing here"
		case strings.Contains(got, "\t"):
			what = "a tab stands here"
		}
		k.error(span{from, max(k.at, from+1)}, what, "OpenMetrics has exactly one space between the parts of a line", "write one space")
	}
}

// inside skips blanks between braces, of which OpenMetrics has none.
func (k *cursor) inside() {
	from := k.at
	if k.blanks() > 0 && k.c.strict && !k.end() {
		k.error(span{from, k.at}, "a blank stands between the braces", "OpenMetrics has no spaces there", "remove it")
	}
}

// quoted reads a text in double quotes and returns what it means. what it is stands in messages.
func (k *cursor) quoted(what string) (string, bool) {
	from := k.at
	k.at++
	var value strings.Builder
	for !k.end() {
		ch := k.line[k.at]
		switch ch {
		case '"':
			k.at++
			return value.String(), true
		case '\\':
			k.at++
			switch next := k.peek(); next {
			case '\\', '"':
				value.WriteByte(next)
			case 'n':
				value.WriteByte('\n')
			default:
				if !k.end() {
					k.escape(k.at-1, true)
				}
				value.WriteByte('\\')
				continue
			}
		default:
			value.WriteByte(ch)
		}
		k.at++
	}
	k.fatal(span{from, len(k.line)}, "the "+what+" has no closing quote", "all the rest of the line counts as a part of it",
		`write " at its end; a line feed in it is written \n, a quote \"`)
	return value.String(), false
}

// escape tells of a backslash that escapes nothing.
func (k *cursor) escape(at int, quotes bool) {
	to := min(at+2, len(k.line))
	allowed := `\\ and \n`
	if quotes {
		allowed = `\\, \n and \"`
	}
	severity := Error
	if k.c.strict {
		severity = Warning // its grammar lets them stand for themselves
	}
	k.c.note(severity, k.number, span{at, to}, fmt.Sprintf("%s means nothing", k.line[at:to]), "the only sequences are "+allowed, `write a backslash as \\`)
}
