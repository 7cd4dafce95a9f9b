package ebpfexporter_test

import (
	"compress/gzip"
	"context"
	"debug/elf"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/workload"
)

// magic is what the test programs watch getpgid for.
const magic = 0x6b616f00

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv("KAON_TEST_TRIGGER")); err == nil {
		_, _ = unix.Getpgid(magic + n)
		return
	}
	os.Exit(m.Run())
}

func trigger(numbers ...int) {
	for _, n := range numbers {
		_, _ = unix.Getpgid(magic + n)
	}
}

// newAgent runs the configurations.
func newAgent(t *testing.T, names ...string) *agent.Agent {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to load programs")
	}
	a, err := agent.New(agent.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	var config agent.Config
	for _, name := range names {
		config.Programs = append(config.Programs, agent.ProgramConfig{Source: filepath.Join("testdata", name+".yaml")})
	}
	if err := a.Apply(context.Background(), config); err != nil {
		t.Fatal(err)
	}
	for _, s := range a.Status() {
		if s.State != agent.Up {
			t.Fatalf("%s is %s: %s", s.Name, s.State, s.Reason)
		}
	}
	return a
}

// numbers gathers a metric by its labels.
func numbers(t *testing.T, a *agent.Agent, metric string) map[string]uint64 {
	t.Helper()
	snapshot := a.Gather(context.Background(), func(name string) bool { return name == metric })
	defer snapshot.Release()
	if snapshot.Err != nil {
		t.Error(snapshot.Err)
	}
	got := map[string]uint64{}
	for _, f := range snapshot.Families {
		for i, p := range f.Points {
			got[strings.Clone(p.Labels)] = f.Row(i)[0]
		}
	}
	return got
}

func same(t *testing.T, got, want map[string]uint64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// newCgroup makes a cgroup of v2 of the test's own.
func newCgroup(t *testing.T, name string) string {
	t.Helper()
	layout, err := workload.Detect()
	if err != nil {
		t.Fatal(err)
	}
	if !layout.V2.Present() {
		t.Skip("needs cgroup v2")
	}
	dir := filepath.Join(layout.V2.Mount, name+"-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

// triggerIn triggers from a cgroup.
func triggerIn(t *testing.T, dir string, n int) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), "KAON_TEST_TRIGGER="+strconv.Itoa(n))
	c.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// eventually waits for what others do in the background.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 1000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it never happened that " + what)
}

// A map of cgroup ids follows cgroups that come and go, names are resolved, addresses of symbols known.
func TestCgroupIDMap(t *testing.T) {
	before := newCgroup(t, "kaon-test-wanted")
	other := newCgroup(t, "kaon-test-unwanted")
	a := newAgent(t, "cgroups")
	name := func(dir string) string { return `cgroup="` + filepath.Base(dir) + `"` }
	triggerIn(t, before, 1)
	triggerIn(t, other, 1)
	triggerIn(t, before, 1)
	same(t, numbers(t, a, "ebpf_exporter_triggers_total"), map[string]uint64{name(before): 2})
	all := numbers(t, a, "ebpf_exporter_all_triggers_total")
	same(t, all, map[string]uint64{`cgroup="` + before + `"`: 2, `cgroup="` + other + `"`: 1})
	same(t, numbers(t, a, "ebpf_exporter_symbols_total"), map[string]uint64{`symbol="vfs_read"`: 3})

	after := newCgroup(t, "kaon-test-also")
	eventually(t, "a new cgroup is counted", func() bool {
		triggerIn(t, after, 1)
		return numbers(t, a, "ebpf_exporter_triggers_total")[name(after)] > 0
	})
	if err := os.Remove(before); err != nil {
		t.Fatal(err)
	}
	// Its id is in the map no longer, which nobody sees but the kernel: the series stay.
	if got := numbers(t, a, "ebpf_exporter_triggers_total"); got[name(before)] != 2 {
		t.Errorf("after the cgroup is gone: %v", got)
	}
}

func TestCgroupStorage(t *testing.T) {
	if err := features.HaveMapType(ebpf.CgroupStorage); errors.Is(err, ebpf.ErrNotSupported) {
		t.Skipf("needs cgroup storage: %v", err)
	}
	wanted, other := newCgroup(t, "kaon-test-wanted"), newCgroup(t, "kaon-test-unwanted")
	a := newAgent(t, "storage")
	triggerIn(t, wanted, 1)
	triggerIn(t, other, 1)
	triggerIn(t, wanted, 1)
	same(t, numbers(t, a, "ebpf_exporter_stored_triggers_total"), map[string]uint64{"": 2})
}

// A configuration that wants other cgroups than before forgets those that it does not want any more.
func TestCgroupSetsChange(t *testing.T) {
	for name, metric := range map[string]string{"cgroups": "triggers_total", "storage": "stored_triggers_total"} {
		t.Run(name, func(t *testing.T) {
			if err := features.HaveMapType(ebpf.CgroupStorage); name == "storage" && errors.Is(err, ebpf.ErrNotSupported) {
				t.Skipf("needs cgroup storage: %v", err)
			}
			dir := t.TempDir()
			text, err := os.ReadFile("testdata/" + name + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			code, err := os.ReadFile("testdata/" + name + ".bpf.o")
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, name+".yaml")
			write := func(text string) {
				t.Helper()
				if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.WriteFile(filepath.Join(dir, name+".bpf.o"), code, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			write(string(text))
			before, after := newCgroup(t, "kaon-test-wanted"), newCgroup(t, "kaon-test-other")
			a := newAgent(t)
			config := agent.Config{Programs: []agent.ProgramConfig{{Source: path}}}
			sum := func() (n uint64) {
				for _, value := range numbers(t, a, "ebpf_exporter_"+metric) {
					n += value
				}
				return n
			}
			for _, want := range []uint64{1, 3} {
				if err := a.Apply(context.Background(), config); err != nil {
					t.Fatal(err)
				}
				if s := a.Status(); s[0].State != agent.Up {
					t.Fatalf("%+v", s[0])
				}
				triggerIn(t, before, 1)
				triggerIn(t, after, 1)
				if want == 3 {
					triggerIn(t, after, 1)
				}
				if got := sum(); got != want {
					t.Errorf("%d were counted, want %d", got, want)
				}
				write(strings.NewReplacer("kaon-test-wanted", "kaon-test-other").Replace(string(text)))
			}
		})
	}
}

func TestPerfEvents(t *testing.T) {
	a := newAgent(t, "events")
	same(t, numbers(t, a, "ebpf_exporter_events_total"), nil)
	trigger(3, 3, 4, 255, 3)
	want := map[string]uint64{`number="3",odd="yes",text="abc"`: 3, `number="4",odd="no",text="abc"`: 1}
	same(t, numbers(t, a, "ebpf_exporter_events_total"), want)
	trigger(4)
	want[`number="4",odd="no",text="abc"`] = 2
	same(t, numbers(t, a, "ebpf_exporter_events_total"), want)
}

// Weak maps, hidden functions and variables of the kernel are as libbpf has them; USDT and other users of the kernel's
// configuration live in one object.
func TestLibbpf(t *testing.T) {
	needTarget(t)
	a := newAgent(t, "libbpf")
	runTarget(t)
	same(t, numbers(t, a, "ebpf_exporter_probes_total"), map[string]uint64{`third="77"`: 3})
	same(t, numbers(t, a, "ebpf_exporter_sized_total"), map[string]uint64{`slot="0"`: 0, `slot="1"`: 6})
}

func TestKsyscallAndUSDT(t *testing.T) {
	needTarget(t)
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err != nil {
		t.Skip("needs kprobes")
	}
	a := newAgent(t, "ksyscall")
	runTarget(t)
	trigger(3, 4, 3)
	same(t, numbers(t, a, "ebpf_exporter_calls_total"), map[string]uint64{`number="3"`: 2, `number="4"`: 1, `number="77"`: 3})
}

// A function whose section does not say what to attach to is loaded: others may call it.
func TestTailCall(t *testing.T) {
	needTarget(t)
	a := newAgent(t, "aimless")
	runTarget(t)
	trigger(1)
	same(t, numbers(t, a, "ebpf_exporter_seen_total"), map[string]uint64{"": 301})
}

// target passes its probe.
const target = "testdata/target"

func needTarget(t *testing.T) {
	t.Helper()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if machine(t, target) != machine(t, self) {
		t.Skipf("needs a machine of type %s", machine(t, target))
	}
}

func runTarget(t *testing.T) {
	t.Helper()
	if out, err := exec.Command(target, "3").CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", target, err, out)
	}
}

// An option is as the kernel was built; a weak one that it has not is 0.
func TestKernelConfig(t *testing.T) {
	hz := regexp.MustCompile(`(?m)^CONFIG_HZ=(\d+)$`).FindSubmatch(kernelConfig(t))
	if hz == nil {
		t.Skip("needs CONFIG_HZ")
	}
	a := newAgent(t, "config")
	trigger(1, 1)
	same(t, numbers(t, a, "ebpf_exporter_configured_total"), map[string]uint64{`hz="` + string(hz[1]) + `"`: 2})
}

// kernelConfig reads how the running kernel was built.
func kernelConfig(t *testing.T) []byte {
	t.Helper()
	if f, err := os.Open("/proc/config.gz"); err == nil {
		defer f.Close()
		r, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/boot/config-" + strings.TrimSpace(string(release)))
	if err != nil {
		t.Skip("needs the kernel's configuration in /proc/config.gz or /boot")
	}
	return text
}

func machine(t *testing.T, path string) elf.Machine {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Machine
}
