package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kaon-project/kaon/internal/workload"
)

// cgroups says which hierarchy tells workloads apart, as the agent will find it.
func cgroups(l workload.Layout, err error) []Item {
	layout := Item{Name: "layout", State: Yes, Value: l.String()}
	if err != nil {
		layout.State, layout.Value, layout.Error = No, "", err.Error()
		layout.Cost = "series have no workload: no namespace, pod, container or unit"
		layout.Remedy = "mount -t cgroup2 none /sys/fs/cgroup; in a container, mount the host's /sys/fs/cgroup"
		return []Item{layout}
	}
	workloads := Item{Name: "workloads", State: Yes}
	switch l.Mode {
	case workload.ModeV2:
		workloads.Value = "told apart by cgroup v2"
	case workload.ModeV1:
		workloads.Value = "told apart by cgroup v1, controller " + l.V1.Controller
	case workload.ModeHybrid:
		workloads.Value = "told apart by cgroup v2, and by controller " + l.V1.Controller + " of v1 for tasks in v2's root"
	}
	items := []Item{layout, workloads}
	v2 := Item{Name: "cgroup v2", State: Yes, Value: l.V2.Mount}
	if !l.V2.Present() {
		v2.State, v2.Value, v2.Error = No, "", "not mounted"
		v2.Cost = "programs can't be attached to cgroups (cgroup_skb, sockops, ...)"
		v2.Remedy = "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1"
	}
	items = append(items, v2)
	for _, h := range []workload.Hierarchy{l.V2, l.V1} {
		if h.Present() && !h.Whole {
			items = append(items, Item{Name: "all of " + h.Mount, State: No, Error: "only a part of the hierarchy is visible",
				Cost: "workloads outside of it are unresolved", Remedy: "run in the host's cgroup namespace, or mount the host's /sys/fs/cgroup"})
		}
	}
	return items
}

// ownCgroup is this process's path in cgroup v2, from /proc/self/cgroup.
func ownCgroup(text string) string {
	for line := range strings.Lines(text) {
		if path, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "0::"); ok {
			return path
		}
	}
	return ""
}

// scratchCgroup is an own, empty cgroup to attach to, removed afterwards.
type scratchCgroup struct {
	// path is empty if none could be made; err says why.
	path string
	err  error
	// mounted says that there is a cgroup v2 at all.
	mounted bool
}

// newScratchCgroup makes a cgroup in parent; if that is empty, in this process's own cgroup or else in v2's root.
func newScratchCgroup(l workload.Layout, parent string) *scratchCgroup {
	if !l.V2.Present() && parent == "" {
		return &scratchCgroup{err: errors.New("cgroup v2 is not mounted")}
	}
	parents := []string{parent}
	if parent == "" {
		// The own cgroup first: that is where delegation reaches.
		text, _ := os.ReadFile("/proc/self/cgroup")
		parents = []string{filepath.Join(l.V2.Mount, ownCgroup(string(text))), l.V2.Mount}
	}
	c := &scratchCgroup{mounted: true}
	for _, dir := range parents {
		path := filepath.Join(dir, fmt.Sprintf("kaon-doctor-%d", os.Getpid()))
		if c.err = os.Mkdir(path, 0o755); c.err == nil {
			c.path = path
			return c
		}
	}
	return c
}

func (c *scratchCgroup) remove() error {
	if c.path == "" {
		return nil
	}
	return os.Remove(c.path)
}
