package programs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const oomLimit = 48 << 20

// useTooMuchMemory enters the memory cgroup of MEMORY_CGROUP, if there is one, and uses twice its limit.
func useTooMuchMemory() {
	if group := os.Getenv("MEMORY_CGROUP"); group != "" {
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(101)
		}
	}
	memory, err := unix.Mmap(-1, 0, 2*oomLimit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		os.Exit(102)
	}
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
}

// limitMemory limits what the processes of a cgroup may use. Where cgroup v1 has the controller, it returns the
// cgroup there, which they must enter.
func limitMemory(t *testing.T, group cgroup) (entered string) {
	t.Helper()
	limit := []byte(fmt.Sprint(oomLimit))
	if err := os.WriteFile(filepath.Join(group.dir, "memory.max"), limit, 0); err == nil {
		_ = os.WriteFile(filepath.Join(group.dir, "memory.swap.max"), []byte("0"), 0)
		return ""
	}
	const hierarchy = "/sys/fs/cgroup/memory"
	dir, err := os.MkdirTemp(hierarchy, "kaon-test-")
	if err != nil {
		t.Skip("needs a memory cgroup:", err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(dir); err != nil {
			t.Errorf("remove the cgroup %s: %v", dir, err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), limit, 0); err != nil {
		t.Skip("needs a memory cgroup:", err)
	}
	_ = os.WriteFile(filepath.Join(dir, "memory.memsw.limit_in_bytes"), limit, 0)
	return dir
}

func TestOOMKill(t *testing.T) {
	group, outside := newCgroup(t), newCgroup(t)
	f := func(params ...string) *running {
		t.Helper()
		r := load(t, "oomkill", group.dir, params...)
		kill := func(c cgroup, memory string) {
			t.Helper()
			if status := c.start(t, "oom", "MEMORY_CGROUP="+memory).wait(); status.Signal() != unix.SIGKILL {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		memory := limitMemory(t, group)
		kill(group, memory)
		kill(group, memory)
		kill(outside, limitMemory(t, outside))
		// Killed by somebody else.
		h := group.start(t, "wait")
		if err := h.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		h.wait()

		families := r.collect()
		limit := "unknown"
		if r.attached("oom_trampoline") || r.attached("oom_kprobe") {
			limit = "cgroup"
		}
		t.Log("limit:", limit)
		missed := r.missed("oom_mark") + r.missed("oom_signal")
		expectUpTo(t, families, "oom_kills_total", 2, missed, "cgroup="+group.path, "limit="+limit)
		expectUpTo(t, families, "oom_kills_total", 2, missed)
		return r
	}
	if f().attached("oom_trampoline") {
		f("-fentry")
	}
}

// offerToDie makes this process the one that the out-of-memory killer likes best.
func offerToDie() {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(101)
	}
	sayReady()
}

// A machine that has no memory left, as far as the out-of-memory killer is told.
func TestOOMKillMachine(t *testing.T) {
	if os.Getenv("KAON_VM") == "" {
		t.Skip("needs a machine of which nothing else can be killed")
	}
	group := newCgroup(t)
	r := load(t, "oomkill", group.dir)
	h := group.start(t, "oomvictim")
	h.expectLine("ready")
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("f"), 0); err != nil {
		t.Skip("needs the magic system request key:", err)
	}
	_, _ = h.out.ReadString('\n') // until it is dead
	if status := h.wait(); status.Signal() != unix.SIGKILL {
		t.Fatalf("the helper ended with %v", status)
	}
	// Another thread kills, and goes on after the signal.
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline) && total(r.collect()["oom_kills_total"]) == 0; {
		time.Sleep(5 * time.Millisecond)
	}
	expectUpTo(t, r.collect(), "oom_kills_total", 1, r.missedAll(), "cgroup="+group.path, "limit=machine")
}
