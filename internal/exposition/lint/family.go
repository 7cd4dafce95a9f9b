package lint

import (
	"fmt"
	"strings"
)

// family is all that is known of one metric.
type family struct {
	name string
	// kind is the type, "" as long as no TYPE line told.
	kind, unit, help             string
	helpLine, typeLine, unitLine int
	// line is where the family begins.
	line    int
	samples int
	// nameless: its name is none, which was said.
	nameless bool
	// damaged: a line could not be read, so what is missing is not known.
	damaged bool
	// settled: its samples' names are registered.
	settled bool
	// What was said once about the family.
	late, scattered, misnamed bool

	// Metrics that were seen, the last one, and its timestamp.
	groups    map[string]bool
	group     string
	stamp     stamp
	hasGroup  bool
	seen      map[string]int
	points    map[string]*point
	pointKeys []string
}

// suffixes are the endings of the names of a type's samples.
func (c *checker) suffixes(kind string) []string {
	switch kind {
	case histogram:
		if c.strict {
			return []string{"_bucket", "_sum", "_count", "_created"}
		}
		return []string{"_bucket", "_sum", "_count"}
	case gaugeHistogram:
		return []string{"_bucket", "_gsum", "_gcount"}
	case summary:
		if c.strict {
			return []string{"", "_sum", "_count", "_created"}
		}
		return []string{"", "_sum", "_count"}
	case counter:
		if c.strict {
			return []string{"_total", "_created"}
		}
	case info:
		return []string{"_info"}
	}
	return []string{""}
}

func (c *checker) newFamily(name string, line int) *family {
	f := &family{name: name, line: line, groups: map[string]bool{}, seen: map[string]int{}, points: map[string]*point{}}
	c.families[name] = f
	c.order = append(c.order, f)
	c.enter(f)
	return f
}

// enter makes a family the current one.
func (c *checker) enter(f *family) {
	if c.current != nil && c.current != f {
		c.settle(c.current)
	}
	c.current = f
}

// settle registers the names of a family's samples.
func (c *checker) settle(f *family) {
	if f.settled {
		return
	}
	f.settled = true
	told := false
	for _, suffix := range append([]string{""}, c.suffixes(f.kind)...) {
		name := f.name + suffix
		owner := c.owners[name]
		if owner == nil {
			c.owners[name] = f
			continue
		}
		if owner != f && !told {
			told = true
			c.note(Error, f.line, span{}, fmt.Sprintf("the name %s belongs to two metrics: %s here, and %s, which begins in line %d", name, f.name, owner.name, owner.line),
				"readers can't tell whose samples they are", "rename one of them")
		}
	}
}

// interleaved tells once per family that its lines are not together.
func (c *checker) interleaved(f *family, line int, at span) {
	if f.scattered {
		return
	}
	f.scattered = true
	c.note(Error, line, at, fmt.Sprintf("%s goes on here; it began in line %d, and another metric came between", f.name, f.line),
		"all lines of a metric stand together", "move this line to the others of "+f.name)
}

// familyOf returns the family that a sample of this name belongs to.
func (c *checker) familyOf(name string, k *cursor, at span) *family {
	f := c.current
	if f != nil {
		for _, suffix := range c.suffixes(f.kind) {
			if name == f.name+suffix {
				c.settle(f)
				return f
			}
		}
		if f.typeLine > 0 && c.related(f, name) {
			c.misnamed(f, name, k, at)
			return f
		}
	}
	if owner := c.owners[name]; owner != nil && owner != f {
		c.interleaved(owner, k.number, at)
		c.enter(owner)
		return owner
	}
	if owner := c.families[name]; owner != nil {
		c.enter(owner)
		return owner
	}
	if f != nil && !c.strict && f.kind == counter && f.samples == 0 && name == f.name+"_total" {
		k.warn(at, fmt.Sprintf("the TYPE line speaks of %s, and this is %s", f.name, name), "in this format both have the same name, so nothing is known of this metric",
			fmt.Sprintf("write # TYPE %s counter in line %d", name, f.typeLine))
		f = c.newFamily(name, k.number)
		f.misnamed = true
	} else {
		f = c.newFamily(name, k.number)
	}
	c.settle(f)
	return f
}

// related says whether a sample is meant for a family though its name is another.
func (c *checker) related(f *family, name string) bool {
	if owner := c.owners[name]; owner != nil && owner != f {
		return false
	}
	switch f.kind {
	case counter, info:
		return c.strict && name == f.name
	case histogram:
		return name == f.name
	case gaugeHistogram:
		return name == f.name || name == f.name+"_sum" || name == f.name+"_count"
	}
	return false
}

// misnamed tells once per family that its samples have other names.
func (c *checker) misnamed(f *family, name string, k *cursor, at span) {
	c.settle(f)
	f.damaged = true
	if f.misnamed {
		return
	}
	f.misnamed = true
	var names []string
	for _, suffix := range c.suffixes(f.kind) {
		names = append(names, f.name+suffix)
	}
	wanted := strings.Join(names, ", ")
	fix := "write " + wanted
	ending := map[string]string{counter: "_total", info: "_info"}[f.kind]
	if base, ok := strings.CutSuffix(f.name, ending); ok && ending != "" && name == f.name {
		fix = fmt.Sprintf("leave %s out in line %d: # TYPE %s %s (and in HELP and UNIT); the samples keep it", ending, f.typeLine, base, f.kind)
	} else if ending != "" {
		fix = "write " + f.name + ending
	}
	k.error(at, fmt.Sprintf("%s has the type %s, and no sample called %s", f.name, f.kind, name), "its samples are called "+wanted, fix)
}

// finish judges a family when everything is read.
func (c *checker) finish(f *family) {
	c.settle(f)
	if !f.damaged && !f.scattered {
		for _, key := range f.pointKeys {
			c.complete(f, f.points[key])
		}
	}
	if f.unitLine > 0 && f.unit != "" && (f.kind == info || f.kind == stateSet) {
		c.note(Error, f.unitLine, span{}, fmt.Sprintf("a metric of the type %s has no unit", f.kind), "its value is not a quantity", "remove the UNIT line")
	}
	c.style(f)
}
