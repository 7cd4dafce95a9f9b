package check

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// Sizes of the kernel's structs on 64-bit machines, 6.18; those of other kernels differ by a few bytes.
const (
	page           = 4096
	mapHeader      = 384 // struct bpf_htab, bpf_array, ...
	bucketSize     = 16
	elementHeader  = 48 // struct htab_elem
	pointer        = 8
	llistNode      = 8
	storageElement = 64 + 64 // struct bpf_local_storage_elem and a share of its owner's bpf_local_storage
)

// Limits in bytes above which a map is doubtful and impossible.
const (
	doubtfulBytes   = 256 << 20
	impossibleBytes = 4 << 30
)

// MapBytes is the memory in bytes that the kernel takes for a full map on a machine with that many possible
// CPUs, as /proc/PID/fdinfo counts it. Local storage counts per owner: the result is for max_entries
// owners, or for one if the map does not say.
func MapBytes(m *ebpf.MapSpec, cpus int) uint64 {
	if high, low := bits.Mul64(uint64(m.MaxEntries), 2*(uint64(m.KeySize)+(uint64(m.ValueSize)+page)*uint64(max(cpus, 1)))); high > 0 || low > 1<<62 {
		return math.MaxUint64 // no kernel grants that, and the sums below would overflow
	}
	entries, n := uint64(m.MaxEntries), uint64(max(cpus, 1))
	key, value := round(uint64(m.KeySize), 8), round(uint64(m.ValueSize), 8)
	switch m.Type {
	case ebpf.Hash, ebpf.LRUHash, ebpf.HashOfMaps:
		if m.Type == ebpf.HashOfMaps {
			value = pointer
		}
		return hashBytes(m, entries, key, value, n, false)
	case ebpf.PerCPUHash, ebpf.LRUCPUHash:
		return hashBytes(m, entries, key, value, n, true)
	case ebpf.Array:
		if m.Flags&unix.BPF_F_MMAPABLE != 0 {
			return page + round(entries*value, page)
		}
		return mapHeader + entries*value
	case ebpf.PerCPUArray:
		return mapHeader + entries*(pointer+value*n)
	case ebpf.ProgramArray, ebpf.CGroupArray, ebpf.ArrayOfMaps:
		return mapHeader + entries*pointer
	case ebpf.PerfEventArray: // the kernel does not count the references
		if entries == 0 {
			entries = n
		}
		return mapHeader + entries*pointer
	case ebpf.RingBuf, ebpf.UserRingbuf:
		data := round(entries, page)
		// Three pages of its own, and each data page is in the page table twice.
		return mapHeader + 3*page + data + (3+2*data/page)*pointer
	case ebpf.StackTrace:
		return mapHeader + powerOfTwo(entries)*pointer + entries*(16+value)
	case ebpf.LPMTrie:
		// The key's first four bytes are its length, which is in the node's header of 24.
		return mapHeader + entries*(20+uint64(m.KeySize)+uint64(m.ValueSize))
	case ebpf.Queue, ebpf.Stack:
		return mapHeader + (entries+1)*uint64(m.ValueSize)
	case ebpf.BloomFilter:
		// 7/5 bits per entry and hash function, five of which are the default.
		return mapHeader + powerOfTwo(entries*5*7/5)/8
	case ebpf.TaskStorage, ebpf.SkStorage, ebpf.InodeStorage, ebpf.CgroupStorage, ebpf.CGroupStorage:
		return mapHeader + max(entries, 1)*(storageElement+value)
	case ebpf.PerCPUCGroupStorage:
		return mapHeader + max(entries, 1)*(storageElement+value*n)
	case ebpf.Arena:
		return mapHeader + entries*page
	}
	return mapHeader + entries*(key+value)
}

func hashBytes(m *ebpf.MapSpec, entries, key, value, cpus uint64, perCPU bool) uint64 {
	lru := m.Type == ebpf.LRUHash || m.Type == ebpf.LRUCPUHash
	if lru && m.Flags&unix.BPF_F_NO_COMMON_LRU != 0 {
		entries = round(entries, cpus)
	}
	element := elementHeader + key
	if perCPU {
		element += pointer
	} else {
		element += value
	}
	total := mapHeader + powerOfTwo(entries)*bucketSize
	if m.Flags&unix.BPF_F_NO_PREALLOC != 0 && !lru {
		total += entries * (element + llistNode)
		if perCPU {
			total += entries * (llistNode + pointer + value*cpus)
		}
		return total
	}
	if !perCPU && !lru {
		entries += cpus // spare elements, so that an update needs no second one
		total += pointer * cpus
	}
	total += entries * element
	if perCPU {
		total += entries * value * cpus
	}
	return total
}

func round(n, to uint64) uint64 { return (n + to - 1) / to * to }

func powerOfTwo(n uint64) uint64 {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len64(n-1)
}

// kernelMaps lists the maps that are really created.
func kernelMaps(spec *program.Spec) []*ebpf.MapSpec {
	if spec.Collection == nil {
		return nil
	}
	// Those that only declare an iterator's records are no maps; the selection's exists only if there is one.
	declarations := map[string]bool{program.SelectedMap: !spec.Selecting()}
	for _, r := range spec.Readers {
		if r.Kind == program.IteratorReader {
			declarations[r.Name] = true
		}
	}
	var list []*ebpf.MapSpec
	for _, name := range slices.Sorted(maps.Keys(spec.Collection.Maps)) {
		if !declarations[name] {
			list = append(list, spec.Collection.Maps[name])
		}
	}
	return list
}

func (c *checker) memory() {
	for _, m := range kernelMaps(c.spec) {
		cpus := c.options.cpus()
		n := MapBytes(m, cpus)
		const fix = "lower max_entries or the value's size"
		perCPU := ""
		if m.Type == ebpf.PerCPUHash || m.Type == ebpf.LRUCPUHash || m.Type == ebpf.PerCPUArray {
			perCPU = ", or use a map that all CPUs share"
			if m.ValueSize > 32<<10 {
				c.error("map "+m.Name, fmt.Sprintf("a per-CPU value may have 32 KiB, this one has %s", Bytes(uint64(m.ValueSize))), "lower the schema or the range of the histogram"+perCPU)
			}
		}
		switch {
		case n >= impossibleBytes:
			c.error("map "+m.Name, fmt.Sprintf("it takes %s on %d CPUs, more than kernels grant", Bytes(n), cpus), fix+perCPU)
		case n >= doubtfulBytes:
			c.warn("map "+m.Name, fmt.Sprintf("it takes up to %s on %d CPUs", Bytes(n), cpus), fix+perCPU)
		case perCPU != "" && MapBytes(m, manyCPUs) >= doubtfulBytes:
			c.warn("map "+m.Name, fmt.Sprintf("it takes up to %s on %d CPUs", Bytes(MapBytes(m, manyCPUs)), manyCPUs), fix+perCPU)
		}
	}
}

// manyCPUs is the machine for which per-CPU maps are judged besides this one.
const manyCPUs = 64

// Bytes formats a size for humans, in binary units.
func Bytes(n uint64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
