package author

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/bpf"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

func TestNew(t *testing.T) {
	directory := t.TempDir()
	var out bytes.Buffer
	if err := New(&out, directory, "hello_2"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(directory, "hello_2.bpf.c")
	for _, want := range []string{"kaon build " + path, "kaon run " + filepath.Join(directory, "hello_2.bpf.o")} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %q", want, out.String())
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "NAME") || !strings.Contains(string(text), "hello_2_opens_total") {
		t.Errorf("the name is not in place:\n%s", text)
	}
	if err := New(&out, directory, "hello_2"); !errors.Is(err, ErrExists) {
		t.Errorf("the second time: %v, want ErrExists", err)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, text) {
		t.Errorf("the file was changed: %v", err)
	}
	for _, name := range []string{"", "Hello", "2hello", "../hello", "hel-lo", "hello.bpf.c", strings.Repeat("a", 50)} {
		if err := New(&out, directory, name); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
	if err := New(&out, filepath.Join(directory, "nowhere"), "hello"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// build compiles, or skips where there is no compiler.
func build(t *testing.T, sources []string, output string) error {
	t.Helper()
	var out bytes.Buffer
	err := Build(context.Background(), &out, sources, "", "", output)
	if errors.Is(err, bpf.ErrNoClang) || errors.Is(err, bpf.ErrNoBPF) {
		t.Skip("needs clang")
	}
	return err
}

// What a stranger begins with is a good Program.
func TestNewProgramIsGood(t *testing.T) {
	directory := t.TempDir()
	var out bytes.Buffer
	if err := New(&out, directory, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := build(t, []string{filepath.Join(directory, "hello.bpf.c")}, ""); err != nil {
		t.Fatal(err)
	}
	spec, err := object.Load(filepath.Join(directory, "hello.bpf.o"))
	if err != nil {
		t.Fatal(err)
	}
	m := spec.Readers[0].Metrics[0]
	if spec.Name != "hello" || spec.Help == "" || m.Name != "hello_opens_total" || m.Type != program.Counter || len(m.Labels) != 2 {
		t.Errorf("%s: %s: %+v", spec.Name, spec.Help, m)
	}
}

func TestBuild(t *testing.T) {
	directory := t.TempDir()
	good, bad := filepath.Join(directory, "good.bpf.c"), filepath.Join(directory, "bad.bpf.c")
	for path, text := range map[string]string{good: "#include \"kaon.h\"\nKAON_PROGRAM(\"Good.\");\n", bad: "#include \"kaon.h\"\nint x = y;\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// One that is broken does not keep the others from being built.
	err := build(t, []string{bad, good}, "")
	if !errors.Is(err, bpf.ErrCompile) || !strings.Contains(err.Error(), "bad.bpf.c:2") {
		t.Errorf("got %v, want the line of the mistake", err)
	}
	if _, err := os.Stat(filepath.Join(directory, "good.bpf.o")); err != nil {
		t.Error(err)
	}
	if err := build(t, []string{good, bad}, "x.o"); err == nil || !strings.Contains(err.Error(), "one by one") {
		t.Errorf("two sources, one object: %v", err)
	}
	elsewhere := filepath.Join(directory, "else.o")
	if err := build(t, []string{good}, elsewhere); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(elsewhere); err != nil {
		t.Error(err)
	}
}

func TestBuildAll(t *testing.T) {
	directory := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(directory, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	const minimal = "#include \"kaon.h\"\nKAON_PROGRAM(\"Good.\");\n"
	write("one/one.bpf.c", minimal)
	write("two/two.bpf.c", "// kaon: one object per architecture\n"+minimal)
	write("two/testdata/three.bpf.c", minimal)
	write(".hidden/broken.bpf.c", "broken")
	write("note.c", "broken")
	var out bytes.Buffer
	if err := BuildAll(context.Background(), &out, directory, ""); errors.Is(err, bpf.ErrNoClang) || errors.Is(err, bpf.ErrNoBPF) {
		t.Skip("needs clang")
	} else if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"one/one.bpf.o", "two/two.amd64.bpf.o", "two/two.arm64.bpf.o", "two/testdata/three.bpf.o"} {
		if _, err := os.Stat(filepath.Join(directory, path)); err != nil {
			t.Error(err)
		}
	}
}

func TestInclude(t *testing.T) {
	for _, arch := range []string{"", "amd64", "arm64"} {
		directory := filepath.Join(t.TempDir(), "include")
		if err := Include(directory, arch); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"kaon.h", "vmlinux.h", "bpf/bpf_helpers.h"} {
			if _, err := os.Stat(filepath.Join(directory, name)); err != nil {
				t.Error(err)
			}
		}
	}
	if err := Include(t.TempDir(), "m68k"); err == nil {
		t.Error("there are headers for m68k")
	}
}

// What is no C is not given to the compiler.
func TestBuildNoC(t *testing.T) {
	dir := t.TempDir()
	if err := build(t, []string{dir}, ""); err == nil || !strings.Contains(err.Error(), "is not C") {
		t.Errorf("got %v", err)
	}
}
