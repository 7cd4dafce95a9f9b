package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// sharedTypes saves parsing the kernel's BTF in each test.
var sharedTypes = btf.NewCache()

// newEngine returns an engine for a test that needs the kernel.
func newEngine(t testing.TB, options Options) *Engine {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	options.Types = sharedTypes
	options.MountFilesystems = true
	if options.PinDir == "" {
		options.PinDir = filepath.Join("/sys/fs/bpf", "kaon-test-"+sanitizePin(t.Name()))
	}
	e, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// sections maps the beginning of section names to kinds, for what the tests use.
var sections = []struct {
	prefix string
	kind   program.HookKind
}{
	{"tracepoint/", program.Tracepoint},
	{"raw_tp/", program.RawTracepoint},
	{"tp_btf/", program.TracepointBTF},
	{"kprobe.multi/", program.KprobeMulti},
	{"kretprobe.multi/", program.KretprobeMulti},
	{"kprobe/", program.Kprobe},
	{"kretprobe/", program.Kretprobe},
	{"ksyscall/", program.Ksyscall},
	{"kretsyscall/", program.Kretsyscall},
	{"fentry/", program.Fentry},
	{"fexit/", program.Fexit},
	{"fmod_ret/", program.FmodRet},
	{"uprobe.multi/", program.UprobeMulti},
	{"uretprobe.multi/", program.UretprobeMulti},
	{"uprobe/", program.Uprobe},
	{"uretprobe/", program.Uretprobe},
	{"uprobe", program.Uprobe},
	{"uretprobe", program.Uretprobe},
	{"usdt/", program.USDT},
	{"usdt", program.USDT},
	{"perf_event/", program.PerfEvent},
	{"perf_event", program.PerfEvent},
	{"iter/", program.Iterator},
	{"xdp", program.XDP},
	{"tcx/ingress", program.TCXIngress},
	{"tcx/egress", program.TCXEgress},
	{"lsm_cgroup/", program.LSMCgroup},
	{"lsm/", program.LSM},
	{"cgroup_skb/", program.Cgroup},
	{"cgroup/", program.Cgroup},
	{"sockops", program.SockOps},
	{"socket", program.SocketFilter},
	{"sk_lookup", program.SKLookup},
	{"netfilter", program.Netfilter},
	{"syscall", program.Syscall},
}

// loadSpec makes a spec of a test object, whose hooks are in the order of the names given,
// or all of them in alphabetical order.
func loadSpec(t testing.TB, object string, functions ...string) *program.Spec {
	t.Helper()
	coll, err := ebpf.LoadCollectionSpec(filepath.Join("testdata", object))
	if err != nil {
		t.Fatal(err)
	}
	if len(functions) == 0 {
		for name := range coll.Programs {
			functions = append(functions, name)
		}
		slices.Sort(functions)
	}
	spec := &program.Spec{Name: strings.TrimSuffix(object, ".bpf.o"), Collection: coll}
	for _, name := range functions {
		function := coll.Programs[name]
		if function == nil {
			t.Fatalf("%s has no function %s", object, name)
		}
		hook := program.Hook{Function: name}
		for _, s := range sections {
			if rest, ok := strings.CutPrefix(function.SectionName, s.prefix); ok {
				hook.Kind, hook.Target = s.kind, strings.TrimPrefix(rest, "/")
				break
			}
		}
		if hook.Kind == "" {
			t.Fatalf("%s: unknown section %s", object, function.SectionName)
		}
		if hook.Kind == program.Cgroup {
			hook.Target = strings.TrimPrefix(function.SectionName, "cgroup/")
		}
		spec.Hooks = append(spec.Hooks, hook)
	}
	if coll.Variables["test_tgid"] != nil {
		setVariable(t, spec, "test_tgid", uint32(os.Getpid()))
	}
	return spec
}

func setVariable(t testing.TB, spec *program.Spec, name string, value any) {
	t.Helper()
	if err := spec.Collection.Variables[name].Set(value); err != nil {
		t.Fatal(err)
	}
}

// mustLoad loads a spec and closes the instance when the test ends.
func mustLoad(t testing.TB, e *Engine, spec *program.Spec) *Instance {
	t.Helper()
	i, err := e.Load(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return i
}

// mustAttach loads a spec of which every function must work.
func mustAttach(t testing.TB, e *Engine, spec *program.Spec) *Instance {
	t.Helper()
	i := mustLoad(t, e, spec)
	if err := i.Degraded(); err != nil {
		t.Fatal(err)
	}
	return i
}

// counter reads the only element of an array.
func counter(t testing.TB, i *Instance, name string) uint64 {
	t.Helper()
	m := i.Map(name)
	if m == nil {
		t.Fatalf("no map %s", name)
	}
	var value uint64
	if err := m.Lookup(uint32(0), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// call makes n system calls that the test programs count.
func call(n int) {
	for range n {
		unix.Getppid()
	}
}

func hookOf(t testing.TB, i *Instance, function string) HookStatus {
	t.Helper()
	for _, h := range i.Hooks() {
		if h.Function == function {
			return h
		}
	}
	t.Fatalf("no hook %s", function)
	return HookStatus{}
}

// checkFDs fails the test if it ends with other open files than it began with.
func checkFDs(t testing.TB) {
	t.Helper()
	before := openFDs(t)
	t.Cleanup(func() {
		after := openFDs(t)
		for fd, what := range after {
			if _, ok := before[fd]; !ok {
				t.Errorf("leaked file descriptor %s: %s", fd, what)
			}
		}
	})
}

func openFDs(t testing.TB) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	fds := make(map[string]string)
	for _, entry := range entries {
		link, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err == nil && (strings.Contains(link, "bpf") || strings.Contains(link, "perf_event") || strings.Contains(link, "socket:") || strings.Contains(link, "cgroup")) {
			fds[entry.Name()] = link
		}
	}
	return fds
}

func mustFail(t testing.TB, err error, want error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	if want != nil && !errors.Is(err, want) {
		t.Errorf("error %q does not wrap %q", err, want)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q lacks %q", err, part)
		}
	}
}
