package ebpfexporter

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// Migration is what became of one configuration.
type Migration struct {
	Path string
	// Manifest is the equivalent Program, nil if there is none.
	Manifest *v1alpha1.Program
	// Better are things that gained, Human those that somebody should look at.
	Better, Human []string
}

// Migrate makes a manifest of the configuration at path, whose object is named in it as it is from the directory to. The error is about a
// configuration that can't be used at all.
func Migrate(path, to string, options Options) (*Migration, error) {
	spec, err := Load(path, options)
	if err != nil {
		return nil, err
	}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	r := &reading{path: path}
	c := r.parse(data)
	if c == nil {
		return nil, errors.Join(r.problems...)
	}
	codePath, err := filepath.Abs(spec.Origin.Files[0])
	if err != nil {
		return nil, err
	}
	if relative, err := filepath.Rel(to, codePath); err == nil && filepath.IsAbs(to) {
		codePath = relative
	}
	m := &migrator{spec: spec, options: options, result: &Migration{Path: path}}
	for _, d := range spec.Doubts {
		m.human("%s", d.Error())
	}
	// What a manifest makes of the object.
	native, err := object.Load(spec.Origin.Files[0])
	if err != nil {
		m.human("it stays a configuration of ebpf_exporter, which `kaon run` and `kaon up` read as it is: %v", err)
		return m.result, nil
	}
	if reasons := m.stays(c); len(reasons) > 0 {
		m.human("it stays a configuration of ebpf_exporter, which `kaon run` and `kaon up` read as it is, because manifests have no %s", strings.Join(reasons, ", no "))
		return m.result, nil
	}
	p := &v1alpha1.Program{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindProgram, Metadata: v1alpha1.Metadata{Name: spec.Name}}
	p.Spec.Source = &v1alpha1.Source{Object: &v1alpha1.ObjectSource{Path: codePath}}
	p.Spec.Help = fmt.Sprintf("Was the configuration %s of ebpf_exporter.", filepath.Base(path))
	m.hooks(p, native)
	for i := range c.counters {
		p.Spec.Metrics = append(p.Spec.Metrics, m.counter(&c.counters[i]))
	}
	for i := range c.histograms {
		p.Spec.Metrics = append(p.Spec.Metrics, m.histogram(&c.histograms[i]))
	}
	if len(p.Spec.Metrics) == 0 {
		m.human("it has no metrics")
		return m.result, nil
	}
	m.result.Manifest = p
	return m.result, nil
}

type migrator struct {
	spec    *program.Spec
	options Options
	result  *Migration
}

func (m *migrator) better(format string, args ...any) {
	m.note(&m.result.Better, format, args...)
}

func (m *migrator) human(format string, args ...any) { m.note(&m.result.Human, format, args...) }

func (m *migrator) note(list *[]string, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(*list, text) {
		*list = append(*list, text)
	}
}

// stays lists what a configuration has and manifests don't.
func (m *migrator) stays(c *config) (reasons []string) {
	for _, s := range c.counters {
		if s.perfEvents {
			reasons = append(reasons, "perf event arrays")
			break
		}
	}
	if len(c.kaddrs) > 0 {
		reasons = append(reasons, "kaddrs")
	}
	if c.cgroups != nil {
		reasons = append(reasons, "cgroup_id_map")
	}
	if len(c.spans) > 0 {
		reasons = append(reasons, "spans")
	}
	return reasons
}

// hooks keeps functions unattached that are not attached now.
func (m *migrator) hooks(p *v1alpha1.Program, native *program.Spec) {
	no := false
	for _, h := range native.Hooks {
		if h.Kind == program.Unattached || slices.ContainsFunc(m.spec.Hooks, func(o program.Hook) bool { return o.Function == h.Function && o.Kind == h.Kind }) {
			continue
		}
		p.Spec.Hooks = append(p.Spec.Hooks, v1alpha1.Hook{Function: h.Function, Enabled: &no})
		m.human("function %s stays as it is, unattached: enable it under hooks if it should be attached", h.Function)
	}
}

func (m *migrator) find(name string) *program.Reader {
	i := slices.IndexFunc(m.spec.Readers, func(r program.Reader) bool { return r.Name == name })
	return &m.spec.Readers[i]
}

func (m *migrator) counter(c *counter) v1alpha1.Metric {
	reader := m.find(c.name)
	old := &reader.Metrics[0]
	metric := v1alpha1.Metric{From: &v1alpha1.From{Map: c.name}, Name: old.Name, Help: sentence(c.help), Type: string(program.Counter)}
	if !strings.HasSuffix(old.Name, "_total") {
		metric.Type = string(program.Unknown)
		m.human("%s is of the type unknown, because the name of a counter ends in _total: if its queries can change, make it `name: %s_total`, `type: counter`", old.Name, old.Name)
	}
	metric.Unit = unitOf(strings.TrimSuffix(old.Name, "_total"))
	if metric.Unit != "" {
		m.better("%s has the unit %s", old.Name, metric.Unit)
	}
	if old.CPULabel {
		yes := true
		metric.CPULabel = &yes
	}
	m.labels(&metric, old.Name, reader, old.Labels, nil)
	if ms := m.spec.Collection.Maps[c.name]; len(reader.Key) > 0 && (ms.Type == ebpf.Array || ms.Type == ebpf.PerCPUArray) {
		m.better("%s: entries of the array that have counted nothing are no series", old.Name)
	}
	if ms := m.spec.Collection.Maps[c.name]; ms.Type == ebpf.Array && len(reader.Key) == 0 && ms.MaxEntries > 1 {
		m.human("%s is now the sum of the %d entries of its array: ebpf_exporter shows the first only", old.Name, ms.MaxEntries)
	}
	return metric
}

func (m *migrator) histogram(h *histogram) v1alpha1.Metric {
	reader := m.find(h.name)
	old := &reader.Metrics[0]
	bucket := reader.Key[len(reader.Key)-1]
	keys := &v1alpha1.Histogram{Key: bucket.Name, Upper: old.Buckets.Upper, First: int(reader.Spread.First), Numbers: reader.Spread.Numbers}
	metric := v1alpha1.Metric{From: &v1alpha1.From{Map: h.name, Histogram: keys}, Name: old.Name, Help: sentence(h.help), Type: string(program.Histogram)}
	if f := old.Scale.Factor; f != 0 && f != 1 {
		metric.Scale = v1alpha1.Text(formatFloat(f))
		m.better("the sum of %s is scaled exactly", old.Name)
	}
	if metric.Unit = unitOf(old.Name); metric.Unit != "" {
		m.better("%s has the unit %s", old.Name, metric.Unit)
	}
	m.labels(&metric, old.Name, reader, old.Labels, &keys.Key)
	m.human("%s keeps a key for each bucket, which is read many times more slowly than an array of slots and has no native histogram: count it with KAON_HISTOGRAM", old.Name)
	return metric
}

// labels describes the key: by its own type where that agrees with the configuration, else column by column. bucket, if
// there is one, is the name of the last member, and becomes what it is called in the manifest.
func (m *migrator) labels(metric *v1alpha1.Metric, name string, reader *program.Reader, wanted []program.Label, bucket *string) {
	ms := m.spec.Collection.Maps[reader.Name]
	layout, err := object.Describe(ms)
	typed := err == nil && len(layout.Key) == len(reader.Key)
	for i := range reader.Key {
		typed = typed && layout.Key[i].Field.Offset == reader.Key[i].Field.Offset &&
			layout.Key[i].Field.Size*max(layout.Key[i].Field.Count, 1) == reader.Key[i].Field.Size
	}
	labels := &v1alpha1.Labels{Rename: map[string]string{}, Decode: map[string]string{}, Values: map[string]map[string]string{}, Steps: map[string][]v1alpha1.Step{}}
	if len(reader.Key) == 0 {
		labels.Keep = []string{}
		if ms.Type == ebpf.Array || ms.Type == ebpf.PerCPUArray {
			if ms.MaxEntries == 1 {
				return
			}
		}
	}
	if err != nil {
		metric.From.Value = []v1alpha1.Column{{Name: "value", Size: 8, Type: "uint"}}
	}
	if !typed && len(reader.Key) > 0 {
		m.human("the members of the key of %s are not those of its labels: its layout is written down under from.key", reader.Name)
	}
	for i, l := range reader.Key {
		ref := l.Name
		switch {
		case typed:
			if ref = layout.Key[i].Member; ref == "" {
				ref = "key"
			}
		default:
			metric.From.Key = append(metric.From.Key, column(&l))
		}
		if bucket != nil && i == len(reader.Key)-1 {
			*bucket = ref
			continue
		}
		if !slices.ContainsFunc(wanted, func(w program.Label) bool { return w.Name == l.Name }) {
			continue
		}
		workload := m.decode(labels, name, ref, &l)
		if ref != l.Name && !workload {
			labels.Rename[ref] = l.Name
		}
	}
	if len(labels.Rename)+len(labels.Decode)+len(labels.Values)+len(labels.Steps) > 0 || labels.Keep != nil {
		metric.Labels = labels
	}
}

// column describes a member that the object's types don't.
func column(l *program.Label) v1alpha1.Column {
	c := v1alpha1.Column{Name: l.Name, Offset: int(l.Field.Offset), Size: int(l.Field.Size), Type: "string"}
	switch l.Field.Size {
	case 1, 2, 4, 8:
		c.Type = "uint"
	}
	return c
}

// decode says how a label is decoded; workload that it has become several labels.
func (m *migrator) decode(labels *v1alpha1.Labels, metric, ref string, l *program.Label) (workload bool) {
	var names []string
	for _, s := range l.Steps {
		names = append(names, s.Name)
	}
	switch strings.Join(names, " ") {
	case "uint":
		labels.Decode[ref] = "uint"
	case "string":
		labels.Decode[ref] = "string"
	case "inet_ip":
		labels.Decode[ref] = map[uint32]string{4: "ipv4", 16: "ip"}[l.Field.Size]
	case "uint errno":
		if l.Field.Size == 1 || l.Field.Size == 2 || l.Field.Size == 4 || l.Field.Size == 8 {
			labels.Decode[ref] = "errno"
			m.better("%s: the label %s also names the kernel's own errors; what has no name is its number", metric, l.Name)
		}
	case "uint syscall":
		if l.Field.Size >= 2 {
			labels.Decode[ref] = "syscall"
		}
	case "uint cgroup":
		if l.Field.Size == 8 {
			labels.Decode[ref] = "workload"
			m.better("%s: instead of a path in %s it has namespace, pod and container, or unit, or cgroup; series of cgroups that are gone are removed", metric, l.Name)
			m.human("%s: what queries the label %s needs other labels now; to keep the path, write under labels `steps: {%s: [{name: uint}, {name: cgroup}]}` instead of `decode: {%s: workload}`", metric, l.Name, ref, ref)
			return true
		}
	case "uint static_map":
		if values := numbers(l.Steps[1].Map); values != nil {
			labels.Values[ref] = values
			if !l.Steps[1].AllowUnknown {
				m.better("%s: a value of %s without a name is its number, not unknown:NUMBER", metric, l.Name)
			}
		}
	}
	if labels.Decode[ref] == "" && labels.Values[ref] == nil {
		for _, s := range l.Steps {
			labels.Steps[ref] = append(labels.Steps[ref], v1alpha1.Step{Name: s.Name, Values: s.Map, AllowUnknown: s.AllowUnknown, Regexps: s.Regexps})
		}
	}
	if labels.Decode[ref] == "" {
		delete(labels.Decode, ref)
	}
	return false
}

// numbers returns names by number, nil if something else is named as well.
func numbers(names map[string]string) map[string]string {
	if len(names) == 0 {
		return nil
	}
	for from, to := range names {
		if strings.Trim(from, "0123456789") != "" || len(from) > 18 || from != "0" && from[0] == '0' || to == "" {
			return nil
		}
	}
	return names
}

// sentence ends a help text with a period.
func sentence(help string) string {
	help = strings.TrimSpace(help)
	if help != "" && !strings.HasSuffix(help, ".") {
		help += "."
	}
	return help
}

// unitOf returns the base unit that a name ends in.
func unitOf(name string) string {
	for _, unit := range []string{"seconds", "bytes", "ratio", "volts", "amperes", "joules", "grams", "meters", "celsius", "hertz"} {
		if strings.HasSuffix(name, "_"+unit) {
			return unit
		}
	}
	return ""
}
