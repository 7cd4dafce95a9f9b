package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// loadedMark begins a line in which a test of the built-in library says what became of one function.
const loadedMark = "loaded: {"

// loaded is what a kernel made of one function of a built-in Program.
type loaded struct {
	Program  string `json:"program"`
	Function string `json:"function"`
	Hook     string `json:"hook"`
	State    string `json:"state"` // of the engine: "attached", "failed", ...
	Error    string `json:"error,omitempty"`
	// Verified instructions, 0 where the kernel does not tell.
	Verified uint32 `json:"verified,omitempty"`
	// Runs, and what all of them took, in ns.
	Runs uint64  `json:"runs,omitempty"`
	NS   float64 `json:"ns,omitempty"`
}

// parseLoaded reads a line of a test's output.
func parseLoaded(line string) (loaded, bool) {
	_, text, ok := strings.Cut(line, loadedMark)
	if !ok {
		return loaded{}, false
	}
	var l loaded
	if err := json.Unmarshal([]byte("{"+text), &l); err != nil || l.Program == "" || l.Function == "" {
		return loaded{}, false
	}
	return l, true
}

// merge joins what several tests found for a function: the best state, the longest verification, all runs.
func (l *loaded) merge(other loaded) {
	rank := func(state string) int {
		return slices.Index([]string{"disabled", "unused", "failed", "waiting", "loaded", "attached"}, state)
	}
	if rank(other.State) > rank(l.State) {
		l.State, l.Error = other.State, other.Error
	}
	l.Verified = max(l.Verified, other.Verified)
	l.Runs += other.Runs
	l.NS += other.NS
}

// cell says it in a table.
func (l *loaded) cell() string {
	switch l.State {
	case "attached", "loaded", "waiting":
		var parts []string
		if l.Verified > 0 {
			parts = append(parts, fmt.Sprintf("%d insns", l.Verified))
		}
		if l.Runs > 0 {
			parts = append(parts, fmt.Sprintf("%.0f ns", l.NS/float64(l.Runs)))
		}
		if len(parts) == 0 {
			return "yes"
		}
		return strings.Join(parts, ", ")
	case "failed":
		return "no"
	case "unused":
		return "not needed"
	}
	return "off"
}

// writeLibrary writes the table of built-in Programs and kernels.
func writeLibrary(file string, boots []*Boot) error {
	type function struct{ program, name, hook string }
	rows := map[function]map[string]*loaded{} // by kernel
	reasons := map[[2]string][]string{}       // function and error: kernels
	for _, b := range boots {
		for _, p := range b.Packages {
			for _, l := range p.Library {
				key := function{l.Program, l.Function, l.Hook}
				if rows[key] == nil {
					rows[key] = map[string]*loaded{}
				}
				if known := rows[key][b.Kernel.Kernel]; known != nil {
					known.merge(l)
				} else {
					rows[key][b.Kernel.Kernel] = &l
				}
			}
		}
	}
	if len(rows) == 0 {
		return fmt.Errorf("write %s: no test of ./programs said what it loaded", file)
	}
	var page bytes.Buffer
	page.WriteString(`# The library on each kernel

<!-- Written by "make kernels"; don't edit. -->

What each function of the built-in Programs becomes on Debian's kernels, as the tests of ` + "`programs/`" + ` found it: they load every Program, cause what
it measures and compare the number. Of alternatives only the first that a kernel can load and attach is used.

A cell has the instructions that the verifier looked at (Linux 5.10 does not tell) and the mean time of a run. The kernels ran in an emulator: the
times can be compared with each other, they are many times those of a real machine ([costs](costs.md)). *not needed*: a better alternative
works. *no*: this kernel can't; the reason is below. *off*: a param of the tests turned it off. Empty: the tests did not load it there.

`)
	page.WriteString("| program | function | hook |")
	for _, b := range boots {
		fmt.Fprintf(&page, " %s |", b.Kernel.Release)
	}
	page.WriteString("\n|---|---|---|" + strings.Repeat("---|", len(boots)) + "\n")
	order := slices.SortedFunc(maps.Keys(rows), func(a, b function) int {
		return strings.Compare(a.program+"\x00"+a.name, b.program+"\x00"+b.name)
	})
	for _, key := range order {
		fmt.Fprintf(&page, "| [%s](../../programs/%[1]s/README.md) | `%s` | `%s` |", key.program, key.name, key.hook)
		for _, b := range boots {
			text := ""
			if l := rows[key][b.Kernel.Kernel]; l != nil {
				text = l.cell()
				if l.State == "failed" {
					reason := [2]string{key.program + " `" + key.name + "`", l.Error}
					reasons[reason] = append(reasons[reason], b.Kernel.Kernel)
				}
			}
			fmt.Fprintf(&page, " %s |", text)
		}
		page.WriteString("\n")
	}
	if len(reasons) > 0 {
		page.WriteString("\n## What is missing where\n\n")
		for _, key := range slices.SortedFunc(maps.Keys(reasons), func(a, b [2]string) int { return strings.Compare(a[0]+a[1], b[0]+b[1]) }) {
			fmt.Fprintf(&page, "* %s on %s: %s\n", key[0], strings.Join(reasons[key], ", "), key[1])
		}
	}
	if err := os.WriteFile(file, page.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the library's table: %w", err)
	}
	return nil
}
