package lint

import (
	"fmt"
	"regexp"
	"strings"
)

// style gives hints about a family's name and metadata, as promlint does.
func (c *checker) style(f *family) {
	if f.samples == 0 || f.nameless {
		return
	}
	hint := func(what, why, fix string) { c.note(Warning, f.line, span{}, what, why, fix) }
	if f.typeLine == 0 && !f.misnamed {
		hint(f.name+" has no TYPE line", "readers don't know whether it is a counter or a gauge", "write # TYPE "+f.name+" gauge before it, or what it is")
	}
	switch {
	case f.help == "" && !f.misnamed:
		hint(f.name+" has no help", "who finds the metric in a year wants to know what it tells", "write # HELP "+f.name+" and a sentence")
	case strings.EqualFold(f.help, f.name):
		hint("the help of "+f.name+" is its name", "it tells nothing new", "say what is counted, and in which unit")
	}
	// What client libraries name is nobody's to rename.
	for _, prefix := range []string{"go_", "process_", "python_", "promhttp_"} {
		if strings.HasPrefix(f.name, prefix) {
			return
		}
	}
	c.endings(f, hint)
	c.unitOf(f, hint)
	if hasCamel(f.name) {
		hint(f.name+" is written in camelCase", "names of metrics are in small letters, with _ between words", "write "+snake(f.name))
	}
	if strings.Contains(f.name, ":") {
		hint("a colon in a name means a recording rule", "exporters don't write them", "write _ instead")
	}
}

// endings hints at endings that mean something else.
func (c *checker) endings(f *family, hint func(what, why, fix string)) {
	if f.kind == counter {
		if !c.strict && !strings.HasSuffix(f.name, "_total") {
			hint(f.name+" is a counter, and its name does not end in _total", "in OpenMetrics it must", "write "+f.name+"_total")
		}
	} else if base, ok := strings.CutSuffix(f.name, "_total"); ok && f.kind != "" && f.kind != untyped && f.kind != unknown {
		hint(fmt.Sprintf("%s is a %s, and its name ends in _total", f.name, f.kind), "this ending says that it is a counter", "write "+base+", or make it a counter")
	}
	if f.kind == gauge {
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			if base, ok := strings.CutSuffix(f.name, suffix); ok {
				hint(fmt.Sprintf("%s ends in %s", f.name, suffix), "this ending is for histograms and summaries", "write "+base)
			}
		}
	}
	if f.kind == counter || f.kind == gauge || f.kind == histogram || f.kind == summary {
		if strings.HasSuffix(f.name, "_"+f.kind) {
			hint("the name "+f.name+" says its type", "the TYPE line does that", "write "+strings.TrimSuffix(f.name, "_"+f.kind))
		}
	}
}

// baseUnit maps words in names to the unit that Prometheus recommends, and how to get there.
func baseUnit(word string) (unit, how string) {
	switch word {
	case "milliseconds", "millis", "ms":
		return "seconds", "divide by 1000"
	case "microseconds", "micros", "us":
		return "seconds", "divide by 1000000"
	case "nanoseconds", "nanos", "ns":
		return "seconds", "divide by 1000000000"
	case "minutes":
		return "seconds", "multiply by 60"
	case "hours":
		return "seconds", "multiply by 3600"
	case "days":
		return "seconds", "multiply by 86400"
	case "kilobytes", "kb", "kib", "kibibytes", "megabytes", "mb", "mib", "mebibytes", "gigabytes", "gb", "gib", "gibibytes":
		return "bytes", "count bytes"
	case "bits":
		return "bytes", "divide by 8"
	case "percent", "percentage", "pct":
		return "ratio", "divide by 100"
	case "fahrenheit":
		return "celsius", "convert it"
	case "kilometers", "kilometres", "millimeters", "millimetres", "miles", "inches":
		return "meters", "convert it"
	}
	return "", ""
}

func (c *checker) unitOf(f *family, hint func(what, why, fix string)) {
	for _, word := range strings.Split(f.name, "_") {
		if unit, how := baseUnit(strings.ToLower(word)); unit != "" {
			hint(fmt.Sprintf("%s is in %s", f.name, word), "with one unit for everything, queries need no conversion; Prometheus recommends "+unit,
				fmt.Sprintf("write %s and %s", strings.Replace(f.name, word, unit, 1), how))
			return
		}
	}
}

// hasCamel says whether a capital follows a small letter.
func hasCamel(name string) bool {
	for i := 1; i < len(name); i++ {
		if name[i] >= 'A' && name[i] <= 'Z' && name[i-1] >= 'a' && name[i-1] <= 'z' {
			return true
		}
	}
	return false
}

// snake writes camelCase with _ between words.
func snake(name string) string {
	return strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(name, "${1}_${2}"))
}
