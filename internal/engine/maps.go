package engine

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// defaultRingSize is a ring buffer's size in bytes if the object says nothing.
const defaultRingSize = 256 << 10

// loadedMap is a map in the kernel.
type loadedMap struct {
	m *ebpf.Map
	// layout is the digest of the declaration that it was made from: see layoutDigest.
	layout [sha256.Size]byte
	// kept says that the map was taken over from a replaced or pinned Program.
	kept bool
	// started is when it began to count.
	started time.Time
}

// isConstant says that a map holds constants: it is frozen and never taken over.
func isConstant(name string) bool {
	return strings.HasPrefix(name, ".rodata") || name == program.ConfigMap
}

// isSection says that a map is a data section of the object.
func isSection(name string) bool {
	return isConstant(name) || strings.HasPrefix(name, ".bss") || strings.HasPrefix(name, ".data")
}

// neededMaps returns the names of the maps that must exist: what the functions
// refer to, what readers and streams read, and the maps inside of those.
func neededMaps(spec *program.Spec, coll *ebpf.CollectionSpec, functions []string) (map[string]bool, error) {
	needed := make(map[string]bool)
	declared := make(map[string]bool)
	for i := range spec.Readers {
		r := &spec.Readers[i]
		switch r.Kind {
		case program.IteratorReader:
			declared[r.Name] = true
		case program.MapReader:
			used := len(r.Metrics) == 0
			for j := range r.Metrics {
				used = used || spec.Enabled(r.Metrics[j].When, r.Metrics[j].Unless)
			}
			if used {
				if coll.Maps[r.Name] == nil {
					return nil, fmt.Errorf("reader %s: the object has no map of this name", r.Name)
				}
				needed[r.Name] = true
			}
		}
	}
	for i := range spec.Streams {
		if coll.Maps[spec.Streams[i].Name] == nil {
			return nil, fmt.Errorf("stream %s: the object has no map of this name", spec.Streams[i].Name)
		}
		needed[spec.Streams[i].Name] = true
	}
	for _, set := range spec.CgroupSets {
		if coll.Maps[set.Map] == nil {
			return nil, fmt.Errorf("cgroup set %s: the object has no map of this name", set.Map)
		}
		needed[set.Map] = true
	}
	for _, name := range functions {
		for i := range coll.Programs[name].Instructions {
			ins := &coll.Programs[name].Instructions[i]
			if ins.IsLoadFromMap() && coll.Maps[ins.Reference()] != nil && (ins.Reference() != program.SelectedMap || spec.Selecting()) {
				needed[ins.Reference()] = true
			}
		}
	}
	for i := range spec.Hooks {
		h := &spec.Hooks[i]
		if _, name, ok := strings.Cut(h.Target, ":"); ok && h.Kind == program.Iterator && slices.Contains(functions, h.Function) && coll.Maps[name] != nil {
			needed[name] = true
		}
	}
	for name := range declared {
		if needed[name] {
			return nil, fmt.Errorf("map %s is only a declaration of an iterator's records, but a function uses it as a map", name)
		}
	}
	for name := range coll.Maps {
		if name == lostSection {
			needed[name] = true
		}
	}
	for _, name := range mapNames(needed) {
		ms := coll.Maps[name]
		if !storesMaps(ms.Type) {
			continue
		}
		for _, kv := range ms.Contents {
			if inner, ok := kv.Value.(string); ok {
				if coll.Maps[inner] == nil {
					return nil, fmt.Errorf("map %s contains %s, which the object does not have", name, inner)
				}
				needed[inner] = true
			}
		}
	}
	return needed, nil
}

func mapNames(set map[string]bool) []string {
	names := make([]string, 0, len(set))
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func storesMaps(t ebpf.MapType) bool { return t == ebpf.ArrayOfMaps || t == ebpf.HashOfMaps }

func isPerCPU(t ebpf.MapType) bool {
	return t == ebpf.PerCPUHash || t == ebpf.PerCPUArray || t == ebpf.LRUCPUHash || t == ebpf.PerCPUCGroupStorage
}

// adjustMap makes a declaration legal for this machine.
func adjustMap(ms *ebpf.MapSpec) {
	// Kaon pins by Spec.Pin, in a directory per Program.
	ms.Pinning = ebpf.PinNone
	switch ms.Type {
	case ebpf.RingBuf, ebpf.UserRingbuf:
		ms.MaxEntries = ringSize(ms.MaxEntries, uint32(os.Getpagesize()))
	}
}

// ringSize returns the smallest legal size of a ring buffer that is at least as asked for: a power of
// two and a multiple of the page.
func ringSize(want, page uint32) uint32 {
	if want == 0 {
		want = defaultRingSize
	}
	if want < page {
		want = page
	}
	if want > 1<<31 {
		return 1 << 31
	}
	return 1 << bits.Len32(want-1)
}

// worstCase estimates the bytes that a map may take.
func worstCase(ms *ebpf.MapSpec) uint64 {
	round := func(n uint32) uint64 { return (uint64(n) + 7) &^ 7 }
	element := round(ms.ValueSize)
	if isPerCPU(ms.Type) {
		element *= uint64(possibleCPUs())
	}
	switch ms.Type {
	case ebpf.RingBuf, ebpf.UserRingbuf:
		return uint64(ms.MaxEntries)
	case ebpf.Array, ebpf.PerCPUArray:
	default:
		// A hash element's header and its share of the buckets.
		element += round(ms.KeySize) + 64
	}
	if high, low := bits.Mul64(element, uint64(ms.MaxEntries)); high == 0 {
		return low
	}
	return math.MaxUint64
}

// saturate adds without overflow.
func saturate(a, b uint64) uint64 {
	if sum, carry := bits.Add64(a, b, 0); carry == 0 {
		return sum
	}
	return math.MaxUint64
}

// preallocated says that the kernel takes all of a map's memory when it creates it.
func preallocated(ms *ebpf.MapSpec) bool {
	switch ms.Type {
	case ebpf.Array, ebpf.PerCPUArray, ebpf.RingBuf, ebpf.UserRingbuf:
		return true
	case ebpf.Hash, ebpf.PerCPUHash, ebpf.LRUHash, ebpf.LRUCPUHash:
		return ms.Flags&unix.BPF_F_NO_PREALLOC == 0
	}
	return false
}

// checkMemory refuses maps that would take the machine's memory. The kernel grants them, and
// then something else, or this process, is killed.
func (i *Instance) checkMemory() error {
	limit := i.engine.options.MapMemoryLimit
	if limit == 0 {
		limit = DefaultMapMemoryLimit
		if half := availableMemory() / 2; half > 0 {
			limit = min(limit, half)
		}
	}
	var sum, largest uint64
	var name string
	for _, n := range i.mapNames {
		ms := i.coll.Maps[n].Copy()
		adjustMap(ms)
		if !preallocated(ms) {
			continue
		}
		bytes := worstCase(ms)
		sum = saturate(sum, bytes)
		if bytes > largest {
			largest, name = bytes, n
		}
	}
	if sum <= limit {
		return nil
	}
	ms := i.coll.Maps[name]
	return fmt.Errorf("the maps of program %s take %s, more than the limit of %s; the largest is %s (%s, max_entries %d, keys of %d and values of %d bytes) with %s: lower its max_entries: %w",
		i.spec.Name, formatBytes(sum), formatBytes(limit), name, ms.Type, ms.MaxEntries, ms.KeySize, ms.ValueSize, formatBytes(largest), ErrTooLarge)
}

// availableMemory returns how many bytes can be taken without swapping, 0 if unknown.
func availableMemory() uint64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(line, "MemAvailable:")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 54)
		if err != nil {
			return 0
		}
		return n << 10
	}
	return 0
}

func possibleCPUs() int {
	n, err := ebpf.PossibleCPU()
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// createMap creates one map. Maps that hold maps need those first, in existing.
func (e *Engine) createMap(coll *ebpf.CollectionSpec, name string, existing map[string]*loadedMap) (*loadedMap, error) {
	ms := coll.Maps[name].Copy()
	adjustMap(ms)
	layout := layoutDigest(coll, name, ms)
	switch {
	case storesMaps(ms.Type):
		for i, kv := range ms.Contents {
			inner, ok := kv.Value.(string)
			if !ok {
				continue
			}
			if existing[inner] == nil {
				return nil, fmt.Errorf("map %s contains %s, which does not exist", name, inner)
			}
			ms.Contents[i].Value = existing[inner].m
		}
	case ms.Type == ebpf.ProgramArray:
		// Filled once the functions are loaded.
		ms.Contents = nil
	}
	one := &ebpf.CollectionSpec{
		Maps:      map[string]*ebpf.MapSpec{name: ms},
		ByteOrder: coll.ByteOrder,
	}
	if isSection(name) {
		one.Variables = make(map[string]*ebpf.VariableSpec)
		for n, v := range coll.Variables {
			if v.SectionName == name {
				one.Variables[n] = v
			}
		}
	}
	created, err := ebpf.NewCollectionWithOptions(one, ebpf.CollectionOptions{Cache: e.kernelTypes()})
	if err != nil {
		return nil, e.explainMap(ms, name, err)
	}
	return &loadedMap{m: created.Maps[name], layout: layout}, nil
}

// explainMap says why a map could not be created and what to do.
func (e *Engine) explainMap(ms *ebpf.MapSpec, name string, err error) error {
	size := formatBytes(worstCase(ms))
	switch {
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EINVAL) && worstCase(ms) > 1<<31:
		return fmt.Errorf("map %s (%s, %d entries of %d+%d bytes) needs up to %s, more than this kernel grants: lower max_entries: %w: %w",
			name, ms.Type, ms.MaxEntries, ms.KeySize, ms.ValueSize, size, ErrTooLarge, err)
	case errors.Is(err, unix.EPERM):
		effective, known := effectiveCapabilities()
		if capable := effective&(1<<unix.CAP_BPF|1<<unix.CAP_SYS_ADMIN) != 0; e.memlock != nil && (capable || !known) {
			return fmt.Errorf("map %s (up to %s): the limit on locked memory (ulimit -l) is too low and could not be raised (%w): raise it or grant CAP_SYS_RESOURCE: %w",
				name, size, e.memlock, unix.EPERM)
		}
		return fmt.Errorf("map %s: this process may not create BPF maps: run as root or grant CAP_BPF: %w", name, unix.EPERM)
	}
	return fmt.Errorf("map %s (%s): %w", name, ms.Type, err)
}

func formatBytes(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f /= 1024
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}

// insertOverflow makes sure that the map has its overflow entry: an all-ones key
// that takes what could not be inserted.
func insertOverflow(name string, lm *loadedMap) error {
	key := bytes.Repeat([]byte{0xff}, int(lm.m.KeySize()))
	var value any = make([]byte, lm.m.ValueSize())
	if isPerCPU(lm.m.Type()) {
		values := make([][]byte, possibleCPUs())
		for i := range values {
			values[i] = make([]byte, lm.m.ValueSize())
		}
		value = values
	}
	err := lm.m.Update(key, value, ebpf.UpdateNoExist)
	if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
		return fmt.Errorf("map %s: insert the overflow entry: %w", name, err)
	}
	return nil
}

// fillProgramArrays puts the loaded functions into the maps for tail calls. A
// function that this kernel refused stays out: the tail call then falls through.
func (i *Instance) fillProgramArrays() error {
	for _, name := range i.mapNames {
		declared := i.coll.Maps[name]
		if declared.Type != ebpf.ProgramArray {
			continue
		}
		for _, kv := range declared.Contents {
			function, ok := kv.Value.(string)
			if !ok {
				continue
			}
			f := i.functions[function]
			if f == nil || f.prog == nil {
				continue
			}
			if err := i.maps[name].m.Put(kv.Key, f.prog); err != nil {
				return fmt.Errorf("map %s: put the function %s: %w", name, function, err)
			}
		}
	}
	return nil
}

// tailCalled returns the functions that maps of the collection name as targets of tail calls.
func tailCalled(coll *ebpf.CollectionSpec) map[string]bool {
	called := make(map[string]bool)
	for _, ms := range coll.Maps {
		if ms.Type != ebpf.ProgramArray {
			continue
		}
		for _, kv := range ms.Contents {
			if name, ok := kv.Value.(string); ok {
				called[name] = true
			}
		}
	}
	return called
}
