package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/series"
)

// helper is the environment variable that makes the test binary a process that makes system calls.
const helper = "KAON_TEST_CALLS"

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(helper)); err == nil {
		for range n {
			unix.Getppid()
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// newCgroup makes a cgroup of the test's own in the v2 hierarchy.
func newCgroup(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err != nil {
			continue
		}
		dir := filepath.Join(mount, fmt.Sprintf("kaon-test-agent-%d-%s", os.Getpid(), strings.ToLower(t.Name())))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for range 50 {
				if err := os.Remove(dir); err == nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Errorf("could not remove %s", dir)
		})
		return dir
	}
	t.Skip("needs cgroup v2")
	return ""
}

// call makes a process of the given name call getppid n times in a cgroup.
func call(t *testing.T, cgroup, name string, n int) {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	// The kernel takes the name from the file's: the binary gets a link of that name.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(link)
	command.Env = []string{helper + "=" + strconv.Itoa(n)}
	command.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func newAgent(t *testing.T, cgroup string) *Agent {
	t.Helper()
	a, err := New(Options{CgroupRoot: cgroup, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSuffix(string(b), "\n"))
	return len(b), nil
}

var number = map[string]Text{"number": Text(strconv.Itoa(unix.SYS_GETPPID))}

func apply(t *testing.T, a *Agent, programs ...ProgramConfig) {
	t.Helper()
	if err := a.Apply(context.Background(), Config{Programs: programs}); err != nil {
		t.Fatal(err)
	}
}

func stateOf(a *Agent, name string) (State, string) {
	for _, s := range a.Status() {
		if s.Name == name {
			return s.State, s.Reason
		}
	}
	return "", ""
}

// values returns the values of a counter by the label comm.
func values(t *testing.T, a *Agent, metric string) map[string]uint64 {
	t.Helper()
	return valuesBy(t, a, metric, "comm")
}

// valuesBy returns the values of a counter by a label.
func valuesBy(t *testing.T, a *Agent, metric, label string) map[string]uint64 {
	t.Helper()
	snapshot := a.Gather(context.Background(), nil)
	defer snapshot.Release()
	if snapshot.Err != nil {
		t.Fatal(snapshot.Err)
	}
	got := map[string]uint64{}
	for _, f := range snapshot.Families {
		if f.Metric.Name != metric {
			continue
		}
		for i, p := range f.Points {
			series.EachLabel(p.Labels, func(name, value string) bool {
				if name == label {
					got[strings.Clone(value)] += f.Row(i)[0]
				}
				return true
			})
		}
	}
	return got
}

// copyFile puts a test object where it can be changed.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", from))
	if err != nil {
		t.Fatal(err)
	}
	temporary := to + ".new"
	if err := errors.Join(os.WriteFile(temporary, data, 0o644), os.Rename(temporary, to)); err != nil {
		t.Fatal(err)
	}
}

func TestCounts(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	apply(t, a, ProgramConfig{Source: "testdata/calls.bpf.o", Params: number})
	call(t, cgroup, "seven", 7)
	call(t, cgroup, "nine", 9)
	if got := values(t, a, "test_calls_total"); got["seven"] != 7 || got["nine"] != 9 || len(got) != 2 {
		t.Errorf("got %v", got)
	}
	if err := a.Ready(); err != nil {
		t.Error(err)
	}
}

// One Program's failure is its own.
func TestBrokenProgramLeavesOthersAlone(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	garbage := filepath.Join(t.TempDir(), "garbage.bpf.o")
	if err := os.WriteFile(garbage, []byte("\x7fELF and so on"), 0o644); err != nil {
		t.Fatal(err)
	}
	apply(t, a, ProgramConfig{Source: garbage}, ProgramConfig{Source: "testdata/broken.bpf.o"},
		ProgramConfig{Source: "no-such-builtin"}, ProgramConfig{Source: "testdata/*.nothing"},
		ProgramConfig{Source: "testdata/calls.bpf.o", Params: map[string]Text{"nubmer": "1"}},
		ProgramConfig{Source: "testdata/calls2.bpf.o", Params: number})
	call(t, cgroup, "one", 1)
	if got := values(t, a, "test_calls_total"); got["one"] != 1 {
		t.Errorf("got %v", got)
	}
	for name, want := range map[string]string{
		garbage: "not a usable eBPF object", "broken": "no_such_tracepoint", "no-such-builtin": "no such built-in program",
		"testdata/*.nothing": "no file matches", "testdata/calls.bpf.o": "it has number",
	} {
		if state, reason := stateOf(a, name); state != Down || !strings.Contains(reason, want) {
			t.Errorf("%s is %q: %q, want %q", name, state, reason, want)
		}
	}
	if a.Ready() == nil {
		t.Error("ready although programs are down")
	}
}

// A change keeps what was counted; a broken file changes nothing.
func TestReloadKeepsCounts(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	path := filepath.Join(t.TempDir(), "mine.bpf.o")
	copyFile(t, "calls.bpf.o", path)
	mine := ProgramConfig{Source: path, Params: number}
	apply(t, a, mine)
	call(t, cgroup, "caller", 5)
	before := starts(t, a)

	copyFile(t, "calls2.bpf.o", path)
	apply(t, a, mine)
	call(t, cgroup, "caller", 6)
	if got := values(t, a, "test_calls_total"); got["caller"] != 11 {
		t.Errorf("after a reload: got %v, want 11", got)
	}
	if after := starts(t, a); after != before {
		t.Errorf("the start timestamp went from %d to %d", before, after)
	}
	if s := a.Status()[0]; s.Help == "Counts one system call by process name." || s.State != Up {
		t.Errorf("not reloaded: %+v", s)
	}

	if err := os.WriteFile(path, []byte("broken"), 0o644); err != nil {
		t.Fatal(err)
	}
	apply(t, a, mine)
	call(t, cgroup, "caller", 4)
	if got := values(t, a, "test_calls_total"); got["caller"] != 15 {
		t.Errorf("after a broken reload: got %v, want 15", got)
	}
	if state, reason := stateOf(a, "mine"); state != Degraded || !strings.Contains(reason, "the latest change was not taken") {
		t.Errorf("state %q, reason %q", state, reason)
	}

	copyFile(t, "calls2.bpf.o", path)
	apply(t, a, mine)
	if state, reason := stateOf(a, "mine"); state != Up {
		t.Errorf("after the repair: state %q, reason %q", state, reason)
	}
	apply(t, a)
	if got := values(t, a, "test_calls_total"); len(got) != 0 || len(a.Status()) != 0 {
		t.Errorf("still there after it was removed: %v", got)
	}
}

func starts(t *testing.T, a *Agent) int64 {
	t.Helper()
	snapshot := a.Gather(context.Background(), nil)
	defer snapshot.Release()
	for _, f := range snapshot.Families {
		for _, p := range f.Points {
			return p.Start
		}
	}
	return 0
}

// What is unchanged is not touched by another Program's change.
func TestReloadIsLocal(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	calls := ProgramConfig{Source: "testdata/calls.bpf.o", Params: number}
	apply(t, a, calls)
	id := a.Status()[0].Hooks[0].ProgramID
	apply(t, a, calls, ProgramConfig{Source: "testdata/broken.bpf.o"})
	if got := a.Status()[0].Hooks[0].ProgramID; got != id {
		t.Errorf("the program was loaded again: %d, was %d", got, id)
	}
	// A param is a change of this Program.
	apply(t, a, ProgramConfig{Source: "testdata/calls.bpf.o", Params: map[string]Text{"number": "1"}})
	if got := a.Status()[0].Hooks[0].ProgramID; got == id {
		t.Error("the program was not loaded again")
	}
}

func TestSameMetricTwice(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	first := ProgramConfig{Source: "testdata/calls.bpf.o", Params: number}
	second := ProgramConfig{Source: "testdata/calls2.bpf.o", Params: number}
	apply(t, a, first, second)
	if state, reason := stateOf(a, "calls2"); state != Down || !strings.Contains(reason, "test_calls_total") {
		t.Errorf("state %q, reason %q", state, reason)
	}
	first.StaticLabels, second.StaticLabels = map[string]string{"by": "first"}, map[string]string{"by": "second"}
	apply(t, a, first, second)
	if state, reason := stateOf(a, "calls2"); state != Up {
		t.Errorf("with static labels: state %q, reason %q", state, reason)
	}
	call(t, cgroup, "both", 3)
	if got := values(t, a, "test_calls_total"); got["both"] != 6 {
		t.Errorf("got %v, want 3 from each", got)
	}
	check(t, a)
}

// Names of processes are the users' to choose: none of them breaks or forges output.
func TestHostileNames(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	apply(t, a, ProgramConfig{Source: "testdata/calls.bpf.o", Params: number})
	names := []string{"\xff\xfebad", "new\nline", `quo"te`, `back\slash`, "x\"} 1\ny 2", "tab\tcr\r", "\x7f\x1b[31m", "ünï"}
	for _, name := range names {
		call(t, cgroup, name, 2)
	}
	got := check(t, a)
	for _, name := range names {
		want := strings.ToValidUTF8(name, "\uFFFD")
		if name == "\xff\xfebad" {
			want = "\uFFFD\uFFFDbad" // one for each byte
		}
		if got[want] != 2 {
			t.Errorf("%q: got %v of %v", name, got[want], got)
		}
	}
}

// check parses the exposition in all formats as Prometheus does, and returns the values by the label comm.
func check(t *testing.T, a *Agent) map[string]float64 {
	t.Helper()
	var got map[string]float64
	for _, format := range []exposition.Format{
		{Syntax: exposition.Text}, {Syntax: exposition.OpenMetrics}, {Syntax: exposition.Protobuf},
	} {
		var b bytes.Buffer
		w := exposition.NewWriter(&b, format, exposition.Options{})
		snapshot := a.Gather(context.Background(), nil)
		groups, err := exposition.Group(snapshot.Families)
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			if err := w.Write(g); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		snapshot.Release()
		parser, err := textparse.New(b.Bytes(), format.ContentType(), labels.NewSymbolTable(), textparse.ParserOptions{})
		if err != nil {
			t.Fatal(err)
		}
		parsed := map[string]float64{}
		for {
			entry, err := parser.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v:\n%s", err, b.String())
			}
			if entry != textparse.EntrySeries {
				continue
			}
			_, _, value := parser.Series()
			var l labels.Labels
			parser.Labels(&l)
			parsed[l.Get("comm")] += value
		}
		if got != nil && fmt.Sprint(parsed) != fmt.Sprint(got) {
			t.Errorf("%v has %v, the format before had %v", format.Syntax, parsed, got)
		}
		got = parsed
	}
	return got
}

// Scrapes, reloads and removals at the same time: no wrong value, no crash.
func TestConcurrentScrapesAndReloads(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	path := filepath.Join(t.TempDir(), "mine.bpf.o")
	copyFile(t, "calls.bpf.o", path)
	mine := ProgramConfig{Source: path, Params: number}
	apply(t, a, mine)
	call(t, cgroup, "steady", 8)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for range 10 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if got := values(t, a, "test_calls_total"); got["steady"] != 8 {
					t.Errorf("got %v", got)
					return
				}
			}
		})
	}
	for i := range 6 {
		copyFile(t, []string{"calls2.bpf.o", "calls.bpf.o"}[i%2], path)
		apply(t, a, mine)
	}
	close(stop)
	wait.Wait()
}

// A stream's records are counted in user space, and a reload loses none.
func TestStreamAggregates(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	apply(t, a, ProgramConfig{Source: "testdata/stream.yaml", Params: number})
	if state, reason := stateOf(a, "stream"); state != Up {
		t.Fatalf("state %q: %s", state, reason)
	}
	call(t, cgroup, "first", 40)
	call(t, cgroup, "second", 2)
	if got := values(t, a, "test_calls_total"); got["first"] != 40 || got["second"] != 2 {
		t.Errorf("got %v", got)
	}
	if got := check(t, a); got["first"] == 0 {
		t.Errorf("got %v", got)
	}
	apply(t, a, ProgramConfig{Source: "testdata/stream.yaml", Params: number, StaticLabels: nil, Pin: false, Optional: true})
	// A changed param loads the program anew; its ring and its counts stay.
	other := map[string]Text{"number": "1"}
	apply(t, a, ProgramConfig{Source: "testdata/stream.yaml", Params: other})
	apply(t, a, ProgramConfig{Source: "testdata/stream.yaml", Params: number})
	call(t, cgroup, "first", 5)
	if got := values(t, a, "test_calls_total"); got["first"] != 45 || got["second"] != 2 {
		t.Errorf("after a reload: got %v", got)
	}
}
