package lab

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// Bounds of what a kick program may define.
const (
	maxMetrics    = 50
	maxSeries     = 100
	maxLabels     = 10
	maxLabelBytes = 128
	maxBuckets    = 50
)

// Native buckets of a program's histograms: from a millionth to 17 trillion, eight to a doubling.
const (
	histogramSchema = 3
	histogramLow    = -20
	histogramHigh   = 44
)

var nameForm = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// registry holds the metrics that a program defines.
type registry struct {
	start   time.Time
	metrics []*metric
	names   map[string]bool
}

func newRegistry(start time.Time) *registry {
	r := &registry{start: start, names: map[string]bool{}}
	for _, name := range reservedNames {
		r.names[name] = true
	}
	return r
}

// metric is one that a program defined. In Starlark it is a value with methods.
type metric struct {
	kind    program.Type
	name    string
	help    string
	labels  []string
	buckets *program.Buckets
	states  []string
	fn      starlark.Callable
	series  map[string]*seriesValue
	order   []*seriesValue
}

// seriesValue is one label set's numbers.
type seriesValue struct {
	labels string
	// value of a counter or gauge, sum of a histogram or summary, index of a state.
	value float64
	count uint64
	slots []uint64
}

// declare adds the constructors.
func (r *registry) declare(to starlark.StringDict) {
	for _, kind := range []program.Type{program.Counter, program.Gauge, program.Histogram, program.Summary, program.Info, program.StateSet} {
		name := string(kind)
		to[name] = starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			m, err := r.define(thread, kind, args, kwargs)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			return m, nil
		})
	}
}

func (r *registry) define(thread *starlark.Thread, kind program.Type, args starlark.Tuple, kwargs []starlark.Tuple) (*metric, error) {
	if !budgetOf(thread).loading {
		return nil, errors.New("metrics are defined at the top of the file, not in a function that kicks call")
	}
	m := &metric{kind: kind, series: map[string]*seriesValue{}}
	var labels, buckets, states *starlark.List
	pairs := []any{"name", &m.name, "help?", &m.help}
	switch kind {
	case program.Gauge:
		pairs = append(pairs, "labels?", &labels, "fn?", &m.fn)
	case program.Histogram:
		pairs = append(pairs, "labels?", &labels, "buckets?", &buckets)
	case program.StateSet:
		pairs = []any{"name", &m.name, "states", &states, "help?", &m.help, "labels?", &labels}
	default:
		pairs = append(pairs, "labels?", &labels)
	}
	if err := starlark.UnpackArgs(string(kind), args, kwargs, pairs...); err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), string(kind)+": "))
	}
	if err := m.complete(labels, buckets, states); err != nil {
		return nil, err
	}
	// Two names must differ in what their samples are called as well.
	for _, name := range m.sampleNames() {
		if r.names[name] || strings.HasPrefix(name, reservedPrefix) {
			return nil, fmt.Errorf("the name %s is taken: choose another", name)
		}
	}
	if len(r.metrics) >= maxMetrics {
		return nil, fmt.Errorf("at most %d metrics", maxMetrics)
	}
	for _, name := range m.sampleNames() {
		r.names[name] = true
	}
	r.metrics = append(r.metrics, m)
	if len(m.labels) == 0 && m.fn == nil && kind != program.Info {
		// A metric without labels is there from the start, as in client libraries.
		m.at("")
	}
	return m, nil
}

// complete checks a definition and fills in what follows from it.
func (m *metric) complete(labels, buckets, states *starlark.List) error {
	suffix := map[program.Type]string{program.Counter: "_total", program.Info: "_info"}[m.kind]
	if !strings.HasSuffix(m.name, suffix) {
		m.name += suffix
	}
	if !nameForm.MatchString(m.name) || len(m.name) > maxLabelBytes {
		return fmt.Errorf("%q is no metric name: letters, digits and _, not a digit first", m.name)
	}
	if len(m.help) > 8*maxLabelBytes {
		return fmt.Errorf("help is longer than %d bytes", 8*maxLabelBytes)
	}
	var err error
	if m.labels, err = texts("labels", labels, maxLabels); err != nil {
		return err
	}
	for _, label := range m.labels {
		if !nameForm.MatchString(label) || strings.HasPrefix(label, "__") || label == "le" || label == "quantile" || label == m.name {
			return fmt.Errorf("%q can't be a label's name", label)
		}
	}
	if m.kind == program.StateSet {
		if m.states, err = texts("states", states, maxBuckets); err != nil {
			return err
		}
		if len(m.states) == 0 {
			return errors.New("states is empty: name at least one")
		}
	}
	if m.fn != nil && len(m.labels) > 0 {
		return errors.New("a gauge with fn has no labels")
	}
	if m.kind != program.Histogram {
		return nil
	}
	m.buckets = &program.Buckets{Schema: histogramSchema, Low: histogramLow, High: histogramHigh}
	if buckets == nil {
		return nil
	}
	if buckets.Len() == 0 || buckets.Len() > maxBuckets {
		return fmt.Errorf("buckets are 1 to %d numbers", maxBuckets)
	}
	var upper []float64
	for i := range buckets.Len() {
		bound, err := number(buckets.Index(i))
		if err != nil {
			return fmt.Errorf("a bucket %w", err)
		}
		if i > 0 && bound <= upper[i-1] {
			return fmt.Errorf("buckets must ascend, but %v follows %v", bound, upper[i-1])
		}
		upper = append(upper, bound)
	}
	m.buckets = &program.Buckets{Upper: upper}
	return nil
}

func texts(what string, list *starlark.List, most int) ([]string, error) {
	if list == nil {
		return nil, nil
	}
	if list.Len() > most {
		return nil, fmt.Errorf("at most %d %s", most, what)
	}
	var result []string
	for i := range list.Len() {
		s, ok := starlark.AsString(list.Index(i))
		if !ok || s == "" || len(s) > maxLabelBytes {
			return nil, fmt.Errorf("%s are texts of 1 to %d bytes", what, maxLabelBytes)
		}
		if slices.Contains(result, s) {
			return nil, fmt.Errorf("%s has %q twice", what, s)
		}
		result = append(result, s)
	}
	return result, nil
}

// sampleNames are the names that the metric takes up in an exposition.
func (m *metric) sampleNames() []string {
	switch m.kind {
	case program.Counter:
		base := strings.TrimSuffix(m.name, "_total")
		return []string{m.name, base, base + "_created"}
	case program.Info:
		return []string{m.name, strings.TrimSuffix(m.name, "_info")}
	case program.Histogram:
		return []string{m.name, m.name + "_bucket", m.name + "_sum", m.name + "_count", m.name + "_created"}
	case program.Summary:
		return []string{m.name, m.name + "_sum", m.name + "_count", m.name + "_created"}
	}
	return []string{m.name}
}

// at returns the series of a label set in text form, nil if there are too many.
func (m *metric) at(labels string) *seriesValue {
	if s := m.series[labels]; s != nil {
		return s
	}
	if len(m.order) >= maxSeries {
		return nil
	}
	s := &seriesValue{labels: labels}
	if m.buckets != nil {
		s.slots = make([]uint64, m.buckets.Slots())
	}
	m.series[labels] = s
	m.order = append(m.order, s)
	return s
}

// labelled returns the series that named arguments tell.
func (m *metric) labelled(kwargs []starlark.Tuple) (*seriesValue, error) {
	given := map[string]string{}
	for _, pair := range kwargs {
		name, _ := starlark.AsString(pair[0])
		value, ok := starlark.AsString(pair[1])
		if !ok {
			switch v := pair[1].(type) {
			case starlark.Int, starlark.Bool, starlark.Float:
				value = v.String()
			default:
				return nil, fmt.Errorf("the label %s is a %s, not a text", name, v.Type())
			}
		}
		if len(value) > maxLabelBytes {
			return nil, fmt.Errorf("the label %s is longer than %d bytes", name, maxLabelBytes)
		}
		if !slices.Contains(m.labels, name) {
			return nil, fmt.Errorf("%s has no label %s: its labels are %q", m.name, name, m.labels)
		}
		given[name] = value
	}
	var text []byte
	for _, label := range m.labels {
		value, ok := given[label]
		if !ok {
			return nil, fmt.Errorf("the label %s of %s is missing", label, m.name)
		}
		text = series.AppendLabel(text, label, value)
	}
	s := m.at(string(text))
	if s == nil {
		return nil, fmt.Errorf("%s would have more than %d series: use fewer label values", m.name, maxSeries)
	}
	return s, nil
}

// metric implements starlark.HasAttrs.

func (m *metric) String() string        { return fmt.Sprintf("<%s %s>", m.kind, m.name) }
func (m *metric) Type() string          { return string(m.kind) }
func (m *metric) Freeze()               {}
func (m *metric) Truth() starlark.Bool  { return true }
func (m *metric) Hash() (uint32, error) { return starlark.String(m.name).Hash() }

func (m *metric) AttrNames() []string {
	switch m.kind {
	case program.Counter:
		return []string{"inc"}
	case program.Gauge:
		return []string{"dec", "inc", "set"}
	case program.Histogram, program.Summary:
		return []string{"observe"}
	}
	return []string{"set"}
}

func (m *metric) Attr(name string) (starlark.Value, error) {
	if !slices.Contains(m.AttrNames(), name) {
		return nil, nil
	}
	return starlark.NewBuiltin(name, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := m.call(name, args, kwargs); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return starlark.None, nil
	}).BindReceiver(m), nil
}

func (m *metric) call(method string, args starlark.Tuple, kwargs []starlark.Tuple) error {
	if m.fn != nil {
		return fmt.Errorf("%s has fn, which sets it", m.name)
	}
	if len(args) > 1 || len(args) == 0 && method != "inc" && method != "dec" && m.kind != program.Info {
		return fmt.Errorf("%s takes one value; labels are named, as in label=value", method)
	}
	if m.kind == program.Info && len(args) > 0 {
		return errors.New("an info has labels only, as in label=value")
	}
	if m.kind == program.StateSet {
		state, _ := starlark.AsString(args[0])
		i := slices.Index(m.states, state)
		if i < 0 {
			return fmt.Errorf("%s is no state of %s: they are %q", args[0], m.name, m.states)
		}
		s, err := m.labelled(kwargs)
		if err == nil {
			s.value = float64(i)
		}
		return err
	}
	value := 1.0
	if len(args) == 1 {
		var err error
		if value, err = number(args[0]); err != nil {
			return fmt.Errorf("the value %w", err)
		}
	}
	if m.kind == program.Counter && value < 0 {
		return errors.New("a counter never goes down: use a gauge")
	}
	if m.kind == program.Info {
		// An info is one fact: a new one takes the old one's place.
		m.series, m.order = map[string]*seriesValue{}, nil
	}
	s, err := m.labelled(kwargs)
	if err != nil {
		return err
	}
	next := s.value + value
	switch method {
	case "set":
		next = value
	case "dec":
		next = s.value - value
	}
	if math.IsInf(next, 0) {
		return fmt.Errorf("%s would be infinite", m.name)
	}
	s.value = next
	s.count++
	if m.buckets != nil {
		s.slots[slotOf(m.buckets, value)]++
	}
	return nil
}

// slotOf returns the slot that counts a value.
func slotOf(b *program.Buckets, value float64) int {
	if len(b.Upper) > 0 {
		i, _ := slices.BinarySearch(b.Upper, value)
		return i
	}
	if value <= math.Ldexp(1, b.Low) {
		return 0
	}
	index := int(math.Ceil(math.Log2(value) * float64(int(1)<<b.Schema)))
	return min(max(index-b.Low<<b.Schema, 1), b.Slots()-1)
}
