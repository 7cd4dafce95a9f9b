package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/test/sandbox"
)

// runWhile runs `kaon run` on a cgroup in which processes run meanwhile.
func runWhile(t *testing.T, cgroup *sandbox.Cgroup, arguments ...string) string {
	t.Helper()
	command := kaon(append([]string{"run", "--cgroup-root", cgroup.Path}, arguments...)...)
	var out, messages bytes.Buffer
	command.Stdout, command.Stderr = &out, &messages
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	for {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("%s: %v: %s", command, err, messages.String())
			}
			return out.String()
		case <-time.After(50 * time.Millisecond):
			runs(t, cgroup, 1)
		}
	}
}

func TestRun(t *testing.T) {
	cgroup := needCgroup(t)
	t.Run("openmetrics", func(t *testing.T) {
		out := runWhile(t, cgroup, "exec", "--for", "1s", "-o", "openmetrics")
		if !strings.HasSuffix(out, "# EOF\n") || sum(parse(t, out, openMetricsType), "process_starts_total") < 3 {
			t.Error(out)
		}
	})
	t.Run("json", func(t *testing.T) {
		out := runWhile(t, cgroup, "exec", "exit", "--for", "1s", "-o", "json")
		lines := strings.Split(strings.TrimSpace(out), "\n")
		seen := map[string]bool{}
		for _, line := range lines {
			var s struct {
				Metric string            `json:"metric"`
				Labels map[string]string `json:"labels"`
				Value  json.Number       `json:"value"`
			}
			decode(t, line, &s)
			seen[s.Metric] = true
			if n, err := s.Value.Int64(); err != nil || n < 1 || s.Labels["cgroup"] == "" {
				t.Errorf("%s", line)
			}
		}
		if !seen["process_starts_total"] || !seen["process_exits_total"] {
			t.Error(out)
		}
	})
	t.Run("text", func(t *testing.T) {
		out := runWhile(t, cgroup, "exec", "--for", "1s")
		has(t, out, "process_starts_total", "total", "cgroup=/"+filepath.Base(cgroup.Path))
		if strings.Contains(out, "\x1b") {
			t.Errorf("control sequences in a pipe: %q", out)
		}
	})
	t.Run("once", func(t *testing.T) {
		begun := time.Now()
		has(t, runWhile(t, cgroup, "exec", "--once", "--interval", "300ms"), "process_starts_total")
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("filter", func(t *testing.T) {
		out := runWhile(t, cgroup, "exec", "exit", "--for", "1s", "-o", "openmetrics", "--filter", "code=0")
		got := parse(t, out, openMetricsType)
		if len(got["process_starts_total"]) != 0 || sum(got, "process_exits_total") == 0 {
			t.Error(out)
		}
		out = runWhile(t, cgroup, "exec", "--for", "1s", "-o", "openmetrics", "--filter", "cgroup!~.*")
		if out != "# EOF\n" {
			t.Error(out)
		}
	})
	t.Run("pipe", func(t *testing.T) {
		command := kaon("run", "exec", "--cgroup-root", cgroup.Path, "--interval", "100ms")
		var messages bytes.Buffer
		command.Stderr = &messages
		pipe, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		lines := make(chan string, 1)
		go func() {
			b := make([]byte, 4096)
			n, _ := pipe.Read(b)
			lines <- string(b[:n])
			pipe.Close() // as head does
		}()
		var got string
		for got == "" {
			select {
			case got = <-lines:
			case <-time.After(20 * time.Millisecond):
				runs(t, cgroup, 1)
			}
		}
		has(t, got, "process_starts_total{")
		ended := make(chan error, 1)
		go func() { ended <- command.Wait() }()
		for end := time.After(10 * time.Second); ; {
			select {
			case <-ended:
				if text := messages.String(); strings.Contains(text, "panic") {
					t.Error(text)
				}
				return
			case <-time.After(20 * time.Millisecond):
				runs(t, cgroup, 1)
			case <-end:
				_ = command.Process.Kill()
				t.Fatal("it goes on although nobody reads")
			}
		}
	})
}

func TestRunMistakes(t *testing.T) {
	cgroup := needCgroup(t)
	garbage := filepath.Join(t.TempDir(), "garbage.bpf.o")
	if err := os.WriteFile(garbage, []byte("\x7fELF and so on"), 0o644); err != nil {
		t.Fatal(err)
	}
	for want, arguments := range map[string][]string{
		"did you mean exec?":            {"exex"},
		"no such param":                 {"exec", "--set", "colour=red"},
		"none of the programs has this": {"exec", "tasks", "--set", "colour=red"},
		"want NAME=VALUE":               {"exec", "--set", "colour"},
		"want LABEL=VALUE":              {"exec", "--filter", "colour"},
		"missing closing )":             {"exec", "--filter", "a=~("},
		"want text, json":               {"exec", "-o", "xml"},
		"not a usable eBPF object":      {garbage},
		"no file matches":               {"/nowhere/*.o"},
		"nowhere.bpf.o":                 {"/nowhere.bpf.o"},
		"name a program, as in":         nil,
		"unknown flag: --colour":        {"exec", "--colour"},
	} {
		_, messages := output(t, 1, append([]string{"run", "--cgroup-root", cgroup.Path, "--once"}, arguments...)...)
		has(t, messages, want)
		if strings.Contains(messages, "goroutine") {
			t.Errorf("a panic: %s", messages)
		}
	}
	_, messages := output(t, 1, "run", "exec", "--once", "--cgroup-root", "/nowhere")
	has(t, messages, "unusable cgroup root: ", "/nowhere")
}

// kaon's own new program, from nothing to numbers.
func TestNewBuildRun(t *testing.T) {
	cgroup := needCgroup(t)
	directory := t.TempDir()
	out, _ := output(t, 0, "new", "hello", "-C", directory)
	has(t, out, "kaon build", "kaon run")
	_, messages := output(t, 1, "new", "hello", "-C", directory)
	has(t, messages, "exists already")
	_, messages = output(t, 1, "new", "../Hello", "-C", directory)
	has(t, messages, "lower-case")

	source := filepath.Join(directory, "hello.bpf.c")
	command := kaon("build", source)
	if built, err := command.CombinedOutput(); err != nil {
		if strings.Contains(string(built), "no clang") {
			t.Skip("needs clang")
		}
		t.Fatalf("%v: %s", err, built)
	}
	object := filepath.Join(directory, "hello.bpf.o")
	output(t, 0, "check", object)
	got := parse(t, runWhile(t, cgroup, object, "--for", "1s", "-o", "openmetrics"), openMetricsType)
	if sum(got, "hello_opens_total") == 0 {
		t.Errorf("no file was opened: %v", got)
	}
	// A mistake in C comes with the compiler's words.
	write(t, source, "#include \"kaon.h\"\nint x = y;\n")
	_, messages = output(t, 1, "build", source)
	has(t, messages, "hello.bpf.c", "undeclared")
}
