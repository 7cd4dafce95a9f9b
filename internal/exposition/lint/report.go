package lint

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Result is what checking several expositions found.
type Result struct {
	Expositions []*Report `json:"expositions"`
	// Unusable are the problems of what could not be read at all.
	Unusable []string `json:"unusable,omitempty"`
}

// Failed reports whether there is any error.
func (r *Result) Failed() bool {
	for _, e := range r.Expositions {
		if e.Failed() {
			return true
		}
	}
	return len(r.Unusable) > 0
}

// Write writes the result as text or json.
func (r *Result) Write(w io.Writer, format string) error {
	switch format {
	case "json":
		for _, e := range r.Expositions {
			if e.Findings == nil {
				e.Findings = []Finding{}
			}
		}
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	case "text":
	default:
		return fmt.Errorf("output %q: want text or json", format)
	}
	for _, problem := range r.Unusable {
		if _, err := fmt.Fprintf(w, "error: %s\n", problem); err != nil {
			return err
		}
	}
	for i, e := range r.Expositions {
		if i > 0 || len(r.Unusable) > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := e.Text(w); err != nil {
			return err
		}
	}
	return nil
}

// Text writes the report for humans, in the order of lines. The error is the writer's.
func (r *Report) Text(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "%s: %s (%s, %s, %s, %s)\n", r.Name, r.verdict(), r.Format.title(), plural(r.Lines, "line"), plural(r.Families, "metric"), plural(r.Samples, "sample"))
	for _, f := range r.Findings {
		b.WriteString("\n")
		f.text(b)
	}
	if r.Left > 0 {
		fmt.Fprintf(b, "\n  ... and %s\n", plural(r.Left, "more finding"))
	}
	return b.Flush()
}

func (r *Report) verdict() string {
	var parts []string
	if r.errors > 0 {
		parts = append(parts, plural(r.errors, "error"))
	}
	if r.warnings > 0 {
		parts = append(parts, plural(r.warnings, "warning"))
	}
	if len(parts) == 0 {
		return "ok"
	}
	return strings.Join(parts, ", ")
}

func (f *Finding) text(b *bufio.Writer) {
	where := ""
	if f.Line > 0 {
		where = fmt.Sprintf("line %d: ", f.Line)
	}
	fmt.Fprintf(b, "  %s%s: %s\n", where, f.Severity, f.What)
	if f.Text != "" {
		fmt.Fprintf(b, "      | %s\n", f.Text)
	}
	if f.Column > 0 {
		fmt.Fprintf(b, "      | %s%s\n", strings.Repeat(" ", f.Column-1), strings.Repeat("^", f.Width))
	}
	if f.Why != "" {
		fmt.Fprintf(b, "      why: %s\n", f.Why)
	}
	if f.Fix != "" {
		fmt.Fprintf(b, "      do:  %s\n", f.Fix)
	}
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
