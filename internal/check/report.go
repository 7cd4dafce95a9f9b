package check

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/kaon-project/kaon/internal/doctor"
	"github.com/kaon-project/kaon/internal/program"
)

// Report is all that is to be said of one Program.
type Report struct {
	Program string `json:"program"`
	Path    string `json:"path"`
	// Findings, errors first.
	Findings []Finding       `json:"findings"`
	Metrics  []MetricSummary `json:"metrics"`
	Maps     []MapSummary    `json:"maps"`
	// CPUs is the number for which the bytes are.
	CPUs int `json:"cpus"`
	// Bytes of all maps, in the worst case, here and on 64 CPUs.
	Bytes         uint64 `json:"bytes"`
	BytesManyCPUs uint64 `json:"bytesOn64CPUs"`
	// Needs says what each kind of hook needs of the kernel and of privileges.
	Needs []Need `json:"needs"`
}

// Need is a kind of hook and what it takes.
type Need struct {
	Kind         program.HookKind `json:"kind"`
	Functions    []string         `json:"functions"`
	Capabilities []string         `json:"capabilities"`
	// Since is the first kernel with it, for information.
	Since string `json:"since"`
	Also  string `json:"also,omitempty"`
}

// MetricSummary is one family and how many series it may have.
type MetricSummary struct {
	Name   string       `json:"name"`
	Type   program.Type `json:"type"`
	Labels []string     `json:"labels"`
	Limit  int          `json:"limit"`
	// Series that the labels allow; 0 if they set no bound.
	Series uint64 `json:"series,omitempty"`
}

// MapSummary is one map and the memory that it may take.
type MapSummary struct {
	Name          string `json:"name"`
	Type          string `json:"type"`
	Entries       uint32 `json:"entries"`
	KeySize       uint32 `json:"keySize"`
	ValueSize     uint32 `json:"valueSize"`
	Bytes         uint64 `json:"bytes"`
	BytesManyCPUs uint64 `json:"bytesOn64CPUs"`
}

// NewReport checks a spec and sums up what it takes.
func NewReport(spec *program.Spec, options Options) *Report {
	r := &Report{Program: spec.Name, Path: spec.Origin.Path, Findings: CheckWithOptions(spec, options), CPUs: options.cpus()}
	c := &checker{spec: spec, options: options}
	c.metrics(func(reader *program.Reader, m *program.Metric) {
		s := MetricSummary{Name: m.Name, Type: m.Type, Limit: int(limit(m)), Labels: labelNames(m)}
		if n, bounded := c.cardinality(reader, m); bounded {
			s.Series = n
		}
		r.Metrics = append(r.Metrics, s)
	})
	for _, m := range kernelMaps(spec) {
		s := MapSummary{Name: m.Name, Type: m.Type.String(), Entries: m.MaxEntries, KeySize: m.KeySize, ValueSize: m.ValueSize,
			Bytes: MapBytes(m, r.CPUs), BytesManyCPUs: MapBytes(m, manyCPUs)}
		r.Maps = append(r.Maps, s)
		r.Bytes = saturate(r.Bytes, s.Bytes)
		r.BytesManyCPUs = saturate(r.BytesManyCPUs, s.BytesManyCPUs)
	}
	r.Needs = needs(spec)
	return r
}

// saturate adds without overflow.
func saturate(a, b uint64) uint64 {
	if sum, carry := bits.Add64(a, b, 0); carry == 0 {
		return sum
	}
	return math.MaxUint64
}

func needs(spec *program.Spec) []Need {
	var list []Need
	for _, requirement := range doctor.Requirements() {
		need := Need{Kind: requirement.Kind, Since: requirement.Since, Also: requirement.Also}
		for _, h := range spec.Hooks {
			if h.Kind == requirement.Kind {
				need.Functions = append(need.Functions, h.Function)
			}
		}
		for _, capability := range requirement.Capabilities {
			need.Capabilities = append(need.Capabilities, capability.String())
		}
		if len(need.Functions) > 0 {
			list = append(list, need)
		}
	}
	return list
}

// Errors returns those findings that keep the Program from working, as problems.
func (r *Report) Errors() []error {
	var errs []error
	for _, f := range r.Findings {
		if f.Severity == Error {
			errs = append(errs, &program.Problem{Where: r.Path + ": " + f.Where, What: f.What, Fix: f.Fix})
		}
	}
	return errs
}

// Text writes the report for humans: problems first, then metrics and maps. The error is the writer's.
func (r *Report) Text(w io.Writer) error {
	b := bufio.NewWriter(w)
	errors, warnings := 0, 0
	for _, f := range r.Findings {
		if f.Severity == Error {
			errors++
		} else {
			warnings++
		}
	}
	verdict := "ok"
	switch {
	case errors > 0 && warnings > 0:
		verdict = plural(uint64(errors), "error") + ", " + plural(uint64(warnings), "warning")
	case errors > 0:
		verdict = plural(uint64(errors), "error")
	case warnings > 0:
		verdict = plural(uint64(warnings), "warning")
	}
	fmt.Fprintf(b, "%s (%s): %s\n", r.Program, r.Path, verdict)
	for _, f := range r.Findings {
		fmt.Fprintf(b, "  %s: %s: %s\n", f.Severity, f.Where, f.What)
		if f.Fix != "" {
			fmt.Fprintf(b, "      do: %s\n", f.Fix)
		}
	}
	if len(r.Metrics) > 0 {
		b.WriteString("\n")
		t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  METRIC\tTYPE\tSERIES\tLIMIT\tLABELS")
		for _, m := range r.Metrics {
			series := "unbounded"
			if m.Series > 0 {
				series = strconv.FormatUint(m.Series, 10)
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%d\t%s\n", m.Name, m.Type, series, m.Limit, strings.Join(m.Labels, ", "))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Maps) > 0 {
		b.WriteString("\n")
		t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "  MAP\tTYPE\tENTRIES\tKEY\tVALUE\tAT MOST ON %s\tON %s\n", plural(uint64(r.CPUs), "CPU"), plural(manyCPUs, "CPU"))
		for _, m := range r.Maps {
			fmt.Fprintf(t, "  %s\t%s\t%d\t%d\t%d\t%s\t%s\n", m.Name, m.Type, m.Entries, m.KeySize, m.ValueSize, Bytes(m.Bytes), Bytes(m.BytesManyCPUs))
		}
		fmt.Fprintf(t, "  all\t\t\t\t\t%s\t%s\n", Bytes(r.Bytes), Bytes(r.BytesManyCPUs))
		if err := t.Flush(); err != nil {
			return err
		}
	}
	if len(r.Needs) > 0 {
		b.WriteString("\n")
		t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  HOOK\tFUNCTIONS\tCAPABILITIES\tKERNEL\tALSO NEEDS")
		for _, n := range r.Needs {
			also := n.Also
			if also == "" {
				also = "-"
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", n.Kind, strings.Join(n.Functions, ", "), strings.Join(n.Capabilities, ", "), n.Since, also)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return b.Flush()
}
