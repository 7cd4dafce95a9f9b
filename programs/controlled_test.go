package programs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/workload"
)

// controlled is a cgroup in the hierarchy of a controller, which may be one of v1.
type controlled struct {
	cgroup
	v1 bool
}

func newControlled(t testing.TB, controller string) controlled {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	layout, err := workload.Detect()
	if err != nil {
		t.Skip("needs cgroups:", err)
	}
	c := controlled{}
	mount := ""
	for _, h := range layout.Controllers {
		if h.Controller == controller {
			mount, c.v1 = h.Mount, true
		}
	}
	if mount == "" {
		enabled, _ := os.ReadFile(filepath.Join(layout.V2.Mount, "cgroup.subtree_control"))
		if !strings.Contains(" "+string(enabled)+" ", controller) {
			t.Skipf("needs the cgroup controller %s", controller)
		}
		mount = layout.V2.Mount
	}
	c.dir, err = os.MkdirTemp(mount, "kaon-test-")
	if err != nil {
		t.Skip("needs the right to make cgroups:", err)
	}
	c.path = "/" + filepath.Base(c.dir)
	t.Cleanup(func() {
		if err := unix.Rmdir(c.dir); err != nil {
			t.Errorf("remove the cgroup %s: %v", c.dir, err)
		}
	})
	return c
}

// child makes a cgroup below.
func (c controlled) child(t testing.TB, name string) controlled {
	t.Helper()
	below := controlled{cgroup{c.dir + "/" + name, c.path + "/" + name}, c.v1}
	if err := os.Mkdir(below.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Rmdir(below.dir); err != nil {
			t.Errorf("remove the cgroup %s: %v", below.dir, err)
		}
	})
	return below
}

// start runs a helper that waits for its input, in the cgroup.
func (c controlled) start(t testing.TB, name string, environment ...string) *helper {
	t.Helper()
	h := startHelper(t, name, nil, environment...)
	c.write(t, "cgroup.procs", strconv.Itoa(h.cmd.Process.Pid))
	return h
}

func (c controlled) write(t testing.TB, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.dir, file), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// number reads one of a file, by its name, or the first if that is empty.
func (c controlled) number(t testing.TB, file, name string) (uint64, bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		var n uint64
		rest, ok := strings.CutPrefix(line, name)
		if _, err := fmt.Sscan(rest, &n); ok && err == nil {
			return n, true
		}
	}
	return 0, false
}

// say sends a line to the helper and returns its answer.
func (h *helper) say(line string) string {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.in, line); err != nil {
		h.t.Fatal(err)
	}
	answer, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatal("the helper does not answer:", err)
	}
	return strings.TrimSpace(answer)
}

// cpuTime is what the process has used.
func cpuTime() time.Duration {
	var used unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &used); err != nil {
		return 0
	}
	return time.Duration(used.Nano())
}
