package check

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/kaon-project/kaon/internal/program"
)

// Result is what checking several Programs found.
type Result struct {
	Programs []*Report `json:"programs"`
	// Unusable are the problems of what did not become a Program at all.
	Unusable []string `json:"unusable,omitempty"`
	// Together are the findings between the Programs.
	Together []Finding `json:"together,omitempty"`
}

// All checks what the arguments resolve to, every one of them whatever is wrong with the others.
func All(args []string, resolve func(arg string) ([]*program.Spec, error), options Options) *Result {
	r := &Result{}
	var specs []*program.Spec
	for _, arg := range args {
		resolved, err := resolve(arg)
		for _, problem := range program.Problems(err) {
			r.Unusable = append(r.Unusable, problem.Error())
		}
		for _, spec := range resolved {
			specs = append(specs, spec)
			r.Programs = append(r.Programs, NewReport(spec, options))
		}
	}
	r.Together = Together(specs)
	return r
}

// Failed reports whether there is any error.
func (r *Result) Failed() bool {
	if len(r.Unusable) > 0 {
		return true
	}
	for _, f := range r.Together {
		if f.Severity == Error {
			return true
		}
	}
	for _, p := range r.Programs {
		if len(p.Errors()) > 0 {
			return true
		}
	}
	return false
}

// Write writes the result as text or json.
func (r *Result) Write(w io.Writer, format string) error {
	switch format {
	case "json":
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
	for _, f := range r.Together {
		if _, err := fmt.Fprintln(w, f); err != nil {
			return err
		}
	}
	for i, p := range r.Programs {
		if i > 0 || len(r.Unusable)+len(r.Together) > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := p.Text(w); err != nil {
			return err
		}
	}
	return nil
}
