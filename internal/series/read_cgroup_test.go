package series

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// newCgroup makes a cgroup of the test's own and returns its directory and id.
func newCgroup(t *testing.T, name string) (path string, id uint64) {
	t.Helper()
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var s unix.Statfs_t
		if unix.Statfs(root, &s) == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
			path = filepath.Join(root, fmt.Sprintf("kaon-test-series-%d-%s", os.Getpid(), name))
		}
	}
	if path == "" || os.Getuid() != 0 {
		t.Skip("needs root and a mounted cgroup v2")
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, info.Sys().(*syscall.Stat_t).Ino
}

func TestCgroupLocalStorage(t *testing.T) {
	path, id := newCgroup(t, "a")
	newCgroup(t, "b")
	ms := &ebpf.MapSpec{Type: ebpf.CgroupStorage, KeySize: 4, ValueSize: 8, Flags: unix.BPF_F_NO_PREALLOC,
		Key: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}, Value: &btf.Int{Name: "u64", Size: 8}}
	m, err := ebpf.NewMap(ms)
	if err != nil {
		t.Skipf("needs cgroup local storage: %v", err)
	}
	t.Cleanup(func() { m.Close() })
	f := newFixtureOf(t, m, oneMap(ms, program.Metric{}, label("key", "int", 0, 4)))
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	values(t, f.collect(), nil)
	// Linux 7.2 allocates it without waiting and may fail to; one guest never succeeded.
	for try := 0; ; try++ {
		err := m.Put(uint32(dir.Fd()), uint64(77))
		if err == nil {
			break
		}
		if !errors.Is(err, unix.ENOMEM) {
			t.Fatal(err)
		}
		if try == 100 {
			t.Skipf("needs a kernel that gives memory to cgroup storage: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	want := fmt.Sprintf(`cgroup="unresolved:%d"`, id)
	values(t, f.collect(), map[string]uint64{want: 77})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	values(t, f.collect(), nil)
}

// newStorageProgram is a program to be attached to cgroups, which then have an entry in the map.
func newStorageProgram(t *testing.T, m *ebpf.Map) *ebpf.Program {
	t.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnGetLocalStorage.Call(),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
		}})
	if err != nil {
		t.Skipf("needs cgroup programs: %v", err)
	}
	t.Cleanup(func() { prog.Close() })
	return prog
}

func TestCgroupAttachedStorage(t *testing.T) {
	for _, typ := range []ebpf.MapType{ebpf.CGroupStorage, ebpf.PerCPUCGroupStorage} {
		t.Run(typ.String(), func(t *testing.T) {
			ms := &ebpf.MapSpec{Type: typ, KeySize: 16, ValueSize: 8}
			m := newMap(t, ms)
			f := newFixtureOf(t, m, oneMap(ms, program.Metric{}, label("workload", "workload", 0, 8)))
			values(t, f.collect(), nil)
			prog := newStorageProgram(t, m)
			want := map[string]uint64{}
			for i := range 3 {
				path, id := newCgroup(t, fmt.Sprint(typ, i))
				l, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: ebpf.AttachCGroupInetEgress, Program: prog})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { l.Close() })
				want[fmt.Sprintf(`cgroup="unresolved:%d"`, id)] = 0
			}
			values(t, f.collect(), want)
			if len(want) != 3 {
				t.Error(want)
			}
		})
	}
}

// The kernel keeps the storage of a cgroup that is gone until its last socket is: it must not be counted anew at each scrape.
func TestAttachedStorageOfDeadWorkloads(t *testing.T) {
	ms := &ebpf.MapSpec{Type: ebpf.CGroupStorage, KeySize: 16, ValueSize: 8}
	m := newMap(t, ms)
	workloads := label("workload", "workload", 0, 8)
	f := newFixtureOf(t, m, oneMap(ms, program.Metric{Labels: []program.Label{}}, workloads))
	prog := newStorageProgram(t, m)
	for i := range uint64(2) {
		path, id := newCgroup(t, fmt.Sprint("dead", i))
		l, err := link.AttachCgroup(link.CgroupOptions{Path: path, Attach: ebpf.AttachCGroupInetEgress, Program: prog})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		key := binary.LittleEndian.AppendUint64(nil, id)
		f.put(binary.LittleEndian.AppendUint64(key, uint64(ebpf.AttachCGroupInetEgress)), 10+i)
		f.resolver.set(workload.ID(id), "a", workload.Gone)
	}
	for range 3 {
		values(t, f.collect(), map[string]uint64{"": 21})
	}
}
