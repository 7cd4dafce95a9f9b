package engine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// cgroupMount returns where cgroup v2 is mounted.
func (e *Engine) cgroupMount() (string, error) {
	if e.options.CgroupMount != "" {
		return e.options.CgroupMount, nil
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		before, after, ok := strings.Cut(scanner.Text(), " - ")
		if fields := strings.Fields(before); ok && strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	if err := scanner.Err(); err != nil {
		return "", fmt.Errorf("find cgroup v2: %w", err)
	}
	return "", fmt.Errorf("%w: cgroup v2 is not mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified", ErrNoTarget)
}

// cgroupTargets returns the cgroups that a hook names; by default the agent's root. A target's name is its path.
func cgroupTargets(e *Engine, hook *program.Hook) ([]target, error) {
	mount, err := e.cgroupMount()
	if err != nil {
		return nil, err
	}
	var paths, missing []string
	for _, p := range hook.Cgroups {
		full := filepath.Join(mount, filepath.Clean("/"+p))
		if !isPattern(p) {
			if _, err := os.Stat(full); err != nil {
				missing = append(missing, full)
				continue
			}
			paths = append(paths, full)
			continue
		}
		matches, err := filepath.Glob(full)
		if err != nil {
			return nil, fmt.Errorf("cgroup pattern %q: %w", p, err)
		}
		paths = append(paths, matches...)
	}
	if len(hook.Cgroups) == 0 {
		root := e.options.CgroupRoot
		if root == "" {
			root = mount
		}
		paths = append(paths, root)
	}
	var targets []target
	seen := make(map[target]bool)
	for _, p := range paths {
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		t := target{Name: p, ID: st.Ino}
		if !seen[t] {
			seen[t] = true
			targets = append(targets, t)
		}
	}
	switch {
	case len(missing) > 0:
		return targets, fmt.Errorf("%w: there is no cgroup %s", ErrNoTarget, strings.Join(missing, ", "))
	case len(targets) > 0:
		return targets, nil
	}
	return nil, fmt.Errorf("%w: no cgroup matches %s below %s", errNothingYet, strings.Join(hook.Cgroups, ", "), mount)
}

func attachCgroup(r *attachRequest) (attachment, error) {
	attach := r.attachType
	if r.hook.Kind == program.SockOps {
		attach = ebpf.AttachCGroupSockOps
	}
	l, err := link.AttachCgroup(link.CgroupOptions{Path: r.target.Name, Attach: attach, Program: r.program})
	switch {
	case errors.Is(err, unix.EBADF):
		return nil, fmt.Errorf("%s is not a cgroup of version 2: %w", r.target.Name, err)
	case errors.Is(err, unix.EPERM) && missingCapability(r.hook.Kind) == "":
		return nil, fmt.Errorf("another program on %s or above forbids more of this type: %w", r.target.Name, err)
	case errors.Is(err, unix.EINVAL):
		return nil, fmt.Errorf("%w: this kernel has no cgroup hook %s: %w", ErrUnsupported, attach, err)
	}
	return l, err
}
