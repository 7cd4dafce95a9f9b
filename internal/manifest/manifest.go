// Package manifest is a source: YAML files of kind Program say where eBPF code
// comes from and what to change of what it says about itself. Also, a strict YAML decoder
// for Kaon's other files.
package manifest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// MaxMetrics is the number of metrics that a Program may have.
const MaxMetrics = 1000

// Options say what a manifest can refer to. The zero value knows no built-in Programs.
type Options struct {
	// Builtin returns a built-in Program by name.
	Builtin func(name string) (*program.Spec, error)
	// Base is what Programs without a source are made of. Nil: the object beside the file.
	Base *program.Spec
	// Decoders are the names of the label decoders that exist. Nil: Decoders().
	Decoders []string
	// Objects gives what custom resources refer to. If it is set, what is read is a custom resource, not a file.
	Objects Objects
}

// Load reads the Programs of a manifest. A Program without a source is made of the object
// beside the file: x.bpf.o or x.o for x.yaml. The error joins every problem; Programs without one
// are returned even so.
func Load(path string, options Options) ([]*program.Spec, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(data, path, options)
}

// Parse is Load for a manifest that has been read. Paths in it are relative to path.
func Parse(data []byte, path string, options Options) ([]*program.Spec, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, ErrTooLarge, MaxSize)
	}
	documents, err := parseDocuments(data, path)
	if err != nil {
		return nil, err
	}
	if len(documents) == 0 {
		return nil, &program.Problem{Where: path, What: "it holds no Program", Fix: "begin with apiVersion: " + v1alpha1.APIVersion + " and kind: " + v1alpha1.KindProgram}
	}
	var (
		specs    []*program.Spec
		problems []error
		names    = map[string]int{}
	)
	for _, document := range documents {
		d := newDecoder(path)
		decoded := d.decodeProgram(document)
		if len(d.problems) > 0 {
			problems = append(problems, d.problems...)
			continue
		}
		where := func(field string) string { return at(path, d.line(field), field) }
		spec, err := build(decoded, path, where, options)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if first, twice := names[spec.Name]; twice {
			problems = append(problems, &program.Problem{Where: where("metadata.name"),
				What: fmt.Sprintf("the Program beginning in line %d is also called %s", first, spec.Name), Fix: "give one of them another name"})
			continue
		}
		names[spec.Name] = document.Line
		specs = append(specs, spec)
	}
	return specs, errors.Join(problems...)
}

// decodeProgram decodes a document that should be a Program. Of other kinds only that is reported.
func (d *decoder) decodeProgram(document *yaml.Node) *v1alpha1.Program {
	p := &v1alpha1.Program{}
	if document.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(document.Content); i += 2 {
			key, value := document.Content[i], document.Content[i+1]
			if key.Value == "kind" && value.Kind == yaml.ScalarNode && value.Value != v1alpha1.KindProgram {
				d.problem(value, "kind", fmt.Sprintf("the kind %q is not known here", value.Value), "write "+v1alpha1.KindProgram)
				return p
			}
		}
	}
	d.decode(document, reflect.ValueOf(p).Elem(), "", 0)
	return p
}

// line returns the line of a field, or that of the nearest one that contains it.
func (d *decoder) line(field string) int {
	for {
		if line, ok := d.lines[field]; ok {
			return line
		}
		i := strings.LastIndexAny(field, ".[")
		if i < 0 {
			return d.lines[""]
		}
		field = field[:i]
	}
}

// build resolves the source of p and applies the rest.
func build(p *v1alpha1.Program, path string, where func(string) string, options Options) (*program.Spec, error) {
	base, err := resolve(p, path, where, options)
	if err != nil {
		return nil, err
	}
	spec, err := Apply(p, base, where, options)
	if err != nil {
		return nil, err
	}
	spec.Origin.Path = path
	if isFile := p.Spec.Source == nil && options.Base == nil || p.Spec.Source != nil && p.Spec.Source.Object != nil && p.Spec.Source.Object.Path != ""; isFile && base.Origin.Path != "" {
		spec.Origin.Files = []string{base.Origin.Path}
	}
	return spec, nil
}

func resolve(p *v1alpha1.Program, path string, where func(string) string, options Options) (*program.Spec, error) {
	if err := checkPlace(p, where, options.Objects != nil); err != nil {
		return nil, err
	}
	source := p.Spec.Source
	if source == nil && options.Base != nil {
		return options.Base, nil
	}
	if source == nil && options.Objects != nil {
		if needsNoCode(p) {
			return &program.Spec{Name: p.Metadata.Name}, nil
		}
		return nil, &program.Problem{Where: where("spec.source"), What: v1alpha1.WantSource, Fix: "write source: {builtin: NAME} or {object: ...}"}
	}
	if source == nil {
		stem := strings.TrimSuffix(strings.TrimSuffix(path, ".yaml"), ".yml")
		for _, suffix := range []string{".bpf.o", ".o"} {
			spec, err := object.Load(stem + suffix)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			return spec, err
		}
		if needsNoCode(p) {
			name := filepath.Base(stem)
			if p.Metadata.Name == "" && !validName.MatchString(name) {
				return nil, &program.Problem{Where: where("metadata.name"), What: fmt.Sprintf("it is missing, and the file's name %q can't be a program's", name),
					Fix: "use lower-case letters, digits, - and _, at most 63"}
			}
			return &program.Spec{Name: name}, nil
		}
		return nil, &program.Problem{Where: where("spec.source"), What: "it is missing, and there is no object beside the file",
			Fix: fmt.Sprintf("write source: {builtin: NAME} or {object: {path: FILE}}, or put the object at %s.bpf.o", stem)}
	}
	switch {
	case source.Builtin != "" && source.Object != nil, source.Builtin == "" && source.Object == nil:
		return nil, &program.Problem{Where: where("spec.source"), What: v1alpha1.WantOneSource}
	case source.Builtin != "":
		if options.Builtin == nil {
			return nil, &program.Problem{Where: where("spec.source.builtin"), What: "built-in Programs are not available here"}
		}
		spec, err := options.Builtin(source.Builtin)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", where("spec.source.builtin"), err)
		}
		return spec, nil
	}
	return resolveObject(source.Object, p.Metadata.Name, path, where, options)
}

// needsNoCode says whether all metrics of a Program come from files.
func needsNoCode(p *v1alpha1.Program) bool {
	return len(p.Spec.Metrics) > 0 && len(p.Spec.Hooks) == 0 && len(p.Spec.Params) == 0 &&
		!slices.ContainsFunc(p.Spec.Metrics, func(m v1alpha1.Metric) bool {
			return m.From == nil || m.From.File == nil && m.From.Cgroup == nil
		})
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9_]{0,61}[a-z0-9])?$`)

// Apply changes a copy of base as p says; p.Spec.Source is not looked at. where locates a field
// of p (such as spec.metrics[0].limit) for messages. The error joins every problem.
func Apply(p *v1alpha1.Program, base *program.Spec, where func(field string) string, options Options) (*program.Spec, error) {
	a := &applier{spec: base.Clone(), where: where, decoders: options.Decoders, changed: map[string]string{}}
	if a.decoders == nil {
		a.decoders = Decoders()
	}
	if a.spec.Collection == nil {
		a.spec.Collection = &ebpf.CollectionSpec{}
	}
	if p.Metadata.Name != "" {
		if !validName.MatchString(p.Metadata.Name) {
			a.problem("metadata.name", fmt.Sprintf("%q can't be a program's name", p.Metadata.Name),
				"use lower-case letters, digits, - and _, at most 63")
		}
		a.spec.Name = p.Metadata.Name
	}
	if p.Spec.Help != "" {
		a.spec.Help = p.Spec.Help
	}
	a.params(p.Spec.Params)
	a.hooks(p.Spec.Hooks)
	a.pin(p.Spec.Pin)
	a.metrics(p.Spec.Metrics)
	if len(a.problems) > 0 {
		return nil, errors.Join(a.problems...)
	}
	described := *p
	described.Spec.NodeSelector, described.Status = nil, nil // they don't change what runs
	document, err := json.Marshal(described)
	if err != nil {
		return nil, fmt.Errorf("digest manifest: %w", err)
	}
	digest := sha256.New()
	fmt.Fprintf(digest, "manifest %d\n%s", len(document), document)
	digest.Write(base.Origin.Digest[:])
	a.spec.Origin = program.Origin{Source: "manifest", Path: base.Origin.Path}
	digest.Sum(a.spec.Origin.Digest[:0])
	return a.spec, nil
}
