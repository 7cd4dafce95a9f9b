package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pprof "github.com/google/pprof/profile"
)

// samplesOf adds up the samples of a profile; all must be of that cgroup.
func samplesOf(t *testing.T, path, cgroup string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := pprof.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, s := range p.Sample {
		n += s.Value[0]
		if got := s.Label["cgroup"]; len(got) != 1 || got[0] != "/"+cgroup {
			t.Errorf("a sample of %v", s.Label)
		}
	}
	return n
}

func TestRunProfile(t *testing.T) {
	cgroup := needCgroup(t)
	name := filepath.Base(cgroup.Path)
	file := filepath.Join(t.TempDir(), "cpu.pb.gz")
	t.Run("pprof", func(t *testing.T) {
		out := runWhile(t, cgroup, "profile", "--set", "frequency=4999", "--for", "1s", "-o", "pprof", "--output-file", file)
		if out != "" {
			t.Errorf("it writes %q to standard output", out)
		}
		if n := samplesOf(t, file, name); n == 0 {
			t.Error("no samples")
		}
	})
	t.Run("folded", func(t *testing.T) {
		out := runWhile(t, cgroup, "profile", "--set", "frequency=4999", "--for", "1s", "-o", "folded", "--by-workload")
		if out == "" {
			t.Error("no stacks")
		}
		for line := range strings.Lines(out) {
			if !strings.HasPrefix(line, "/"+name+";") {
				t.Errorf("%q", line)
			}
		}
	})
	t.Run("filter", func(t *testing.T) {
		out := runWhile(t, cgroup, "profile", "--set", "frequency=4999", "--for", "500ms", "-o", "folded", "--filter", "comm=no such")
		if out != "" {
			t.Errorf("%q", out)
		}
	})
	t.Run("interrupt", func(t *testing.T) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		command := kaon("run", "profile", "--cgroup-root", cgroup.Path, "--set", "frequency=4999", "-o", "pprof", "--output-file", file)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- command.Wait() }()
		// Until it samples nobody can tell from outside; so interrupt it when it certainly does.
		for begun := time.Now(); time.Since(begun) < 1500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
			runs(t, cgroup, 1)
		}
		if err := command.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		samplesOf(t, file, name)
	})
	t.Run("refused", func(t *testing.T) {
		f := func(want string, arguments ...string) {
			t.Helper()
			_, messages := output(t, 1, append([]string{"run"}, arguments...)...)
			has(t, messages, want)
		}
		f("exec: the program collects no stacks: run profile", "exec", "-o", "folded")
		f("takes one program", "profile", "exec", "-o", "pprof")
		f("--by-workload is for -o folded", "profile", "--by-workload")
		f("want text, json, openmetrics, folded or pprof", "profile", "-o", "svg")
		f("--output-file: open /no/such/file", "profile", "-o", "pprof", "--output-file", "/no/such/file")
		f("perf_event_max_sample_rate", "profile", "--set", "frequency=1000000000", "--for", "1s")
	})
	t.Run("terminal", func(t *testing.T) {
		_, theirs := openTerminal(t)
		command := kaon("run", "profile", "-o", "pprof")
		var messages strings.Builder
		command.Stdout, command.Stderr = theirs, &messages
		if err := command.Run(); err == nil {
			t.Error("it writes pprof's format to a terminal")
		}
		has(t, messages.String(), "--output-file")
	})
}
