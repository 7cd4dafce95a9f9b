package manifest

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/program"
)

// decoderSizes are the sizes in bytes of what a decoder understands; none means any.
var decoderSizes = map[string][]uint32{
	"workload": {8}, "ipv4": {4}, "ipv6": {16}, "ip": {16}, "port": {2, 4}, "device": {4}, "ifindex": {4},
	"syscall": {2, 4, 8}, "errno": {1, 2, 4, 8}, "signal": {1, 2, 4, 8}, "uid": {4}, "gid": {4}, "ksym": {8},
	"comm": nil, "mac": {6}, "protocol": {1, 2, 4}, "ethertype": {2, 4}, "cpu": {2, 4}, "pid": {4, 8}, "hex": nil, "netns": {4},
	"uint": {1, 2, 4, 8}, "int": {1, 2, 4, 8}, "bool": {1, 2, 4, 8}, "enum": {1, 2, 4, 8}, "kernel_enum": {1, 2, 4, 8}, "string": nil,
}

// multiple are the labels of decoders that yield several, under names of their own.
var multiple = map[string][]string{
	"workload": {"namespace", "pod", "container", "runtime", "unit", "cgroup"},
}

// Decoders lists the decoders that manifests know unless Options say otherwise.
func Decoders() []string { return slices.Sorted(maps.Keys(decoderSizes)) }

// labels changes the labels of a metric; reader has all there could be.
func (a *applier) labels(field string, reader *program.Reader, metric *program.Metric, l *v1alpha1.Labels) {
	// candidates are the key's members under the names that the metric gives them.
	candidates := slices.Clone(reader.Key)
	shown := make([]bool, len(candidates))
	for i := range candidates {
		for _, current := range metric.Labels {
			if current.Member == candidates[i].Member {
				candidates[i], shown[i] = current, true
			}
		}
		if candidates[i].Name == "" { // skipped by the object
			candidates[i].Name = candidates[i].Member
		}
	}
	var names []string
	for _, c := range candidates {
		names = append(names, c.Name)
	}
	find := func(field, ref string) int {
		i := slices.IndexFunc(candidates, func(c program.Label) bool { return c.Name == ref })
		if i < 0 {
			i = slices.IndexFunc(candidates, func(c program.Label) bool { return c.Member == ref })
		}
		if i < 0 {
			a.problem(field, fmt.Sprintf("there is no label %q", ref), choice(ref, names))
		}
		return i
	}
	if l.Keep != nil && l.Drop != nil {
		a.problem(field, v1alpha1.WantKeepOrDrop, "remove one")
	}
	if l.Keep != nil {
		clear(shown)
	}
	found := make([]int, 0, len(l.Keep)+len(l.Drop))
	for i, ref := range l.Keep {
		found = append(found, find(fmt.Sprintf("%s.keep[%d]", field, i), ref))
	}
	for i, ref := range l.Drop {
		found = append(found, find(fmt.Sprintf("%s.drop[%d]", field, i), ref))
	}
	for _, i := range found {
		if i >= 0 {
			shown[i] = l.Keep != nil
		}
	}
	// All references are to the names before renaming.
	renamed := map[int]string{}
	for _, ref := range slices.Sorted(maps.Keys(l.Rename)) {
		at := child(field+".rename", ref)
		if i := find(at, ref); i >= 0 {
			renamed[i] = l.Rename[ref]
			if err := checkLabelName(l.Rename[ref]); err != "" {
				a.problem(at, err, "choose another name")
			}
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(l.Decode)) {
		at := child(field+".decode", ref)
		if i := find(at, ref); i >= 0 {
			a.decode(at, &candidates[i], l.Decode[ref], l.Values[ref] != nil)
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(l.Values)) {
		at := child(field+".values", ref)
		if i := find(at, ref); i >= 0 {
			a.values(at, &candidates[i], l.Values[ref])
		}
	}
	for _, ref := range slices.Sorted(maps.Keys(l.Steps)) {
		at := child(field+".steps", ref)
		i := find(at, ref)
		if i < 0 {
			continue
		}
		if l.Decode[ref] != "" || l.Values[ref] != nil {
			a.problem(at, "the label has decode or values as well", "remove one or the other")
			continue
		}
		candidates[i].Decoder, candidates[i].Enum, candidates[i].EnumType = "chain", nil, ""
		if c := candidates[i].Field.Count; c > 1 {
			candidates[i].Field.Size, candidates[i].Field.Count = candidates[i].Field.Size*c, 0
		}
		candidates[i].Steps = a.steps(at, l.Steps[ref])
	}
	for i, name := range renamed {
		if own := multiple[candidates[i].Decoder]; own != nil {
			a.problem(child(field+".rename", candidates[i].Name), fmt.Sprintf("a %s has labels of its own: %s", candidates[i].Decoder, strings.Join(own, ", ")),
				"they can't be renamed")
		}
		candidates[i].Name = name
	}
	metric.Labels = nil
	for i := range candidates {
		if shown[i] {
			metric.Labels = append(metric.Labels, candidates[i])
		}
	}
}

// steps makes the steps of a chain.
func (a *applier) steps(field string, list []v1alpha1.Step) []program.Step {
	if len(list) == 0 {
		a.problem(field, "there is no step", "write - name: uint")
	}
	var steps []program.Step
	for i, s := range list {
		at := fmt.Sprintf("%s[%d]", field, i)
		if !slices.Contains(stepNames, s.Name) {
			a.problem(at+".name", fmt.Sprintf("there is no step %q", s.Name), choice(s.Name, stepNames))
		}
		if (s.Regexps != nil) != (s.Name == "regexp") {
			a.problem(at+".regexps", "the step regexp has them, others don't", "")
		}
		for j, text := range s.Regexps {
			if _, err := regexp.Compile(text); err != nil {
				a.problem(fmt.Sprintf("%s.regexps[%d]", at, j), err.Error(), "write it as package regexp of Go understands it (RE2)")
			}
		}
		if (s.Values != nil) != (s.Name == "static_map") || s.AllowUnknown && s.Name != "static_map" {
			a.problem(at+".values", "the step static_map has them, others don't", "")
		}
		steps = append(steps, program.Step{Name: s.Name, Map: s.Values, AllowUnknown: s.AllowUnknown, Regexps: s.Regexps})
	}
	return steps
}

// stepNames are the steps that manifests know.
var stepNames = []string{
	"cgroup", "dname", "errno", "hex", "ifname", "inet_ip", "kstack", "ksym", "majorminor", "pci_class", "pci_device", "pci_subclass",
	"pci_vendor", "regexp", "static_map", "string", "syscall", "uint",
}

// Steps lists the steps that manifests know.
func Steps() []string { return slices.Clone(stepNames) }

func (a *applier) decode(field string, label *program.Label, decoder string, values bool) {
	name, bigEndian := strings.CutSuffix(decoder, "_be")
	if !slices.Contains(a.decoders, name) {
		a.problem(field, fmt.Sprintf("there is no decoder %q", decoder), choice(decoder, a.decoders))
		return
	}
	size := label.Field.Size * max(label.Field.Count, 1)
	if sizes := decoderSizes[name]; sizes != nil && !slices.Contains(sizes, size) {
		var want []string
		for _, s := range sizes {
			want = append(want, strconv.Itoa(int(s)))
		}
		a.problem(field, fmt.Sprintf("%s decodes %s bytes, and %s has %d", name, strings.Join(want, " or "), label.Member, size), "choose another decoder")
		return
	}
	if name == "enum" && label.Enum == nil && !values {
		a.problem(field, "the numbers of an enum need names", "give them by values")
		return
	}
	if name == "kernel_enum" && label.EnumType == "" {
		a.problem(field, label.Member+" is no enum: the kernel's enum is found by the name of its type", "give names by values")
		return
	}
	if name == "int" {
		label.Field.Signed = true
	}
	if bigEndian {
		label.Field.BigEndian = true
	}
	if name != "enum" && name != "kernel_enum" {
		label.Enum = nil
	}
	label.Decoder = name
}

func (a *applier) values(field string, label *program.Label, values map[string]string) {
	if label.Field.Size > 8 || label.Field.Count > 1 || label.Decoder == "string" {
		a.problem(field, fmt.Sprintf("%s is no number", label.Member), "only numbers can be given names")
		return
	}
	if states, ok := a.states(field, values); ok {
		label.Decoder, label.Enum = "enum", states
	}
}

// states turns a manifest's names of numbers into those of a spec, by number.
func (a *applier) states(field string, values map[string]string) ([]program.State, bool) {
	var states []program.State
	seen := map[int64]bool{}
	for _, text := range slices.Sorted(maps.Keys(values)) {
		n, err := strconv.ParseInt(text, 0, 64)
		switch {
		case err != nil:
			a.problem(child(field, text), fmt.Sprintf("%q is not a whole number", text), "write NUMBER: NAME")
			return nil, false
		case seen[n]:
			a.problem(child(field, text), fmt.Sprintf("%d is named twice", n), "remove one")
			return nil, false
		case values[text] == "":
			a.problem(child(field, text), "the name is empty", "")
			return nil, false
		}
		seen[n] = true
		states = append(states, program.State{Name: values[text], Value: n})
	}
	slices.SortFunc(states, func(x, y program.State) int {
		if x.Value < y.Value {
			return -1
		}
		return 1
	})
	return states, true
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// checkLabelName says what is wrong with a name, or "".
func checkLabelName(name string) string {
	switch {
	case !labelName.MatchString(name):
		return fmt.Sprintf("%q can't be a label's name: letters, digits and _ are allowed", name)
	case strings.HasPrefix(name, "_"):
		return fmt.Sprintf("the label name %q begins with an underscore, which Prometheus keeps for itself", name)
	case name == "le", name == "quantile", name == "overflow":
		return fmt.Sprintf("the label name %q has a meaning of its own in expositions", name)
	}
	return ""
}

func (a *applier) staticLabels(field string, metric *program.Metric, labels map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		at := child(field, name)
		if err := checkLabelName(name); err != "" {
			a.problem(at, err, "choose another name")
			continue
		}
		if labels[name] == "" {
			a.problem(at, "it is empty, which is the same as no label", "remove it")
			continue
		}
		static := program.StaticLabel{Name: name, Value: labels[name]}
		i := slices.IndexFunc(metric.StaticLabels, func(s program.StaticLabel) bool { return s.Name == name })
		if i >= 0 {
			metric.StaticLabels[i] = static
		} else {
			metric.StaticLabels = append(metric.StaticLabels, static)
		}
	}
}

// AddStaticLabels adds labels to every metric of a spec, as a manifest does; one that a metric
// sets itself is a problem. The error joins every problem.
func AddStaticLabels(spec *program.Spec, labels map[string]string) error {
	if len(labels) == 0 {
		return nil
	}
	a := &applier{spec: spec, where: func(field string) string { return field }}
	for i := range spec.Readers {
		for j := range spec.Readers[i].Metrics {
			metric := &spec.Readers[i].Metrics[j]
			field := "metric " + metric.Name + ": staticLabels"
			for _, l := range metric.StaticLabels {
				if _, twice := labels[l.Name]; twice {
					a.problem(child(field, l.Name), "the metric has a static label of this name already", "give one of them another name")
				}
			}
			a.staticLabels(field, metric, labels)
			a.checkLabels(field, metric)
		}
	}
	return errors.Join(a.problems...)
}

// checkLabels finds names that a metric would have twice.
func (a *applier) checkLabels(field string, metric *program.Metric) {
	from := map[string]string{}
	add := func(name, what string) {
		if other, twice := from[name]; twice {
			a.problem(field, fmt.Sprintf("two labels are called %s: %s and %s", name, other, what), "rename one by labels.rename")
		}
		from[name] = what
	}
	for _, l := range metric.Labels {
		if own := multiple[l.Decoder]; own != nil {
			for _, name := range own {
				add(name, "one of "+l.Member)
			}
			continue
		}
		add(l.Name, "the key's "+l.Member)
	}
	for _, s := range metric.StaticLabels {
		add(s.Name, "a static one")
	}
	if metric.CPULabel {
		add("cpu", "the one of cpuLabel")
	}
	if metric.Type == program.StateSet {
		add(metric.Name, "the one with the state")
	}
}
