// Package lint says what is wrong with a text exposition, OpenMetrics 1.0 or Prometheus text 0.0.4, line by line
// and in words for people who write one for the first time. What it accepts, the strict readers accept too.
package lint

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what is checked.
const (
	// MaxBytes is how long an exposition may be.
	MaxBytes = 64 << 20
	// MaxFindings is how many findings are kept; the others are counted.
	MaxFindings = 10_000
	// MaxLabels is how many labels a line may have.
	MaxLabels = 200
)

// Format of an exposition.
type Format string

// Formats. Detect finds out which of them a text is in.
const (
	OpenMetrics Format = "openmetrics"
	Text        Format = "text"
)

// title is the format's name for humans.
func (f Format) title() string {
	if f == OpenMetrics {
		return "OpenMetrics 1.0"
	}
	return "Prometheus text 0.0.4"
}

// Severity of a finding.
type Severity string

// Severities. With an error, a strict reader refuses the exposition or takes it for something else; a
// warning is a hint.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that is wrong or doubtful.
type Finding struct {
	Severity Severity `json:"severity"`
	// Line counts from 1; 0 means the exposition as a whole.
	Line int `json:"line"`
	// Column and Width say which characters of Text are meant, from 1; 0: the whole line.
	Column int `json:"column,omitempty"`
	Width  int `json:"width,omitempty"`
	// Text is the line, or the part of it around the column. What can't be printed is replaced.
	Text string `json:"text,omitempty"`
	What string `json:"what"`
	// Why it matters.
	Why string `json:"why,omitempty"`
	// Fix is what to write instead.
	Fix string `json:"fix,omitempty"`
}

// Report is what was found in one exposition.
type Report struct {
	// Name is the file or address.
	Name   string `json:"name"`
	Format Format `json:"format"`
	// Findings in the order of lines; in a line errors come first.
	Findings []Finding `json:"findings"`
	// Left is how many more findings there are than are kept.
	Left     int `json:"left,omitempty"`
	Lines    int `json:"lines"`
	Families int `json:"families"`
	Samples  int `json:"samples"`

	errors, warnings int
}

// Failed reports whether there is an error.
func (r *Report) Failed() bool { return r.errors > 0 }

// count says whether one more finding is kept.
func (r *Report) count(severity Severity) bool {
	if severity == Error {
		r.errors++
	} else {
		r.warnings++
	}
	if len(r.Findings) >= MaxFindings {
		r.Left++
		return false
	}
	return true
}

// Detect returns OpenMetrics if a line says # EOF, as only that format does, and Text otherwise.
func Detect(body string) Format {
	for line := range strings.Lines(body) {
		if strings.TrimRight(line, " \t\r\n") == endMark {
			return OpenMetrics
		}
	}
	return Text
}

// Options of Check. The zero value is usable.
type Options struct {
	// Name of the file or address, for the report.
	Name string
	// Format; empty means what Detect says.
	Format Format
	// QuotedNames says that the reader asked for names in quotes.
	QuotedNames bool
}

// Check returns all that is wrong with an exposition.
func Check(body string, options Options) *Report {
	if options.Format == "" {
		options.Format = Detect(body)
	}
	c := &checker{
		report:   &Report{Name: options.Name, Format: options.Format},
		options:  options,
		strict:   options.Format == OpenMetrics,
		families: map[string]*family{},
		owners:   map[string]*family{},
		said:     map[string]bool{},
	}
	if len(body) > MaxBytes {
		c.note(Error, 0, span{}, fmt.Sprintf("this has %d bytes; at most %d are read", len(body), MaxBytes),
			"nothing that scrapes regularly takes so much", "expose fewer series, or check a part of it")
		return c.report
	}
	c.document(body)
	return c.report
}

// checker is the state of one Check.
type checker struct {
	report  *Report
	options Options
	// strict is OpenMetrics, where every space counts.
	strict bool
	lines  []string

	families map[string]*family
	// order has the families as they came.
	order []*family
	// owners tells whose samples are called so.
	owners  map[string]*family
	current *family
	// said are the hints that are given once.
	said map[string]bool
}

// span is a part of a line, in bytes. An empty one means the whole line.
type span struct{ from, to int }

// note adds a finding about a part of a line.
func (c *checker) note(severity Severity, line int, at span, what, why, fix string) {
	if !c.report.count(severity) {
		return
	}
	if severity == Error && why == "" {
		why = "readers can't tell what is meant, and refuse the whole exposition"
	}
	f := Finding{Severity: severity, Line: line, What: printable(what), Why: printable(why), Fix: printable(fix)}
	if line > 0 && line <= len(c.lines) {
		f.Text, f.Column, f.Width = excerpt(c.lines[line-1], at)
	}
	c.report.Findings = append(c.report.Findings, f)
}

// Bounds of what a finding shows of a line, in bytes.
const (
	shownBefore = 100
	shownAfter  = 60
)

// excerpt cuts a line around a span and returns where the span stands in it, in characters.
func excerpt(line string, at span) (text string, column, width int) {
	at.from, at.to = min(at.from, len(line)), min(at.to, len(line))
	from, to := 0, len(line)
	if at.from > shownBefore {
		from = at.from - shownBefore
	}
	if end := max(at.from, 0) + shownBefore + shownAfter; to > end {
		to = end
	}
	for from > 0 && from < at.from && !utf8.RuneStart(line[from]) {
		from++
	}
	for to < len(line) && to > at.from && !utf8.RuneStart(line[to]) {
		to--
	}
	before, after := "", ""
	if from > 0 {
		before = "…"
	}
	if to < len(line) {
		after = "…"
	}
	head, tail := printable(line[from:at.from]), printable(line[at.from:to])
	text = before + head + tail + after
	if at.to <= at.from && at.from == 0 {
		return text, 0, 0
	}
	column = utf8.RuneCountInString(before+head) + 1
	width = max(1, utf8.RuneCountInString(printable(line[at.from:max(at.from, min(at.to, to))])))
	return text, column, width
}

// printable replaces what a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < 0x20:
			return 0x2400 + r // the picture of a control character
		case r == 0x7f, r >= 0x80 && r < 0xa0, r == 0x2028, r == 0x2029, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == '\uFEFF':
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(text, string(utf8.RuneError)))
}
