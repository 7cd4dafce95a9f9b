package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// report is everything that a run found, also as JSON.
type report struct {
	Passed  int     `json:"passed"`
	Failed  int     `json:"failed"`
	Skipped int     `json:"skipped"`
	OK      bool    `json:"ok"`
	Boots   []*Boot `json:"boots"`
}

func newReport(boots []*Boot) *report {
	r := &report{OK: true, Boots: boots}
	for _, b := range boots {
		r.OK = r.OK && b.OK()
		for _, p := range b.Packages {
			r.Passed += p.Count(Passed)
			r.Failed += p.Count(Failed)
			r.Skipped += p.Count(Skipped)
		}
	}
	return r
}

// writeJSON writes the report to file, or to standard output for "-".
func (r *report) writeJSON(file string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	data = append(data, '\n')
	if file == "-" {
		_, err = os.Stdout.Write(data)
	} else {
		err = os.WriteFile(file, data, 0o644)
	}
	if err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// print writes the table, the skips, and last, where a log that was cut still has them, failures with their output and the sum.
func (r *report) print(out io.Writer) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KERNEL\tRELEASE\tPACKAGE\tPASSED\tFAILED\tSKIPPED\tSECONDS\t")
	for _, b := range r.Boots {
		for _, p := range b.Packages {
			note := p.Problem
			if bad := len(p.BadSkips()); bad > 0 {
				note = strings.TrimPrefix(fmt.Sprintf("%s; %d unexplained skips", note, bad), "; ")
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d\t%d\t%.1f\t%s\n", b.Kernel.Kernel, b.Kernel.Release, p.Package,
				p.Count(Passed), p.Count(Failed), p.Count(Skipped), p.Seconds, note)
		}
	}
	fmt.Fprintln(table)
	fmt.Fprintln(table, "KERNEL\tBOOT\tTOTAL\tIMAGE\tBOOTS\t")
	for _, b := range r.Boots {
		fmt.Fprintf(table, "%s\t%.1f s\t%.1f s\t%.1f MB\t%d\t%s\n", b.Kernel.Kernel, b.BootSeconds, b.TotalSeconds,
			float64(b.ImageBytes)/1e6, b.Attempts, b.Problem)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	r.printSkips(out)
	fmt.Fprintln(out)
	for _, b := range r.Boots {
		r.printFailures(out, b)
	}
	_, err := fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", r.Passed, r.Failed, r.Skipped)
	if err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}

// shownLines is how many of the first and of the last lines of an output are
// printed for each failure: a panic is at the beginning, a log at the end.
const shownLines = 30

func (r *report) printFailures(out io.Writer, b *Boot) {
	indent := func(lines []string) {
		cut := len(lines) - 2*shownLines
		for i, line := range lines {
			if cut > 0 && i >= shownLines && i < shownLines+cut {
				if i == shownLines {
					fmt.Fprintf(out, "    ... %d lines ...\n", cut)
				}
				continue
			}
			fmt.Fprintln(out, "    "+line)
		}
	}
	for _, warning := range b.Warnings {
		fmt.Fprintf(out, "%s: warning: %s\n", b.Kernel.Kernel, warning)
	}
	for _, p := range b.Packages {
		for _, test := range p.Tests {
			if test.Status == Failed {
				fmt.Fprintf(out, "%s: FAIL %s %s\n", b.Kernel.Kernel, p.Package, test.Name)
				indent(test.output)
			}
		}
		for _, test := range p.BadSkips() {
			fmt.Fprintf(out, "%s: FAIL %s %s: skipped for %q: a reason begins with \"needs \"\n", b.Kernel.Kernel, p.Package, test.Name, test.Reason)
		}
		if p.Problem != "" {
			fmt.Fprintf(out, "%s: FAIL %s: %s\n", b.Kernel.Kernel, p.Package, p.Problem)
			// What a test that did not end has printed is shown above.
			if !slices.ContainsFunc(p.Tests, func(test *TestResult) bool { return !test.ended }) {
				indent(p.tail)
			}
		}
	}
	if b.Problem != "" {
		fmt.Fprintf(out, "%s: FAIL: %s; the console's last lines:\n", b.Kernel.Kernel, b.Problem)
		indent(b.other)
	}
}

// printSkips prints each reason once, with the kernels and tests.
func (r *report) printSkips(out io.Writer) {
	type skip struct{ reason, tests, kernels string }
	kernels := map[[2]string][]string{} // reason, package and test
	for _, b := range r.Boots {
		for _, p := range b.Packages {
			for _, test := range p.Tests {
				if test.Status == Skipped {
					key := [2]string{test.Reason, p.Package + " " + test.Name}
					kernels[key] = append(kernels[key], b.Kernel.Kernel)
				}
			}
		}
	}
	tests := map[[2]string][]string{} // reason, kernels
	for key, names := range kernels {
		group := [2]string{key[0], strings.Join(names, ", ")}
		tests[group] = append(tests[group], key[1])
	}
	var skips []skip
	for group, names := range tests {
		slices.Sort(names)
		skips = append(skips, skip{group[0], strings.Join(names, ", "), group[1]})
	}
	slices.SortFunc(skips, func(a, b skip) int {
		return cmp.Or(cmp.Compare(a.reason, b.reason), cmp.Compare(a.kernels, b.kernels))
	})
	if len(skips) > 0 {
		fmt.Fprintln(out, "\nSkipped:")
	}
	for _, s := range skips {
		fmt.Fprintf(out, "  %s (on %s): %s\n", s.reason, s.kernels, s.tests)
	}
}
