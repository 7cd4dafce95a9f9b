package workload

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// setScope finds the cgroup that root means and narrows the layout's mode to its hierarchy.
func (l *Layout) setScope(root string, v1 []Hierarchy) error {
	h, dir, err := l.findScope(root, v1)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(h.Mount, dir)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrScope, root, err)
	}
	if rel == "." && h.Whole {
		return nil // A hierarchy's root is everything.
	}
	if !h.Whole && h.Base == "" {
		return fmt.Errorf("%w: %s: the cgroup's depth can't be seen from inside a cgroup namespace: mount the host's /sys/fs/cgroup or run in its cgroup namespace", ErrScope, root)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("%w: stat %s: %w", ErrScope, dir, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%w: %s is no directory", ErrScope, dir)
	}
	full := path.Join("/", h.Base, rel)
	l.Scope = Scope{Path: full, ID: h.ID(st.Ino), Level: uint32(strings.Count(full, "/"))}
	if h.Number == 0 {
		l.Mode = ModeV2
	} else {
		l.Mode, l.V1 = ModeV1, h
	}
	return nil
}

// findScope returns the hierarchy and the directory that a --cgroup-root means.
func (l *Layout) findScope(root string, v1 []Hierarchy) (Hierarchy, string, error) {
	root = filepath.Clean(root)
	// A path below a mount. The longest mount point wins; v2 may be
	// mounted within a directory that holds the others.
	var best Hierarchy
	for _, h := range append([]Hierarchy{l.V2, l.V1}, v1...) {
		if h.Present() && below(root, h.Mount) && len(h.Mount) > len(best.Mount) {
			best = h
		}
	}
	if best.Present() {
		if _, err := os.Stat(root); err != nil {
			return best, "", fmt.Errorf("%w: %w", ErrScope, err)
		}
		return best, root, nil
	}
	// A path in the hierarchy.
	var tried []string
	for _, h := range []Hierarchy{l.V2, l.V1} {
		if !h.Present() {
			continue
		}
		in := path.Join("/", root)
		if !below(in, h.Base) {
			continue
		}
		dir := filepath.Join(h.Mount, in[len(h.Base):])
		if exists(dir) {
			return h, dir, nil
		}
		tried = append(tried, dir)
	}
	return Hierarchy{}, "", fmt.Errorf("%w: %s: neither below a cgroup mount nor one of %s: create it first, or give its path as in /proc/PID/cgroup", ErrScope, root, strings.Join(tried, ", "))
}
