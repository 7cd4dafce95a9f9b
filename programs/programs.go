// Package programs is the built-in library: one folder per Program with its C, its
// object, its page and its test.
package programs

import (
	"embed"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

//go:embed */*.bpf.o */*.md */*.yaml
var files embed.FS

// Default are the Programs that the agent runs when it is told of none: those
// that cost little on a busy machine.
func Default() []string {
	return []string{
		"blockio",
		"bpf",
		"dns",
		"drops",
		"exec",
		"exit",
		"faults",
		"filelessexec",
		"listenoverflow",
		"memory",
		"netbytes",
		"oncpu",
		"oomkill",
		"packets",
		"reclaim",
		"runqueue",
		"signals",
		"sockets",
		"tasks",
		"tcpconnect",
		"tcpreset",
		"tcpretransmit",
		"tcprtt",
		"throttling",
		"udperrors",
		"writeback",
	}
}

// Names returns the names of all Programs, sorted.
func Names() []string {
	var names []string
	for _, pattern := range []string{"*/*.bpf.o", "*/*.yaml"} {
		entries, err := fs.Glob(files, pattern)
		if err != nil {
			return nil // the patterns are well-formed
		}
		for _, path := range entries {
			name, _, _ := strings.Cut(path, "/")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Load returns a Program as its object and its manifest say, either of which it may lack. The spec is the
// caller's to change.
func Load(name string) (*program.Spec, error) {
	path := "builtin:" + name
	document, err := files.ReadFile(name + "/" + name + ".yaml")
	withManifest := err == nil
	data, err := Object(name)
	var spec *program.Spec
	switch {
	case err == nil:
		if spec, err = object.Parse(data, path); err != nil {
			return nil, err
		}
	case withManifest:
		spec = &program.Spec{Name: name}
	default:
		return nil, err
	}
	if !withManifest {
		return spec, nil
	}
	specs, err := manifest.Parse(document, path, manifest.Options{Base: spec})
	if err != nil {
		return nil, err
	}
	return specs[0], nil
}

// Object returns the object of a Program, fs.ErrNotExist if it has none. The caller must not change it.
func Object(name string) ([]byte, error) {
	data, err := files.ReadFile(name + "/" + name + ".bpf.o")
	if err != nil { // one that reads registers has an object per architecture
		data, err = files.ReadFile(name + "/" + name + "." + runtime.GOARCH + ".bpf.o")
	}
	if err != nil {
		return nil, fmt.Errorf("built-in program %q: %w", name, fs.ErrNotExist)
	}
	return data, nil
}

// Page returns a Program's documentation in Markdown.
func Page(name string) ([]byte, error) {
	return files.ReadFile(name + "/README.md")
}

// Cost says in words what a Program costs: the line of its page that begins with "Cost: ".
func Cost(name string) string {
	return pageLine(name, "Cost: ")
}

// Areas returns what the library is divided into, in the order of its documents and dashboards.
func Areas() []string {
	return []string{"process", "CPU", "memory", "storage", "network", "security", "kernel", "sustainability"}
}

// Area returns to which of Areas a Program belongs: the line of its page that begins with "Area: ".
func Area(name string) string {
	return pageLine(name, "Area: ")
}

func pageLine(name, prefix string) string {
	page, err := Page(name)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(page)) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}
