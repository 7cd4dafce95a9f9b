package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/ebpfexporter"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/programs"
)

// ResolveOptions change how sources are read. The zero value is usable.
type ResolveOptions struct {
	// Prefix of the metrics of ebpf_exporter's configurations; nil: ebpf_exporter_.
	Prefix *string
}

// Resolve is ResolveWithOptions without any.
func Resolve(source string) ([]*program.Spec, error) {
	return ResolveWithOptions(source, ResolveOptions{})
}

// ResolveWithOptions returns the Programs that source names: a built-in name, the path of
// an object, a manifest or a configuration of ebpf_exporter, or a glob of paths. The specs are the caller's to
// change. With an error come the Programs that are good all the same: a file may hold several.
func ResolveWithOptions(source string, options ResolveOptions) ([]*program.Spec, error) {
	if !isPath(source) {
		spec, err := builtin(source)
		if err != nil {
			return nil, err
		}
		return []*program.Spec{spec}, nil
	}
	paths, err := expand(source)
	if err != nil {
		return nil, err
	}
	var specs []*program.Spec
	var errs []error
	for _, path := range paths {
		loaded, err := load(path, options)
		specs, errs = append(specs, loaded...), append(errs, err)
	}
	return specs, errors.Join(errs...)
}

// expand returns the paths that a path or glob names.
func expand(source string) ([]string, error) {
	if !isPattern(source) {
		return []string{source}, nil
	}
	paths, err := filepath.Glob(source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	// An object with a manifest of the same name beside it is the manifest's.
	paths = slices.DeleteFunc(paths, func(path string) bool {
		return isObject(path) && slices.ContainsFunc(beside(path), func(m string) bool { return slices.Contains(paths, m) })
	})
	if len(paths) == 0 {
		return nil, &program.Problem{Where: source, What: "no file matches", Fix: "quote the pattern, or name a file"}
	}
	return paths, nil
}

func load(path string, options ResolveOptions) ([]*program.Spec, error) {
	switch {
	case isObject(path):
		for _, m := range beside(path) {
			if _, err := os.Stat(m); err == nil {
				return load(m, options)
			}
		}
		spec, err := object.Load(path)
		if err != nil {
			return nil, err
		}
		return []*program.Spec{spec}, nil
	case slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)) && isExporter(path):
		spec, err := ebpfexporter.Load(path, ebpfexporter.Options{Prefix: options.Prefix, Steps: series.Steps()})
		if err != nil {
			return nil, err
		}
		return []*program.Spec{spec}, nil
	case slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(path)):
		specs, err := manifest.Load(path, manifest.Options{Builtin: builtin, Decoders: series.Decoders()})
		if err != nil && fieldOf(path, "programs") && !fieldOf(path, "apiVersion") {
			return nil, &program.Problem{Where: path, What: "this is the agent's configuration, not a manifest", Fix: fmt.Sprintf("run it with `kaon up -c %s`", path)}
		}
		return specs, err
	}
	return nil, &program.Problem{Where: path, What: "not an object (.o), a manifest or a configuration of ebpf_exporter (.yaml)",
		Fix: "compile C with `kaon build`; built-in programs have no path: `kaon list`"}
}

// isExporter reports whether a file is a configuration of ebpf_exporter.
func isExporter(path string) bool {
	data, err := os.ReadFile(path)
	return err == nil && ebpfexporter.Is(data)
}

func isObject(path string) bool { return filepath.Ext(path) == ".o" }

// beside returns the files that belong to a file: the manifest x.yaml of the object x.bpf.o, and the other way round.
func beside(path string) []string {
	switch extension := filepath.Ext(path); extension {
	case ".yaml", ".yml":
		base := strings.TrimSuffix(path, extension)
		return []string{base + ".bpf.o", base + ".o"}
	case ".o":
		base := strings.TrimSuffix(strings.TrimSuffix(path, ".o"), ".bpf")
		return []string{base + ".yaml", base + ".yml"}
	}
	return nil
}

func builtin(name string) (*program.Spec, error) {
	spec, err := programs.Load(name)
	if errors.Is(err, fs.ErrNotExist) {
		fix := "`kaon list` shows what there is; a path needs a slash or a dot, as in ./" + name
		if near := program.Nearest(name, programs.Names()); near != "" {
			fix = fmt.Sprintf("did you mean %s?", near)
		}
		return nil, &program.Problem{Where: name, What: "no such built-in program", Fix: fix}
	}
	return spec, err
}

// digest covers all that makes a Program run as it does, so that what is
// unchanged can be left alone.
func digest(spec *program.Spec) [sha256.Size]byte {
	h := sha256.New()
	h.Write(spec.Origin.Digest[:])
	fmt.Fprintf(h, "%s %v %v\n", spec.Name, spec.Pin, spec.Selecting())
	for _, p := range spec.Params {
		fmt.Fprintf(h, "%s=%q\n", p.Name, p.Text())
	}
	for _, r := range spec.Readers {
		for _, m := range r.Metrics {
			fmt.Fprintf(h, "%s %d %v\n", m.Name, m.Limit, m.StaticLabels)
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}
