// Package e2e tests the real binary from end to end: in a network namespace of its own, on cgroups of its own.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/test/sandbox"
)

// binary is the path of kaon; unusable says why there is none.
var binary string

var unusable error

// veth tells why there is no interface to attach to.
var veth error

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		unusable = sandbox.ErrNoRoot
		os.Exit(m.Run())
	}
	if !sandbox.Inside() {
		code, err := sandbox.Reenter()
		if err == nil {
			os.Exit(code)
		}
		unusable = err
		os.Exit(m.Run())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	directory, err := os.MkdirTemp("", "kaon-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(directory)
	// Others must be able to run it, too.
	if err := os.Chmod(directory, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	veth = sandbox.Network()
	if binary = os.Getenv("KAON_BINARY"); binary == "" {
		if _, err := exec.LookPath("go"); err != nil {
			unusable = errors.New("needs the Go toolchain, or KAON_BINARY")
		} else if binary, err = sandbox.Build(context.Background(), directory); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// need skips tests where the sandbox can't be made.
func need(t *testing.T) {
	t.Helper()
	if unusable != nil {
		if strings.HasPrefix(unusable.Error(), "needs ") {
			t.Skip(unusable)
		}
		t.Fatal(unusable)
	}
}

// needCgroup returns a cgroup of the test's own.
func needCgroup(t *testing.T) *sandbox.Cgroup {
	t.Helper()
	need(t)
	c, err := sandbox.NewCgroup("e2e-" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-")))
	if errors.Is(err, sandbox.ErrNoCgroup) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// kaon returns a command.
func kaon(arguments ...string) *exec.Cmd { return exec.Command(binary, arguments...) }

// output runs a command to its end; the exit code must be as wanted.
func output(t *testing.T, want int, arguments ...string) (stdout, stderr string) {
	t.Helper()
	need(t)
	command := kaon(arguments...)
	var out, messages bytes.Buffer
	command.Stdout, command.Stderr = &out, &messages
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if code := command.ProcessState.ExitCode(); code != want {
		t.Fatalf("kaon %s: exit code %d, want %d\n%s%s", strings.Join(arguments, " "), code, want, out.String(), messages.String())
	}
	return out.String(), messages.String()
}

// up starts an agent that observes a cgroup, and waits until it serves.
func up(t *testing.T, cgroup *sandbox.Cgroup, arguments ...string) *sandbox.Agent {
	t.Helper()
	return upCommand(t, cgroup, kaon(), arguments...)
}

// upCommand completes the command, which may have attributes, and starts it.
func upCommand(t *testing.T, cgroup *sandbox.Cgroup, command *exec.Cmd, arguments ...string) *sandbox.Agent {
	t.Helper()
	a := startAgent(t, cgroup, command, arguments...)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := a.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

func startAgent(t *testing.T, cgroup *sandbox.Cgroup, command *exec.Cmd, arguments ...string) *sandbox.Agent {
	t.Helper()
	address, err := sandbox.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	command.Args = append(command.Args, append([]string{"up", "--listen", address, "--cgroup-root", cgroup.Path}, arguments...)...)
	a, err := sandbox.Start(command, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(syscall.SIGTERM, 10*time.Second); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(a.Log())
		}
	})
	return a
}

// stop ends an agent and demands that it does so in good order.
func stop(t *testing.T, a *sandbox.Agent) {
	t.Helper()
	if err := a.Stop(syscall.SIGTERM, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	if code := a.ExitCode(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, a.Log())
	}
}

func get(t *testing.T, a *sandbox.Agent, path string, header ...string) (int, string) {
	t.Helper()
	code, body, _, err := a.Get(path, header...)
	if err != nil {
		t.Fatal(err)
	}
	return code, body
}

// scrape returns /metrics as text.
func scrape(t *testing.T, a *sandbox.Agent) string {
	t.Helper()
	code, body := get(t, a, "/metrics")
	if code != 200 {
		t.Fatalf("/metrics: %d %s", code, body)
	}
	return body
}

// sample is one line of an exposition.
type sample struct {
	labels labels.Labels
	value  float64
	// start is the start timestamp in Unix milliseconds, 0 if there is none.
	start int64
}

// parse returns the samples of an exposition by name, as Prometheus reads it.
func parse(t *testing.T, body, contentType string) map[string][]sample {
	t.Helper()
	parser, err := textparse.New([]byte(body), contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]sample{}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%v:\n%s", err, body)
		}
		if entry != textparse.EntrySeries {
			continue
		}
		_, _, value := parser.Series()
		var l labels.Labels
		parser.Labels(&l)
		all[l.Get("__name__")] = append(all[l.Get("__name__")], sample{l.Copy(), value, parser.StartTimestamp()})
	}
}

const textType = "text/plain; version=0.0.4"

// sum adds up the samples of a name whose labels are as given, in name, value pairs.
func sum(samples map[string][]sample, name string, match ...string) float64 {
	total := 0.0
next:
	for _, s := range samples[name] {
		for i := 0; i+1 < len(match); i += 2 {
			if s.labels.Get(match[i]) != match[i+1] {
				continue next
			}
		}
		total += s.value
	}
	return total
}

// status returns what the agent says of one program.
func status(t *testing.T, a *sandbox.Agent, name string) agent.Status {
	t.Helper()
	all, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no program %s: %+v", name, all)
	return agent.Status{}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	const patience = time.Minute
	for end := time.Now().Add(patience); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// write puts a file in place in one step, as editors do.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(content), 0o644), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// runs makes n processes run in a cgroup, each of which executes once and exits with 0.
func runs(t *testing.T, cgroup *sandbox.Cgroup, n int) {
	t.Helper()
	for range n {
		if err := cgroup.Run("true"); err != nil {
			t.Fatal(err)
		}
	}
}

// object returns the path of a test object of another package.
func object(t *testing.T, path string) string {
	t.Helper()
	root, err := sandbox.Root()
	if err != nil {
		t.Skip(err)
	}
	return filepath.Join(root, path)
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}

func listening(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}
