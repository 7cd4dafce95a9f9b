package doctor

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Write writes the report as text or json.
func (r *Report) Write(w io.Writer, format string, verbose bool) error {
	switch format {
	case "text":
		return r.Text(w, verbose)
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	return fmt.Errorf("output %q: want text or json", format)
}

// Text writes the report for humans: Programs first, then what is missing with its cost and
// remedy, then what works; verbose lists every item. The error is the writer's.
func (r *Report) Text(w io.Writer, verbose bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "Linux %s %s, %d CPUs, uid %d; probed in %.1f s\n", r.Release, r.Machine, r.CPUs, r.UID, r.Seconds)
	if len(r.Programs) > 0 {
		b.WriteString("\nprograms\n")
		for i := range r.Programs {
			r.Programs[i].text(b, verbose)
		}
	}
	r.missing(b)
	b.WriteString("\nwhat works\n")
	for _, s := range r.Sections {
		if verbose {
			s.all(b)
		} else {
			s.working(b)
		}
	}
	return b.Flush()
}

func (a *Assessment) text(b *bufio.Writer, verbose bool) {
	words := map[State]string{Yes: "works", No: "does not work", Unknown: "may work: not everything could be tried"}
	fmt.Fprintf(b, "  %-14s %s\n", a.Program, words[a.State])
	for _, h := range a.Hooks {
		switch {
		case h.State == Yes && !verbose:
		case h.State == Yes:
			used := ""
			if h.Group != "" && h.Used {
				used = ", used"
			} else if h.Group != "" {
				used = ", not needed"
			}
			fmt.Fprintf(b, "      %s: yes%s\n", h.Hook, used)
		default:
			note := ""
			if h.Optional {
				note = " (optional)"
			} else if h.Group != "" && a.State == Yes {
				note = " (an alternative is used)"
			}
			fmt.Fprintf(b, "      %s: %s%s: %s\n", h.Hook, h.State, note, h.Error)
		}
	}
}

// missing lists what is not there. Items with the same cost, error and remedy share a paragraph.
func (r *Report) missing(b *bufio.Writer) {
	type paragraph struct {
		names []string
		item  Item
	}
	var paragraphs []*paragraph
	for _, s := range r.Sections {
		for _, item := range s.Items {
			if item.State == Yes {
				continue
			}
			if s.Name == SectionPrograms && r.explained(item) {
				continue
			}
			found := false
			for _, p := range paragraphs {
				if p.item.Cost == item.Cost && p.item.Remedy == item.Remedy && p.item.Error == item.Error && p.item.State == item.State {
					p.names, found = append(p.names, item.Name), true
					break
				}
			}
			if !found {
				paragraphs = append(paragraphs, &paragraph{[]string{item.Name}, item})
			}
		}
	}
	if len(paragraphs) == 0 {
		b.WriteString("\nnothing is missing\n")
		return
	}
	b.WriteString("\nwhat is missing\n")
	for _, p := range paragraphs {
		said := p.item.Error
		if said == "" {
			said = p.item.Value
		}
		if p.item.State == Unknown {
			said = "unknown: " + said
		}
		fmt.Fprintf(b, "  %s: %s\n", strings.Join(p.names, ", "), said)
		if p.item.Cost != "" {
			fmt.Fprintf(b, "      costs: %s\n", p.item.Cost)
		}
		if p.item.Remedy != "" {
			fmt.Fprintf(b, "      do:    %s\n", p.item.Remedy)
		}
	}
}

// explained reports whether the hooks already say why a program type is refused.
func (r *Report) explained(item Item) bool {
	for _, s := range r.Sections {
		if s.Name != SectionHooks {
			continue
		}
		for _, h := range s.Items {
			if h.State == No && h.Remedy == item.Remedy {
				return true
			}
		}
	}
	return item.Remedy == "see hooks"
}

func (s *Section) working(b *bufio.Writer) {
	var names []string
	for _, item := range s.Items {
		switch {
		case item.State != Yes:
		case item.Value != "" && s.Name != SectionHooks && s.Name != SectionCapabilities:
			names = append(names, fmt.Sprintf("%s (%s)", item.Name, item.Value))
		default:
			names = append(names, item.Name)
		}
	}
	if len(names) > 0 {
		wrap(b, "  "+s.Name+": ", names)
	}
}

// wrap writes a comma-separated list in lines of at most 100 characters.
func wrap(b *bufio.Writer, head string, names []string) {
	line := head
	for i, name := range names {
		if i < len(names)-1 {
			name += ","
		}
		if len(line)+len(name) > 100 && strings.TrimSpace(line) != strings.TrimSpace(head) {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = "      "
		}
		line += name + " "
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

func (s *Section) all(b *bufio.Writer) {
	fmt.Fprintf(b, "  %s\n", s.Name)
	for _, item := range s.Items {
		var notes []string
		for _, n := range []string{item.Value, item.Error} {
			if n != "" {
				notes = append(notes, n)
			}
		}
		switch item.Link {
		case Yes:
			notes = append(notes, "bpf_link, can be pinned: "+string(item.Pin))
		case No:
			notes = append(notes, "no bpf_link")
		}
		fmt.Fprintf(b, "    %-28s %-8s %s\n", item.Name, item.State, strings.Join(notes, "; "))
	}
}
