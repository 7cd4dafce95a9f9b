package engine

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// cgroupHelper runs in a cgroup of the test's: it waits for a line, then does what the cgroup hooks see.
func cgroupHelper() error {
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		return err
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	c, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("kaon")); err != nil {
		return err
	}
	_, err = os.ReadFile("/proc/sys/kernel/ostype")
	return err
}

// newCgroup makes a cgroup v2 for the test and returns its path relative to the mount.
func newCgroup(t testing.TB, e *Engine) (name, full string) {
	t.Helper()
	mount, err := e.cgroupMount()
	if err != nil {
		t.Skipf("needs cgroup v2: %v", err)
	}
	name = "kaon-test-" + strings.ToLower(sanitizePin(t.Name()))
	full = filepath.Join(mount, name)
	if err := os.Mkdir(full, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		t.Skipf("needs a writable cgroup v2: %v", err)
	}
	t.Cleanup(func() { _ = os.Remove(full) })
	return name, full
}

// runHelper runs the helper in a cgroup.
func runHelper(t testing.TB, cgroup string) {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := helperCommand(t, "cgroup")
	cmd.Stdin = strings.NewReader("\n")
	var output bytes.Buffer
	cmd.Stderr = &output
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Run(); err != nil {
		t.Fatalf("helper: %v: %s", err, output.String())
	}
}

func TestCgroupHooks(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	inNetns(t)
	name, full := newCgroup(t, e)
	spec := loadSpec(t, "net.bpf.o", "on_cgroup_skb", "on_connect4", "on_sysctl", "on_sockops")
	for n := range spec.Hooks {
		spec.Hooks[n].Cgroups = []string{name}
	}
	i := mustAttach(t, e, spec)
	runHelper(t, full)
	for _, name := range []string{"by_cgroup_skb", "by_connect4", "by_sysctl", "by_sockops"} {
		if counter(t, i, name) == 0 {
			t.Errorf("%s = 0", name)
		}
	}
}

func TestCgroupPattern(t *testing.T) {
	checkFDs(t)
	e := newEngine(t, Options{})
	name, full := newCgroup(t, e)
	spec := loadSpec(t, "net.bpf.o", "on_sysctl")
	spec.Hooks[0].Cgroups = []string{name + "/pod-*"}
	i := mustLoad(t, e, spec)
	if h := hookOf(t, i, "on_sysctl"); h.State != Waiting {
		t.Fatalf("state %s, want waiting", h.State)
	}
	child := filepath.Join(full, "pod-1")
	if err := os.Mkdir(child, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(child) })
	if err := e.Rescan(); err != nil {
		t.Fatal(err)
	}
	runHelper(t, child)
	if got := counter(t, i, "by_sysctl"); got == 0 {
		t.Error("the cgroup that appeared later is not attached to")
	}
	if err := os.Remove(child); err != nil {
		t.Fatal(err)
	}
	if err := e.Rescan(); err != nil {
		t.Fatal(err)
	}
	if h := hookOf(t, i, "on_sysctl"); h.State != Waiting || len(h.Targets) != 0 {
		t.Errorf("after it vanished: %+v", h)
	}

	missing := loadSpec(t, "net.bpf.o", "on_sysctl")
	missing.Hooks[0].Cgroups = []string{name + "/nothing"}
	_, err := e.Load(context.Background(), missing)
	mustFail(t, err, ErrNoTarget, "nothing")
}
