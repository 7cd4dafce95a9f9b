// Package check finds what is wrong or doubtful in a Program without a kernel, root or network:
// names, cardinality, memory, hooks.
package check

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// Severity of a finding.
type Severity string

// Severities. An error keeps the Program from working or its output from being valid; a
// warning will surprise somebody.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is one thing that is wrong or doubtful: where, what, and what to do.
type Finding struct {
	Severity Severity `json:"severity"`
	Where    string   `json:"where"`
	What     string   `json:"what"`
	Fix      string   `json:"fix,omitempty"`
}

func (f Finding) String() string {
	return string(f.Severity) + ": " + (&program.Problem{Where: f.Where, What: f.What, Fix: f.Fix}).Error()
}

// Options of Check. The zero value is usable.
type Options struct {
	// CPUs of the machine whose memory is estimated; 0: this machine's.
	CPUs int
	// Types are a kernel's, in which the hooks' targets are looked up; nil: they are not.
	Types *btf.Spec
}

func (o *Options) cpus() int {
	if o.CPUs > 0 {
		return o.CPUs
	}
	return runtime.NumCPU()
}

// Check returns the findings of a spec, errors first.
func Check(spec *program.Spec) []Finding { return CheckWithOptions(spec, Options{}) }

// CheckWithOptions is Check for another machine.
func CheckWithOptions(spec *program.Spec, options Options) []Finding {
	c := &checker{spec: spec, options: options}
	c.program()
	c.names()
	c.labels()
	c.readers()
	c.memory()
	c.hooks()
	slices.SortStableFunc(c.findings, func(a, b Finding) int { return cmp.Compare(a.Severity, b.Severity) })
	return c.findings
}

type checker struct {
	spec     *program.Spec
	options  Options
	findings []Finding
}

func (c *checker) error(where, what, fix string) {
	c.findings = append(c.findings, Finding{Error, where, what, fix})
}

func (c *checker) warn(where, what, fix string) {
	c.findings = append(c.findings, Finding{Warning, where, what, fix})
}

// metrics calls f with every metric.
func (c *checker) metrics(f func(r *program.Reader, m *program.Metric)) {
	for i := range c.spec.Readers {
		r := &c.spec.Readers[i]
		for j := range r.Metrics {
			f(r, &r.Metrics[j])
		}
	}
}

func (c *checker) program() {
	for _, d := range c.spec.Doubts {
		c.warn(d.Where, d.What, d.Fix)
	}
	if c.spec.Help == "" {
		c.warn("program "+c.spec.Name, "it does not say what it tells", `write KAON_PROGRAM("Counts ...") in C, or help: in the manifest`)
	}
	metrics := 0
	c.metrics(func(*program.Reader, *program.Metric) { metrics++ })
	if metrics == 0 && len(c.spec.Streams) == 0 {
		c.warn("program "+c.spec.Name, "it exports nothing: no map has tags, and no manifest names one", "declare a map with KAON_COUNTER or the like, or write a manifest")
	}
	for _, p := range c.spec.Params {
		if p.Help == "" {
			c.warn("param "+p.Name, "it has no help", "say what it does and in which unit")
		}
	}
}

// whereMetric names a metric in findings.
func whereMetric(m *program.Metric) string { return "metric " + m.Name }

func plural(n uint64, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %s", n, plurals(word))
}

func plurals(word string) string {
	switch word {
	case "entry":
		return "entries"
	case "series":
		return "series"
	}
	return word + "s"
}
