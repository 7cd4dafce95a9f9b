package profile

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Bounds of what is read of one process.
const (
	maxMapsBytes = 16 << 20
	maxMappings  = 8192
)

// mapping is an executable part of a process's memory.
type mapping struct {
	start, end, offset uint64
	device             string
	inode              uint64
	// path as the process sees it. Empty for anonymous memory; [vdso] and the like are the kernel's.
	path string
	// deleted: the path does not lead there any more.
	deleted bool
	object  *object
}

// parseMaps reads the executable mappings of a /proc/PID/maps file, which are sorted by address. Lines that are
// none are skipped: a path may contain anything.
func parseMaps(r io.Reader) ([]mapping, error) {
	var all []mapping
	lines := bufio.NewScanner(io.LimitReader(r, maxMapsBytes))
	lines.Buffer(nil, 64<<10)
	for lines.Scan() && len(all) < maxMappings {
		m, ok := parseMapping(lines.Bytes())
		if !ok || len(all) > 0 && m.start < all[len(all)-1].end {
			continue
		}
		all = append(all, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the process's mappings: %w", err)
	}
	return all, nil
}

// parseMapping reads one line: "START-END PERMISSIONS OFFSET DEVICE INODE      PATH".
func parseMapping(line []byte) (mapping, bool) {
	var fields [5][]byte
	for i := range fields {
		var ok bool
		fields[i], line, ok = bytes.Cut(line, []byte{' '})
		if !ok && i < len(fields)-1 {
			return mapping{}, false
		}
	}
	start, end, ok := bytes.Cut(fields[0], []byte{'-'})
	if !ok || len(fields[1]) != 4 || fields[1][2] != 'x' {
		return mapping{}, false
	}
	m := mapping{device: string(fields[3]), path: unescapePath(strings.TrimLeft(string(line), " "))}
	var errs [4]error
	m.start, errs[0] = strconv.ParseUint(string(start), 16, 64)
	m.end, errs[1] = strconv.ParseUint(string(end), 16, 64)
	m.offset, errs[2] = strconv.ParseUint(string(fields[2]), 16, 64)
	m.inode, errs[3] = strconv.ParseUint(string(fields[4]), 10, 64)
	for _, err := range errs {
		if err != nil {
			return mapping{}, false
		}
	}
	m.path, m.deleted = strings.CutSuffix(m.path, " (deleted)")
	return m, m.start < m.end && m.offset+(m.end-m.start) >= m.offset
}

// unescapePath undoes the only thing that the kernel escapes there.
func unescapePath(path string) string { return strings.ReplaceAll(path, `\012`, "\n") }

// base is the last component of a path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// find returns the mapping that an address lies in, nil if none.
func find(mappings []mapping, address uint64) *mapping {
	low, high := 0, len(mappings)
	for low < high {
		if middle := (low + high) / 2; mappings[middle].end <= address {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(mappings) && mappings[low].start <= address {
		return &mappings[low]
	}
	return nil
}

// merge puts newer mappings over older ones, which stay where the new ones leave room: what was unmapped has been
// sampled before.
func merge(older, newer []mapping) []mapping {
	all := make([]mapping, 0, len(newer)+8)
	i := 0
	for _, m := range newer {
		for ; i < len(older) && older[i].end <= m.start; i++ {
			all = append(all, older[i])
		}
		for i < len(older) && older[i].start < m.end {
			i++
		}
		all = append(all, m)
	}
	all = append(all, older[i:]...)
	if len(all) > 2*maxMappings {
		return newer
	}
	return all
}
