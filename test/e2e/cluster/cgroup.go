package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// cgroups are the cluster's directories in all hierarchies of the machine: NAME at the top of each. The cluster's own
// processes are in NAME/daemons of the unified hierarchy; pods are below NAME/NODE.
type cgroups struct {
	name    string
	unified string // mount point of the unified hierarchy
	legacy  []string
	daemons *os.File
}

// unifiedMount returns where cgroup v2 is mounted.
func unifiedMount() (string, error) {
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err == nil {
			return mount, nil
		}
	}
	return "", ErrNoCgroup
}

func newCgroups(name string) (*cgroups, error) {
	c := &cgroups{name: name}
	var err error
	if c.unified, err = unifiedMount(); err != nil {
		return nil, err
	}
	if c.unified != "/sys/fs/cgroup" {
		entries, err := os.ReadDir("/sys/fs/cgroup")
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			// The others are links to hierarchies with several controllers.
			if mount := filepath.Join("/sys/fs/cgroup", entry.Name()); entry.IsDir() && mount != c.unified {
				c.legacy = append(c.legacy, mount)
			}
		}
	}
	if err := c.mkdir(name); err != nil {
		return nil, err
	}
	path := filepath.Join(c.unified, name, "daemons")
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, err
	}
	c.daemons, err = os.Open(path)
	return c, err
}

// mkdir makes a cgroup in all hierarchies, ready for pods.
func (c *cgroups) mkdir(name string) error {
	for _, mount := range append([]string{c.unified}, c.legacy...) {
		path := filepath.Join(mount, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		// A cpuset without processors takes no processes.
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			if mount == c.unified {
				continue
			}
			content, err := os.ReadFile(filepath.Join(filepath.Dir(path), file))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(path, file), content, 0)
			}
			if err != nil {
				return fmt.Errorf("set %s of a cgroup: %w", file, err)
			}
		}
	}
	controllers, err := os.ReadFile(filepath.Join(c.unified, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		// What the parent does not give, kubelet will miss and name.
		_ = os.WriteFile(filepath.Join(c.unified, filepath.Dir(name), "cgroup.subtree_control"), []byte("+"+controller), 0)
	}
	return nil
}

// close gives back descriptors; the directories are the keeper's to remove.
func (c *cgroups) close() {
	if c != nil && c.daemons != nil {
		c.daemons.Close()
	}
}
