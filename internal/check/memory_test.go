package check

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// TestMapBytesOfThisKernel compares with what the kernel says of real maps.
func TestMapBytesOfThisKernel(t *testing.T) {
	_ = rlimit.RemoveMemlock()
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	one, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Skipf("needs to create maps (root): %v", err)
	}
	defer one.Close()
	if memlock(t, one)%page == 0 {
		t.Skip("needs exact memory of maps in fdinfo (before 6.4 it is an estimate in pages)")
	}
	f := func(spec ebpf.MapSpec) {
		t.Helper()
		m, err := ebpf.NewMap(&spec)
		if err != nil {
			t.Fatalf("%s: %v", spec.Type, err)
		}
		defer m.Close()
		if spec.Flags&unix.BPF_F_NO_PREALLOC != 0 || spec.Type == ebpf.HashOfMaps { // full is what counts
			value := make([]byte, spec.ValueSize)
			for i := range spec.MaxEntries {
				key := make([]byte, spec.KeySize)
				copy(key, []byte{byte(i), byte(i >> 8)})
				if spec.Type == ebpf.LPMTrie {
					key = append([]byte{32, 0, 0, 0}, byte(i), byte(i>>8), 1, 1)
				}
				if spec.Type == ebpf.PerCPUHash {
					err = m.Put(key, perCPU(value, cpus))
				} else {
					err = m.Put(key, value)
				}
				if err != nil {
					t.Fatalf("%s: %v", spec.Type, err)
				}
			}
		}
		real, got := memlock(t, m), MapBytes(&spec, cpus)
		difference := float64(got) - float64(real)
		if difference < 0 {
			difference = -difference
		}
		// Headers differ between kernels.
		if difference > 0.05*float64(real)+512 {
			t.Errorf("%s, %d entries of %d+%d bytes, flags %d: MapBytes %d, the kernel says %d", spec.Type, spec.MaxEntries, spec.KeySize, spec.ValueSize, spec.Flags, got, real)
		}
	}
	for _, entries := range []uint32{1, 100, 10001} {
		for _, value := range []uint32{8, 856} {
			f(ebpf.MapSpec{Type: ebpf.Hash, KeySize: 12, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 12, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 12, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.LRUCPUHash, KeySize: 12, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: value, MaxEntries: entries, Flags: unix.BPF_F_MMAPABLE})
			f(ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.Queue, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.BloomFilter, ValueSize: value, MaxEntries: entries})
			f(ebpf.MapSpec{Type: ebpf.StackTrace, KeySize: 4, ValueSize: value, MaxEntries: entries})
		}
		f(ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: entries})
	}
	f(ebpf.MapSpec{Type: ebpf.Hash, KeySize: 12, ValueSize: 856, MaxEntries: 1000, Flags: unix.BPF_F_NO_PREALLOC})
	f(ebpf.MapSpec{Type: ebpf.PerCPUHash, KeySize: 12, ValueSize: 8, MaxEntries: 1000, Flags: unix.BPF_F_NO_PREALLOC})
	f(ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 12, ValueSize: 8, MaxEntries: 1001, Flags: unix.BPF_F_NO_COMMON_LRU})
	f(ebpf.MapSpec{Type: ebpf.LPMTrie, KeySize: 8, ValueSize: 8, MaxEntries: 1000, Flags: unix.BPF_F_NO_PREALLOC})
	f(ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 4096})
	f(ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: 1 << 20})
	f(ebpf.MapSpec{Type: ebpf.UserRingbuf, MaxEntries: 1 << 20})
}

func perCPU(value []byte, cpus int) [][]byte {
	values := make([][]byte, cpus)
	for i := range values {
		values[i] = value
	}
	return values
}

func memlock(t *testing.T, m *ebpf.Map) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", m.FD()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "memlock:"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				t.Skip("needs the memory of maps in fdinfo")
			}
			return n
		}
	}
	t.Skip("needs the memory of maps in fdinfo")
	return 0
}

// Sizes that a hostile object may ask for.
func TestMapBytesSaturates(t *testing.T) {
	for typ := ebpf.Hash; typ <= ebpf.Arena; typ++ {
		spec := &ebpf.MapSpec{Type: typ, KeySize: 1<<32 - 1, ValueSize: 1<<32 - 1, MaxEntries: 1<<32 - 1}
		if got := MapBytes(spec, 4096); got < impossibleBytes {
			t.Errorf("%s: %d", typ, got)
		}
	}
}

func TestBytes(t *testing.T) {
	f := func(n uint64, want string) {
		t.Helper()
		if got := Bytes(n); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(0, "0 bytes")
	f(1023, "1023 bytes")
	f(1024, "1.0 KiB")
	f(150<<20, "150 MiB")
	f(1<<63, "8.0 EiB")
}
