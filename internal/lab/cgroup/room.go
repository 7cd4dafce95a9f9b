package cgroup

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Room returns how many bytes of memory the limits of this process's cgroup, and of those above it that can be seen, leave it;
// false where there is no limit. In a Cell it is asked for those above: the Cell's own limit is about what it is made for.
func Room(inCell bool) (int64, bool) {
	room, limited := int64(0), false
	for _, h := range []struct{ controller, limit, usage, reclaimable string }{
		{"", "memory.max", "memory.current", "inactive_file"},
		{"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
	} {
		dir, err := ownOf(h.controller)
		if err != nil {
			continue
		}
		if inCell && h.controller == "" {
			dir = filepath.Dir(dir)
		}
		for exists(filepath.Join(dir, "cgroup.procs")) {
			if left, ok := roomIn(dir, h.limit, h.usage, h.reclaimable); ok && (!limited || left < room) {
				room, limited = left, true
			}
			dir = filepath.Dir(dir)
		}
	}
	return room, limited
}

// roomIn returns what one cgroup's limit leaves. Page cache that is not used counts as free, as in MemAvailable.
func roomIn(dir, limit, usage, reclaimable string) (int64, bool) {
	most, ok := number(filepath.Join(dir, limit))
	if !ok {
		return 0, false // there is no controller, or the limit is "max"
	}
	used, ok := number(filepath.Join(dir, usage))
	if !ok {
		return 0, false
	}
	statistics, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return max(most-used, 0), true
	}
	for line := range strings.Lines(string(statistics)) {
		if value, ok := strings.CutPrefix(line, reclaimable+" "); ok {
			if n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64); err == nil {
				used -= n
			}
		}
	}
	return max(most-max(used, 0), 0), true
}

func number(path string) (int64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
