package object

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// Layout is what BTF tells of a map: what a manifest needs to make metrics of one without tags.
type Layout struct {
	KeySize, ValueSize uint32
	Key                []program.Label
	Value              []Member
}

// Describe returns the layout of a map.
func Describe(m *ebpf.MapSpec) (*Layout, error) {
	if m.Key == nil || m.Value == nil {
		return nil, errors.New("BTF does not know its key and value: declare it with __type(key, ...) and __type(value, ...)")
	}
	layout := &Layout{KeySize: m.KeySize, ValueSize: m.ValueSize}
	members, err := Flatten(m.Key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	for _, member := range members {
		label, err := member.label()
		if err != nil {
			return nil, fmt.Errorf("key member %s: %w", member.Name, err)
		}
		layout.Key = append(layout.Key, label)
	}
	if layout.Value, err = Flatten(m.Value); err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	return layout, nil
}

func (p *parser) maps() {
	collection := p.spec.Collection
	for _, name := range slices.Sorted(maps.Keys(collection.Maps)) {
		m := collection.Maps[name]
		where := "map " + name
		tags := p.tags(where, m.Tags, mapTags)
		if len(tags) == 0 {
			continue
		}
		if _, ok := tags["stream"]; ok {
			p.stream(where, m, tags)
			continue
		}
		if reader, ok := p.reader(where, m, tags); ok {
			p.spec.Readers = append(p.spec.Readers, reader)
		}
	}
}

func (p *parser) stream(where string, m *ebpf.MapSpec, tags map[string]string) {
	stream := program.Stream{Name: m.Name, Help: tags["help"]}
	record := m.Value
	if name := tags["record"]; name != "" {
		var s *btf.Struct
		if err := p.spec.Collection.Types.TypeByName(name, &s); err != nil {
			p.problem(where, fmt.Sprintf("its record type, struct %s, is not in the object", name), "name a struct that the program uses")
			return
		}
		record = s
	}
	if record == nil {
		p.problem(where, "it does not say what its records are", "declare it with KAON_STREAM")
		return
	}
	size, err := btf.Sizeof(record)
	if err != nil {
		p.problem(where, err.Error(), "")
		return
	}
	members, err := Flatten(record)
	if err != nil {
		p.problem(where, "record: "+err.Error(), "")
		return
	}
	stream.RecordSize = uint32(size)
	for _, member := range members {
		label, err := member.label()
		if err != nil {
			p.problem(where, fmt.Sprintf("record member %s: %v", member.Name, err), "")
			continue
		}
		stream.Fields = append(stream.Fields, label)
	}
	p.spec.Streams = append(p.spec.Streams, stream)
}

// reader makes a reader and its metrics from a tagged map.
func (p *parser) reader(where string, m *ebpf.MapSpec, tags map[string]string) (program.Reader, bool) {
	reader := program.Reader{Name: m.Name, Kind: program.MapReader, KeySize: m.KeySize, ValueSize: m.ValueSize}
	if function, ok := tags["iterator"]; ok {
		reader.Kind, reader.Function = program.IteratorReader, function
	}
	_, reader.Overflow = tags["overflow"]
	layout, err := Describe(m)
	if err != nil {
		p.problem(where, err.Error(), "")
		return reader, false
	}
	before := len(p.problems)
	reader.Key = p.key(where, m, tags, layout)
	labels := slices.DeleteFunc(slices.Clone(reader.Key), func(l program.Label) bool { return l.Name == "" })
	base := program.Metric{Name: m.Name, When: tags["when"], Unless: tags["unless"], Labels: labels}
	if _, perCPU := tags["cpu"]; perCPU {
		base.CPULabel = true
	}
	p.limit(where, &base, tags["limit"])
	switch {
	case tags["type"] != "":
		// One metric: the value is a number, a histogram or a summary.
		if metric, ok := p.metric(where, base, tags, m.Value, layout.Value); ok {
			reader.Metrics = append(reader.Metrics, metric)
		}
	default:
		reader.Metrics = p.memberMetrics(where, base, m.Value)
		if len(reader.Metrics) == 0 && len(p.problems) == before {
			p.problem(where, "it has tags but no metric", "give it a type with KAON_TYPE, or tag the members of its value")
		}
	}
	return reader, len(p.problems) == before
}

// key applies the tags of the key's members. Labels that are skipped keep their place with an empty name.
func (p *parser) key(where string, m *ebpf.MapSpec, tags map[string]string, layout *Layout) []program.Label {
	members, err := Flatten(m.Key)
	if err != nil {
		return nil // reported by Describe
	}
	key := slices.Clone(layout.Key)
	seen := map[string]bool{}
	for i := range key {
		at := where + ", key member " + members[i].Name
		memberTags := p.tags(at, members[i].Tags, keyTags)
		if members[i].Name == "" { // the key is no struct: tags sit on the map
			at, memberTags = where, tags
			if key[i].Name = members[i].TypeName; key[i].Name == "" || decoderOf(key[i].Name) == "" {
				key[i].Name = "key"
			} else {
				key[i].Name = strings.TrimSuffix(strings.TrimPrefix(key[i].Name, "kaon_"), "_t")
			}
			key[i].Member = key[i].Name
		}
		if name, ok := memberTags["label"]; ok {
			key[i].Name = name
		}
		if decoder, ok := memberTags["decoder"]; ok {
			key[i].Decoder = decoder
		}
		_, key[i].OmitZero = memberTags["omitzero"]
		if _, ok := memberTags["skip"]; ok || members[i].TypeName == "kaon_none_t" {
			key[i].Name = ""
			continue
		}
		if seen[key[i].Name] {
			p.problem(at, fmt.Sprintf("two labels are called %q", key[i].Name), "rename one with KAON_LABEL")
		}
		seen[key[i].Name] = true
		if err := checkLabelName(key[i].Name); err != nil {
			p.problem(at, err.Error(), "rename it with KAON_LABEL")
		}
	}
	return key
}

func checkLabelName(name string) error {
	if strings.HasPrefix(name, "_") {
		return fmt.Errorf("the label name %q begins with an underscore, which Prometheus keeps for itself", name)
	}
	switch name {
	case "le", "quantile", "overflow":
		return fmt.Errorf("the label name %q has a meaning of its own in expositions", name)
	}
	return nil
}

func (p *parser) limit(where string, metric *program.Metric, text string) {
	if text == "" {
		return
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		p.problem(where, fmt.Sprintf("its limit %q is not a number of series", text), "write KAON_LIMIT(5000)")
		return
	}
	metric.Limit = n
}

// memberMetrics makes a metric from each tagged member of a struct value.
func (p *parser) memberMetrics(where string, base program.Metric, value btf.Type) []program.Metric {
	s, ok := btf.UnderlyingType(value).(*btf.Struct)
	if !ok {
		return nil
	}
	var metrics []program.Metric
	for _, member := range s.Members {
		at := where + ", value member " + member.Name
		tags := p.tags(at, member.Tags, valueTags)
		if tags["type"] == "" {
			continue
		}
		var members []Member
		if err := flattenMember(&members, member, "", 0, 0); err != nil {
			p.problem(at, err.Error(), "")
			continue
		}
		metric := base
		metric.Name = base.Name + "_" + member.Name
		if tags["when"] != "" || tags["unless"] != "" {
			metric.When, metric.Unless = tags["when"], tags["unless"]
		}
		if tags["limit"] != "" {
			p.limit(at, &metric, tags["limit"])
		}
		if metric, ok := p.metric(at, metric, tags, member.Type, members); ok {
			metrics = append(metrics, metric)
		}
	}
	return metrics
}

// metric completes a metric from its tags and the type of its value. members are the value's, with
// offsets from the beginning of the map's value.
func (p *parser) metric(where string, metric program.Metric, tags map[string]string, value btf.Type, members []Member) (program.Metric, bool) {
	before := len(p.problems)
	metric.Type = program.Type(tags["type"])
	metric.Help = tags["help"]
	metric.Unit = tags["unit"]
	if name := tags["name"]; name != "" {
		metric.Name = name
	}
	if scale := tags["scale"]; scale != "" {
		if _, err := fmt.Sscanf(scale, "%d/%d", &metric.Scale.Num, &metric.Scale.Den); err != nil || metric.Scale.Num == 0 || metric.Scale.Den == 0 {
			p.problem(where, fmt.Sprintf("its scale %q is not NUMERATOR/DENOMINATOR", scale), "write KAON_SCALE(1, 1000000000)")
		}
	}
	var err error
	switch metric.Type {
	case program.Counter, program.Gauge, program.Unknown, program.Info:
		err = scalar(&metric, members)
	case program.StateSet:
		if err = scalar(&metric, members); err == nil {
			enum, ok := members[0].Type.(*btf.Enum)
			if !ok {
				err = errors.New("a stateset's value must be an enum")
				break
			}
			metric.States = program.EnumStates(enum)
		}
	case program.Histogram, program.GaugeHistogram:
		err = p.histogram(where, &metric, value, members)
	case program.Summary:
		err = p.summary(where, &metric, value, members)
	default:
		p.problem(where, fmt.Sprintf("unknown type %q", tags["type"]),
			"use counter, gauge, histogram, gaugehistogram, summary, info, stateset or unknown")
		return metric, false
	}
	if err != nil {
		p.problem(where, err.Error(), "")
	}
	metric.Name = FamilyName(metric.Name, metric.Type)
	return metric, len(p.problems) == before
}

// FamilyName appends the suffix that a type calls for.
func FamilyName(name string, typ program.Type) string {
	switch {
	case typ == program.Counter && !strings.HasSuffix(name, "_total"):
		return name + "_total"
	case typ == program.Info && !strings.HasSuffix(name, "_info"):
		return name + "_info"
	}
	return name
}

func scalar(metric *program.Metric, members []Member) error {
	if metric.Type == program.Info {
		return nil
	}
	if len(members) != 1 || members[0].Field.Count > 1 {
		return fmt.Errorf("a %s's value must be one number, this one has %s: tag the members instead of the map", metric.Type, memberNames(members))
	}
	if _, isArray := members[0].Type.(*btf.Array); isArray {
		return fmt.Errorf("a %s's value must be a number", metric.Type)
	}
	metric.Cells = []program.Field{members[0].Field}
	return nil
}

// member finds a member by the last part of its flattened name.
func member(members []Member, name string) (Member, bool) {
	for _, m := range members {
		if m.Name == name || strings.HasSuffix(m.Name, "_"+name) {
			return m, true
		}
	}
	return Member{}, false
}

func (p *parser) histogram(where string, metric *program.Metric, value btf.Type, members []Member) error {
	s, ok := btf.UnderlyingType(value).(*btf.Struct)
	if !ok {
		return errors.New("a histogram's value must be one of kaon.h's: use KAON_HISTOGRAM")
	}
	tags := p.tags(where+", value", s.Tags, structTags)
	buckets := &program.Buckets{}
	switch {
	case tags["histogram"] != "":
		unit, rest, _ := strings.Cut(tags["histogram"], ",")
		if _, err := fmt.Sscanf(rest, "%d,%d,%d", &buckets.Schema, &buckets.Low, &buckets.High); err != nil {
			return fmt.Errorf("the tag histogram=%s is not UNIT,SCHEMA,LOW,HIGH", tags["histogram"])
		}
		if buckets.Schema < 0 || buckets.Schema > 5 || buckets.Low >= buckets.High || buckets.Low < -64 || buckets.High > 64 {
			return fmt.Errorf("the tag histogram=%s is out of range: schemas are 0 to 5, -64 <= low < high <= 64", tags["histogram"])
		}
		switch unit {
		case "ns":
			metric.Scale = program.Scale{Num: 1, Den: 1e9}
			if metric.Unit == "" {
				metric.Unit = "seconds"
			}
		case "one":
		default:
			return fmt.Errorf("the tag histogram=%s has an unknown unit: use one or ns", tags["histogram"])
		}
	case tags["bounds"] != "":
		for _, text := range strings.Split(tags["bounds"], ",") {
			text = strings.TrimRight(strings.TrimSpace(text), "uUlL")
			b, err := strconv.ParseUint(text, 0, 64)
			if err != nil || len(buckets.Bounds) > 0 && b <= buckets.Bounds[len(buckets.Bounds)-1] {
				return fmt.Errorf("the tag bounds=%s is not an ascending list of numbers", tags["bounds"])
			}
			buckets.Bounds = append(buckets.Bounds, b)
		}
	default:
		return errors.New("a histogram's value must be one of kaon.h's: use KAON_HISTOGRAM")
	}
	want := buckets.Slots()
	sum, okSum := member(members, "sum")
	slots, okSlots := member(members, "slots")
	if !okSum || !okSlots || int(max(slots.Field.Count, 1)) != want || slots.Field.Size != 8 {
		return fmt.Errorf("a histogram's value needs a sum and %d slots of 64 bits", want)
	}
	metric.Buckets = buckets
	metric.Cells = []program.Field{sum.Field, slots.Field}
	return exemplar(metric, s, members)
}

// exemplar finds the exemplar in a value: members value, timestamp, and labels, below a member called exemplar.
func exemplar(metric *program.Metric, s *btf.Struct, members []Member) error {
	if !slices.ContainsFunc(s.Members, func(m btf.Member) bool { return m.Name == "exemplar" }) {
		return nil
	}
	latest := &program.Exemplar{}
	found := 0
	for _, m := range members {
		_, name, ok := strings.Cut("_"+m.Name, "_exemplar_")
		if !ok {
			continue
		}
		switch name {
		case "value":
			latest.Value = m.Field
			found++
		case "timestamp":
			latest.Timestamp = m.Field
			found++
		default:
			label, err := m.label()
			if err != nil {
				return fmt.Errorf("exemplar member %s: %w", name, err)
			}
			// A nested struct of labels lends its members, not its own name.
			label.Name = strings.TrimPrefix(name, "labels_")
			latest.Labels = append(latest.Labels, label)
		}
	}
	if found != 2 {
		return errors.New("an exemplar needs the members value and timestamp")
	}
	metric.Exemplar = latest
	return nil
}

func (p *parser) summary(where string, metric *program.Metric, value btf.Type, members []Member) error {
	s, ok := btf.UnderlyingType(value).(*btf.Struct)
	count, okCount := member(members, "count")
	sum, okSum := member(members, "sum")
	if !ok || !okCount || !okSum {
		return errors.New("a summary's value needs the members count and sum: use KAON_SUMMARY")
	}
	p.tags(where+", value", s.Tags, structTags)
	metric.Cells = []program.Field{count.Field, sum.Field}
	for _, m := range members {
		tags := p.tags(where+", value member "+m.Name, m.Tags, valueTags)
		text, ok := tags["quantile"]
		if !ok {
			continue
		}
		q, err := strconv.ParseFloat(text, 64)
		if err != nil || q < 0 || q > 1 {
			return fmt.Errorf("the quantile %q is not between 0 and 1", text)
		}
		metric.Quantiles = append(metric.Quantiles, q)
		metric.Cells = append(metric.Cells, m.Field)
	}
	return nil
}
