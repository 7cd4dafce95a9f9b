package ebpfexporter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

// defaultFlush is how often the counts of a perf event array are forgotten unless told otherwise.
const defaultFlush = time.Hour

// wantsNumber are the decoders that read a decimal number, not bytes.
var wantsNumber = []string{"cgroup", "errno", "syscall", "pci_vendor", "pci_device", "pci_class", "pci_subclass"}

// steps checks the decoders of a label and makes steps of them.
func (b *builder) steps(l *label) (steps []program.Step, ok bool) {
	if len(l.decoders) == 0 {
		b.problem(l.place, "it has no decoders", "write decoders: [{name: uint}] or another")
		return nil, false
	}
	ok = true
	raw := true // nothing has made text of the bytes yet
	for i := range l.decoders {
		d := &l.decoders[i]
		if !slices.Contains(b.options.Steps, d.name) {
			fix := "use one of " + strings.Join(b.options.Steps, ", ")
			if near := program.Nearest(d.name, b.options.Steps); near != "" {
				fix = fmt.Sprintf("did you mean %s?", near)
			}
			what := fmt.Sprintf("there is no decoder %q", clip(d.name))
			if d.name == "" {
				what = "it has no name"
			}
			b.problem(d.place, what, fix)
			ok = false
			continue
		}
		if what, fix := misplaced(d.name, l.size, raw); what != "" && l.size > 0 {
			b.problem(d.place, what, fix)
			ok = false
		}
		ok = b.arguments(d) && ok
		raw = raw && d.name == "regexp"
		steps = append(steps, program.Step{Name: d.name, Map: d.staticMap, AllowUnknown: d.allowUnknown, Regexps: d.regexps})
	}
	return steps, ok
}

// misplaced says why a decoder can do nothing with what it gets: size bytes, or text.
func misplaced(name string, size uint32, raw bool) (what, fix string) {
	if !raw {
		return "", ""
	}
	switch {
	case name == "uint" && size != 1 && size != 2 && size != 4 && size != 8:
		return fmt.Sprintf("a number has no %d bytes", size), "set size to 1, 2, 4 or 8, and what the compiler added to padding"
	case name == "ksym" && size != 8:
		return fmt.Sprintf("a kernel address has 8 bytes, not %d", size), "set size to 8"
	case name == "kstack" && size%8 != 0:
		return fmt.Sprintf("a stack is made of addresses of 8 bytes, but its size is %d", size), "set size to a multiple of 8"
	case (name == "ifname" || name == "majorminor") && size < 4:
		return fmt.Sprintf("it reads 4 bytes, but the label has %d", size), "set size to 4"
	case name == "inet_ip" && size != 4 && size != 16:
		return fmt.Sprintf("an address has 4 or 16 bytes, not %d", size), "set size to 4 or 16"
	case slices.Contains(wantsNumber, name):
		return fmt.Sprintf("%s reads a decimal number, but here are the key's bytes", name), "write uint before it"
	}
	return "", ""
}

// arguments checks what comes with a decoder.
func (b *builder) arguments(d *decoder) bool {
	switch {
	case d.name == "static_map" && len(d.staticMap) == 0:
		b.doubt(d.place, "it has no static_map, so every value is unknown", "write static_map: {FROM: TO}")
	case d.name != "static_map" && (d.staticMap != nil || d.allowUnknown):
		b.doubt(d.place, "static_map and allow_unknown do nothing here", "remove them, or add the decoder static_map")
	case d.name != "regexp" && d.regexps != nil:
		b.doubt(d.place, "regexps do nothing here", "remove them, or add the decoder regexp")
	case d.name == "regexp" && len(d.regexps) == 0:
		b.problem(d.place, "it has no regexps", "write regexps: [PATTERN]")
		return false
	}
	return b.regexps(d.place+".regexps", d.regexps)
}

func (b *builder) regexps(at place, list []string) bool {
	ok := true
	for i, text := range list {
		if _, err := regexp.Compile(text); err != nil {
			b.problem(at, fmt.Sprintf("[%d]: %v", i, err), "write it as package regexp of Go understands it (RE2)")
			ok = false
		}
	}
	return ok
}
