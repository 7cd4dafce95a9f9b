package bpf

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// compilers lists those that are here, of the ones that are supported.
func compilers(t *testing.T) []string {
	var found []string
	for _, name := range []string{"clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19", "clang-20", "clang-21", "clang-22"} {
		if _, err := exec.LookPath(name); err == nil {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		t.Skip("needs clang")
	}
	return found
}

// check has the newest compiler read a source, without making an object: that is where types and
// static assertions are checked. The error has its messages.
func check(t *testing.T, include, source string) error {
	t.Helper()
	clang, err := findClang("")
	if err != nil {
		t.Skip("needs clang: ", err)
	}
	command := exec.Command(clang, "-target", "bpfel", "-fsyntax-only", "-Wall", "-Werror", "-D__TARGET_ARCH_x86", "-I", include, "-x", "c", "-")
	command.Stdin = strings.NewReader(source)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func headersDirectory(t *testing.T) string {
	t.Helper()
	directory := t.TempDir()
	if err := WriteHeaders(directory, "amd64"); err != nil {
		t.Fatal(err)
	}
	return directory
}

// TestEveryCompiler compiles the test programs with every compiler and instruction set there is; the
// verifier and the reference of slots judge.
func TestEveryCompiler(t *testing.T) {
	if testing.Short() {
		t.Skip("needs half a minute: not with -short")
	}
	for _, clang := range compilers(t) {
		for _, cpu := range []string{"v2", "v3"} {
			t.Run(clang+" "+cpu, func(t *testing.T) {
				directory := t.TempDir()
				for _, name := range []string{"slots", "metrics", "full", "workload"} {
					output := filepath.Join(directory, name+".o")
					var warnings bytes.Buffer
					err := Compile(context.Background(), CompileOptions{Source: "testdata/" + name + ".bpf.c", Output: output,
						Arch: "amd64", Clang: clang, CPU: cpu, Warnings: &warnings})
					if err != nil {
						t.Fatal(err)
					}
					if warnings.Len() > 0 {
						t.Errorf("%s: warnings:\n%s", name, &warnings)
					}
					relative, err := filepath.Rel("testdata", output)
					if filepath.IsAbs(output) {
						working, _ := os.Getwd()
						relative, err = filepath.Rel(filepath.Join(working, "testdata"), output)
					}
					if err != nil {
						t.Fatal(err)
					}
					if name == "slots" {
						testSlots(t, relative)
						continue
					}
					load(t, relative, nil)
				}
			})
		}
	}
}

// TestObjectsAreCurrent compiles again what is committed: same bytes, wherever that is done.
func TestObjectsAreCurrent(t *testing.T) {
	if version, err := exec.Command("clang-19", "--version").Output(); err != nil || !bytes.Contains(version, []byte("19.1.7")) {
		t.Skip("needs clang 19.1.7, which builds what is committed")
	}
	sources, err := filepath.Glob("testdata/*.bpf.c")
	if err != nil || len(sources) == 0 {
		t.Fatal("no sources")
	}
	for _, source := range sources {
		want, err := os.ReadFile(strings.TrimSuffix(source, ".c") + ".o")
		if err != nil {
			t.Fatal(err)
		}
		// A copy elsewhere: paths must not matter.
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		elsewhere := filepath.Join(t.TempDir(), filepath.Base(source))
		if err := os.WriteFile(elsewhere, text, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Compile(context.Background(), CompileOptions{Source: elsewhere, Arch: "amd64", Clang: "clang-19"}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(strings.TrimSuffix(elsewhere, ".c") + ".o")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its source compiles to: run go generate ./bpf", source)
		}
		if bytes.Contains(got, []byte(filepath.Dir(elsewhere))) || bytes.Contains(got, []byte("kaon-headers-")) {
			t.Errorf("%s holds a path of the machine that built it", source)
		}
	}
}

func TestCompileForBothArchitectures(t *testing.T) {
	compilers(t)
	for _, arch := range []string{"amd64", "arm64"} {
		output := filepath.Join(t.TempDir(), arch+".o")
		for _, source := range []string{"testdata/metrics.bpf.c", "testdata/workload.bpf.c"} {
			if err := Compile(context.Background(), CompileOptions{Source: source, Output: output, Arch: arch}); err != nil {
				t.Fatal(err)
			}
			if _, err := ebpf.LoadCollectionSpec(output); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestWriteHeaders(t *testing.T) {
	for _, arch := range architectures {
		directory := t.TempDir()
		if err := WriteHeaders(directory, arch); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"kaon.h", "kaon_workload.h", "kaon_socket.h", "kaon_tables.h", "vmlinux.h", "bpf/bpf_helpers.h", "bpf/usdt.bpf.h"} {
			if info, err := os.Stat(filepath.Join(directory, name)); err != nil || info.Size() == 0 {
				t.Errorf("%s: %s: %v", arch, name, err)
			}
		}
		types, err := os.ReadFile(filepath.Join(directory, "vmlinux.h"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"struct task_struct {", "struct cgroup {", "preserve_access_index", "struct sk_buff {", "struct request {"} {
			if !bytes.Contains(types, []byte(want)) {
				t.Errorf("%s: vmlinux.h does not hold %q", arch, want)
			}
		}
	}
	if err := WriteHeaders(t.TempDir(), "vax"); !errors.Is(err, ErrArch) {
		t.Errorf("an unknown architecture: %v", err)
	}
}

func TestCompileErrors(t *testing.T) {
	ctx := context.Background()
	if err := Compile(ctx, CompileOptions{Source: "testdata/metrics.bpf.c", Clang: "no-such-clang"}); err == nil {
		t.Error("a compiler that does not exist compiled")
	}
	t.Run("no clang", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		t.Setenv("KAON_CLANG", "")
		err := Compile(ctx, CompileOptions{Source: "testdata/metrics.bpf.c"})
		if !errors.Is(err, ErrNoClang) || !strings.Contains(err.Error(), "apt install") {
			t.Errorf("%v", err)
		}
	})
	compilers(t)
	if err := Compile(ctx, CompileOptions{Source: "testdata/nothing.bpf.c"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a source that does not exist: %v", err)
	}
	if err := Compile(ctx, CompileOptions{Source: "testdata/metrics.bpf.c", Output: "/dev/null/x", Arch: "vax"}); !errors.Is(err, ErrArch) {
		t.Errorf("an unknown architecture: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := Compile(cancelled, CompileOptions{Source: "testdata/metrics.bpf.c", Output: filepath.Join(t.TempDir(), "x.o")}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// Nothing is left of a failed attempt, and the message leads to the line.
	source := filepath.Join(t.TempDir(), "broken.bpf.c")
	if err := os.WriteFile(source, []byte("#include \"kaon.h\"\nint x = nonsense;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := Compile(ctx, CompileOptions{Source: source})
	if !errors.Is(err, ErrCompile) || !strings.Contains(err.Error(), "broken.bpf.c:2:9") {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(strings.TrimSuffix(source, ".c") + ".o"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an object was left: %v", err)
	}
}

// TestMistakesAreRefused: what the macros promise to find when a Program is compiled.
func TestMistakesAreRefused(t *testing.T) {
	const prelude = `#include "kaon.h"
KAON_PROGRAM("A mistake.");
struct small { kaon_uid_t uid; };
struct wide { kaon_uid_t uid; KAON_WIDE; };
struct pair { __u64 a, b; };
enum answer { ANSWER_NO, ANSWER_YES };
`
	const maps = `KAON_COUNTER(count_total, struct wide, "A counter.");
KAON_HISTOGRAM(time_seconds, struct wide, "A histogram.");
KAON_HISTOGRAM_OF(sizes, struct wide, one, 2, 0, 20, "A histogram.");
KAON_SUMMARY(sum, struct wide, "A summary.");
KAON_STREAM(events, struct pair, 4096, "Events.");
KAON_ITERATOR_GAUGE(things, struct wide, walk, "Things.");
SEC("iter/task") int walk(struct bpf_iter__task *ctx) { return 0; }
SEC("raw_tp/sys_enter") int f(void *ctx) {
	struct wide wide = {}; struct pair pair = {}; __u64 n = 1; __s64 s = 1;
	(void)wide, (void)pair, (void)n, (void)s;
`
	include := headersDirectory(t)
	f := func(name, source, want string) {
		t.Run(name, func(t *testing.T) {
			err := check(t, include, prelude+source)
			switch {
			case want == "" && err != nil:
				t.Errorf("was refused: %v", err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("want an error with %q, got: %v", want, err)
			}
		})
	}
	in := func(name, body, want string) { f(name, maps+body+"\nreturn 0; }\n", want) }
	in("nothing wrong", "kaon_increment(&count_total, &wide); kaon_observe_ns(&time_seconds, &wide, n); kaon_emit((struct seq_file *)0, &things, &wide, &s);", "")
	in("key of another type", "kaon_increment(&count_total, &pair);", "the key does not have the type of the map's keys")
	in("key of another type, histogram", "kaon_observe_ns(&time_seconds, &n, 1);", "the key does not have the type of the map's keys")
	in("nanoseconds in a histogram of numbers", "kaon_observe_ns(&sizes, &wide, 1);", "kaon_observe_ns is for histograms in ns")
	in("numbers in a histogram of nanoseconds", "kaon_observe(&time_seconds, &wide, 1);", "kaon_observe for those in one")
	in("adding to a summary", "kaon_add(&sum, &wide, 1);", "the value is not a number of 64 bits")
	in("emitting another key", "kaon_emit((struct seq_file *)0, &things, &pair, &s);", "the key does not have the type of the map's keys")
	in("emitting another value", "kaon_emit((struct seq_file *)0, &things, &wide, &pair);", "the value does not have the type of the map's values")
	in("forgetting another key", "kaon_forget(&count_total, &pair);", "the key does not have the type of the map's keys")
	f("short key", `KAON_COUNTER(c, struct small, "");`, "add the member KAON_WIDE to its struct")
	f("short scalar key", `KAON_COUNTER(c, kaon_uid_t, "");`, "add the member KAON_WIDE to its struct")
	f("short key of a gauge", `KAON_GAUGE(c, kaon_uid_t, "");`, "")
	f("plain hash with a short key", `KAON_COUNTER_MAP(c, PLAIN_HASH, kaon_uid_t, 10, "");`, "")
	f("short key in an LRU", `KAON_GAUGE_MAP(c, LRU_HASH, struct small, 10, "");`, "")
	f("array with a wide key", `KAON_COUNTER_MAP(c, ARRAY, struct wide, 10, "");`, "the key of an array must have 4 bytes")
	f("schema 6", `KAON_HISTOGRAM_OF(h, struct wide, ns, 6, -20, 6, "");`, "the schema must be 0 to 5")
	f("low above high", `KAON_HISTOGRAM_OF(h, struct wide, ns, 2, 6, -20, "");`, "low and high must be")
	f("unknown unit", `KAON_HISTOGRAM_OF(h, struct wide, hours, 2, 0, 6, "");`, "KAON_UNIT_hours")
	f("ring of 5000 bytes", `KAON_STREAM(e, struct pair, 5000, "");`, "must be a power of two")
}

// TestReferenceExamples compiles the examples of the reference page.
func TestReferenceExamples(t *testing.T) {
	page, err := os.ReadFile("../docs/reference/kaon.h.md")
	if err != nil {
		t.Skip("needs the documentation: ", err)
	}
	examples := regexp.MustCompile("(?s)```c\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(examples) < 10 {
		t.Fatalf("only %d examples found", len(examples))
	}
	compilers(t)
	for _, example := range examples {
		source := example[1]
		name, _, _ := strings.Cut(strings.TrimSpace(source), "\n")
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(source, `#include "kaon.h"`) {
				source = "#include \"kaon.h\"\nKAON_PROGRAM(\"An example.\");\n" + source
			}
			path := filepath.Join(t.TempDir(), "example.bpf.c")
			if err := os.WriteFile(path, []byte(source), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := Compile(context.Background(), CompileOptions{Source: path, Flags: []string{"-Werror"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := ebpf.LoadCollectionSpec(strings.TrimSuffix(path, ".c") + ".o"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestReferenceIsComplete: every macro that authors may use is on the reference page.
func TestReferenceIsComplete(t *testing.T) {
	page, err := os.ReadFile("../docs/reference/kaon.h.md")
	if err != nil {
		t.Skip("needs the documentation: ", err)
	}
	internal := regexp.MustCompile(`_$|^KAON_(H|STR|TAG|PASTE|EEXIST|TABLES_H|WORKLOAD_H|SOCKET_H|SYSCALL_H|USER32_CS|PSR_MODE32_BIT|CORE|DEBRUIJN|KIND_.*|NONE_.*|SECOND|ASSERT_.*|PLAIN.*|IS_ARRAY|HAS_OVERFLOW|CHECK_.*|TYPE_OF|SHAPE|SHAPE_OF|UNIT_.*|SCHEMA_OF|LOW_OF|HIGH_OF|SLOTS|BOUNDS|MAX_.*|BISECT|P_.*|EXEMPLAR_NS|ENTRIES|SELECTED)$|^kaon_(has_task_btf|state_is_full|sk_cgroup_of|sk_v2_.*|sk_is_ipv4|slot_of|socket_of|v1_.*|v2_.*|cgroup_in_scope|.*below_scope|log2|slot|bounds_slot|bisect|opaque|sock_create|ip_of)$`)
	defined := regexp.MustCompile(`(?m)^#define ((?:KAON|kaon)_\w+)|^static __always_inline .*?(kaon_\w+)\(|^typedef .*?(kaon_\w+_t)\b[^;]*;`)
	for _, file := range []string{"kaon.h", "kaon_workload.h", "kaon_socket.h", "kaon_syscall.h"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Skip("needs the header: ", err)
		}
		for _, match := range defined.FindAllStringSubmatch(string(text), -1) {
			name := match[1] + match[2] + match[3]
			if internal.MatchString(name) {
				continue
			}
			if !regexp.MustCompile(`\b` + name + `\b`).Match(page) {
				t.Errorf("%s of %s is not on the reference page", name, file)
			}
		}
	}
}
