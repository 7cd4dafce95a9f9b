package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDropCapabilities(t *testing.T) {
	cgroup := needCgroup(t)
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	write(t, config, "programs: [exec]\n")
	a := startAgent(t, cgroup, kaon(), "-c", config, "--drop-capabilities")
	address := strings.TrimPrefix(a.URL, "http://")
	eventually(t, "it serves, or says why not", func() bool {
		select {
		case <-a.Ended():
			return true
		default:
			return strings.Contains(a.Log(), "look: ") && listening(address)
		}
	})
	select {
	case <-a.Ended():
		if strings.Contains(a.Log(), "this kernel refuses to read maps without capabilities") {
			t.Skip("needs a kernel that lets maps be read without capabilities")
		}
		t.Fatal(a.Log())
	default:
	}
	data, err := os.ReadFile(filepath.Join("/proc", itoa(a.Process.Pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	has(t, string(data), "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000")
	runs(t, cgroup, 3)
	if x := sum(parse(t, scrape(t, a), textType), "process_starts_total"); x != 3 {
		t.Errorf("%v process starts, want 3", x)
	}
	// It can't change anything, says so, and goes on.
	write(t, config, "programs: [exec, tasks]\n")
	eventually(t, "the change is refused", func() bool { return strings.Contains(a.Log(), "gave up its capabilities: restart it") })
	if err := a.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "SIGHUP is refused, too", func() bool { return strings.Count(a.Log(), "gave up its capabilities: restart it") > 1 })
	if x := sum(parse(t, scrape(t, a), textType), "process_starts_total"); x != 3 {
		t.Errorf("%v process starts, want 3", x)
	}
	before := held(t, a)
	stop(t, a)
	before.gone(t)
}

// nobody makes a command run without root, with capabilities.
func nobody(capabilities ...uintptr) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: capabilities}
}

func TestAmbientCapabilities(t *testing.T) {
	cgroup := needCgroup(t)
	command := kaon()
	command.SysProcAttr = nobody(unix.CAP_BPF, unix.CAP_PERFMON)
	command.Dir = "/"
	a := upCommand(t, cgroup, command, "exec")
	if s := status(t, a, "exec"); s.State != "up" {
		t.Fatalf("exec is %s: %s", s.State, s.Reason)
	}
	runs(t, cgroup, 2)
	if x := sum(parse(t, scrape(t, a), textType), "process_starts_total"); x != 2 {
		t.Errorf("%v process starts, want 2", x)
	}
	before := held(t, a)
	stop(t, a)
	before.gone(t)
}

// Without any right it says what it needs.
func TestNoCapabilities(t *testing.T) {
	cgroup := needCgroup(t)
	command := kaon("run", "exec", "--once", "--cgroup-root", cgroup.Path)
	command.SysProcAttr = nobody()
	command.Dir = "/"
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err == nil || command.ProcessState.ExitCode() != 1 {
		t.Fatalf("%v: %s", err, out.String())
	}
	has(t, out.String(), "CAP_BPF", "no program runs")
	if strings.Contains(out.String(), "goroutine") {
		t.Error(out.String())
	}
	for _, arguments := range [][]string{{"list"}, {"describe", "exec"}, {"check", "exec"}, {"doctor"}} {
		command := kaon(arguments...)
		command.SysProcAttr = nobody()
		command.Dir = "/"
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("kaon %s: %v: %s", strings.Join(arguments, " "), err, out)
		}
	}
}
