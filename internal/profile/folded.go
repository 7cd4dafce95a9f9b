package profile

import (
	"bufio"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// FoldedOptions say what a line of folded stacks begins with. By default with the thread's name.
type FoldedOptions struct {
	// Workload: one more frame before it.
	Workload bool
}

// WriteFolded writes one line for each stack, as flame graphs are made of: frames from the outermost to the innermost,
// separated by semicolons, and the number of samples. The kernel's functions end in _[k].
func (p *Profile) WriteFolded(w io.Writer, options FoldedOptions) error {
	counts := map[string]uint64{}
	var line strings.Builder
	for i := range p.Samples {
		s := &p.Samples[i]
		line.Reset()
		if options.Workload {
			appendFrame(&line, s.workloadName())
			line.WriteByte(';')
		}
		appendFrame(&line, s.Thread)
		for _, f := range slices.Backward(s.Stack) {
			line.WriteByte(';')
			appendFrame(&line, f.label())
			if f.Kernel {
				line.WriteString("_[k]")
			}
		}
		counts[line.String()] += s.Count
	}
	lines := make([]string, 0, len(counts))
	for stack := range counts {
		lines = append(lines, stack)
	}
	slices.Sort(lines)
	out := bufio.NewWriter(w)
	for _, stack := range lines {
		out.WriteString(stack)
		out.WriteString(" " + strconv.FormatUint(counts[stack], 10) + "\n")
	}
	return out.Flush()
}

// workloadName is a workload in one word.
func (s *Sample) workloadName() string {
	var parts []string
	for i, v := range s.workloadValues() {
		// The runtime says nothing about who it was.
		if v != "" && i != 3 {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, "/")
}

// appendFrame writes a name without what separates frames and lines, and what moves a terminal's cursor.
func appendFrame(line *strings.Builder, name string) {
	if name == "" {
		name = "[unknown]"
	}
	for _, r := range name {
		switch {
		case r == ';':
			r = ':'
		case r < ' ', r >= 0x7f && r < 0xa0, r == utf8.RuneError:
			r = '?'
		}
		line.WriteRune(r)
	}
}
