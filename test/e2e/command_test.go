package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestList(t *testing.T) {
	out, _ := output(t, 0, "list")
	has(t, out, "* exec", "kaon describe")
	var entries []struct {
		Name, Help, Cost string
		Default          bool
	}
	out, _ = output(t, 0, "list", "-o", "json")
	decode(t, out, &entries)
	if len(entries) < 5 || entries[0].Name == "" || entries[0].Help == "" {
		t.Errorf("%+v", entries)
	}
	for _, e := range entries {
		out, _ := output(t, 0, "describe", e.Name)
		has(t, out, e.Help, "METRICS", "HOOKS", "labels: ")
		hooks := !strings.Contains(out, "none: its metrics are read from files")
		if hooks {
			has(t, out, "needs Linux")
		}
		var description struct {
			Metrics []struct{ Name, Type, Help string }
			Hooks   []struct {
				Kind, Since  string
				Capabilities []string
			}
		}
		out, _ = output(t, 0, "describe", e.Name, "-o", "json")
		decode(t, out, &description)
		if len(description.Metrics) == 0 || hooks != (len(description.Hooks) > 0) || hooks && len(description.Hooks[0].Capabilities) == 0 {
			t.Errorf("%s: %+v", e.Name, description)
		}
	}
	_, messages := output(t, 1, "describe", "exex")
	has(t, messages, "did you mean exec?")
}

func TestCheck(t *testing.T) {
	out, _ := output(t, 0, "check", object(t, calls), "exec")
	has(t, out, "test_calls_total", "process_starts_total", "ok")
	garbage := filepath.Join(t.TempDir(), "garbage.bpf.o")
	if err := os.WriteFile(garbage, []byte("\x7fELF and so on"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Every problem is told, and what is good all the same.
	out, messages := output(t, 1, "check", garbage, "no-such-program", "exec")
	has(t, out+messages, "garbage.bpf.o", "no such built-in program", "process_starts_total")
	var result map[string]any
	out, _ = output(t, 0, "check", "exec", "-o", "json")
	decode(t, out, &result)
	if len(result) == 0 {
		t.Error(out)
	}
}

func TestDoctor(t *testing.T) {
	out, _ := output(t, 0, "doctor")
	has(t, out, "programs", "exec", "works")
	var report map[string]any
	out, _ = output(t, 0, "doctor", "-o", "json")
	decode(t, out, &report)
	if len(report) == 0 {
		t.Error(out)
	}
}

func TestTop(t *testing.T) {
	cgroup := needCgroup(t)
	a := up(t, cgroup, "exec")
	stopped := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stopped:
				return
			case <-time.After(10 * time.Millisecond):
				_ = cgroup.Run("true")
			}
		}
	}()
	defer func() { close(stopped); <-done }()
	out, _ := output(t, 0, "top", "--once", "--url", a.URL)
	has(t, out, "process_exec", "process_starts_total", "RUNS/S", "NS/RUN", "FILL %")
	out, _ = output(t, 0, "top", "--once", "--url", a.URL, "-o", "json")
	for line := range strings.Lines(out) {
		var cost map[string]any
		decode(t, line, &cost)
	}
	if !strings.Contains(out, `"nanosecondsPerRun"`) || !strings.Contains(out, `"process_exec"`) {
		t.Error(out)
	}
	_, messages := output(t, 1, "top", "--once", "--url", "http://127.0.0.1:1")
	has(t, messages, "connection refused", "kaon up")
	out, _ = output(t, 0, "top", "--once", "--all", "--url", "http://127.0.0.1:1")
	has(t, out, "(other)")
}

func TestHelp(t *testing.T) {
	out, _ := output(t, 0, "--help")
	for _, command := range []string{"up", "run", "list", "describe", "check", "doctor", "top", "new", "build"} {
		has(t, out, "\n  "+command+" ")
		text, _ := output(t, 0, command, "--help")
		has(t, text, "Usage:", "kaon "+command)
		if n := strings.Count(out, "\n  "+command+" "); n > 2 { // the list of commands, and perhaps an example
			t.Errorf("%s is listed %d times", command, n)
		}
	}
	out, _ = output(t, 0, "--version")
	has(t, out, "test")
	_, messages := output(t, 1, "urn")
	has(t, messages, "unknown command", "run")
}
