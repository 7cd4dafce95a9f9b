package lint

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// stamp is a sample's timestamp as written: milliseconds in Text, seconds in OpenMetrics.
type stamp struct {
	set   bool
	value float64
}

// sample is one line with a value.
type sample struct {
	name     string
	nameAt   span
	labels   []label
	value    float64
	text     string
	valueAt  span
	stamp    stamp
	stampAt  span
	exemplar *exemplar
}

// sampleLine checks a line with a value.
func (c *checker) sampleLine(number int, line string, indent int) {
	k := &cursor{c: c, number: number, line: line, at: indent}
	s, named := k.sample()
	if !named {
		c.damage()
		return
	}
	f := c.familyOf(s.name, k, s.nameAt)
	f.samples++
	f.nameless = line[s.nameAt.from] != '{' && !isName(s.name, true)
	c.report.Samples++
	if k.broken {
		f.damaged = true
		return
	}
	c.repeated(f, k, s)
	c.typeRules(f, k, s)
}

// sample reads a line. named is false if it is not known of which metric it is.
func (k *cursor) sample() (s *sample, named bool) {
	s = &sample{}
	from := k.at
	if k.peek() != '{' {
		s.name, s.nameAt = k.word("{")
		k.metricName(s.name, s.nameAt)
		gap := k.at
		if k.blanks(); k.peek() == '{' {
			if k.at > gap && k.c.strict {
				k.error(span{gap, k.at}, "a blank stands before the brace", "OpenMetrics has none there", "remove it")
			}
		} else {
			k.at = gap
		}
	}
	if k.peek() == '{' {
		labels, name, quoted := k.labelSet(false)
		s.labels = labels
		switch {
		case s.name != "" && quoted:
			k.fatal(span{from, k.at}, fmt.Sprintf("there are two names, %s and %s", s.name, name), "a name stands either before the braces or, in quotes, in them", "remove one of them")
		case s.name == "" && quoted:
			s.name, s.nameAt = name, span{from, k.at}
		case s.name == "" && !k.broken:
			k.fatal(span{from, k.at}, "there is no metric's name", "", "write it before the brace")
		}
	}
	if s.name == "" {
		return s, false
	}
	if k.broken && k.peek() != ' ' && k.peek() != '\t' {
		return s, true
	}
	k.afterSeries(s)
	return s, true
}

// afterSeries reads value, timestamp and exemplar.
func (k *cursor) afterSeries(s *sample) {
	if strings.Trim(k.line[k.at:], " \t") == "" {
		k.fatal(span{max(0, len(k.line)-1), len(k.line)}, "the value is missing", "", "write a number after the name and labels, with a space between them")
		return
	}
	if before := k.at; k.c.strict {
		k.separator()
	} else if k.blanks() == 0 && k.line[before-1] != '}' {
		k.fatal(span{before, before + 1}, "a space is missing here", "", "write one space")
		return
	}
	s.text, s.valueAt = k.word("")
	s.value, _ = k.value(s.text, s.valueAt)
	if k.end() {
		return
	}
	from := k.at
	k.blanks()
	if k.end() {
		k.noBlanks(from)
		return
	}
	k.at = from
	if k.c.strict {
		k.separator()
	} else {
		k.blanks()
	}
	if k.peek() == '#' {
		s.exemplar = k.readExemplar()
		return
	}
	text, at := k.word("")
	s.stampAt = at
	if k.c.strict {
		s.stamp = k.seconds(text, at)
	} else {
		s.stamp = k.milliseconds(text, at)
	}
	if k.end() {
		return
	}
	from = k.at
	if k.blanks(); k.peek() != '#' {
		k.at = from
		k.rest()
		return
	}
	k.at = from
	if k.c.strict {
		k.separator()
	} else {
		k.blanks()
	}
	s.exemplar = k.readExemplar()
}

// rest complains of what stands at the end of a line where nothing should.
func (k *cursor) rest() {
	from := k.at
	if k.blanks(); k.end() {
		k.noBlanks(from)
		return
	}
	k.fatal(span{k.at, len(k.line)}, "this is too much", "a line has a name, labels, a value and at most a timestamp", "remove it; what names a series stands in its labels")
}

// noBlanks complains of blanks at the end. The older format allows them, but Prometheus' own library for Go refuses them there.
func (k *cursor) noBlanks(from int) {
	if from == len(k.line) {
		return
	}
	severity := Warning
	if k.c.strict {
		severity = Error
	}
	k.c.note(severity, k.number, span{from, len(k.line)}, "there are blanks at the end of the line", "some readers expect a timestamp after them", "remove them")
}

// value checks a number.
func (k *cursor) value(text string, at span) (float64, bool) {
	value, problem, fix := number(text)
	if problem != "" {
		k.fatal(span{at.from, max(at.to, at.from+1)}, problem, "values are 64 bit floating point numbers", fix)
		return 0, false
	}
	if want := spelling(text); want != "" {
		k.warn(at, "most readers know this number as "+want, "", "write "+want)
	}
	return value, true
}

// Timestamps that are probably in another unit: 1e11 seconds are the year 5138, 1e11 milliseconds March 1973.
const otherUnit = 1e11

// seconds reads a timestamp of OpenMetrics.
func (k *cursor) seconds(text string, at span) stamp {
	value, problem, _ := number(text)
	switch {
	case problem != "":
		k.fatal(span{at.from, max(at.to, at.from+1)}, strconv.Quote(text)+" is not a timestamp", "timestamps are seconds since 1970", "write it like 1700000000.123, or leave it out")
	case math.IsNaN(value) || math.IsInf(value, 0):
		k.error(at, text+" is not a time", "timestamps are seconds since 1970", "leave it out")
	case value >= otherUnit:
		k.warn(at, "this timestamp is in the year 5138 or later", "OpenMetrics counts seconds, the older format milliseconds", "divide it by 1000, or leave it out")
	}
	return stamp{true, value}
}

// milliseconds reads a timestamp of the older format.
func (k *cursor) milliseconds(text string, at span) stamp {
	value, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || !digits(text):
		fix := "write it like 1700000000123, or leave it out"
		if decimal(text) {
			fix = "write whole milliseconds, digits alone, or leave it out"
		}
		k.fatal(at, strconv.Quote(text)+" is not a timestamp", "timestamps are whole milliseconds since 1970", fix)
	case value < otherUnit:
		k.warn(at, "this timestamp is in 1973 or earlier", "this format counts milliseconds, OpenMetrics seconds", "multiply it by 1000, or leave it out")
	}
	return stamp{true, float64(value)}
}

// repeated checks that the series was not there before, and that the lines of one metric stand together.
func (c *checker) repeated(f *family, k *cursor, s *sample) {
	series := s.name + "{" + key(s.labels, "", true) + "}"
	if c.strict && s.stamp.set {
		series += fmt.Sprint(s.stamp.value)
	}
	if before := f.seen[series]; before > 0 {
		k.error(span{s.nameAt.from, s.valueAt.from}, fmt.Sprintf("this series was there already, in line %d", before), "a name with its labels has one value; readers take one of the two, or none",
			"remove one of the lines, or add a label in which they differ")
	}
	f.seen[series] = k.number
	if s.stamp.set && !c.said["timestamps"] {
		c.said["timestamps"] = true
		k.warn(s.stampAt, "samples have timestamps", "the reader knows when it asked; a series with timestamps does not end when it is gone", "leave them out, unless the numbers were measured at another time")
	}
	if !c.strict {
		return
	}
	group := c.group(f, s)
	if f.hasGroup && group == f.group {
		switch {
		case s.stamp.set != f.stamp.set:
			k.error(span{s.nameAt.from, len(k.line)}, "some samples of this metric have a timestamp, some have none", "", "give all of them one, or none")
		case s.stamp.set && s.stamp.value < f.stamp.value:
			k.error(s.stampAt, "this timestamp is earlier than the one before", "the points of a metric are in the order of time", "sort them")
		}
	} else if f.hasGroup && f.groups[group] {
		k.error(span{s.nameAt.from, s.valueAt.from}, "another metric stands between this and the samples with the same labels", "in OpenMetrics they are together", "move the line to those with the same labels")
	}
	f.hasGroup, f.group, f.stamp = true, group, s.stamp
	f.groups[group] = true
}

// group is what the samples of one metric have in common.
func (c *checker) group(f *family, s *sample) string {
	switch {
	case f.kind == info:
		return "" // infos are facts about one thing
	case f.kind == summary && s.name == f.name:
		return key(s.labels, "quantile", false)
	case f.kind == stateSet:
		return key(s.labels, f.name, false)
	case (f.kind == histogram || f.kind == gaugeHistogram) && s.name == f.name+"_bucket":
		return key(s.labels, "le", false)
	}
	return key(s.labels, "", false)
}
