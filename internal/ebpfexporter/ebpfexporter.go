// Package ebpfexporter is a source: the configurations of ebpf_exporter, NAME.yaml with NAME.bpf.o beside it. The YAML says
// how the keys of maps become labels; where functions are attached the object says by its sections.
package ebpfexporter

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// DefaultPrefix is what ebpf_exporter puts before the name of each metric.
const DefaultPrefix = "ebpf_exporter_"

// Options of Load. The zero value is ebpf_exporter's behaviour.
type Options struct {
	// Prefix of metric names instead of DefaultPrefix; nil: DefaultPrefix.
	Prefix *string
	// Steps are the names of the decoders that exist.
	Steps []string
}

func (o *Options) prefix() string {
	if o.Prefix != nil {
		return *o.Prefix
	}
	return DefaultPrefix
}

// Load reads the configuration at path and the object beside it, which is called as the file with .bpf.o or .o. The error
// joins every problem.
func Load(path string, options Options) (*program.Spec, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	stem := strings.TrimSuffix(path, filepath.Ext(path))
	for _, suffix := range []string{".bpf.o", ".o"} {
		code, err := object.Read(stem + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return Parse(data, path, code, stem+suffix, options)
	}
	return nil, &program.Problem{Where: path, What: "there is no object beside this configuration of ebpf_exporter",
		Fix: fmt.Sprintf("compile it, as with `kaon build`, to %s.bpf.o", stem)}
}

func readFile(path string) ([]byte, error) {
	// A named pipe would be waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &program.Problem{Where: path, What: "not a regular file"}
	}
	return io.ReadAll(io.LimitReader(f, maxSize+1))
}

// Is reports whether data looks like a configuration of ebpf_exporter: YAML whose top has metrics or tracing, and neither
// apiVersion, which manifests have, nor programs, which the agent's configuration has.
func Is(data []byte) bool {
	ours := false
	for line := range strings.Lines(string(data)) {
		key, _, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		switch strings.Trim(strings.TrimSpace(key), `"'`) {
		case "metrics", "tracing", "cgroup_id_map", "kaddrs":
			ours = ours || key[0] != ' ' && key[0] != '#'
		case "apiVersion", "programs":
			if key[0] != ' ' && key[0] != '#' {
				return false
			}
		}
	}
	return ours
}

// Parse is Load for files that have been read.
func Parse(data []byte, path string, code []byte, codePath string, options Options) (*program.Spec, error) {
	r := &reading{path: path}
	c := r.parse(data)
	if c == nil {
		if len(r.problems) == 0 {
			r.problem(place(path), "the configuration is empty", "write metrics:")
		}
		return nil, errors.Join(r.problems...)
	}
	spec, err := object.ParseCode(code, codePath)
	if err != nil {
		return nil, errors.Join(append(r.problems, err)...)
	}
	spec.Name = nameOf(path)
	spec.Help = "The configuration " + filepath.Base(path) + " of ebpf_exporter."
	digest := sha256.New()
	fmt.Fprintf(digest, "ebpf_exporter %q %d\n%s", options.prefix(), len(data), data)
	digest.Write(spec.Origin.Digest[:])
	spec.Origin = program.Origin{Source: "ebpf_exporter", Path: path, Files: []string{codePath}}
	digest.Sum(spec.Origin.Digest[:0])

	b := &builder{reading: r, spec: spec, options: options, metrics: map[string]place{}}
	b.build(c)
	if len(r.problems) > 0 {
		return nil, errors.Join(r.problems...)
	}
	spec.ForeignNames, spec.Doubts = true, append(spec.Doubts, r.doubts...)
	return spec, nil
}

// parse returns nil for a file that holds nothing usable.
func (r *reading) parse(data []byte) *config {
	root := r.root(data)
	if root == nil {
		return nil
	}
	c := &config{}
	r.decode(r.item(root, "", 0), r.config(c))
	return c
}

// nameOf makes a Program's name from a path.
func nameOf(path string) string {
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	name = strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
			return c
		case c >= 'A' && c <= 'Z':
			return c - 'A' + 'a'
		}
		return '-'
	}, name)
	if name = strings.Trim(name[:min(len(name), 63)], "-_"); name == "" {
		return "ebpf-exporter"
	}
	return name
}

// configName is what ebpf_exporter calls the configuration.
func (b *builder) configName() string {
	return strings.TrimSuffix(filepath.Base(b.path), filepath.Ext(b.path))
}

// builder makes a spec of a configuration and its object.
type builder struct {
	*reading
	spec    *program.Spec
	options Options
	// metrics that were defined already, and where.
	metrics map[string]place
}

func (b *builder) build(c *config) {
	b.hooks()
	for i := range c.counters {
		b.counter(&c.counters[i])
	}
	for i := range c.histograms {
		b.histogram(&c.histograms[i])
	}
	for _, symbol := range c.kaddrs {
		b.symbol(symbol)
	}
	if c.cgroups != nil {
		b.cgroups(c.cgroups)
	}
	for i := range c.spans {
		b.span(&c.spans[i])
	}
	if len(b.spec.Readers)+len(b.spec.Spans) == 0 && len(b.problems) == 0 {
		b.doubt(place(b.path), "it exports nothing", "write metrics.counters, metrics.histograms or tracing.spans")
	}
}

// metric begins a metric, nil if it can't be one.
func (b *builder) metric(at place, name, help string, typ program.Type) *program.Metric {
	if name == "" {
		b.problem(at, "it has no name", "write name: the name of the map")
		return nil
	}
	full := b.options.prefix() + name
	if !validMetric(full) {
		b.problem(at+".name", fmt.Sprintf("%q is no metric's name", full), "use letters, digits and _, as the map is called")
		return nil
	}
	if other, twice := b.metrics[name]; twice {
		b.problem(at, fmt.Sprintf("the metric %s exists already, at %s", name, other), "remove one of them")
		return nil
	}
	b.metrics[name] = at
	if help == "" {
		b.doubt(at, "it has no help", "say what is counted")
	}
	return &program.Metric{Name: full, Help: help, Type: typ}
}

func validMetric(name string) bool {
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == ':'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

func validLabel(name string) bool { return validMetric(name) && !strings.Contains(name, ":") }

// findMap returns a map of the object, nil after a problem.
func (b *builder) findMap(at place, name string) *ebpf.MapSpec {
	m := b.spec.Collection.Maps[name]
	if m != nil {
		return m
	}
	var names []string
	for other := range b.spec.Collection.Maps {
		if !strings.HasPrefix(other, ".") {
			names = append(names, other)
		}
	}
	fix := fmt.Sprintf("call the map as the metric, in %s", filepath.Base(b.spec.Origin.Files[0]))
	if near := program.Nearest(name, names); near != "" {
		fix = fmt.Sprintf("did you mean %s?", near)
	}
	b.problem(at, fmt.Sprintf("the object has no map %s", name), fix)
	return nil
}

func (b *builder) symbol(symbol located) {
	variable := "kaddr_" + symbol.text
	v := b.spec.Collection.Variables[variable]
	switch {
	case symbol.text == "":
		b.problem(symbol.place, "it names no symbol", "")
	case v == nil:
		b.problem(symbol.place, fmt.Sprintf("the object has no variable %s to take the address", variable), fmt.Sprintf("declare `const volatile u64 %s = 0;`", variable))
	case v.Size() != 8:
		b.problem(symbol.place, fmt.Sprintf("the variable %s has %d bytes, an address 8", variable, v.Size()), "declare it as u64")
	default:
		b.spec.Symbols = append(b.spec.Symbols, program.Symbol{Name: symbol.text, Variable: variable})
	}
}

func (b *builder) cgroups(c *cgroupIDMap) {
	if c.name == "" {
		b.problem(c.place, "it names no map", "write name: MAP")
		return
	}
	m := b.findMap(c.place+".name", c.name)
	if m == nil {
		return
	}
	set := program.CgroupSet{Map: c.name, Regexps: c.regexps}
	keySize := uint32(8)
	switch c.kind {
	case "", "hash":
		if m.Type != ebpf.Hash && m.Type != ebpf.LRUHash {
			b.problem(c.place+".type", fmt.Sprintf("the map %s is of type %s", c.name, m.Type), "make it a hash, or write type: cgrp_storage if it is cgroup storage")
			return
		}
	case "cgrp_storage":
		set.Storage, keySize = true, 4
		if m.Type != ebpf.CgroupStorage {
			b.problem(c.place+".type", fmt.Sprintf("the map %s is of type %s", c.name, m.Type), "declare it as BPF_MAP_TYPE_CGRP_STORAGE, or write type: hash")
			return
		}
	default:
		b.problem(c.place+".type", fmt.Sprintf("%q is unknown", c.kind), "write hash or cgrp_storage")
		return
	}
	if m.KeySize != keySize || m.ValueSize != 8 {
		b.problem(c.place+".name", fmt.Sprintf("the map %s has keys of %d and values of %d bytes", c.name, m.KeySize, m.ValueSize),
			fmt.Sprintf("declare keys of %d and values of 8 bytes", keySize))
		return
	}
	if len(c.regexps) == 0 {
		b.doubt(c.place, "it has no regexps, so no cgroup is in the map", "write regexps: [PATTERN of a path such as /sys/fs/cgroup/system.slice/cron.service]")
	}
	if !b.regexps(c.place+".regexps", c.regexps) {
		return
	}
	b.spec.CgroupSets = append(b.spec.CgroupSets, set)
}
