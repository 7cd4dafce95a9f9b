package monitoring

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"golang.org/x/sys/unix"

	cgroups "github.com/kaon-project/kaon/internal/workload"
	"github.com/kaon-project/kaon/programs"
	"github.com/kaon-project/kaon/test/sandbox"
)

// unusable says why there is no network namespace of the test's own.
var unusable error

func TestMain(m *testing.M) {
	if name := os.Getenv(helperVariable); name != "" {
		os.Exit(help(name))
	}
	flag.Parse()
	switch {
	case testing.Short():
		unusable = sandbox.ErrNoRoot
	case sandbox.Inside():
		unusable = sandbox.Network()
	default:
		code, err := sandbox.Reenter()
		if err == nil {
			os.Exit(code)
		}
		unusable = err
	}
	os.Exit(m.Run())
}

// memoryLimit is what the measured processes may use.
const memoryLimit = 64 << 20

// params of Programs that show more on request.
const configuration = `programs:
- {source: exec, params: {errors: true}}
- {source: syscalls, params: {latency: true}}
- {source: netbytes, params: {loopback: true}}
- {source: packets, params: {interfaces: lo}}
`

// mayNotRun are Programs that some kernels can't run.
func mayNotRun() map[string]string {
	return map[string]string{
		"modules": "kernels without loadable modules",
		"capable": "kernels before 6.13 without BTF trampolines",
	}
}

// notCaused are metrics that have no series here.
func notCaused() map[string]string {
	return map[string]string{
		"blockio_errors_total":     "no disk fails",
		"energy_rapl_joules_total": "a machine without meters",
		"module_loads_total":       "the test leaves the kernel's modules alone",
		"module_unloads_total":     "the same",
		"module_requests_total":    "the same",
		// Flusher threads are the root's where cgroups of v2 have no memory controller.
		"writeback_pages_total":      "the measured cgroup writes nothing back",
		"writeback_latency_seconds":  "the same",
		"writeback_throttle_seconds": "the machine has room for what is dirty",
	}
}

// enclosure is a workload's cgroups: one at the same path in each hierarchy that Kaon reads.
type enclosure struct {
	root string   // the one that the agent measures
	dirs []string // all
}

// enclose makes cgroups with limits.
func enclose(t *testing.T) enclosure {
	t.Helper()
	layout, err := cgroups.Detect()
	if err != nil {
		t.Skip("needs cgroups:", err)
	}
	mounts := map[string]string{} // by controller, "" for v2
	if layout.V2.Present() {
		mounts[""] = layout.V2.Mount
	}
	for _, h := range layout.Controllers {
		if slices.Contains([]string{"memory", "cpu", "pids", layout.V1.Controller}, h.Controller) {
			mounts[h.Controller] = h.Mount
		}
	}
	name := fmt.Sprintf("kaon-test-monitoring-%d", os.Getpid())
	e := enclosure{root: filepath.Join(layout.V2.Mount, name)}
	if layout.V1.Present() {
		e.root = filepath.Join(layout.V1.Mount, name)
	}
	for _, mount := range mounts {
		dir := filepath.Join(mount, name)
		if slices.Contains(e.dirs, dir) {
			continue // controllers that share a hierarchy
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skip("needs the right to make cgroups:", err)
		}
		e.dirs = append(e.dirs, dir)
	}
	t.Cleanup(func() {
		for _, dir := range e.dirs {
			if err := remove(dir); err != nil {
				t.Error(err)
			}
		}
	})
	limit := func(controller, file, value string, v2File, v2Value string) {
		if mount, ok := mounts[controller]; ok {
			err = os.WriteFile(filepath.Join(mount, name, file), []byte(value), 0)
		} else {
			err = os.WriteFile(filepath.Join(mounts[""], name, v2File), []byte(v2Value), 0)
		}
		if err != nil {
			t.Skipf("needs the cgroup controller %s: %v", controller, err)
		}
	}
	limit("memory", "memory.limit_in_bytes", fmt.Sprint(memoryLimit), "memory.max", fmt.Sprint(memoryLimit))
	limit("cpu", "cpu.cfs_quota_us", "50000", "cpu.max", "50000 100000")
	return e
}

// remove waits until the cgroup's processes are gone.
func remove(dir string) error {
	var err error
	for range 250 {
		if err = os.Remove(dir); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// Against an agent that measures a workload which does everything once: every metric of the dashboard and of the alerts is exposed
// over HTTP, and every query of a panel has a result, from classic and from native histograms.
func TestAgent(t *testing.T) {
	if unusable != nil {
		if strings.HasPrefix(unusable.Error(), "needs ") {
			t.Skip(unusable)
		}
		t.Fatal(unusable)
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the Go toolchain")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(os.TempDir(), &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("needs a temporary directory on a disk (TMPDIR)")
	}
	enclosure := enclose(t)
	binary, err := sandbox.Build(context.Background(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	agent := startAgent(t, binary, enclosure.root)
	down := running(t, agent)

	do := startWorkload(t, enclosure.dirs)
	text, native := &scrapes{}, &scrapes{}
	for i := range 4 {
		do()
		if i > 0 {
			// What waits for an answer to its SYN sends it again after a second.
			time.Sleep(400 * time.Millisecond)
		}
		at := time.Duration(i) * time.Minute
		text.add(t, agent, "text/plain", at)
		native.add(t, agent, "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited", at)
	}

	all := exposed(t)
	engine := newEngine(t)
	for _, e := range expressions() {
		caused := true
		for _, v := range selectors(t, e.expr) {
			m, suffix, _ := family(all, v.Name)
			name := strings.TrimSuffix(v.Name, suffix)
			if notCaused()[name] != "" || down[m.program] || v.Name == "up" {
				caused = false
			} else if !text.families[name] {
				t.Errorf("%s: the agent does not expose %s", e.where, name)
			}
		}
		if e.panel == nil || !caused || e.panel.Title == troubles {
			continue
		}
		for kind, s := range map[string]*scrapes{"classic": text, "native": native} {
			result := evaluate(t, engine, s.memory(), e.expr, 3*time.Minute)
			if !slices.ContainsFunc(result, func(s promql.Sample) bool { return !math.IsNaN(s.F) }) {
				t.Errorf("%s shows nothing with %s histograms: %s", e.where, kind, e.expr)
			}
		}
	}
}

// startAgent runs all built-in Programs on a cgroup.
func startAgent(t *testing.T, binary, root string) *sandbox.Agent {
	t.Helper()
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	text := "statistics: true\n" + configuration
	for _, name := range programs.Names() {
		if !strings.Contains(configuration, "source: "+name+",") {
			text += "- {source: " + name + ", optional: true}\n"
		}
	}
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	address, err := sandbox.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := sandbox.Start(exec.Command(binary, "up", "-c", config, "--listen", address, "--cgroup-root", root), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Stop(syscall.SIGTERM, 20*time.Second); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(agent.Log())
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := agent.WaitServing(ctx); err != nil {
		t.Fatal(err)
	}
	return agent
}

// running demands that all Programs run that can, and returns those that don't.
func running(t *testing.T, agent *sandbox.Agent) (down map[string]bool) {
	t.Helper()
	status, err := agent.Status()
	if err != nil {
		t.Fatal(err)
	}
	if len(status) != len(programs.Names()) {
		t.Errorf("%d Programs of %d", len(status), len(programs.Names()))
	}
	down = map[string]bool{}
	for _, s := range status {
		if s.State == "up" {
			continue
		}
		down[s.Name] = true
		if reason := mayNotRun()[s.Name]; reason != "" {
			t.Logf("%s is %s, as on %s: %s", s.Name, s.State, reason, s.Reason)
		} else {
			t.Errorf("%s is %s: %s", s.Name, s.State, s.Reason)
		}
	}
	return down
}

// startWorkload returns what makes the workload do everything once more.
func startWorkload(t *testing.T, dirs []string) (do func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	directory := t.TempDir()
	for dir := directory; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), helperVariable+"=busy", "CGROUPS="+strings.Join(dirs, ":"), "DIRECTORY="+directory)
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	answers := bufio.NewReader(out)
	return func() {
		t.Helper()
		if _, err := io.WriteString(in, "go on\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := answers.ReadString('\n'); err != nil || line != "done\n" {
			t.Fatalf("the workload said %q: %v; %v", line, err, command.Wait())
		}
	}
}

// scrapes are expositions of an agent, as Prometheus would keep them.
type scrapes struct {
	series   map[string]*scraped
	families map[string]bool // those with a TYPE
}

type scraped struct {
	labels  labels.Labels
	samples []chunks.Sample
}

// add scrapes once. The samples get a time of the test's choice.
func (s *scrapes) add(t *testing.T, agent *sandbox.Agent, accept string, at time.Duration) {
	t.Helper()
	code, body, header, err := agent.Get("/metrics", "Accept", accept)
	if err != nil || code != 200 {
		t.Fatal(code, err)
	}
	s.parse(t, []byte(body), header.Get("Content-Type"), labels.FromStrings("instance", "a:9497", "job", "kaon"), at)
}

// parse adds an exposition, to whose series Prometheus would add the labels of a target.
func (s *scrapes) parse(t *testing.T, body []byte, contentType string, target labels.Labels, at time.Duration) {
	t.Helper()
	if s.series == nil {
		s.series, s.families = map[string]*scraped{}, map[string]bool{}
	}
	parser, err := textparse.New(body, contentType, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		entry, err := parser.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		one := sample{t: at.Milliseconds()}
		switch entry {
		case textparse.EntryType:
			name, _ := parser.Type()
			s.families[string(name)] = true
			continue
		case textparse.EntrySeries:
			_, _, one.v = parser.Series()
		case textparse.EntryHistogram:
			_, _, h, fh := parser.Histogram()
			if one.h = fh; h != nil {
				one.h = h.ToFloat(nil)
			}
			one.h = one.h.Copy()
		default:
			continue
		}
		var set labels.Labels
		parser.Labels(&set)
		builder := labels.NewBuilder(set)
		target.Range(func(l labels.Label) { builder.Set(l.Name, l.Value) })
		set = builder.Labels()
		key := set.String()
		if s.series[key] == nil {
			s.series[key] = &scraped{labels: set}
		}
		s.series[key].samples = append(s.series[key].samples, one)
	}
}

func (s *scrapes) memory() *memory {
	m := &memory{}
	for _, one := range s.series {
		m.series = append(m.series, storage.NewListSeries(one.labels, one.samples))
	}
	return m
}
