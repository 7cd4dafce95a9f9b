package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/test/sandbox"
)

const calls = "internal/agent/testdata/calls.bpf.o"

// number returns what the program calls runs with, and the kernel's id of its function.
func number(t *testing.T, a *sandbox.Agent) (string, uint32) {
	t.Helper()
	s := status(t, a, "calls")
	return s.Params[0].Text(), s.Hooks[0].ProgramID
}

func TestReload(t *testing.T) {
	cgroup := needCgroup(t)
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	text := func(n int) string {
		return fmt.Sprintf("programs:\n- exec\n- source: %s\n  params: {number: %d}\n", object(t, calls), n)
	}
	write(t, config, text(1))
	a := up(t, cgroup, "-c", config)
	runs(t, cgroup, 2)
	id := status(t, a, "exec").Hooks[0].ProgramID
	_, before := number(t, a)

	write(t, config, text(2))
	eventually(t, "the change is taken up", func() bool {
		n, _ := number(t, a)
		return n == "2"
	})
	if _, after := number(t, a); after == before {
		t.Error("the program was not loaded again")
	}
	if now := status(t, a, "exec").Hooks[0].ProgramID; now != id {
		t.Errorf("the other program was loaded again: %d, was %d", now, id)
	}

	// A broken file, then a file with an unknown program: what runs goes on.
	write(t, config, "programs: [exec\n")
	eventually(t, "the broken file is complained of", func() bool { return strings.Contains(a.Log(), "what runs goes on") })
	write(t, config, text(3)+"- no-such-program\n")
	eventually(t, "the repaired file is taken up", func() bool {
		n, _ := number(t, a)
		return n == "3"
	})
	eventually(t, "the unknown program is reported", func() bool {
		all, err := a.Status()
		return err == nil && len(all) == 3
	})
	if s := status(t, a, "no-such-program"); s.State != agent.Down || !strings.Contains(s.Reason, "no such built-in program") {
		t.Errorf("%+v", s)
	}
	code, body := get(t, a, "/-/ready")
	if code != 503 || !strings.Contains(body, "no-such-program is down") {
		t.Errorf("/-/ready: %d %s", code, body)
	}
	if now := status(t, a, "exec").Hooks[0].ProgramID; now != id {
		t.Errorf("the other program was loaded again: %d, was %d", now, id)
	}
	got := parse(t, scrape(t, a), textType)
	if x := sum(got, "process_starts_total"); x != 2 {
		t.Errorf("%v process starts, want 2", x)
	}
	if sum(got, "kaon_program_load_failures_total") < 2 || sum(got, "kaon_program_up", "program", "no-such-program") != 0 {
		t.Errorf("failures are not counted: %v, %v", got["kaon_program_load_failures_total"], got["kaon_program_up"])
	}

	write(t, config, "programs: [exec]\n")
	eventually(t, "the program is unloaded", func() bool {
		all, err := a.Status()
		return err == nil && len(all) == 1
	})
	if code, _ := get(t, a, "/-/ready"); code != 200 {
		t.Errorf("/-/ready: %d", code)
	}
	if body := scrape(t, a); strings.Contains(body, "test_calls_total") {
		t.Error("the metric of a program that is gone is still there")
	}
	stop(t, a)
}

func TestHangup(t *testing.T) {
	cgroup := needCgroup(t)
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	write(t, config, "programs: [exec]\n")
	a := up(t, cgroup, "-c", config)
	reloads := func() float64 { return sum(parse(t, scrape(t, a), textType), "kaon_reloads_total") }
	before := reloads()
	if err := a.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the configuration is applied again", func() bool { return reloads() > before })
	stop(t, a)
}

// A program's own file is followed, too; the counters go on.
func TestReloadObject(t *testing.T) {
	cgroup := needCgroup(t)
	path := filepath.Join(t.TempDir(), "mine.bpf.o")
	install := func(name string) {
		data, err := os.ReadFile(object(t, "internal/agent/testdata/"+name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, path, string(data))
	}
	install("calls.bpf.o")
	a := up(t, cgroup, path)
	runs(t, cgroup, 1) // system call 0, which number is by default, is read()
	before := sum(parse(t, scrape(t, a), textType), "test_calls_total")
	if before == 0 {
		t.Fatal("nothing was counted")
	}
	install("calls2.bpf.o")
	eventually(t, "the new object runs", func() bool { return strings.Contains(status(t, a, "mine").Help, "reloaded") })
	if after := sum(parse(t, scrape(t, a), textType), "test_calls_total"); after != before {
		t.Errorf("the counter went from %v to %v", before, after)
	}
	stop(t, a)
}

// Counters and start timestamps survive a restart, however the agent ended.
func TestPin(t *testing.T) {
	cgroup := needCgroup(t)
	pins := fmt.Sprintf("/sys/fs/bpf/kaon-test-e2e-%d", os.Getpid())
	t.Cleanup(func() {
		if err := os.RemoveAll(pins); err != nil {
			t.Error(err)
		}
	})
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	pinned := "pinDirectory: " + pins + "\nprograms:\n- source: exec\n  pin: true\n"
	write(t, config, pinned)
	state := func(a *sandbox.Agent) (float64, int64) {
		_, body, header, err := a.Get("/metrics", "Accept", protobufType)
		if err != nil {
			t.Fatal(err)
		}
		got := parse(t, body, header.Get("Content-Type"))
		if len(got["process_starts_total"]) != 1 {
			t.Fatalf("want one series: %v", got["process_starts_total"])
		}
		return got["process_starts_total"][0].value, got["process_starts_total"][0].start
	}
	a := up(t, cgroup, "-c", config)
	if _, err := os.Stat(pins); err != nil {
		t.Skipf("needs a BPF file system: %v", err)
	}
	runs(t, cgroup, 3)
	_, start := state(a)
	first := start
	want := 3.0
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := a.Stop(signal, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		runs(t, cgroup, 2) // the programs are attached meanwhile
		want += 2
		a = up(t, cgroup, "-c", config)
		value, now := state(a)
		if value != want {
			t.Errorf("after %v: %v, want %v", signal, value, want)
		}
		// A series that began after its program is as old as the program, once the agent was restarted: never younger.
		if now > start || start != first && now != start {
			t.Errorf("after %v: the start timestamp is %d, was %d", signal, now, start)
		}
		start = now
		runs(t, cgroup, 1)
		want++
	}
	if value, _ := state(a); value != want {
		t.Errorf("%v, want %v: counted twice, or not at all", value, want)
	}
	// A program that is not wanted any more leaves nothing behind.
	write(t, config, "pinDirectory: "+pins+"\nprograms: [tasks]\n")
	eventually(t, "the pins are removed", func() bool {
		files, err := filepath.Glob(pins + "/exec/*")
		return err == nil && len(files) == 0
	})
	before := held(t, a)
	stop(t, a)
	before.gone(t)
	if _, err := os.Stat(filepath.Join(pins, "exec")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s/exec is still there: %v", pins, err)
	}
}
