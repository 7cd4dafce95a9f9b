package programs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/workload"
	"github.com/kaon-project/kaon/programs"
)

// helperVariable makes the test binary play a process that is measured.
const helperVariable = "KAON_TEST_HELPER"

func TestMain(m *testing.M) {
	if name := os.Getenv(helperVariable); name != "" {
		help, ok := helpers()[name]
		if !ok {
			fmt.Fprintf(os.Stderr, "no helper %q\n", name)
			os.Exit(100)
		}
		help()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// waitForInput ends when its standard input is closed.
func waitForInput() { _, _ = io.Copy(io.Discard, os.Stdin) }

var types = sync.OnceValue(btf.NewCache)

// cgroup is a cgroup of v2 for what is measured.
type cgroup struct {
	dir, path string
}

func newCgroup(t testing.TB) cgroup {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	layout, err := workload.Detect()
	if err != nil || !layout.V2.Present() {
		t.Skip("needs a mounted cgroup v2 hierarchy")
	}
	dir, err := os.MkdirTemp(layout.V2.Mount, "kaon-test-")
	if err != nil {
		t.Skip("needs the right to make cgroups:", err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("remove the cgroup %s: %v", dir, err)
		}
	})
	return cgroup{dir: dir, path: "/" + filepath.Base(dir)}
}

// child makes a cgroup below another, which itself has no processes.
func (c cgroup) child(t testing.TB, name string) cgroup {
	t.Helper()
	child := cgroup{dir: filepath.Join(c.dir, name), path: c.path + "/" + name}
	if err := os.Mkdir(child.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(child.dir); err != nil {
			t.Errorf("remove the cgroup %s: %v", child.dir, err)
		}
	})
	return child
}

// helper is a process in a cgroup.
type helper struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	waited bool
}

// start runs a helper in the cgroup, from its first instruction on.
func (c cgroup) start(t testing.TB, name string, environment ...string) *helper {
	t.Helper()
	return c.startCloned(t, 0, name, environment...)
}

// startCloned is start in new namespaces: flags of clone(2).
func (c cgroup) startCloned(t testing.TB, flags uintptr, name string, environment ...string) *helper {
	t.Helper()
	fd, err := unix.Open(c.dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return startHelper(t, name, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: fd, Cloneflags: flags}, environment...)
}

// startHelper runs a helper with these attributes.
func startHelper(t testing.TB, name string, attributes *syscall.SysProcAttr, environment ...string) *helper {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append([]string{helperVariable + "=" + name}, environment...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = attributes
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the helper %s: %v", name, err)
	}
	h := &helper{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(func() {
		if !h.waited {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return h
}

// wait closes the helper's input and returns how it ended.
func (h *helper) wait() syscall.WaitStatus {
	h.t.Helper()
	h.in.Close()
	h.waited = true
	var exit *exec.ExitError
	if err := h.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	status, ok := h.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok {
		h.t.Fatal("no wait status")
	}
	return status
}

// expectLine waits for what a helper says next.
func (h *helper) expectLine(want string) {
	h.t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil || strings.TrimSpace(line) != want {
		h.t.Fatalf("the helper said %q (%v), want %q", line, err, want)
	}
}

// running is a Program that measures one cgroup.
type running struct {
	t         testing.TB
	instance  *engine.Instance
	collector *series.Collector
}

// load runs a built-in Program, limited to the cgroup at dir ("": the machine), with params NAME=VALUE, and
// without the hooks of a kind for -KIND, so that alternatives are used. Every function must work.
func load(t testing.TB, name, dir string, params ...string) *running {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	spec, err := programs.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	return loadSpec(t, spec, dir, params...)
}

// loadSpec is load for a Program that the test has changed.
func loadSpec(t testing.TB, spec *program.Spec, dir string, params ...string) *running {
	t.Helper()
	for _, p := range params {
		if kind, without := strings.CutPrefix(p, "-"); without {
			spec.Hooks = slices.DeleteFunc(spec.Hooks, func(h program.Hook) bool { return string(h.Kind) == kind })
			continue
		}
		key, value, _ := strings.Cut(p, "=")
		if err := spec.SetParam(key, value); err != nil {
			t.Fatal(err)
		}
	}
	cache := types()
	kernel, err := cache.Kernel()
	if err != nil {
		t.Skip("needs the kernel's BTF:", err)
	}
	layout, err := workload.DetectWithOptions(workload.DetectOptions{CgroupRoot: dir, Types: kernel})
	if err != nil {
		t.Fatal(err)
	}
	guest := os.Getenv("KAON_VM") != ""
	e, err := engine.New(engine.Options{Types: cache, CgroupRoot: dir, MountFilesystems: true, Stats: guest, Constants: engine.Constants{
		CgroupMode: uint32(layout.Mode), CgroupSubsys: layout.Subsystem,
		ScopeID: uint64(layout.Scope.ID), ScopeLevel: layout.Scope.Level,
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	instance, err := e.Load(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := instance.Close(); err != nil {
			t.Error(err)
		}
	})
	if guest {
		t.Cleanup(func() { logLoaded(t, instance) })
	}
	if err := instance.Degraded(); err != nil {
		t.Fatal(err)
	}
	resolver, err := workload.NewCgroupsWithOptions(layout, workload.Options{NoEvents: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resolver.Close() })
	collector, err := series.NewCollector(spec, instance, series.Options{Resolver: resolver, Cgroups: resolver})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(collector.Close)
	return &running{t: t, instance: instance, collector: collector}
}

// loaded is what the kernel matrix is told of one function of a Program.
type loaded struct {
	Program  string `json:"program"`
	Function string `json:"function"`
	Hook     string `json:"hook"`
	State    string `json:"state"`
	Error    string `json:"error,omitempty"`
	// Verified instructions, 0 where the kernel does not tell.
	Verified uint32  `json:"verified,omitempty"`
	Runs     uint64  `json:"runs,omitempty"`
	NS       float64 `json:"ns,omitempty"` // of all runs
}

// logLoaded prints what became of each function, for the table that test/vm writes.
func logLoaded(t testing.TB, instance *engine.Instance) {
	stats, err := instance.Stats()
	if err != nil {
		t.Error(err)
		return
	}
	byName := map[string]engine.FunctionStats{}
	for _, s := range stats {
		byName[s.Function] = s
	}
	if len(instance.Hooks()) == 0 { // it is read from files
		t.Logf(`loaded: {"program":%q,"function":"none","hook":"files","state":"attached"}`, instance.Spec().Name)
	}
	for _, h := range instance.Hooks() {
		s := byName[h.Function]
		l := loaded{Program: instance.Spec().Name, Function: h.Function, Hook: strings.TrimSuffix(string(h.Kind)+"/"+h.Target, "/"),
			State: string(h.State), Verified: h.VerifiedInstructions, Runs: s.KernelRuns, NS: float64(s.Runtime)}
		if h.Err != nil {
			l.Error, _, _ = strings.Cut(h.Err.Error(), "\n")
		}
		line, err := json.Marshal(l)
		if err != nil {
			t.Error(err)
			return
		}
		t.Logf("loaded: %s", line)
	}
}

// missed returns how many runs of a function the kernel skipped. Kernels whose tracepoints can be preempted (7.2)
// do so if the function was interrupted on the same CPU.
func (r *running) missed(function string) uint64 {
	r.t.Helper()
	stats, err := r.instance.Stats()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range stats {
		if s.Function == function {
			return s.Missed
		}
	}
	r.t.Fatalf("there are no statistics of %s", function)
	return 0
}

// attached says whether a function is at work.
func (r *running) attached(function string) bool {
	for _, h := range r.instance.Hooks() {
		if h.Function == function {
			return h.State == engine.Attached
		}
	}
	return false
}

// missedAll is missed for all functions together.
func (r *running) missedAll() uint64 {
	r.t.Helper()
	stats, err := r.instance.Stats()
	if err != nil {
		r.t.Fatal(err)
	}
	var n uint64
	for _, s := range stats {
		n += s.Missed
	}
	return n
}

// point is one series: its labels and raw numbers.
type point struct {
	labels map[string]string
	row    []uint64
}

// count returns how many observations a histogram's row has.
func (p point) count() uint64 {
	var n uint64
	for _, slot := range p.row[1:] {
		n += slot
	}
	return n
}

// collect reads the Program and returns the series of each family.
func (r *running) collect() map[string][]point {
	r.t.Helper()
	snapshot, err := r.collector.Collect(context.Background(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	defer snapshot.Release()
	for _, err := range snapshot.Errors {
		r.t.Fatal(err)
	}
	families := map[string][]point{}
	for n := range snapshot.Families {
		f := &snapshot.Families[n]
		families[f.Metric.Name] = nil
		for i := range f.Points {
			p := point{labels: map[string]string{}, row: append([]uint64(nil), f.Row(i)...)}
			series.EachLabel(f.Points[i].Labels, func(name, value string) bool {
				p.labels[strings.Clone(name)] = strings.Clone(value)
				return true
			})
			families[f.Metric.Name] = append(families[f.Metric.Name], p)
		}
	}
	return families
}

// pick returns the series whose labels include these NAME=VALUE pairs; "NAME=" is a label that is absent.
func pick(points []point, labels ...string) []point {
	var picked []point
	for _, p := range points {
		match := true
		for _, l := range labels {
			name, value, _ := strings.Cut(l, "=")
			match = match && p.labels[name] == value
		}
		if match {
			picked = append(picked, p)
		}
	}
	return picked
}

// total adds up the first numbers of these series.
func total(points []point) uint64 {
	var n uint64
	for _, p := range points {
		n += p.row[0]
	}
	return n
}

// expect compares a family's series with these labels, added up.
func expect(t testing.TB, families map[string][]point, name string, want uint64, labels ...string) {
	t.Helper()
	points, ok := families[name]
	if !ok {
		t.Errorf("there is no metric %s", name)
		return
	}
	if got := total(pick(points, labels...)); got != want {
		t.Errorf("%s{%s} is %d, want %d; all: %v", name, strings.Join(labels, ","), got, want, points)
	}
}

// expectUpTo is expect for events of which the kernel may have skipped some.
func expectUpTo(t testing.TB, families map[string][]point, name string, want, missed uint64, labels ...string) {
	t.Helper()
	if got := total(pick(families[name], labels...)); got > want || got+missed < want {
		t.Errorf("%s{%s} is %d, want %d, less at most %d that were skipped", name, strings.Join(labels, ","), got, want, missed)
	}
}

// inNetns runs the rest of the test in a network namespace of its own. The thread is not given
// back, so that nothing else runs there.
func inNetns(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
}
