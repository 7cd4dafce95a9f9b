package kernelview

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// executable is the file that this process runs, also when another is at its path by now.
const executable = "/proc/self/exe"

// fileOffset returns where in the executable the code at an address of this process is. What is mapped where says
// so for stripped executables and for those that are loaded anywhere (PIE) alike.
func fileOffset(address uintptr) (uint64, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return 0, err
	}
	path, err := os.Readlink(executable)
	if err != nil {
		return 0, err
	}
	offset, err := offsetIn(string(maps), path, uint64(address))
	if err != nil {
		return 0, fmt.Errorf("find the code at %#x in %s: %w", address, path, err)
	}
	return offset, nil
}

// offsetIn finds an address in the text of /proc/PID/maps (proc_pid_maps(5)), where it must be code of the file at path.
func offsetIn(maps, path string, address uint64) (uint64, error) {
	for line := range strings.Lines(maps) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			return 0, err
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil {
			return 0, err
		}
		if address < start || address >= end {
			continue
		}
		offset, err := strconv.ParseUint(fields[2], 16, 64)
		if err != nil {
			return 0, err
		}
		_, mapped, _ := strings.Cut(line, "/")
		switch {
		case strings.TrimSuffix(mapped, "\n") != strings.TrimPrefix(path, "/"):
			return 0, errors.New("it is not mapped from there")
		case !strings.Contains(fields[1], "x"):
			return 0, errors.New("it is no code")
		}
		return offset + address - start, nil
	}
	return 0, errors.New("it is not mapped")
}
