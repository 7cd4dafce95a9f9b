package engine

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// binaryFile is an executable or library of user space, read to find where its
// functions and probes are.
type binaryFile struct {
	// path is how this process, and the kernel on its behalf, opens the file.
	path string
	open *os.File
	file *elf.File
}

// openBinary reads an ELF file's headers. Binaries are other people's: what makes
// the parser panic becomes an error.
func openBinary(name string) (b *binaryFile, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: malformed ELF file: %v", name, r)
		}
	}()
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer func() {
		if b == nil {
			f.Close()
		}
	}()
	checked, err := checkSectionNames(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	parsed, err := elf.NewFile(checked)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if parsed.Type != elf.ET_EXEC && parsed.Type != elf.ET_DYN {
		return nil, fmt.Errorf("%s is neither an executable nor a shared library", name)
	}
	return &binaryFile{path: name, open: f, file: parsed}, nil
}

func (b *binaryFile) Close() { b.open.Close() }

// maxSectionNames is how many bytes the names of a binary's sections may take: the table of them, which may have no zero bytes, times
// the number of sections, for each of which the parser copies its name.
const maxSectionNames = 32 << 20

// checkSectionNames refuses what the parser would take too much memory for. What is no ELF file is left to that. It returns the file with
// what was checked as it was then: whoever owns the file may write to it meanwhile.
func checkSectionNames(r io.ReaderAt) (io.ReaderAt, error) {
	header := make([]byte, 64)
	n, err := r.ReadAt(header, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if n < 52 || string(header[:4]) != elf.ELFMAG {
		return bytes.NewReader(header[:n]), nil
	}
	checked := &frozenFile{r: r, parts: []frozenPart{{0, header[:n]}}}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(header[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	wide := elf.Class(header[elf.EI_CLASS]) == elf.ELFCLASS64
	// start of the table of sections; in its entries sizes are at that offset; counts are the size, number and index of entries.
	start, sizes, counts := uint64(order.Uint32(header[0x20:])), 0x14, header[0x2e:]
	if wide {
		start, sizes, counts = order.Uint64(header[0x28:]), 0x20, header[0x3a:]
	}
	if start == 0 {
		return checked, nil
	}
	entrySize, count, index := int(order.Uint16(counts)), int(order.Uint16(counts[2:])), int(order.Uint16(counts[4:]))
	if entrySize < 0x28 || entrySize > 64 || index >= count {
		return nil, errors.New("a strange table of sections")
	}
	table := make([]byte, count*entrySize)
	if _, err := r.ReadAt(table, int64(start)); err != nil {
		return nil, fmt.Errorf("table of sections: %w", err)
	}
	checked.parts = append(checked.parts, frozenPart{int64(start), table})
	entry := table[index*entrySize:]
	flags, size := uint64(order.Uint32(entry[8:])), uint64(order.Uint32(entry[sizes:]))
	if wide {
		flags, size = order.Uint64(entry[8:]), order.Uint64(entry[sizes:])
	}
	if elf.SectionFlag(flags)&elf.SHF_COMPRESSED != 0 || size > maxSectionNames/uint64(count) {
		return nil, fmt.Errorf("the names of its %d sections may take more than %s", count, formatBytes(maxSectionNames))
	}
	return checked, nil
}

// frozenFile is a file of which some parts are as they were once.
type frozenFile struct {
	r     io.ReaderAt
	parts []frozenPart
}

type frozenPart struct {
	start int64
	data  []byte
}

// ReadAt implements io.ReaderAt.
func (f *frozenFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.r.ReadAt(p, offset)
	for _, part := range f.parts {
		from, to := max(offset, part.start), min(offset+int64(n), part.start+int64(len(part.data)))
		if from < to {
			copy(p[from-offset:to-offset], part.data[from-part.start:])
		}
	}
	return n, err
}

// fileOffset converts a virtual address to an offset in the file.
func (b *binaryFile) fileOffset(address uint64, flags elf.ProgFlag) (uint64, bool) {
	for _, p := range b.file.Progs {
		if p.Type == elf.PT_LOAD && p.Flags&flags == flags && address >= p.Vaddr && address-p.Vaddr < p.Memsz {
			return address - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}

// libraryDirs are where dynamic loaders look when nothing else says where.
var libraryDirs = [...]string{
	"/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu",
	"/usr/lib/aarch64-linux-gnu", "/lib", "/usr/lib", "/usr/local/lib",
}

// libraryPatterns are what the file of a library may be called.
func libraryPatterns(name string) []string {
	return []string{name, name + ".so", name + ".so.*", name + "-*.so"}
}

// resolveBinary finds a binary by path or a library by name ("libc", "libssl.so.3"), as a process sees it
// if pid is not 0. A process may live in a container: its paths begin at its own root.
func resolveBinary(name string, pid int) (string, error) {
	root := ""
	if pid > 0 {
		root = fmt.Sprintf("/proc/%d/root", pid)
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
			return "", fmt.Errorf("%w: there is no process %d", ErrNoTarget, pid)
		}
	}
	if strings.HasPrefix(name, "/") {
		if strings.HasPrefix(name, "/proc/") {
			root = ""
		}
		full := root + name
		if _, err := os.Stat(full); err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoTarget, err)
		}
		return full, nil
	}
	switch {
	case name == "":
		return "", errors.New("there is neither a path nor a library's name")
	case strings.Contains(name, "/") && pid > 0:
		return "", fmt.Errorf("%q is neither an absolute path nor a library's name", name)
	case strings.Contains(name, "/"):
		// As for libbpf, from the directory that we were started in.
		if _, err := os.Stat(name); err != nil {
			return "", fmt.Errorf("%w: %w: give an absolute path", ErrNoTarget, err)
		}
		return filepath.Abs(name)
	}
	if pid > 0 {
		if mapped := mappedLibrary(pid, name); mapped != "" {
			return root + mapped, nil
		}
	}
	for _, dir := range libraryDirs {
		for _, pattern := range libraryPatterns(name) {
			matches, err := filepath.Glob(filepath.Join(root+dir, pattern))
			if err != nil {
				return "", fmt.Errorf("library %q: %w", name, err)
			}
			for _, m := range matches {
				if isELF(m) {
					return m, nil
				}
			}
		}
	}
	for dir := range strings.SplitSeq(os.Getenv("PATH"), ":") {
		if full := filepath.Join(dir, name); pid == 0 && filepath.IsAbs(dir) && isELF(full) {
			return full, nil
		}
	}
	return "", fmt.Errorf("%w: no library or program %s in the standard directories: give its path", ErrNoTarget, name)
}

func isELF(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	var magic [4]byte
	_, err = f.Read(magic[:])
	return err == nil && string(magic[:]) == elf.ELFMAG
}

// mappedLibrary finds a library among the files that a process has mapped.
func mappedLibrary(pid int, name string) string {
	for _, m := range readMaps(pid) {
		base := filepath.Base(m.path)
		if base == name || strings.HasPrefix(base, name+".so") || strings.HasPrefix(base, name+"-") && strings.Contains(base, ".so") {
			return m.path
		}
	}
	return ""
}

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end, offset uint64
	inode              uint64
	executable         bool
	path               string
}

// maxMaps is how many bytes of a process's mappings are read: it may make as many as it likes.
const maxMaps = 16 << 20

// readMaps returns the file mappings of a process, as far as the limit goes; none if it can't be read.
func readMaps(pid int) []mapping {
	f, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseMaps(io.LimitReader(f, maxMaps))
}

// parseMaps reads lines of /proc/PID/maps, until one that is too long for a path.
func parseMaps(r io.Reader) []mapping {
	var mappings []mapping
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := lines.Text()
		slash := strings.IndexByte(line, '/')
		if slash < 0 {
			continue
		}
		var m mapping
		var permissions, device string
		if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &m.start, &m.end, &permissions, &m.offset, &device, &m.inode); err != nil {
			continue
		}
		m.path = strings.TrimSpace(line[slash:])
		m.executable = strings.Contains(permissions, "x")
		mappings = append(mappings, m)
	}
	return mappings
}
