package programs_test

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestTasks(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "tasks", group.dir)
	cgroup := "cgroup=" + group.path
	var all []*helper
	for range 5 {
		all = append(all, group.start(t, "wait"))
	}
	stop(t, all[3].cmd.Process.Pid)
	if err := all[4].cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The three become quiet, and the fifth a zombie, some time after they were told.
	f := func(state string, want uint64) {
		t.Helper()
		var families map[string][]point
		for range 200 {
			families = r.collect()
			if total(pick(families["processes"], cgroup, "state="+state)) == want {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("processes that are %s: want %d; all: %v", state, want, families["processes"])
	}
	f("sleeping", 3)
	f("stopped", 1)
	f("zombie", 1)

	threads := func() uint64 {
		n := 0
		for _, h := range all {
			entries, err := os.ReadDir("/proc/" + strconv.Itoa(h.cmd.Process.Pid) + "/task")
			if err != nil {
				t.Fatal(err)
			}
			n += len(entries)
		}
		return uint64(n)
	}
	for attempt := 0; ; attempt++ {
		before := threads()
		families := r.collect()
		if after := threads(); before != after && attempt < 100 {
			continue // Go made a thread meanwhile
		}
		expect(t, families, "tasks", before, cgroup)
		expect(t, families, "processes", 5)
		break
	}
	for _, h := range all {
		_ = h.cmd.Process.Kill()
		h.wait()
	}
	if left := r.collect()["processes"]; len(left) != 0 {
		t.Errorf("processes that are gone: %v", left)
	}
}
