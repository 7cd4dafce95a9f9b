// Package author helps to write Programs: it begins new ones and builds them.
package author

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/kaon-project/kaon/bpf"
)

//go:embed new.bpf.c.txt
var template string

// ErrExists is returned rather than overwriting a file.
var ErrExists = errors.New("the file exists already")

var validName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)

// New writes NAME.bpf.c into directory: a complete Program in some 20 lines to begin with.
func New(w io.Writer, directory, name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q can't be a program's name here: use lower-case letters, digits and _, beginning with a letter", name)
	}
	path := filepath.Join(directory, name+".bpf.c")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w: choose another name or remove it", path, ErrExists)
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(file, strings.ReplaceAll(template, "NAME", name))
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	fmt.Fprintf(w, "%[1]s is a complete program. Next:\n\n  kaon build %[1]s\n  kaon run %[2]s\n", path, strings.TrimSuffix(path, ".c")+".o")
	return nil
}

// Build compiles C sources to objects beside them. arch is a GOARCH; empty: this machine's.
func Build(ctx context.Context, w io.Writer, sources []string, arch, clang, output string) error {
	if output != "" && len(sources) > 1 {
		return errors.New("--output names one object, but there are several sources: build them one by one")
	}
	var errs []error
	for _, source := range sources {
		if filepath.Ext(source) != ".c" {
			errs = append(errs, fmt.Errorf("%s is not C: name a file that ends in .bpf.c", source))
			continue
		}
		options := bpf.CompileOptions{Source: source, Output: output, Arch: arch, Clang: clang, Warnings: w}
		if err := bpf.Compile(ctx, options); err != nil {
			errs = append(errs, err)
			continue
		}
		if options.Output == "" {
			options.Output = strings.TrimSuffix(source, ".c") + ".o"
		}
		fmt.Fprintln(w, options.Output)
	}
	return errors.Join(errs...)
}

// BuildAll compiles every *.bpf.c below the root, except where a Makefile says how. A source that
// reads registers says so in a line "// kaon: one object per architecture"; it becomes NAME.ARCH.bpf.o.
func BuildAll(ctx context.Context, w io.Writer, root, clang string) error {
	var errs []error
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && path != root {
			_, err := os.Stat(filepath.Join(path, "Makefile"))
			if err == nil || strings.HasPrefix(entry.Name(), ".") {
				return filepath.SkipDir
			}
		}
		if !strings.HasSuffix(path, ".bpf.c") {
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !strings.Contains(string(source), "// kaon: one object per architecture") {
			errs = append(errs, Build(ctx, w, []string{path}, "amd64", clang, ""))
			return nil
		}
		for _, arch := range []string{"amd64", "arm64"} {
			errs = append(errs, Build(ctx, w, []string{path}, arch, clang, strings.TrimSuffix(path, ".bpf.c")+"."+arch+".bpf.o"))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

// Include writes the headers that Build uses into a directory, for editors and other build systems.
func Include(directory, arch string) error {
	if arch == "" {
		arch = runtime.GOARCH
	}
	return bpf.WriteHeaders(directory, arch)
}
