package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// figure is one line of the page.
type figure struct {
	what, unit string
	// samples are the repeats.
	samples []float64
	// atMost is the target for the median, 0 if there is none; less is better.
	atMost float64
	// baseline is what the same costs without Kaon, measured in turn with it.
	baselineName string
	baseline     []float64
	// atLeast is the target for the ratio baseline / figure, 0 if there is none.
	atLeast float64
	note    string
}

func (f *figure) min() float64 { return slices.Min(f.samples) }

// ratio of the medians: how many times the baseline costs what this does; NaN without one.
func (f *figure) ratio() float64 {
	if len(f.baseline) == 0 || median(f.samples) == 0 {
		return math.NaN()
	}
	return median(f.baseline) / median(f.samples)
}

func (f *figure) target() string {
	var parts []string
	if f.atMost != 0 {
		parts = append(parts, "≤ "+amount(f.atMost, f.unit))
	}
	if f.atLeast != 0 {
		parts = append(parts, fmt.Sprintf("≥ %g×", f.atLeast))
	}
	return strings.Join(parts, ", ")
}

func (f *figure) met() string {
	switch {
	case f.atMost == 0 && f.atLeast == 0:
		return ""
	case f.atMost != 0 && median(f.samples) > f.atMost, f.atLeast != 0 && !(f.ratio() >= f.atLeast):
		return "no"
	}
	return "yes"
}

func (f *figure) columns() []string {
	base, ratio := "", ""
	if len(f.baseline) > 0 {
		base = fmt.Sprintf("%s: %s", f.baselineName, amount(median(f.baseline), f.unit))
		if r := f.ratio(); r > 0 {
			ratio = fmt.Sprintf("%.3g×", r)
		}
	}
	return []string{f.what, amount(median(f.samples), f.unit), amount(f.min(), f.unit), base, ratio, f.target(), f.met()}
}

var header = []string{"what", "median", "least", "baseline in the same run", "ratio", "target", "met"}

func median(samples []float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

func amount(x float64, unit string) string {
	text := fmt.Sprintf("%.3g", x)
	if math.Abs(x) >= 1000 {
		text = fmt.Sprintf("%.0f", x)
	}
	return strings.TrimSpace(text + " " + unit)
}

func writeText(w io.Writer, figures []figure) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, strings.Join(header, "\t"))
	for _, f := range figures {
		fmt.Fprintln(table, strings.Join(f.columns(), "\t"))
	}
	_ = table.Flush()
	for _, f := range figures {
		if f.note != "" {
			fmt.Fprintf(w, "%s: %s\n", f.what, f.note)
		}
	}
}

func writePage(w io.Writer, figures []figure, o options) {
	fmt.Fprintf(w, `# Figures

What Kaon costs, measured by `+"`make bench`"+`, each figure beside a baseline of the same run. Times differ from machine to
machine; ratios differ less. Nothing here is a promise.

Machine: %s, %d CPUs, Linux %s, %s.

`, cpuModel(), runtime.NumCPU(), release(), runtime.Version())
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(header, " | "), strings.Repeat("---|", len(header)))
	for _, f := range figures {
		fmt.Fprintf(w, "| %s |\n", strings.Join(f.columns(), " | "))
	}
	fmt.Fprint(w, "\n## Notes\n\n")
	for _, f := range figures {
		if f.note != "" {
			fmt.Fprintf(w, "* %s: %s\n", f.what, f.note)
		}
	}
	fmt.Fprintf(w, `
## Method

* The benchmark runs in a network namespace of its own; what is measured is started in a cgroup of its own and observes another one.
* Each figure is taken %d times, in turn with its baseline; the table has the median and the least. A target is met if the median meets it. The ratio is
  that of the medians, baseline to figure: above 1 Kaon costs less.
* "CPU" is CPU time, user and system, of the whole process with garbage collection and all threads (its CPU clock, not ticks). Everything else is time that passed.
* Encoding: 10,000 counters with four labels, 1,000 histograms with 106 slots of which 20 are populated. The baseline creates constant metrics
  with client_golang at each scrape and lets promhttp write them, as exporters do.
* Scrapes: the real binary serves a hash map with 24 bytes of key (two u32 and 16 bytes of text, all three labels) on loopback to a client
  that keeps its connection; %d scrapes per repeat, the agent's own metrics included. The baseline is a process that iterates over the same map entry by entry and exports it with client_golang. Calls of bpf() are
  counted by a Program at the system call's entry.
* Configurations of ebpf_exporter: two agents with maps of their own that hold the same, one reads them by the configuration, one by a manifest; of the histograms the configuration has
  a key for each bucket, as ebpf_exporter wants it, the manifest an array of slots.
* Memory: of the real binary with the default programs and `+"`syscalls`"+`, after %v and a few scrapes. The baseline is a process of the benchmark's binary that serves client_golang's
  go_ and process_ metrics.
* Start: from the start of the process to the last byte of the first complete answer at /metrics. The baseline is `+"`kaon --version`"+`.
* Kernel: functions run many times by BPF_PROG_TEST_RUN, the empty function subtracted where it says so; values are log-uniform over 16 octaves, so that branches are not predicted.

To repeat: on a quiet machine, as root, `+"`make bench BENCH=\"-build -write docs/reference/figures.md\"`"+`. `+"`make bench BENCH=-smoke`"+` only shows that everything works.
`, o.repeats, o.scrapes, o.idle)
}

func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	version, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return version
}
