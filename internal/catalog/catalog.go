// Package catalog tells what Programs there are, and what each exports, takes and needs.
package catalog

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/doctor"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/programs"
)

// Entry is one Program of the built-in library.
type Entry struct {
	Name string `json:"name"`
	// Area of the library, empty for Programs of others.
	Area string `json:"area,omitempty"`
	Help string `json:"help"`
	// Default Programs run when the agent is told of none.
	Default bool   `json:"default"`
	Cost    string `json:"cost"`
}

// Description is all that can be told of a Program without loading it.
type Description struct {
	Entry
	Source  string              `json:"source"`
	Metrics []MetricDescription `json:"metrics"`
	Params  []program.Param     `json:"params,omitempty"`
	Hooks   []HookDescription   `json:"hooks"`
}

// MetricDescription is one family.
type MetricDescription struct {
	Name   string       `json:"name"`
	Type   program.Type `json:"type"`
	Unit   string       `json:"unit,omitempty"`
	Help   string       `json:"help"`
	Labels []string     `json:"labels"`
	Limit  int          `json:"limit"`
	// Condition is the param on which the metric depends: "xdp" or "not xdp".
	Condition string `json:"condition,omitempty"`
}

// HookDescription is one function and what its hook needs.
type HookDescription struct {
	Function     string           `json:"function"`
	Kind         program.HookKind `json:"kind"`
	Target       string           `json:"target,omitempty"`
	Alternative  string           `json:"alternative,omitempty"`
	Optional     bool             `json:"optional,omitempty"`
	Condition    string           `json:"condition,omitempty"`
	Capabilities []string         `json:"capabilities"`
	Since        string           `json:"since"`
}

// Entries returns the built-in library, by area and name.
func Entries() ([]Entry, error) {
	var entries []Entry
	for _, name := range programs.Names() {
		specs, err := agent.Resolve(name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry(specs[0]))
	}
	area := func(e Entry) int { return slices.Index(programs.Areas(), e.Area) }
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(area(a), area(b)) })
	return entries, nil
}

func entry(spec *program.Spec) Entry {
	e := Entry{Name: spec.Name, Help: spec.Help, Cost: "not measured: see `kaon top` while it runs"}
	if strings.HasPrefix(spec.Origin.Path, "builtin:") {
		e.Default = slices.Contains(programs.Default(), spec.Name)
		e.Cost = programs.Cost(spec.Name)
		e.Area = programs.Area(spec.Name)
	}
	return e
}

// List writes the built-in library as text or json.
func List(w io.Writer, output string) error {
	entries, err := Entries()
	if err != nil {
		return err
	}
	switch output {
	case "json":
		return writeJSON(w, entries)
	case "text":
	default:
		return fmt.Errorf("--output %q: want text or json", output)
	}
	width := 0
	for _, e := range entries {
		width = max(width, len(e.Name))
	}
	var b strings.Builder
	for i, e := range entries {
		if i == 0 || entries[i-1].Area != e.Area {
			fmt.Fprintf(&b, "%s\n", e.Area)
		}
		mark := " "
		if e.Default {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %-*s  %s\n", mark, width, e.Name, e.Help)
	}
	_, err = fmt.Fprintf(w, "%s\n* runs by default. `kaon describe PROGRAM` tells more, `kaon run PROGRAM` shows it live.\n", b.String())
	return err
}

// Describe writes all about the Programs that source names, as text or json.
func Describe(w io.Writer, source, output string) error {
	specs, err := agent.Resolve(source)
	if err != nil {
		return err
	}
	var all []Description
	for _, spec := range specs {
		all = append(all, New(spec))
	}
	switch output {
	case "json":
		if len(all) == 1 {
			return writeJSON(w, all[0])
		}
		return writeJSON(w, all)
	case "text":
	default:
		return fmt.Errorf("--output %q: want text or json", output)
	}
	for i, d := range all {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := d.write(w); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// New describes a spec.
func New(spec *program.Spec) Description {
	d := Description{Entry: entry(spec), Source: spec.Origin.Path, Params: spec.Params}
	for _, r := range spec.Readers {
		for _, m := range r.Metrics {
			md := MetricDescription{Name: m.Name, Type: m.Type, Unit: m.Unit, Help: m.Help, Limit: m.Limit, Labels: []string{}, Condition: condition(m.When, m.Unless)}
			if md.Limit == 0 {
				md.Limit = program.DefaultLimit
			}
			workloads := 0
			for _, l := range m.Labels {
				name := l.Name
				if l.Decoder == "workload" {
					if workloads++; workloads > 1 {
						name += "_namespace, ..."
					} else {
						name = "namespace, pod, container, runtime, unit, cgroup (of the workload)"
					}
				}
				md.Labels = append(md.Labels, name)
			}
			for _, l := range m.StaticLabels {
				md.Labels = append(md.Labels, fmt.Sprintf("%s=%q", l.Name, l.Value))
			}
			d.Metrics = append(d.Metrics, md)
		}
	}
	requirements := doctor.Requirements()
	for _, h := range spec.Hooks {
		hd := HookDescription{Function: h.Function, Kind: h.Kind, Target: h.Target, Optional: h.Optional, Condition: condition(h.When, h.Unless)}
		if h.Group != "" {
			hd.Alternative = fmt.Sprintf("%s, %d", h.Group, h.Rank)
		}
		if i := slices.IndexFunc(requirements, func(r doctor.Requirement) bool { return r.Kind == h.Kind }); i >= 0 {
			hd.Since = requirements[i].Since
			for _, c := range requirements[i].Capabilities {
				hd.Capabilities = append(hd.Capabilities, c.String())
			}
		}
		d.Hooks = append(d.Hooks, hd)
	}
	return d
}

func condition(when, unless string) string {
	switch {
	case when != "" && unless != "":
		return when + " and not " + unless
	case unless != "":
		return "not " + unless
	}
	return when
}

func (d *Description) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\nsource: %s\n", d.Name, d.Help, d.Source)
	if d.Cost != "" {
		fmt.Fprintf(&b, "cost: %s\n", d.Cost)
	}
	b.WriteString("\nMETRICS\n")
	for _, m := range d.Metrics {
		fmt.Fprintf(&b, "  %s (%s%s)%s\n      %s\n", m.Name, m.Type, in(m.Unit), only(m.Condition), m.Help)
		fmt.Fprintf(&b, "      labels: %s\n      at most %d series\n", orNone(strings.Join(m.Labels, "; ")), m.Limit)
	}
	if len(d.Metrics) == 0 {
		b.WriteString("  none: write a manifest to make metrics of its maps\n")
	}
	b.WriteString("\nPARAMS (--set NAME=VALUE)\n")
	for _, p := range d.Params {
		fmt.Fprintf(&b, "  %s (%s, default %q)\n      %s\n", p.Name, p.Type, p.Default, p.Help)
	}
	if len(d.Params) == 0 {
		b.WriteString("  none\n")
	}
	b.WriteString("\nHOOKS\n")
	for _, h := range d.Hooks {
		fmt.Fprintf(&b, "  %s", h.Kind)
		if h.Target != "" {
			fmt.Fprintf(&b, "/%s", h.Target)
		}
		fmt.Fprintf(&b, " (%s)%s", h.Function, only(h.Condition))
		if h.Alternative != "" {
			fmt.Fprintf(&b, ", alternative %s", h.Alternative)
		}
		if h.Optional {
			b.WriteString(", optional")
		}
		fmt.Fprintf(&b, "\n      needs Linux %s, %s\n", h.Since, strings.Join(h.Capabilities, " + "))
	}
	if len(d.Hooks) == 0 {
		b.WriteString("  none: its metrics are read from files\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func in(unit string) string {
	if unit == "" {
		return ""
	}
	return ", " + unit
}

func only(condition string) string {
	if condition == "" {
		return ""
	}
	return ", only with " + condition
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
