package series

import (
	"bufio"
	"bytes"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/program"
)

// Host knows the names of this machine's things: block devices, network
// interfaces, kernel symbols and enums. Nothing is read before a label needs it. It is safe for concurrent use.
type Host struct {
	devices    *nameTable
	interfaces *nameTable
	symbols    *symbolTable
	// allSymbols has the kernel's data too. It is read for those who ask for data only: it may be twice as large.
	allSymbols *symbolTable
	enums      *enumTable
	pci        *pciNames
}

// NewHost returns the names of the machine that it runs on.
func NewHost() *Host {
	openSymbols := func() (io.ReadCloser, error) { return os.Open("/proc/kallsyms") }
	return &Host{
		devices:    &nameTable{read: readDevices, standIn: appendDeviceNumber},
		interfaces: &nameTable{read: readInterfaces, standIn: appendNumber},
		symbols:    &symbolTable{open: openSymbols},
		allSymbols: &symbolTable{open: openSymbols, data: true},
		enums:      &enumTable{read: readKernelEnum},
		pci:        &pciNames{paths: []string{"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"}},
	}
}

const (
	// namesAge is how old names may be: a renamed interface is noticed after that time.
	namesAge = time.Minute
	// maxGoneNames bounds the names that are kept of things that are gone.
	maxGoneNames = 1024
	// missAge bounds how often an unknown number makes us look again.
	missAge = time.Second
)

// nameTable names numbers by a list that the kernel keeps.
type nameTable struct {
	read func() (map[uint64]string, error)
	// standIn writes a number without a name, and says whether it can have none.
	standIn func(dst []byte, n uint64) (text []byte, final bool)

	mu      sync.RWMutex
	names   map[uint64]string
	at      time.Time
	missed  bool
	changes uint64
}

func (t *nameTable) appendLabel(dst []byte, l *program.Label, data []byte) ([]byte, bool) {
	if l.Field.Bytes(data) == nil {
		return dst, true
	}
	n := l.Field.Number(data)
	name := t.name(n)
	if name == "" {
		var b [48]byte
		text, final := t.standIn(b[:0], n)
		if final {
			return appendPlain(dst, l.Name, text), true
		}
		if name = t.look(n); name == "" {
			return appendPlain(dst, l.Name, text), false
		}
	}
	return AppendLabel(dst, l.Name, name), true
}

// name returns a number's name as far as it is known.
func (t *nameTable) name(n uint64) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.names[n]
}

// look reads the list again for a number that is not in it.
func (t *nameTable) look(n uint64) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missed = true
	t.reload(time.Now(), missAge)
	return t.names[n]
}

func (t *nameTable) generation(time.Time) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	age := namesAge
	if t.missed {
		age = missAge
	}
	if t.names != nil {
		t.reload(time.Now(), age)
	}
	return t.changes
}

func (t *nameTable) reload(now time.Time, age time.Duration) {
	if !t.at.IsZero() && now.Sub(t.at) < age {
		return
	}
	t.at, t.missed = now, false
	names, err := t.read()
	if err != nil {
		return
	}
	// What is gone keeps its name: its counters are still there.
	listed := len(names)
	for n, name := range t.names {
		if len(names) >= listed+maxGoneNames {
			break
		}
		if _, ok := names[n]; !ok {
			names[n] = name
		}
	}
	if !maps.Equal(names, t.names) {
		t.names = names
		t.changes++
	}
}

// readDevices names block devices by dev_t as the kernel keeps it: major<<20 | minor.
func readDevices() (map[uint64]string, error) {
	f, err := os.Open("/proc/diskstats")
	if err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	defer f.Close()
	names := map[uint64]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		columns := bytes.Fields(lines.Bytes())
		if len(columns) < 3 {
			continue
		}
		major, err1 := strconv.ParseUint(string(columns[0]), 10, 12)
		minor, err2 := strconv.ParseUint(string(columns[1]), 10, 20)
		if err1 == nil && err2 == nil {
			names[major<<20|minor] = string(columns[2])
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("list block devices: %w", err)
	}
	return names, nil
}

// appendDeviceNumber writes MAJOR:MINOR. Major 0 are file systems without a device: they have no name.
func appendDeviceNumber(dst []byte, n uint64) ([]byte, bool) {
	dst = append(strconv.AppendUint(dst, n>>20, 10), ':')
	return strconv.AppendUint(dst, n&(1<<20-1), 10), n>>20 == 0
}

func readInterfaces() (map[uint64]string, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	names := make(map[uint64]string, len(list))
	for _, i := range list {
		names[uint64(i.Index)] = i.Name
	}
	return names, nil
}

// appendNumber: interface 0 is none.
func appendNumber(dst []byte, n uint64) ([]byte, bool) {
	return strconv.AppendUint(dst, n, 10), n == 0
}

// symbolTable names kernel addresses by /proc/kallsyms. It takes megabytes, so that it is forgotten when nobody asked for
// a while: series keep the names that they have.
type symbolTable struct {
	open func() (io.ReadCloser, error)
	// data says that it has variables too, where the kernel lists them (CONFIG_KALLSYMS_ALL).
	data bool

	mu        sync.Mutex
	addresses []uint64
	offsets   []uint32 // of names, parallel to addresses
	names     []byte   // each ends with a newline
	at, asked time.Time
	missed    bool
	changes   uint64
	// digest tells whether the list is another than the last, which may be forgotten; 0: none was read.
	digest uint64
	seed   maphash.Seed
}

// Symbol names the function of the kernel that an address lies in: empty if it has no name, or the kernel does not tell.
func (h *Host) Symbol(address uint64) string {
	name, _ := h.symbols.look(address, false)
	name, _, _ = strings.Cut(name, "\t")
	return name
}

func (t *symbolTable) appendLabel(dst []byte, l *program.Label, data []byte) ([]byte, bool) {
	if l.Field.Bytes(data) == nil {
		return dst, true
	}
	address := l.Field.Number(data)
	name, _ := t.look(address, false)
	if name == "" {
		return decodeHex(dst, l, data), address == 0
	}
	name, _, _ = strings.Cut(name, "\t")
	return AppendLabel(dst, l.Name, name), true
}

// look returns the symbol that an address lies in, or that begins there (exact), without the offset. It is "" if
// there is none. After it come a tab and [MODULE] if it is a module's.
func (t *symbolTable) look(address uint64, exact bool) (name string, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = time.Now()
	name = t.find(address, exact)
	if name == "" && address != 0 {
		t.missed = true
		t.reload(t.asked)
		name = t.find(address, exact)
	}
	return name, name != ""
}

func (t *symbolTable) find(address uint64, exactly bool) string {
	i, exact := slices.BinarySearch(t.addresses, address)
	if !exact {
		i--
	}
	// Behind the last symbol nobody knows where it ends.
	if i < 0 || !exact && (exactly || i == len(t.addresses)-1) {
		return ""
	}
	name := t.names[t.offsets[i]:]
	return string(name[:bytes.IndexByte(name, '\n')])
}

func (t *symbolTable) generation(now time.Time) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missed && t.digest != 0 {
		t.reload(now)
	} else if now.Sub(t.asked) > namesAge {
		t.addresses, t.offsets, t.names = nil, nil, nil
	}
	return t.changes
}

// reload parses the list, at most once a minute: it takes a tenth of a second.
func (t *symbolTable) reload(now time.Time) {
	if !t.at.IsZero() && now.Sub(t.at) < namesAge {
		return
	}
	t.at, t.missed = now, false
	f, err := t.open()
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	addresses, offsets, names, err := parseSymbols(f, t.data)
	if err != nil || len(addresses) == 0 {
		return
	}
	t.addresses, t.offsets, t.names = addresses, offsets, names
	if t.digest == 0 {
		t.seed = maphash.MakeSeed()
	}
	digest := maphash.Bytes(t.seed, names)
	for _, a := range addresses {
		digest = digest*31 + a
	}
	if digest = max(digest, 1); digest != t.digest {
		t.digest = digest
		t.changes++
	}
}

// parseSymbols reads the functions of a kallsyms file, and what else it lists if data is set, sorted by address; where a function
// begins nothing else does. All addresses are zero for who may not see them: then there are none.
func parseSymbols(r io.Reader, data bool) (addresses []uint64, offsets []uint32, names []byte, err error) {
	type symbol struct {
		address  uint64
		offset   uint32
		function bool
	}
	var symbols []symbol
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Bytes()
		address, rest, ok := bytes.Cut(line, []byte{' '})
		if !ok || len(rest) < 3 || rest[1] != ' ' {
			continue
		}
		function := bytes.IndexByte([]byte("tTwW"), rest[0]) >= 0
		// Absolute symbols (aA) are no addresses.
		if !function && (!data || rest[0] == 'a' || rest[0] == 'A') {
			continue
		}
		a, err := strconv.ParseUint(string(address), 16, 64)
		if err != nil || a == 0 {
			continue
		}
		symbols = append(symbols, symbol{a, uint32(len(names)), function})
		names = append(append(names, rest[2:]...), '\n')
	}
	if err := lines.Err(); err != nil {
		return nil, nil, nil, fmt.Errorf("read kernel symbols: %w", err)
	}
	slices.SortStableFunc(symbols, func(a, b symbol) int {
		switch {
		case a.address < b.address:
			return -1
		case a.address > b.address:
			return 1
		case a.function && !b.function:
			return -1
		case b.function && !a.function:
			return 1
		}
		return 0
	})
	for _, s := range symbols {
		if n := len(addresses); n > 0 && addresses[n-1] == s.address {
			continue
		}
		addresses = append(addresses, s.address)
		offsets = append(offsets, s.offset)
	}
	return addresses, offsets, slices.Clip(names), nil
}
