package agent

import (
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

// State says how a Program is.
type State string

// States of a Program.
const (
	// Up: everything that is not optional is attached.
	Up State = "up"
	// Degraded: it runs, but something that is not optional is missing, or the
	// latest change to its source could not be used.
	Degraded State = "degraded"
	// Down: it does not run.
	Down State = "down"
)

// Status tells how one Program is and what it costs; the HTTP API returns it as JSON.
type Status struct {
	Name   string `json:"name"`
	Help   string `json:"help,omitempty"`
	Source string `json:"source"`
	State  State  `json:"state"`
	// Reason says why the state is not up.
	Reason   string    `json:"reason,omitempty"`
	Optional bool      `json:"optional,omitempty"`
	Since    time.Time `json:"since"`
	// LoadSeconds is how long loading and attaching took, ReloadGapSeconds for how
	// long nothing was attached during the latest reload.
	LoadSeconds      float64         `json:"loadSeconds"`
	ReloadGapSeconds float64         `json:"reloadGapSeconds"`
	Hooks            []HookStatus    `json:"hooks"`
	Maps             []MapStatus     `json:"maps"`
	Readers          []ReaderStatus  `json:"readers"`
	Params           []program.Param `json:"params,omitempty"`
	// Selection of workloads, if not all are measured.
	Selection *SelectionStatus `json:"selection,omitempty"`
	// Lost are records and updates that got lost, by what lost them.
	Lost map[string]uint64 `json:"lost,omitempty"`
	// ScrapeSeconds is how long the latest collection took.
	ScrapeSeconds float64 `json:"scrapeSeconds"`
}

// SelectionStatus tells how a Program's workloads are selected.
type SelectionStatus struct {
	// InKernel: the code asks, so that others are not counted. Otherwise they are, and what was counted is not shown.
	InKernel bool `json:"inKernel"`
	// Cgroups by which the kernel selects; LeftOut found no room there.
	Cgroups int `json:"cgroups"`
	LeftOut int `json:"leftOut"`
}

// HookStatus tells how one function is.
type HookStatus struct {
	Function string           `json:"function"`
	Kind     program.HookKind `json:"kind"`
	Target   string           `json:"target,omitempty"`
	// State is engine's: attached, waiting, unused, failed, ...
	State    string `json:"state"`
	Attached bool   `json:"attached"`
	// Reason says why it is not attached; also for alternatives that were not needed.
	Reason string `json:"reason,omitempty"`
	// Targets are what it is attached to, where one hook has several.
	Targets []string `json:"targets,omitempty"`
	// ProgramID is the kernel's.
	ProgramID            uint32 `json:"programID,omitempty"`
	VerifiedInstructions uint32 `json:"verifiedInstructions,omitempty"`
	// Runs counts since it was loaded; RunSeconds is known while the kernel's statistics are on.
	Runs       uint64  `json:"runs"`
	RunSeconds float64 `json:"runSeconds,omitempty"`
	// Missed are runs that the kernel left out, to keep a function from interrupting itself.
	Missed uint64 `json:"missed"`
}

// MapStatus tells how full a map is.
type MapStatus struct {
	Name     string `json:"name"`
	ID       uint32 `json:"id"`
	Type     string `json:"type"`
	Entries  int    `json:"entries"`
	Capacity int    `json:"capacity"`
	// FailedInserts counts what did not fit into the map and went to its overflow entry.
	FailedInserts uint64 `json:"failedInserts"`
	Bytes         uint64 `json:"bytes"`
}

// ReaderStatus tells how the latest reading of a map or iterator went.
type ReaderStatus struct {
	Name   string `json:"name"`
	Series int    `json:"series"`
	// Folded and Cut are keys over the limit; Unresolved those with a label whose name is not known yet.
	Folded     int     `json:"folded"`
	Cut        int     `json:"cut"`
	Unresolved int     `json:"unresolved"`
	Reaped     uint64  `json:"reaped"`
	Seconds    float64 `json:"seconds"`
	// Reason says why it failed.
	Reason string `json:"reason,omitempty"`
}
