package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

func TestMain(m *testing.M) {
	helpers := map[string]func() error{"cgroup": cgroupHelper, "nobody": nobodyHelper, "attached": attachedHelper}
	if helper := helpers[os.Getenv("KAON_TEST_HELPER")]; helper != nil {
		if err := helper(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// helperCommand returns a command that runs one of the helpers above.
func helperCommand(t testing.TB, mode string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "KAON_TEST_HELPER="+mode)
	return cmd
}

// runMode runs a helper to its end and returns what it wrote.
func runMode(t testing.TB, mode string) string {
	t.Helper()
	out, err := helperCommand(t, mode).CombinedOutput()
	if err != nil {
		t.Fatalf("helper %s: %v: %s", mode, err, out)
	}
	return string(out)
}

// attachedHelper attaches XDP and perf event functions in the network namespace that it is
// started in, says so, and waits to be killed.
func attachedHelper() error {
	e, err := New(Options{})
	if err != nil {
		return err
	}
	for _, p := range []struct {
		object string
		hook   program.Hook
	}{
		{"net.bpf.o", program.Hook{Function: "on_xdp", Kind: program.XDP, Interfaces: []string{"lo"}}},
		{"probes.bpf.o", program.Hook{Function: "on_perf_event", Kind: program.PerfEvent, Target: "config=cpu_clock,frequency=10"}},
	} {
		coll, err := ebpf.LoadCollectionSpec(filepath.Join("testdata", p.object))
		if err != nil {
			return err
		}
		if _, err := e.Load(context.Background(), &program.Spec{Name: "attached", Collection: coll, Hooks: []program.Hook{p.hook}}); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err = os.Stdin.Read(make([]byte, 1))
	return err
}

// A signal that ends the process leaves nothing attached.
func TestKilled(t *testing.T) {
	e := newEngine(t, Options{})
	inNetns(t)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		cmd := helperCommand(t, "attached")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(stdout).ReadString('\n')
		if err != nil {
			t.Fatalf("%v: %s", err, stderr.String())
		}
		if line != "ready\n" {
			t.Fatalf("%q", line)
		}
		// While it lives, the interface is taken.
		_, err = e.Load(context.Background(), onLoopback(loadSpec(t, "net.bpf.o", "on_xdp")))
		mustFail(t, err, ErrNothingAttached, "already")
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		// The kernel closes the files of a process before it can be waited for.
		mustAttachOnce(t, e, onLoopback(loadSpec(t, "net.bpf.o", "on_xdp")))
		if strings.Contains(stderr.String(), "SIGSEGV") || strings.Contains(stderr.String(), "panic") {
			t.Errorf("%v: %s", signal, stderr.String())
		}
	}
}

// mustAttachOnce loads a spec and closes it again.
func mustAttachOnce(t testing.TB, e *Engine, spec *program.Spec) {
	t.Helper()
	i, err := e.Load(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
}

// inNetns runs the rest of the test in a network namespace of its own, with loopback up.
// The thread is not given back, so that nothing else runs there.
func inNetns(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs network namespaces: %v", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	ifreq.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq); err != nil {
		t.Fatal(err)
	}
}

// sendUDP sends n packets over loopback to a socket of this thread's network namespace.
func sendUDP(t testing.TB, n int) {
	t.Helper()
	receiver, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(receiver)
	address := &unix.SockaddrInet4{Port: 9497, Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(receiver, address); err != nil {
		t.Fatal(err)
	}
	sender, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(sender)
	for range n {
		if err := unix.Sendto(sender, []byte("kaon"), 0, address); err != nil {
			t.Fatal(err)
		}
	}
	buffer := make([]byte, 16)
	for range n {
		if _, _, err := unix.Recvfrom(receiver, buffer, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func onLoopback(spec *program.Spec) *program.Spec {
	for n := range spec.Hooks {
		spec.Hooks[n].Interfaces = []string{"lo"}
	}
	return spec
}

func TestInterfaceHooks(t *testing.T) {
	checkFDs(t)
	inNetns(t)
	e := newEngine(t, Options{})
	for _, test := range []struct{ function, counter string }{
		{"on_xdp", "by_xdp"}, {"on_ingress", "by_tcx_ingress"}, {"on_egress", "by_tcx_egress"}, {"on_socket", "by_socket"},
	} {
		t.Run(test.function, func(t *testing.T) {
			inNetns(t)
			i, err := e.Load(context.Background(), onLoopback(loadSpec(t, "net.bpf.o", test.function)))
			if err != nil {
				t.Fatal(err)
			}
			sendUDP(t, 3)
			// A packet on loopback passes a packet socket twice.
			if got := counter(t, i, test.counter); got < 3 {
				t.Errorf("%s = %d, want at least 3", test.counter, got)
			}
			m, err := i.Map(test.counter).Clone()
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if err := i.Close(); err != nil {
				t.Fatal(err)
			}
			var before, after uint64
			if err := m.Lookup(uint32(0), &before); err != nil {
				t.Fatal(err)
			}
			sendUDP(t, 3)
			if err := m.Lookup(uint32(0), &after); err != nil || after != before {
				t.Errorf("still attached after Close: %d, then %d, %v", before, after, err)
			}
		})
	}
}

func TestClsact(t *testing.T) {
	checkFDs(t)
	inNetns(t)
	e := newEngine(t, Options{})
	spec := onLoopback(loadSpec(t, "net.bpf.o", "on_ingress"))
	i := mustAttach(t, e, spec)
	prog := i.Program("on_ingress")
	tcxCount := func() uint64 { return counter(t, i, "by_tcx_ingress") }

	a, err := attachClsact(1, "on_ingress", prog, false)
	if errors.Is(err, ErrUnsupported) {
		t.Skipf("needs clsact: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	before := tcxCount()
	sendUDP(t, 5)
	if got := tcxCount() - before; got != 10 {
		t.Errorf("with the filter and the link each packet is counted twice: %d, want 10", got)
	}
	if err := a.(updater).Update(prog); err != nil {
		t.Errorf("update: %v", err)
	}
	before = tcxCount()
	sendUDP(t, 5)
	if got := tcxCount() - before; got != 10 {
		t.Errorf("after an update: %d, want 10", got)
	}
	n, err := openNetlink()
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	filters, err := n.filters(1, tcParentIngress)
	if err != nil || len(filters) == 0 {
		t.Fatalf("filters: %v, %v", filters, err)
	}
	if swept, err := e.sweepClsact(); swept != 0 || err != nil {
		t.Errorf("swept %d of a live process's filters, %v", swept, err)
	}
	// As if the process that set it had died: its start does not match.
	dead := a.(*clsactFilter)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	namespace, _ := pidNamespace()
	dead.name = fmt.Sprintf("kaon:%d:%d:1:on_ingress", namespace, os.Getpid())
	dead.handle = 0
	if err := dead.set(n, prog, unix.NLM_F_CREATE|unix.NLM_F_EXCL); err != nil {
		t.Fatal(err)
	}
	if swept, err := e.sweepClsact(); swept != 1 || err != nil {
		t.Errorf("swept %d, %v, want 1", swept, err)
	}
	before = tcxCount()
	sendUDP(t, 5)
	if got := tcxCount() - before; got > 5 {
		t.Errorf("after the sweep: %d, want at most 5", got)
	}
}

func TestInterfaceTargets(t *testing.T) {
	interfaces := []net.Interface{
		{Index: 1, Name: "lo", Flags: net.FlagUp | net.FlagLoopback}, {Index: 2, Name: "eth0", Flags: net.FlagUp},
		{Index: 3, Name: "eth1"}, {Index: 4, Name: "veth7", Flags: net.FlagUp},
	}
	e := &Engine{options: Options{Interfaces: func() ([]net.Interface, error) { return interfaces, nil }}}
	f := func(patterns []string, want string, wantErr error) {
		t.Helper()
		targets, err := interfaceTargets(e, &program.Hook{Interfaces: patterns})
		var names []string
		for _, target := range targets {
			names = append(names, target.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%v: %q, want %q", patterns, got, want)
		}
		if wantErr == nil && err != nil || !errors.Is(err, wantErr) {
			t.Errorf("%v: error %v, want %v", patterns, err, wantErr)
		}
	}
	f(nil, "eth0 veth7", nil)
	f([]string{"eth*"}, "eth0 eth1", nil)
	f([]string{"lo", "veth?"}, "lo veth7", nil)
	f([]string{"wg*"}, "", errNothingYet)
	f([]string{"eth9"}, "", ErrNoTarget)
	f([]string{"eth0", "eth9"}, "eth0", ErrNoTarget)
	if _, err := interfaceTargets(e, &program.Hook{Interfaces: []string{"["}}); err == nil {
		t.Error("a broken pattern is accepted")
	}
}

func TestInterfaceMissing(t *testing.T) {
	inNetns(t)
	e := newEngine(t, Options{})
	spec := loadSpec(t, "net.bpf.o", "on_xdp")
	spec.Hooks[0].Interfaces = []string{"kaon-none0"}
	_, err := e.Load(context.Background(), spec)
	mustFail(t, err, ErrNoTarget, "kaon-none0", "lo", "xdp")
	mustFail(t, err, ErrNothingAttached)

	spec.Hooks[0].Interfaces = []string{"lo"}
	spec.Hooks[0].Target = "fast"
	_, err = e.Load(context.Background(), spec)
	mustFail(t, err, nil, "fast", "generic")
}

func TestInterfacesAppearAndVanish(t *testing.T) {
	checkFDs(t)
	inNetns(t)
	var present []net.Interface
	e := newEngine(t, Options{Interfaces: func() ([]net.Interface, error) { return present, nil }})
	spec := loadSpec(t, "net.bpf.o", "on_xdp")
	spec.Hooks[0].Interfaces = []string{"l*"}
	i := mustLoad(t, e, spec)
	if h := hookOf(t, i, "on_xdp"); h.State != Waiting || h.Err == nil {
		t.Fatalf("without an interface: %s, %v", h.State, h.Err)
	}
	present = []net.Interface{{Index: 1, Name: "lo", Flags: net.FlagUp | net.FlagLoopback}}
	if err := e.Rescan(); err != nil {
		t.Fatal(err)
	}
	if h := hookOf(t, i, "on_xdp"); h.State != Attached || len(h.Targets) != 1 || h.Err != nil {
		t.Fatalf("with an interface: %+v", h)
	}
	sendUDP(t, 2)
	if got := counter(t, i, "by_xdp"); got != 2 {
		t.Errorf("by_xdp = %d, want 2", got)
	}
	present = nil
	if err := e.Rescan(); err != nil {
		t.Fatal(err)
	}
	sendUDP(t, 2)
	if got := counter(t, i, "by_xdp"); got != 2 {
		t.Errorf("after it vanished by_xdp = %d, want 2", got)
	}
	if h := hookOf(t, i, "on_xdp"); h.State != Waiting || len(h.Targets) != 0 {
		t.Fatalf("after it vanished: %+v", h)
	}
	// The interface takes one XDP program: this one must be gone to come again.
	present = []net.Interface{{Index: 1, Name: "lo"}}
	if err := e.Rescan(); err != nil {
		t.Fatal(err)
	}
	other := loadSpec(t, "net.bpf.o", "on_xdp")
	other.Hooks[0].Interfaces = []string{"lo"}
	_, err := e.Load(context.Background(), other)
	mustFail(t, err, ErrNothingAttached, "already")
}

func TestSKLookup(t *testing.T) {
	checkFDs(t)
	inNetns(t)
	if err := features.HaveProgramType(ebpf.SkLookup); err != nil {
		t.Skipf("needs sk_lookup: %v", err)
	}
	e := newEngine(t, Options{})
	i := mustAttach(t, e, loadSpec(t, "net.bpf.o", "on_sk_lookup"))
	sendUDP(t, 2)
	if got := counter(t, i, "by_sk_lookup"); got < 2 {
		t.Errorf("by_sk_lookup = %d, want at least 2", got)
	}
}

func TestNetfilter(t *testing.T) {
	checkFDs(t)
	inNetns(t)
	if err := features.HaveProgramType(ebpf.Netfilter); err != nil {
		t.Skipf("needs netfilter functions (Linux 6.4): %v", err)
	}
	e := newEngine(t, Options{})
	spec := loadSpec(t, "net.bpf.o", "on_netfilter")
	spec.Hooks[0].Target = "family=ipv4,hook=local_out,priority=-7"
	i := mustAttach(t, e, spec)
	sendUDP(t, 4)
	if got := counter(t, i, "by_netfilter"); got != 4 {
		t.Errorf("by_netfilter = %d, want 4", got)
	}
}

func TestParseNetfilter(t *testing.T) {
	f := func(text string, ok bool) {
		t.Helper()
		if _, err := parseNetfilter(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	f("", true)
	f("family=inet,hook=pre_routing,priority=100", true)
	f("family=arp", false)
	f("hook=somewhere", false)
	f("priority=2147483647", false)
	f("what=ever", false)
}
