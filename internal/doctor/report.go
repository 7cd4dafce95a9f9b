// Package doctor finds out what this kernel and these privileges can do, by
// trying, and says what each thing that is missing costs. It leaves nothing behind.
package doctor

import (
	"github.com/kaon-project/kaon/internal/program"
)

// State is what a probe found.
type State string

// States. Unknown means that it could not be tried here, not that it failed.
const (
	Yes     State = "yes"
	No      State = "no"
	Unknown State = "unknown"
)

// Names of sections.
const (
	SectionKernel       = "kernel"
	SectionCapabilities = "capabilities"
	SectionFilesystems  = "filesystems"
	SectionCgroups      = "cgroups"
	SectionHooks        = "hooks"
	SectionPrograms     = "program types"
	SectionMaps         = "map types"
	SectionHelpers      = "helpers"
	SectionFeatures     = "features"
)

// Report is what Probe found.
type Report struct {
	// Release and Machine as uname says: for information, nothing is concluded from them.
	Release string `json:"release"`
	Machine string `json:"machine"`
	CPUs    int    `json:"cpus"`
	UID     int    `json:"uid"`
	// Seconds that probing took.
	Seconds float64 `json:"seconds"`
	// Programs are what Assess said of those that the user asked for; Probe leaves it empty.
	Programs []Assessment `json:"programs,omitempty"`
	Sections []Section    `json:"sections"`
}

// Section is a group of items.
type Section struct {
	Name  string `json:"name"`
	Items []Item `json:"items"`
}

// Item is one thing that a kernel can do or not.
type Item struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	// Value is what was found, in words.
	Value string `json:"value,omitempty"`
	// Error is the kernel's.
	Error string `json:"error,omitempty"`
	// Cost says what the user loses, Remedy what can be done; both only where
	// State is not Yes.
	Cost   string `json:"cost,omitempty"`
	Remedy string `json:"remedy,omitempty"`
	// Link says whether the attachment is a bpf_link, Pin whether it could be
	// pinned. Empty for what is no attachment or was not attached.
	Link State `json:"link,omitempty"`
	Pin  State `json:"pin,omitempty"`
}

// Item finds an item; nil if there is none.
func (r *Report) Item(section, name string) *Item {
	for i := range r.Sections {
		if r.Sections[i].Name != section {
			continue
		}
		for j := range r.Sections[i].Items {
			if r.Sections[i].Items[j].Name == name {
				return &r.Sections[i].Items[j]
			}
		}
	}
	return nil
}

// singles are the kinds to which the engine resorts where a kernel has no multi-probes.
var singles = map[program.HookKind]program.HookKind{
	program.KprobeMulti: program.Kprobe, program.KretprobeMulti: program.Kretprobe,
	program.UprobeMulti: program.Uprobe, program.UretprobeMulti: program.Uretprobe,
}

// Hook returns whether a kind of hook can be used; for cgroup hooks the
// target (their section name) distinguishes further. Multi-probes can be used where single ones can.
func (r *Report) Hook(kind program.HookKind, target string) Item {
	if kind == program.Cgroup {
		if i := r.Item(SectionHooks, target); i != nil {
			return *i
		}
	}
	if i := r.Item(SectionHooks, string(kind)); i != nil {
		if single := r.Item(SectionHooks, string(singles[kind])); i.State == No && single != nil && single.State == Yes {
			return Item{Name: i.Name, State: Yes, Value: "one by one: " + i.Error, Link: single.Link, Pin: single.Pin}
		}
		return *i
	}
	return Item{Name: string(kind), State: Unknown, Value: "no probe for this kind of hook"}
}
