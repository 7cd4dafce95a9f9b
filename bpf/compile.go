package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Errors of Compile.
var (
	ErrNoClang = errors.New("no clang was found: install clang 14 or later (Debian, Ubuntu: apt install clang llvm; Fedora: dnf install clang llvm; Alpine: apk add clang llvm), or set KAON_CLANG to its path")
	ErrNoBPF   = errors.New("this clang was built without the BPF target: install your distribution's, or set KAON_CLANG to another's path")
	ErrCompile = errors.New("does not compile")
)

// CompileOptions say what to compile, and how.
type CompileOptions struct {
	// Source is a C file; Output the object. An empty Output is Source with .o instead of .c.
	Source, Output string
	// Arch is the GOARCH of the machines that the object is for; empty: this one's. It
	// matters to programs that read registers (kprobe, uprobe, usdt).
	Arch string
	// Clang is the compiler's name or path; empty: $KAON_CLANG, else the newest proven one in PATH.
	Clang string
	// CPU is the instruction set: v2, v3 (which the empty string means) or v4.
	CPU string
	// Flags are passed to clang in addition.
	Flags []string
	// Warnings is where the compiler's warnings go; nil discards them.
	Warnings io.Writer
}

// Compile makes an object of a C source. The object holds code, BTF and no
// DWARF (where llvm-strip is found), and does not depend on where the source
// or the headers lie. The error has the compiler's messages.
func Compile(ctx context.Context, options CompileOptions) error {
	clang, err := findClang(options.Clang)
	if err != nil {
		return err
	}
	if options.Arch == "" {
		options.Arch = runtime.GOARCH
	}
	if options.CPU == "" {
		options.CPU = "v3"
	}
	if options.Output == "" {
		options.Output = strings.TrimSuffix(options.Source, ".c") + ".o"
	}
	source, err := filepath.Abs(options.Source)
	if err != nil {
		return err
	}
	if _, err := os.Stat(source); err != nil {
		return fmt.Errorf("compile: %w", err)
	}
	include, err := os.MkdirTemp("", "kaon-headers-")
	if err != nil {
		return fmt.Errorf("compile %s: %w", options.Source, err)
	}
	defer func() { _ = os.RemoveAll(include) }()
	if err := WriteHeaders(include, options.Arch); err != nil {
		return fmt.Errorf("compile %s: %w", options.Source, err)
	}
	// The object is written beside its place and moved there, so that nobody reads half of one.
	temporary := filepath.Join(include, "out.o")

	directory := filepath.Dir(source)
	arguments := []string{
		"-target", "bpfel", "-mcpu=" + options.CPU, "-O2", "-g", "-Wall",
		"-D__TARGET_ARCH_" + map[string]string{"amd64": "x86", "arm64": "arm64"}[options.Arch],
		"-I", include,
		// BTF has file names (for verifier logs): make them the same wherever this runs.
		"-fdebug-compilation-dir=.", "-ffile-prefix-map=" + include + "=kaon", "-ffile-prefix-map=" + directory + "=.",
	}
	arguments = append(arguments, options.Flags...)
	arguments = append(arguments, "-c", filepath.Base(source), "-o", temporary)
	command := exec.CommandContext(ctx, clang, arguments...)
	command.Dir = directory
	var messages bytes.Buffer
	command.Stdout, command.Stderr = &messages, &messages
	err = command.Run()
	// A header's path in a message is of no use once the directory is gone.
	text := strings.ReplaceAll(messages.String(), include+string(filepath.Separator), "")
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("compile %s: %w", options.Source, ctx.Err())
	case err != nil && (strings.Contains(text, "No available targets are compatible") || strings.Contains(text, "unknown target triple")):
		return fmt.Errorf("compile %s with %s: %w", options.Source, clang, ErrNoBPF)
	case err != nil && messages.Len() == 0:
		return fmt.Errorf("run %s: %w", clang, err)
	case err != nil:
		return fmt.Errorf("%s %w:\n%s", options.Source, ErrCompile, strings.TrimRight(text, "\n"))
	}
	if options.Warnings != nil {
		if _, err := io.WriteString(options.Warnings, text); err != nil {
			return fmt.Errorf("show the compiler's warnings: %w", err)
		}
	}
	if strip := findStrip(clang); strip != "" {
		if out, err := exec.CommandContext(ctx, strip, "-g", temporary).CombinedOutput(); err != nil {
			return fmt.Errorf("strip %s: %w: %s", options.Output, err, out)
		}
	}
	data, err := os.ReadFile(temporary)
	if err != nil {
		return fmt.Errorf("compile %s: %w", options.Source, err)
	}
	return replaceFile(options.Output, data)
}

func replaceFile(path string, data []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), ".kaon-*.o")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // gone already if all went well
	_, err = file.Write(data)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// findClang returns the compiler's path. The version that builds what is
// committed comes first, then the distribution's default.
func findClang(wanted string) (string, error) {
	if wanted == "" {
		wanted = os.Getenv("KAON_CLANG")
	}
	if wanted != "" {
		path, err := exec.LookPath(wanted)
		if err != nil {
			return "", fmt.Errorf("clang %q: %w", wanted, err)
		}
		return path, nil
	}
	for _, name := range []string{"clang-19", "clang", "clang-22", "clang-21", "clang-20", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoClang
}

// findStrip returns the path of the llvm-strip that belongs to clang, of any
// other, or "".
func findStrip(clang string) string {
	_, suffix, _ := strings.Cut(filepath.Base(clang), "clang")
	resolved, err := filepath.EvalSymlinks(clang)
	if err != nil {
		resolved = clang
	}
	for _, name := range []string{
		filepath.Join(filepath.Dir(clang), "llvm-strip"+suffix),
		filepath.Join(filepath.Dir(resolved), "llvm-strip"),
		"llvm-strip" + suffix, "llvm-strip", "llvm-strip-19", "llvm-strip-14",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}
