package inject

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/kaon-project/kaon/internal/lab/cgroup"
)

// available returns how many bytes of memory this process could still take: what the kernel says is available,
// or what its cgroups' limits leave if that is less. inCell: its own cgroup is one that an injection was given.
func available(inCell bool) (int64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	bytes, err := parseAvailable(string(data))
	if err != nil {
		return 0, fmt.Errorf("/proc/meminfo: %w", err)
	}
	if room, limited := cgroup.Room(inCell); limited {
		bytes = min(bytes, room)
	}
	return bytes, nil
}

func parseAvailable(text string) (int64, error) {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] == "MemAvailable:" && fields[2] == "kB" {
			n, err := strconv.ParseInt(fields[1], 10, 64)
			if err != nil || n < 0 || n > 1<<50 {
				return 0, fmt.Errorf("MemAvailable is %q", fields[1])
			}
			return n << 10, nil
		}
	}
	return 0, errors.New("there is no MemAvailable")
}
