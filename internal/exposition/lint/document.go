package lint

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	endMark = "# EOF"
	bom     = "\uFEFF"
)

// document goes through the lines.
func (c *checker) document(body string) {
	hasBOM := strings.HasPrefix(body, bom)
	whole := strings.TrimPrefix(body, bom)
	ended := strings.HasSuffix(whole, "\n")
	c.lines = strings.Split(strings.TrimSuffix(whole, "\n"), "\n")
	if whole == "" {
		c.lines = nil
	}
	c.report.Lines = len(c.lines)
	if hasBOM {
		c.note(Error, min(1, len(c.lines)), span{}, "the text begins with a byte order mark (BOM)", "readers take its three invisible bytes for a part of the first line",
			"save the file as UTF-8 without BOM")
	}
	c.carriageReturns()

	end := 0
	for i, line := range c.lines {
		number := i + 1
		line = strings.TrimSuffix(line, "\r")
		if end > 0 {
			c.note(Error, number, span{}, fmt.Sprintf("this stands after # EOF, which was in line %d", end),
				"# EOF says that all is there; readers refuse what comes after it", "remove it, or move # EOF to the end")
			break
		}
		if !c.characters(number, line) {
			c.damage()
			continue
		}
		if c.strict && strings.TrimRight(line, " \t") == endMark {
			if line != endMark {
				c.note(Error, number, span{len(endMark), len(line)}, "there is something after # EOF", "the line must have just these five characters", "write # EOF")
			}
			end = number
			continue
		}
		c.lineOf(number, line)
	}
	for _, f := range c.order {
		c.finish(f)
	}
	c.report.Families = len(c.order)

	last := len(c.lines)
	switch {
	case c.strict && end == 0:
		c.note(Error, last, span{}, "# EOF is missing at the end", "readers can't tell whether the answer was cut off, and refuse all of it",
			"write # EOF as the last line")
	case !c.strict && !ended && last > 0:
		c.note(Error, last, span{}, "the last line does not end with a line feed", "readers may take it for a line that was cut off", "end every line with \\n, the last one too")
	}
	if c.report.Samples == 0 && !c.report.Failed() {
		c.note(Warning, 0, span{}, "there are no samples", "nothing can be seen of this", "")
	}
	slices.SortStableFunc(c.report.Findings, func(a, b Finding) int {
		return cmp.Or(a.Line-b.Line, strings.Compare(string(a.Severity), string(b.Severity)), a.Column-b.Column)
	})
}

// carriageReturns tells once of lines that end as on Windows.
func (c *checker) carriageReturns() {
	first, count := 0, 0
	for i, line := range c.lines {
		if strings.HasSuffix(line, "\r") {
			if count++; first == 0 {
				first = i + 1
			}
		}
	}
	if count > 0 {
		length := len(c.lines[first-1])
		what := "this line ends with a carriage return (CR LF, as on Windows)"
		if count > 1 {
			what = fmt.Sprintf("this line and %d others end with a carriage return (CR LF, as on Windows)", count-1)
		}
		c.note(Error, first, span{length - 1, length}, what, "lines end with a line feed alone; the CR becomes a part of the value", "write \\n, not \\r\\n")
	}
}

// characters says whether a line is text.
func (c *checker) characters(number int, line string) bool {
	if !utf8.ValidString(line) {
		at := 0
		for at < len(line) {
			r, size := utf8.DecodeRuneInString(line[at:])
			if r == utf8.RuneError && size == 1 {
				break
			}
			at += size
		}
		c.note(Error, number, span{at, at + 1}, fmt.Sprintf("the byte 0x%02x is not UTF-8", line[at]), "readers refuse the whole exposition because of one such byte",
			"encode texts as UTF-8, and replace bytes that are none")
		return false
	}
	if at := strings.IndexByte(line, 0); at >= 0 {
		c.note(Error, number, span{at, at + 1}, "there is a zero byte", "Prometheus stops reading there", "remove it")
		return false
	}
	return true
}

// lineOf checks one line that is not the end.
func (c *checker) lineOf(number int, line string) {
	trimmed := strings.TrimLeft(line, " \t")
	if indent := len(line) - len(trimmed); indent > 0 && trimmed != "" && c.strict {
		c.note(Error, number, span{0, indent}, "the line begins with a blank", "in OpenMetrics a line begins with a name or #", "remove it")
	}
	switch {
	case trimmed == "":
		if c.strict {
			c.note(Error, number, span{}, "this line is empty", "OpenMetrics has no empty lines", "remove it")
		}
	case trimmed[0] == '#':
		c.comment(number, line, len(line)-len(trimmed))
	default:
		c.sampleLine(number, line, len(line)-len(trimmed))
	}
}

// damage remembers that the current family can't be judged as a whole.
func (c *checker) damage() {
	if c.current != nil {
		c.current.damaged = true
	}
}
