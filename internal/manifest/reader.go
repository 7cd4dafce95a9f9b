package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// create adds a metric from something that the object declares no metric for, and if
// need be the reader. Names, labels and the like are left to change.
func (a *applier) create(field string, m *v1alpha1.Metric) (place, bool) {
	from, at := m.From, field+".from"
	before := len(a.problems)
	sources := 0
	for _, set := range []bool{from.Map != "", from.Iterator != "", from.File != nil, from.Cgroup != nil, from.Stream != nil} {
		if set {
			sources++
		}
	}
	if sources != 1 {
		a.problem(at, v1alpha1.WantOneFrom, "")
		return place{}, false
	}
	if m.Type == "" {
		a.problem(field+".type", "a new metric needs a type", "write counter, gauge, histogram, ...")
		return place{}, false
	}
	if from.Map == "" && from.Iterator == "" && (from.Member != "" || from.Key != nil || from.Value != nil) {
		a.problem(at, "member, key and value belong to a map or an iterator", "remove them")
		return place{}, false
	}
	metric := program.Metric{Type: program.Type(m.Type), Name: m.Name}
	var index int
	var ok bool
	switch {
	case from.File != nil:
		index, ok = a.fileReader(at+".file", &metric, from.File)
	case from.Cgroup != nil:
		index, ok = a.cgroupReader(at+".cgroup", &metric, from.Cgroup)
	case from.Stream != nil:
		index, ok = a.streamReader(at, &metric, from)
	default:
		index, ok = a.mapReader(at, &metric, m)
	}
	if !ok || len(a.problems) > before {
		return place{}, false
	}
	reader := &a.spec.Readers[index]
	if metric.Labels == nil && reader.Key != nil {
		metric.Labels = slices.DeleteFunc(slices.Clone(reader.Key), func(l program.Label) bool { return l.Name == "" })
	}
	if metric.Name == "" {
		metric.Name = reader.Name
		if from.Member != "" {
			metric.Name += "_" + from.Member
		}
	}
	metric.Name = object.FamilyName(metric.Name, metric.Type)
	reader.Metrics = append(reader.Metrics, metric)
	return place{index, len(reader.Metrics) - 1}, true
}

// addReader appends a reader; its name must be new.
func (a *applier) addReader(reader program.Reader) int {
	for n, stem := 2, reader.Name; slices.ContainsFunc(a.spec.Readers, func(r program.Reader) bool { return r.Name == reader.Name }); n++ {
		reader.Name = fmt.Sprintf("%s_%d", stem, n)
	}
	a.spec.Readers = append(a.spec.Readers, reader)
	return len(a.spec.Readers) - 1
}

func (a *applier) streamReader(field string, metric *program.Metric, from *v1alpha1.From) (int, bool) {
	s, at := from.Stream, field+".stream"
	i := slices.IndexFunc(a.spec.Streams, func(stream program.Stream) bool { return stream.Name == s.Name })
	if i < 0 {
		var names []string
		for _, stream := range a.spec.Streams {
			names = append(names, stream.Name)
		}
		a.problem(at+".name", fmt.Sprintf("%s has no stream %q", a.spec.Name, s.Name), choice(s.Name, names))
		return 0, false
	}
	stream := &a.spec.Streams[i]
	var names []string
	for _, f := range stream.Fields {
		names = append(names, f.Name)
	}
	find := func(field, name string) (program.Label, bool) {
		i := slices.IndexFunc(stream.Fields, func(f program.Label) bool { return f.Name == name || f.Member == name })
		if i < 0 {
			a.problem(field, fmt.Sprintf("the records of %s have no field %q", stream.Name, name), choice(name, names))
			return program.Label{}, false
		}
		return stream.Fields[i], true
	}
	reader := program.Reader{Name: s.Name, Kind: program.StreamReader, Stream: s.Name, Aggregate: &program.Aggregate{}, Key: []program.Label{}}
	for i, name := range s.Labels {
		label, ok := find(fmt.Sprintf("%s.labels[%d]", at, i), name)
		if !ok {
			continue
		}
		reader.Aggregate.Keys = append(reader.Aggregate.Keys, label.Field)
		label.Field.Offset = reader.KeySize
		reader.KeySize += label.Field.Size * max(label.Field.Count, 1)
		reader.Key = append(reader.Key, label)
	}
	if s.Value != "" {
		if label, ok := find(at+".value", s.Value); ok {
			if label.Field.Size > 8 || label.Field.Count > 1 || label.Decoder == "string" {
				a.problem(at+".value", fmt.Sprintf("%s is no number", s.Value), "use a number")
			}
			value := label.Field
			reader.Aggregate.Value = &value
		}
	}
	switch metric.Type {
	case program.Counter:
		metric.Cells = []program.Field{{Size: 8}}
		reader.ValueSize = 8
	case program.Summary:
		metric.Cells = []program.Field{{Size: 8}, {Offset: 8, Size: 8}}
		reader.ValueSize = 16
	case program.Histogram:
		slots := a.slots(field, metric, from.Histogram)
		metric.Cells = []program.Field{{Size: 8}, {Offset: 8, Size: 8, Count: uint32(slots)}}
		reader.ValueSize = 8 + 8*uint32(slots)
	default:
		a.problem(field, fmt.Sprintf("records can't make a %s", metric.Type), "use counter, summary or histogram")
	}
	if metric.Type != program.Counter && s.Value == "" {
		a.problem(at+".value", fmt.Sprintf("a %s needs a field to observe", metric.Type), "name one of "+strings.Join(names, ", "))
	}
	if from.Histogram != nil && (metric.Type != program.Histogram || from.Histogram.Sum != "" || from.Histogram.Slots != "") || from.Summary != nil {
		a.problem(field, "members belong to maps, and bounds to histograms", "remove what does not belong")
	}
	return a.addReader(reader), true
}

// slots sets the metric's buckets from h and returns their number.
func (a *applier) slots(field string, metric *program.Metric, h *v1alpha1.Histogram) int {
	at := field + ".histogram"
	if h == nil {
		a.problem(at, "a histogram needs its slots described", "write bounds, or schema, low and high")
		return 0
	}
	native := h.Schema != 0 || h.Low != 0 || h.High != 0
	if native == (len(h.Bounds) > 0) {
		a.problem(at, "want either bounds, or schema, low and high", "")
		return 0
	}
	if native {
		if h.Low >= h.High {
			a.problem(at, "low must be below high", "")
			return 0
		}
		metric.Buckets = &program.Buckets{Schema: int8(h.Schema), Low: h.Low, High: h.High}
		return (h.High-h.Low)<<h.Schema + 2
	}
	for i := 1; i < len(h.Bounds); i++ {
		if h.Bounds[i] <= h.Bounds[i-1] {
			a.problem(fmt.Sprintf("%s.bounds[%d]", at, i), "bounds must ascend", "sort them")
			return 0
		}
	}
	metric.Buckets = &program.Buckets{Bounds: h.Bounds}
	return len(h.Bounds) + 1
}

// unreadable says why a map of some types can't be a metric.
func unreadable(t ebpf.MapType) string {
	switch t {
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.Array, ebpf.PerCPUArray, ebpf.LPMTrie,
		ebpf.CGroupStorage, ebpf.PerCPUCGroupStorage, ebpf.CgroupStorage:
		return ""
	case ebpf.Queue, ebpf.Stack:
		return "reading it would empty it"
	case ebpf.RingBuf, ebpf.PerfEventArray:
		return "it holds events, not numbers: use from: {stream: ...}"
	case ebpf.TaskStorage, ebpf.SkStorage, ebpf.InodeStorage:
		return "its keys can't be listed from user space: use an iterator"
	case ebpf.StackTrace:
		return "it holds call stacks, not numbers"
	}
	return "it holds no numbers"
}

// mapReader finds or makes the reader of a map or an iterator, and the metric's cells.
func (a *applier) mapReader(field string, metric *program.Metric, m *v1alpha1.Metric) (int, bool) {
	from, name := m.From, m.From.Map
	spec := a.spec.Collection.Maps[name]
	if from.Iterator != "" {
		name, spec = from.Iterator, nil
		i := slices.IndexFunc(a.spec.Hooks, func(h program.Hook) bool { return h.Function == name })
		if i < 0 || a.spec.Hooks[i].Kind != program.Iterator {
			var names []string
			for _, h := range a.spec.Hooks {
				if h.Kind == program.Iterator {
					names = append(names, h.Function)
				}
			}
			a.problem(field+".iterator", fmt.Sprintf("%s has no iterator %q", a.spec.Name, name), choice(name, names))
			return 0, false
		}
	} else if spec == nil {
		var names []string
		for n := range a.spec.Collection.Maps {
			if !strings.HasPrefix(n, ".") { // sections of variables
				names = append(names, n)
			}
		}
		a.problem(field+".map", fmt.Sprintf("%s has no map %q", a.spec.Name, name), choice(name, names))
		return 0, false
	} else if why := unreadable(spec.Type); why != "" {
		a.problem(field+".map", fmt.Sprintf("%s is a %s and can't be a metric: %s", name, spec.Type, why), "use another map")
		return 0, false
	}
	before := len(a.problems)
	value, index, ok := a.layout(field, from, name, spec)
	if !ok || len(a.problems) > before {
		return 0, false
	}
	a.cells(field, metric, m, value)
	if h := from.Histogram; h != nil && h.Key != "" {
		a.spread(field+".histogram", &a.spec.Readers[index], metric, h, value)
	}
	return index, true
}

// layout finds or makes the reader, and returns the members of its value.
func (a *applier) layout(field string, from *v1alpha1.From, name string, spec *ebpf.MapSpec) ([]object.Member, int, bool) {
	index := slices.IndexFunc(a.spec.Readers, func(r program.Reader) bool { return r.Name == name })
	reader := program.Reader{Name: name, Kind: program.MapReader}
	var value []object.Member
	var described error
	if spec != nil {
		reader.KeySize, reader.ValueSize = spec.KeySize, spec.ValueSize
		var layout *object.Layout
		if layout, described = object.Describe(spec); described == nil {
			reader.Key, value = layout.Key, layout.Value
			for i := range reader.Key {
				if l := &reader.Key[i]; l.Name == "" { // a key that is no struct
					l.Name, l.Member = "key", "key"
				}
			}
			if spec.Type == ebpf.Array || spec.Type == ebpf.PerCPUArray {
				if spec.MaxEntries == 1 { // there is nothing to tell apart
					reader.Key[0].Name = ""
				}
			}
		}
	} else {
		reader.Kind, reader.Function = program.IteratorReader, name
	}
	if described != nil && (from.Key == nil || from.Value == nil) && (index < 0 || from.Value == nil) {
		a.problem(field+".map", fmt.Sprintf("%s: %v", name, described), "or describe it by key and value here")
		return nil, 0, false
	}
	if spec == nil && index < 0 && (from.Key == nil || from.Value == nil) {
		a.problem(field, "an iterator's records are not described by the object", "describe them by key and value")
		return nil, 0, false
	}
	if from.Key != nil {
		members, size := a.columns(field+".key", from.Key, reader.KeySize)
		reader.Key = nil
		for _, m := range members {
			label, err := m.Label()
			if err != nil {
				a.problem(field+".key", fmt.Sprintf("%s: %v", m.Name, err), "")
				continue
			}
			label.Field.BigEndian = m.Field.BigEndian
			if err := checkLabelName(label.Name); err != "" {
				a.problem(field+".key", err, "choose another name")
			}
			reader.Key = append(reader.Key, label)
		}
		if reader.KeySize == 0 {
			reader.KeySize = size
		}
	}
	if from.Value != nil {
		members, size := a.columns(field+".value", from.Value, reader.ValueSize)
		value = members
		if reader.ValueSize == 0 {
			reader.ValueSize = size
		}
	}
	if index < 0 {
		return value, a.addReader(reader), true
	}
	existing := &a.spec.Readers[index]
	if from.Key != nil && !slices.EqualFunc(existing.Key, reader.Key, func(x, y program.Label) bool { return x.Member == y.Member && x.Field == y.Field }) {
		a.problem(field+".key", fmt.Sprintf("the key of %s is already described in another way", name), "remove it here")
		return nil, 0, false
	}
	return value, index, true
}

// columns turns a manifest's description into members. size is that of the key or value, 0 if unknown.
func (a *applier) columns(field string, columns []v1alpha1.Column, size uint32) ([]object.Member, uint32) {
	var members []object.Member
	end := uint32(0)
	names := map[string]bool{}
	for i, c := range columns {
		at := fmt.Sprintf("%s[%d]", field, i)
		m := object.Member{Name: c.Name, Field: program.Field{Offset: uint32(c.Offset), Size: uint32(c.Size), BigEndian: c.BigEndian}}
		if c.Name == "" || names[c.Name] {
			a.problem(at+".name", fmt.Sprintf("%q is empty or used twice", c.Name), "each member needs its own name")
		}
		names[c.Name] = true
		switch c.Type {
		case "string":
			m.Type = &btf.Array{Type: &btf.Int{Name: "char", Size: 1, Encoding: btf.Char}, Nelems: uint32(c.Size)}
			if c.Count > 1 || c.BigEndian {
				a.problem(at, "a string has neither count nor byte order", "remove them")
			}
		default:
			if c.Size > 8 || c.Size&(c.Size-1) != 0 {
				a.problem(at+".size", fmt.Sprintf("a number can't have %d bytes", c.Size), "write 1, 2, 4 or 8")
			}
			number := &btf.Int{Size: uint32(c.Size)}
			if c.Type == "int" {
				number.Encoding, m.Field.Signed = btf.Signed, true
			}
			m.Type = number
			if c.Count > 1 {
				m.Type, m.Field.Count = &btf.Array{Type: number, Nelems: uint32(c.Count)}, uint32(c.Count)
			}
		}
		stop := uint32(c.Offset) + uint32(c.Size)*uint32(max(c.Count, 1))
		if size > 0 && stop > size {
			a.problem(at, fmt.Sprintf("it ends at byte %d of %d", stop, size), "check offset and size")
		}
		end = max(end, stop)
		members = append(members, m)
	}
	return members, end
}

// cells finds the metric's numbers among the members of the value.
func (a *applier) cells(field string, metric *program.Metric, m *v1alpha1.Metric, value []object.Member) {
	from := m.From
	names := map[string]bool{}
	for _, v := range value {
		if v.Name != "" {
			names[v.Name] = true
		}
	}
	list := slices.Sorted(maps.Keys(names))
	find := func(field, name string) (object.Member, bool) {
		i := slices.IndexFunc(value, func(v object.Member) bool { return v.Name == name })
		if i < 0 {
			a.problem(field, fmt.Sprintf("the value has no member %q", name), choice(name, list))
			return object.Member{}, false
		}
		return value[i], true
	}
	number := func(field, name string) {
		member, ok := find(field, name)
		if !ok {
			return
		}
		if _, array := member.Type.(*btf.Array); array || member.Field.Size > 8 {
			a.problem(field, fmt.Sprintf("%s is no number", name), "choose one of "+strings.Join(list, ", "))
		}
		metric.Cells = append(metric.Cells, member.Field)
	}
	if from.Histogram != nil && kin(metric.Type) != "histogram" || from.Summary != nil && metric.Type != program.Summary {
		a.problem(field, fmt.Sprintf("histogram and summary do not belong to a %s", metric.Type), "remove them")
		return
	}
	if m.States != nil && metric.Type != program.StateSet {
		a.problem(strings.TrimSuffix(field, ".from")+".states", "only a stateset has states", "remove them")
	}
	switch metric.Type {
	case program.Info:
		return
	case program.Histogram, program.GaugeHistogram:
		if from.Histogram != nil && from.Histogram.Key != "" {
			return // mapReader sees to the keys
		}
		want := a.slots(field, metric, from.Histogram)
		if want == 0 {
			return
		}
		number(field+".histogram.sum", from.Histogram.Sum)
		at := field + ".histogram.slots"
		slots, ok := find(at, from.Histogram.Slots)
		if ok && (int(slots.Field.Count) != want || slots.Field.Size > 8) {
			a.problem(at, fmt.Sprintf("%s has %d elements of %d bytes; these bounds need %d slots", slots.Name, max(slots.Field.Count, 1), slots.Field.Size, want),
				"correct the bounds")
		}
		metric.Cells = append(metric.Cells, slots.Field)
		return
	case program.Summary:
		if from.Summary == nil {
			a.problem(field+".summary", "a summary needs the members count and sum", "write summary: {count: MEMBER, sum: MEMBER}")
			return
		}
		number(field+".summary.count", from.Summary.Count)
		number(field+".summary.sum", from.Summary.Sum)
		return
	}
	member := from.Member
	if member == "" {
		if len(value) != 1 {
			a.problem(field+".member", "the value has several members", "choose one of "+strings.Join(list, ", "))
			return
		}
		member = value[0].Name
	}
	number(field+".member", member)
	if metric.Type == program.StateSet {
		i := slices.IndexFunc(value, func(v object.Member) bool { return v.Name == member })
		if i >= 0 {
			metric.States = value[i].States()
		}
		if m.States != nil {
			metric.States, _ = a.states(strings.TrimSuffix(field, ".from")+".states", m.States)
		}
		if len(metric.States) == 0 {
			a.problem(field+".member", fmt.Sprintf("%q is no enum", member), "give its states by states: {0: NAME, ...}")
		}
	}
}
