package cgroup

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRoomIn(t *testing.T) {
	for _, c := range []struct {
		name, limit, usage, statistics string
		want                           int64
		limited                        bool
	}{
		{"limited", "1000\n", "600\n", "anon 300\ninactive_file 100\nactive_file 200\n", 500, true},
		{"no limit", "max\n", "600\n", "", 0, false},
		{"over the limit", "1000\n", "1200\n", "inactive_file 0\n", 0, true},
		{"odd statistics", "1000\n", "600\n", "inactive_file many\ninactive_file", 400, true},
		{"no usage", "1000\n", "", "", 0, false},
	} {
		dir := t.TempDir()
		for file, content := range map[string]string{"memory.max": c.limit, "memory.current": c.usage, "memory.stat": c.statistics} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, limited := roomIn(dir, "memory.max", "memory.current", "inactive_file")
		if got != c.want || limited != c.limited {
			t.Errorf("%s: %d, %v, want %d, %v", c.name, got, limited, c.want, c.limited)
		}
	}
	if _, limited := roomIn(t.TempDir(), "memory.max", "memory.current", "inactive_file"); limited {
		t.Error("a cgroup without a memory controller limits")
	}
}

// TestRoomOfThisProcess: a limit is never above what the machine's own limits could be, nor negative.
func TestRoomOfThisProcess(t *testing.T) {
	room, limited := Room(false)
	t.Logf("room: %d bytes, limited: %v", room, limited)
	if room < 0 || !limited && room != 0 {
		t.Errorf("room is %d, limited is %v", room, limited)
	}
}
