package lint

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// typeRules checks what a type demands of one sample.
func (c *checker) typeRules(f *family, k *cursor, s *sample) {
	suffix := strings.TrimPrefix(s.name, f.name)
	if suffix == "_created" && c.strict {
		c.created(k, s)
	}
	switch f.kind {
	case counter:
		if suffix != "_created" || !c.strict {
			c.neverDown(k, s, "a counter")
		}
	case histogram, gaugeHistogram:
		c.bucketRules(f, k, s, suffix)
	case summary:
		c.summaryRules(f, k, s, suffix)
	case info:
		if s.value != 1 {
			k.error(s.valueAt, "the value of an info is 1", "what it tells stands in its labels", "write 1")
		}
	case stateSet:
		c.stateRules(f, k, s)
	}
	c.exemplarRules(f, k, s, suffix)
	if at := find(s.labels, "le"); at != nil && f.kind != histogram && f.kind != gaugeHistogram && f.kind != "" {
		k.warn(at.nameAt, "the label le is for the buckets of histograms", "", "choose another name, or give the metric the type histogram")
	}
	if at := find(s.labels, "quantile"); at != nil && f.kind != summary && f.kind != "" {
		k.warn(at.nameAt, "the label quantile is for summaries", "", "choose another name, or give the metric the type summary")
	}
}

// neverDown checks a number that can only grow.
func (c *checker) neverDown(k *cursor, s *sample, what string) {
	switch {
	case math.IsNaN(s.value):
		k.error(s.valueAt, what+" can't be NaN", "it counts from 0", "write 0 if nothing was counted yet")
	case s.value < 0:
		k.error(s.valueAt, what+" can't be negative", "it begins at 0 and only grows", "make it a gauge if it can go down")
	}
}

func (c *checker) created(k *cursor, s *sample) {
	switch {
	case math.IsNaN(s.value) || math.IsInf(s.value, 0) || s.value < 0:
		k.error(s.valueAt, "this is not a time", "a _created sample says in seconds since 1970 when counting began", "write it like 1700000000.123")
	case s.value >= otherUnit:
		k.warn(s.valueAt, "this time is in the year 5138 or later", "_created counts seconds since 1970", "divide it by 1000")
	}
}

// whole checks a number of observations.
func (c *checker) whole(k *cursor, s *sample) {
	if c.strict && s.value != math.Trunc(s.value) || math.IsInf(s.value, 0) {
		k.error(s.valueAt, "this must be a whole number", "it counts observations", "")
	}
}

func (c *checker) summaryRules(f *family, k *cursor, s *sample, suffix string) {
	switch suffix {
	case "_count":
		c.neverDown(k, s, "a count")
		c.whole(k, s)
	case "_sum":
		c.sum(k, s)
	}
	at := find(s.labels, "quantile")
	if suffix != "" {
		if at != nil {
			k.error(at.nameAt, "the label quantile is for the samples named "+f.name, "", "remove it here")
		}
		return
	}
	if at == nil {
		k.error(s.nameAt, "the label quantile is missing", "a summary has one sample for each quantile", fmt.Sprintf(`write %s{quantile="0.5"}, or %s_sum and %s_count alone`, f.name, f.name, f.name))
		return
	}
	value, problem, _ := number(at.value)
	if problem != "" || !(value >= 0 && value <= 1) {
		k.error(at.from, "a quantile is a number from 0 to 1", "0.5 is the median, 0.99 what one of a hundred exceeds", `write for instance quantile="0.99"`)
		return
	}
	c.canonical(k, at, value)
	if c.strict && s.value < 0 {
		k.error(s.valueAt, "the value of a quantile can't be negative in OpenMetrics", "", "use a gauge or a histogram")
	}
}

// sum checks the _sum of a summary or histogram.
func (c *checker) sum(k *cursor, s *sample) {
	if !c.strict {
		return
	}
	if math.IsNaN(s.value) || s.value < 0 {
		k.error(s.valueAt, "a _sum is neither negative nor NaN in OpenMetrics", "it counts like a counter", "leave _sum and _count out if observations can be negative")
	}
}

// canonical hints at how the number in a label is written.
func (c *checker) canonical(k *cursor, l *label, value float64) {
	if want := canonical(value); c.strict && l.value != want {
		k.warn(l.from, fmt.Sprintf("OpenMetrics writes this number as %s", want), "the text of a label counts: 1 and 1.0 are two series", fmt.Sprintf(`write %s="%s"`, l.name, want))
	}
}

func (c *checker) stateRules(f *family, k *cursor, s *sample) {
	if find(s.labels, f.name) == nil {
		k.error(s.nameAt, fmt.Sprintf("the label %s is missing", f.name), "a stateset has one sample for each state; the state is in the label named like the metric",
			fmt.Sprintf(`write %s{%s="running"} 1`, f.name, proper(f.name, false)))
	}
	if s.value != 0 && s.value != 1 {
		k.error(s.valueAt, "the value of a state is 0 or 1", "1: it is so; 0: it is not", "")
	}
}

func (c *checker) exemplarRules(f *family, k *cursor, s *sample, suffix string) {
	if s.exemplar == nil {
		return
	}
	bucket := (f.kind == histogram || f.kind == gaugeHistogram) && suffix == "_bucket"
	if !bucket && !(f.kind == counter && suffix == "_total") {
		k.error(s.exemplar.at, "this sample can't have an exemplar", "only counters' _total and histograms' _bucket samples have them", "remove it from # on")
		return
	}
	if le := find(s.labels, "le"); bucket && le != nil {
		if bound, problem, _ := number(le.value); problem == "" && s.exemplar.value > bound {
			k.error(s.exemplar.at, fmt.Sprintf("the exemplar's value is greater than %s", le.value), "an exemplar is one of the bucket's observations", "put it into its own bucket")
		}
	}
}

// point is a histogram's state at one time.
type point struct {
	line int
	// labels as in a line, without le.
	labels   string
	buckets  int
	bound    float64
	count    float64
	negative bool
	infinite bool
	damaged  bool
	// total, sum and gsum: of _count or _gcount, _sum, _gsum.
	hasTotal, hasSum, hasGaugeSum bool
	total, gaugeSum               float64
	totalLine, totalAt            int
}

func (c *checker) pointOf(f *family, k *cursor, s *sample) *point {
	id := c.group(f, s)
	if s.stamp.set {
		id += "@" + strconv.FormatFloat(s.stamp.value, 'g', -1, 64)
	}
	p := f.points[id]
	if p == nil {
		p = &point{line: k.number, labels: shown(s.labels, "le")}
		f.points[id] = p
		f.pointKeys = append(f.pointKeys, id)
	}
	return p
}

// bucketRules checks one sample of a histogram.
func (c *checker) bucketRules(f *family, k *cursor, s *sample, suffix string) {
	le := find(s.labels, "le")
	p := c.pointOf(f, k, s)
	if suffix != "_bucket" {
		if le != nil {
			p.damaged = true
			k.error(le.nameAt, "the label le is for the buckets alone", "", "remove it here")
		}
		c.totals(k, s, p, suffix)
		return
	}
	c.neverDown(k, s, "a bucket")
	c.whole(k, s)
	if le == nil {
		p.damaged = true
		k.error(s.nameAt, "the label le is missing", "it says up to which value (less or equal) the bucket counts", fmt.Sprintf(`write %s{le="0.5"}`, s.name))
		return
	}
	bound, problem, _ := number(le.value)
	switch {
	case problem != "" || math.IsNaN(bound):
		p.damaged = true
		k.error(le.from, "le is not a number", "it says up to which value (less or equal) the bucket counts", `write for instance le="0.5", or le="+Inf" for the last one`)
		return
	case math.IsInf(bound, 1) && le.value != "+Inf":
		k.error(le.from, "infinity is written +Inf here", "readers look for this text", `write le="+Inf"`)
	default:
		c.canonical(k, le, bound)
	}
	if s.exemplar != nil && p.buckets > 0 && s.exemplar.value <= p.bound {
		k.error(s.exemplar.at, "the exemplar's value belongs to an earlier bucket", "an exemplar is one of the observations that the buckets before don't have", "put it into its own bucket")
	}
	if p.buckets > 0 {
		switch {
		case bound == p.bound:
			p.damaged = true
			k.error(le.from, fmt.Sprintf("there are two buckets up to %s", le.value), "", "remove one of them")
		case bound < p.bound:
			p.damaged = true
			k.error(le.from, "the buckets are not in order", "they ascend by le, +Inf is the last", "sort the lines")
		case s.value < p.count:
			p.damaged = true
			k.error(s.valueAt, "this bucket counts less than the one before", "buckets are cumulative: each counts all observations up to its le, those of smaller buckets too",
				"add the numbers of the buckets before")
		}
	}
	p.buckets++
	p.bound, p.count = bound, s.value
	p.negative = p.negative || bound < 0
	p.infinite = p.infinite || math.IsInf(bound, 1)
}

// totals checks a histogram's count and sum.
func (c *checker) totals(k *cursor, s *sample, p *point, suffix string) {
	switch suffix {
	case "_count", "_gcount":
		c.neverDown(k, s, "a count")
		c.whole(k, s)
		p.hasTotal, p.total, p.totalLine, p.totalAt = true, s.value, k.number, s.valueAt.from
	case "_sum":
		p.hasSum = true
		c.sum(k, s)
	case "_gsum":
		p.hasGaugeSum, p.gaugeSum = true, s.value
		if math.IsNaN(s.value) {
			k.error(s.valueAt, "a sum can't be NaN", "", "leave _gsum and _gcount out")
		}
	}
}

// complete checks a histogram when all its samples are known.
func (c *checker) complete(f *family, p *point) {
	if p.damaged {
		return
	}
	whose := f.name + p.labels
	count, sum := "_count", "_sum"
	if f.kind == gaugeHistogram {
		count, sum = "_gcount", "_gsum"
	}
	switch {
	case !p.infinite:
		fix := fmt.Sprintf(`write %s_bucket{le="+Inf"} with the number of all observations`, f.name)
		c.note(Error, p.line, span{}, fmt.Sprintf(`%s has no bucket le="+Inf"`, whose), "the last bucket counts all observations", fix)
	case p.hasTotal && p.total != p.count:
		c.note(Error, p.totalLine, span{p.totalAt, len(c.lines[p.totalLine-1])}, fmt.Sprintf(`the count is not that of the bucket le="+Inf", which is %s`, strconv.FormatFloat(p.count, 'g', -1, 64)),
			"both are the number of all observations", "write the same number")
	}
	hasSum := p.hasSum || p.hasGaugeSum
	switch {
	case p.hasTotal != hasSum && c.strict:
		missing, there := sum, count
		if hasSum {
			missing, there = count, sum
		}
		c.note(Error, p.line, span{}, fmt.Sprintf("%s has %s and no %s", whose, there, missing), "a mean needs both", "write both, or none")
	case !c.strict && !(p.hasTotal && p.hasSum):
		c.note(Warning, p.line, span{}, fmt.Sprintf("%s lacks %s_sum or %s_count", whose, f.name, f.name), "a mean needs both", "write both")
	}
	if c.strict && p.negative && p.hasSum {
		c.note(Error, p.line, span{}, whose+" has a bucket with a negative le, and _sum", "a sum that can go down is no counter", "leave _sum and _count out")
	}
	if !p.negative && p.hasGaugeSum && p.gaugeSum < 0 {
		c.note(Error, p.line, span{}, whose+" has a negative _gsum, and no bucket with a negative le", "a sum of positive numbers is positive", "")
	}
}
