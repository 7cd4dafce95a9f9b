package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kaon-project/kaon/programs"
)

// onePercent of a core, in ns per second.
const onePercent = 1e7

// programCost is what a built-in Program costs by event, in ns, repeat by repeat; bpftrace is the same job done
// by a script.
type programCost struct {
	program, params, event string
	atScrape               bool
	ns, bpftrace           []float64
}

// measureLibrary runs BenchmarkCost of the library.
func measureLibrary(ctx context.Context, o options) ([]*programCost, error) {
	test := filepath.Join(o.temp, "programs.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", test, "./programs")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build the library's tests: %w", err)
	}
	repeats, time := 5, "0.3s"
	if o.repeats < 3 {
		repeats, time = 1, "10x"
	}
	var costs []*programCost
	for range repeats {
		run := exec.CommandContext(ctx, test, "-test.run=^$", "-test.bench=BenchmarkCost", "-test.benchtime="+time)
		run.Dir = "programs"
		out, err := run.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("measure the library: %w\n%s", err, out)
		}
		found, err := parseCosts(bytes.NewReader(out))
		if err != nil {
			return nil, err
		}
		costs = joinCosts(costs, found)
	}
	return costs, nil
}

// parseCosts reads what BenchmarkCost prints.
func parseCosts(r io.Reader) ([]*programCost, error) {
	var costs []*programCost
	for lines := bufio.NewScanner(r); lines.Scan(); {
		// The benchmark's own line may stand before it.
		_, text, ok := strings.Cut(lines.Text(), "cost: {")
		if !ok {
			continue
		}
		var m struct {
			Program, Event string
			Params         []string
			AtScrape       bool
			NS, BpftraceNS float64
		}
		if err := json.Unmarshal([]byte("{"+text), &m); err != nil {
			return nil, fmt.Errorf("read a line of the library's benchmark: %w: %s", err, text)
		}
		c := &programCost{program: m.Program, params: strings.Join(m.Params, " "), event: m.Event, atScrape: m.AtScrape, ns: []float64{m.NS}}
		if m.BpftraceNS > 0 {
			c.bpftrace = []float64{m.BpftraceNS}
		}
		costs = append(costs, c)
	}
	return costs, nil
}

func joinCosts(all, found []*programCost) []*programCost {
	for _, c := range found {
		i := slices.IndexFunc(all, func(o *programCost) bool { return o.program == c.program && o.params == c.params && o.event == c.event })
		if i < 0 {
			all = append(all, c)
			continue
		}
		all[i].ns = append(all[i].ns, c.ns...)
		all[i].bpftrace = append(all[i].bpftrace, c.bpftrace...)
	}
	return all
}

var costHeader = []string{"program", "params", "event", "ns per event", "least", "events per second that take 1 % of a core", "bpftrace, ns", "ratio"}

func (c *programCost) columns() []string {
	rate, script, ratio := onePercent/median(c.ns), "", ""
	if len(c.bpftrace) > 0 {
		script = amount(median(c.bpftrace), "")
		ratio = fmt.Sprintf("%.2g×", median(c.bpftrace)/median(c.ns))
	}
	often := "never" // less than what can be measured
	if rate > 0 {
		often = count(rate)
	}
	return []string{c.program, c.params, c.event, amount(median(c.ns), ""), amount(slices.Min(c.ns), ""), often, script, ratio}
}

// count shows a rate with two digits.
func count(rate float64) string {
	switch {
	case rate >= 1e7:
		return fmt.Sprintf("%.0f million", rate/1e6)
	case rate >= 1e6:
		return fmt.Sprintf("%.1f million", rate/1e6)
	case rate >= 1e4:
		return fmt.Sprintf("%.0f,000", rate/1e3)
	}
	return fmt.Sprintf("%.0f", rate)
}

func writeCosts(w io.Writer, costs []*programCost) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(costHeader, "\t"))
	for _, c := range costs {
		fmt.Fprintln(table, strings.Join(c.columns(), "\t"))
	}
	_ = table.Flush()
}

func writeCostsPage(w io.Writer, costs []*programCost) {
	fmt.Fprintf(w, `# Costs of the library

<!-- Written by "make bench"; don't edit. -->

What each built-in Program costs by event, and what bpftrace costs for the same job where one of its scripts can do it, in the same run. Times
differ from machine to machine; ratios differ less. `+"`kaon top`"+` says what a Program costs on yours.

Machine: %s, %d CPUs, Linux %s. Programs with a * run by default.

`, cpuModel(), runtime.NumCPU(), release())
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(costHeader, " | "), strings.Repeat("---|", len(costHeader)))
	for _, c := range costs {
		columns := c.columns()
		star := ""
		if slices.Contains(programs.Default(), c.program) {
			star = " *"
		}
		columns[0] = fmt.Sprintf("[%s](../../programs/%[1]s/README.md)%s", c.program, star)
		if c.params != "" {
			columns[1] = "`" + c.params + "`"
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(columns, " | "))
	}
	fmt.Fprint(w, `
## Method

* The kernel's own statistics (`+"`BPF_ENABLE_STATS`"+`): the time of all functions that an event runs, less what an empty function takes in the same
  statistics, which is mostly the measuring. What the tracepoint itself costs once anything is attached is not in it, neither for Kaon nor for bpftrace.
* A scrape is timed as a whole: iterators and files run then, and at no other time.
* Scripts have no names for workloads, no limits and, where they have histograms, powers of two. Their cost is of the same events in the same benchmark.
* The median of five repeats, and the least. Ratio: bpftrace to Kaon; above 1 Kaon costs less.

To repeat: on a quiet machine, as root, with bpftrace installed: `+"`make bench BENCH=\"-only library -library docs/reference/costs.md\"`"+`.
`)
}
