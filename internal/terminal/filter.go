package terminal

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/kaon-project/kaon/internal/series"
)

// Filter selects series by their labels; all conditions must hold. A label that a series does
// not have is the empty string.
type Filter []condition

type condition struct {
	name, value string
	negative    bool
	expression  *regexp.Regexp
}

// ParseFilter parses conditions such as namespace=shop, unit!=cron.service,
// container=~web-.* and pod!~test-.*; expressions are anchored at both ends.
func ParseFilter(conditions []string) (Filter, error) {
	var filter Filter
	for _, text := range conditions {
		i := strings.IndexAny(text, "=!")
		if i <= 0 {
			return nil, fmt.Errorf("filter %q: want LABEL=VALUE, LABEL!=VALUE, LABEL=~EXPRESSION or LABEL!~EXPRESSION", text)
		}
		c := condition{name: text[:i]}
		operator := text[i:]
		switch {
		case strings.HasPrefix(operator, "=~"), strings.HasPrefix(operator, "!~"):
			// By itself first: a parenthesis too many must not undo the anchors.
			if _, err := regexp.Compile(operator[2:]); err != nil {
				return nil, fmt.Errorf("filter %q: %w", text, err)
			}
			expression, err := regexp.Compile("^(?:" + operator[2:] + ")$")
			if err != nil {
				return nil, fmt.Errorf("filter %q: %w", text, err)
			}
			c.expression, c.negative = expression, operator[0] == '!'
		case strings.HasPrefix(operator, "!="):
			c.value, c.negative = operator[2:], true
		case strings.HasPrefix(operator, "="):
			c.value = operator[1:]
		default:
			return nil, fmt.Errorf("filter %q: unknown operator: use =, !=, =~ or !~", text)
		}
		filter = append(filter, c)
	}
	return filter, nil
}

// Match reports whether a label set in text form passes.
func (f Filter) Match(labels string) bool {
	for _, c := range f {
		actual := ""
		series.EachLabel(labels, func(name, value string) bool {
			if name == c.name {
				actual = value
				return false
			}
			return true
		})
		matches := actual == c.value
		if c.expression != nil {
			matches = c.expression.MatchString(actual)
		}
		if matches == c.negative {
			return false
		}
	}
	return true
}

// Families returns copies of the families with the series that pass; all of them if there is no condition.
func (f Filter) Families(families []*series.Family) []*series.Family {
	if len(f) == 0 {
		return families
	}
	var kept []*series.Family
	for _, family := range families {
		c := &series.Family{Metric: family.Metric, Stride: family.Stride}
		for i, p := range family.Points {
			if !f.Match(p.Labels) {
				continue
			}
			c.Points = append(c.Points, p)
			c.Values = append(c.Values, family.Row(i)...)
			if family.Exemplars != nil {
				c.Exemplars = append(c.Exemplars, family.Exemplars[i])
			}
		}
		kept = append(kept, c)
	}
	return kept
}
