// Package object is a source: an eBPF object (ELF, compiled from C with bpf/kaon.h) describes
// itself through BTF and tags, and becomes a program.Spec without a kernel.
package object

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// MaxSize is the size in bytes up to which an object is read.
const MaxSize = 64 << 20

// ErrTooLarge is returned for objects above MaxSize.
var ErrTooLarge = errors.New("object is too large")

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_]{0,61}[a-z0-9])?$`)

// Load reads and parses the object at path. The Program is called as the file
// is, without .bpf.o or .o, unless the object names itself.
func Load(path string) (*program.Spec, error) {
	data, err := Read(path)
	if err != nil {
		return nil, err
	}
	return Parse(data, path)
}

// Read reads the file of an object.
func Read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &program.Problem{Where: path, What: "not a regular file"}
	}
	if info.Size() > MaxSize {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d", path, ErrTooLarge, info.Size(), MaxSize)
	}
	return os.ReadFile(path)
}

// Parse parses an object. path is for messages and for the name. The error
// joins every problem that was found, as *program.Problem.
func Parse(data []byte, path string) (spec *program.Spec, err error) { return parse(data, path, true) }

// ParseCode parses an object without looking for metrics: what its maps are is told elsewhere. The Program is called as the file is.
// Functions whose section says no hook are left out, with a doubt, and those whose section says no target are attached to nothing.
func ParseCode(data []byte, path string) (*program.Spec, error) { return parse(data, path, false) }

func parse(data []byte, path string, described bool) (spec *program.Spec, err error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%s: %w: %d bytes, at most %d", path, ErrTooLarge, len(data), MaxSize)
	}
	// The ELF and BTF readers are a library's; what a hostile object makes of them must not be ours to die of.
	defer func() {
		if r := recover(); r != nil {
			spec, err = nil, &program.Problem{Where: path, What: fmt.Sprintf("the object is damaged (%v)", r), Fix: "compile it again"}
		}
	}()
	code, variables, config := simplify(data)
	collection, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(code))
	if err != nil {
		return nil, &program.Problem{Where: path, What: "not a usable eBPF object: " + err.Error(),
			Fix: "compile C with `clang -g -O2 -target bpf`, or with `kaon build`"}
	}
	if !strings.HasPrefix(collection.ByteOrder.String(), "Little") {
		return nil, &program.Problem{Where: path, What: "the object is big-endian", Fix: "compile with -target bpfel"}
	}
	for _, function := range collection.Programs {
		variables.mark(function.Instructions)
		// As libbpf does: of several strings the first. The library would hand the kernel none.
		if function.License, _, _ = strings.Cut(function.License, "\x00"); function.License == "" {
			return nil, &program.Problem{Where: path, What: "the object has no license, without which the kernel loads no function", Fix: `write KAON_PROGRAM("what it tells"), or char LICENSE[] SEC("license") = "Dual BSD/GPL"`}
		}
	}
	kernelConfig, err := config.place(collection)
	if err != nil {
		return nil, &program.Problem{Where: path, What: err.Error()}
	}
	p := &parser{path: path, spec: &program.Spec{
		Name:         nameOf(path),
		Origin:       program.Origin{Source: "object", Path: path, Digest: sha256.Sum256(data)},
		Collection:   collection,
		KernelConfig: kernelConfig,
	}}
	if described {
		p.license()
		p.params()
	}
	p.hooks(described)
	if described {
		p.maps()
		p.conditions()
	}
	if len(p.problems) > 0 {
		return nil, errors.Join(p.problems...)
	}
	return p.spec, nil
}

// nameOf makes a Program's name from a path.
func nameOf(path string) string {
	name := filepath.Base(strings.TrimPrefix(path, "builtin:"))
	for _, suffix := range []string{".o", ".bpf"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return strings.ToLower(name)
}

type parser struct {
	path     string
	spec     *program.Spec
	problems []error
}

func (p *parser) problem(where, what, fix string) {
	p.problems = append(p.problems, &program.Problem{Where: p.path + ": " + where, What: what, Fix: fix})
}

// license reads the Program's own tags, which sit on the license variable.
func (p *parser) license() {
	if p.spec.Collection.Types == nil {
		if len(p.spec.Collection.Programs) > 0 {
			p.spec.Doubts = append(p.spec.Doubts, &program.Problem{Where: p.path + ": object", What: "it has no BTF, which would say what its maps hold",
				Fix: "compile with -g, or describe keys and values in a manifest"})
		}
		return
	}
	var license *btf.Datasec
	if err := p.spec.Collection.Types.TypeByName("license", &license); err == nil {
		for _, v := range license.Vars {
			v, ok := v.Type.(*btf.Var)
			if !ok {
				continue
			}
			tags := p.tags("variable "+v.Name, v.Tags, programTags)
			p.spec.Help = cmp.Or(tags["program"], p.spec.Help)
			if name := tags["name"]; name != "" {
				p.spec.Name = name
			}
		}
	}
	if !validName.MatchString(p.spec.Name) {
		p.problem("object", fmt.Sprintf("%q can't be a program's name", p.spec.Name),
			"use lower-case letters, digits, - and _, at most 63; rename the file")
	}
}

func (p *parser) params() {
	variables := p.spec.Collection.Variables
	for _, name := range slices.Sorted(maps.Keys(variables)) {
		v := variables[name]
		if v.Type == nil {
			continue
		}
		tags := p.tags("variable "+name, v.Type.Tags, paramTags)
		if _, ok := tags["param"]; !ok {
			continue
		}
		where := "param " + name
		if !v.Constant() {
			p.problem(where, "it is not constant", "declare it `const volatile`, as KAON_PARAM does")
			continue
		}
		param := program.Param{Name: name, Help: tags["help"], Variable: name, Size: v.Size()}
		if err := paramType(&param, v.Type.Type, tags["unit"]); err != nil {
			p.problem(where, err.Error(), "")
			continue
		}
		param.Default = decodeDefault(&param, v.Value)
		p.spec.Params = append(p.spec.Params, param)
	}
}

func (p *parser) hooks(strict bool) {
	programs := p.spec.Collection.Programs
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		prog := programs[name]
		where := "function " + name
		hook, err := hookOf(prog)
		switch {
		case err != nil && strict:
			p.problem(where, err.Error(), "")
			continue
		case err != nil && loadableBare[hook.Kind]:
			p.spec.Doubts = append(p.spec.Doubts, &program.Problem{Where: p.path + ": " + where,
				What: fmt.Sprintf("it is attached to nothing: its section %q does not say to what", prog.SectionName)})
			hook = program.Hook{Function: name, Kind: program.Unattached, Optional: hook.Optional}
		case err != nil:
			p.spec.Doubts = append(p.spec.Doubts, &program.Problem{Where: p.path + ": " + where, What: "it is not loaded: " + err.Error()})
			delete(programs, name)
			continue
		}
		if len(prog.Instructions) > 0 {
			if fn := btf.FuncMetadata(&prog.Instructions[0]); fn != nil {
				p.hookTags(where, &hook, fn.Tags)
			}
		}
		p.spec.Hooks = append(p.spec.Hooks, hook)
	}
	p.spec.Params = append(p.spec.Params, program.AimParams(p.spec.Hooks)...)
}

func (p *parser) hookTags(where string, hook *program.Hook, raw []string) {
	for key, value := range p.tags(where, raw, functionTags) {
		switch key {
		case "alternative":
			group, rank, _ := strings.Cut(value, ",")
			if _, err := fmt.Sscanf(strings.TrimSpace(rank), "%d", &hook.Rank); err != nil || group == "" {
				p.problem(where, fmt.Sprintf("the tag alternative=%s is not GROUP,RANK", value), "use KAON_ALTERNATIVE(group, 1)")
			}
			hook.Group = group
		case "optional":
			hook.Optional = true
		case "when":
			hook.When = value
		case "unless":
			hook.Unless = value
		}
	}
}

// conditions checks what refers to something else in the object.
func (p *parser) conditions() {
	known := map[string]bool{}
	for _, param := range p.spec.Params {
		known[param.Name] = true
	}
	check := func(where, name string) {
		if name != "" && !known[name] {
			p.problem(where, fmt.Sprintf("it depends on the param %q, which does not exist", name), "declare it with KAON_PARAM")
		}
	}
	functions := map[string]program.HookKind{}
	for _, h := range p.spec.Hooks {
		functions[h.Function] = h.Kind
		check("function "+h.Function, h.When)
		check("function "+h.Function, h.Unless)
	}
	type made struct {
		by     string
		metric *program.Metric
	}
	families, fed := map[string][]made{}, map[string]string{}
	for _, r := range p.spec.Readers {
		if other := fed[r.Function]; r.Kind == program.IteratorReader && other != "" {
			p.problem("map "+r.Name, fmt.Sprintf("the iterator %s feeds %s already", r.Function, other),
				"write a function of its own, or put both values into one struct (KAON_ITERATOR_METRICS)")
		}
		fed[r.Function] = r.Name
		if r.Kind == program.IteratorReader && functions[r.Function] != program.Iterator {
			p.problem("map "+r.Name, fmt.Sprintf("it names %q, which is not an iterator of this object", r.Function), `write SEC("iter/...") before that function`)
		}
		for i := range r.Metrics {
			m := &r.Metrics[i]
			check("map "+r.Name, m.When)
			check("map "+r.Name, m.Unless)
			for _, other := range families[m.Name] {
				if !m.Excludes(other.metric) {
					p.problem("map "+r.Name, fmt.Sprintf("the metric %s is also made from %s", m.Name, other.by), "give one of them another name with KAON_NAME")
				}
			}
			families[m.Name] = append(families[m.Name], made{r.Name, m})
		}
	}
}
