package programs_test

import (
	"bufio"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/workload"
)

const (
	privateMemory = 24 << 20
	sharedMemory  = 8 << 20
)

// touchMemory answers each line of its input. At "touch" it takes 24 MiB of its own and 8 MiB that could be shared.
func touchMemory() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		sizes := map[int]int{unix.MAP_PRIVATE: privateMemory, unix.MAP_SHARED: sharedMemory}
		if lines.Text() != "touch" {
			sizes = nil
		}
		for flags, size := range sizes {
			b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_ANON)
			if err != nil {
				fmt.Println(err)
				return
			}
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
		}
		fmt.Println("done")
	}
}

func TestMemory(t *testing.T) {
	group := newControlled(t, "memory")
	limit := "memory.max"
	files := map[string][2]string{
		"memory_usage_bytes": {"memory.current"}, "memory_limit_bytes": {limit}, "memory_anon_bytes": {"memory.stat", "anon "},
		"memory_file_bytes": {"memory.stat", "file "}, "memory_inactive_file_bytes": {"memory.stat", "inactive_file "},
		"memory_shmem_bytes": {"memory.stat", "shmem "}, "memory_kernel_bytes": {"memory.stat", "kernel "}, "memory_swap_bytes": {"memory.swap.current"},
	}
	if group.v1 {
		limit = "memory.limit_in_bytes"
		files = map[string][2]string{
			"memory_usage_bytes": {"memory.usage_in_bytes"}, "memory_limit_bytes": {limit}, "memory_anon_bytes": {"memory.stat", "total_rss "},
			"memory_file_bytes": {"memory.stat", "total_cache "}, "memory_inactive_file_bytes": {"memory.stat", "total_inactive_file "},
			"memory_shmem_bytes": {"memory.stat", "total_shmem "}, "memory_kernel_bytes": {"memory.kmem.usage_in_bytes"}, "memory_swap_bytes": {"memory.stat", "total_swap "},
		}
	}
	r := load(t, "memory", group.dir)
	h := group.start(t, "memory")
	h.say("start") // a process takes some memory of its own
	families := r.collect()
	if len(families["memory_limit_bytes"]) != 0 {
		t.Errorf("a limit where there is none: %v", families["memory_limit_bytes"])
	}
	before := map[string]uint64{}
	for name := range files {
		before[name] = total(families[name])
	}
	group.write(t, limit, "268435456")
	if answer := h.say("touch"); answer != "done" {
		t.Fatal(answer)
	}

	// Numbers that the files have before and after are those in between. Memory that is freed in the background may change some.
	read := func() map[string]uint64 {
		numbers := map[string]uint64{}
		for name, place := range files {
			if n, ok := group.number(t, place[0], place[1]); ok {
				numbers[name] = n
			}
		}
		return numbers
	}
	compared := map[string]bool{}
	for attempt := 0; attempt < 200 && len(compared) < len(read()); attempt++ {
		want := read()
		families = r.collect()
		after := read()
		for name, n := range want {
			if after[name] == n {
				compared[name] = true
				expect(t, families, name, n, "cgroup="+group.path)
			}
		}
	}
	for name := range files {
		if _, exists := read()[name]; exists && !compared[name] {
			t.Errorf("%s never stood still", name)
		} else if !exists && len(families[name]) != 0 {
			t.Errorf("%s: there is no such number, but %v", name, families[name])
		}
	}
	expect(t, families, "memory_limit_bytes", 256<<20)
	// The kernel counts pages in batches for each CPU.
	near := func(name string, want uint64) {
		t.Helper()
		const slack = 2 << 20
		if grown := total(families[name]) - before[name]; grown < want-slack || grown > want+slack {
			t.Errorf("%s grew by %d, want about %d", name, grown, want)
		}
	}
	near("memory_anon_bytes", privateMemory)
	near("memory_shmem_bytes", sharedMemory)
	near("memory_file_bytes", sharedMemory)
	for name, points := range families {
		for _, p := range points {
			if p.labels["cgroup"] != group.path {
				t.Errorf("%s: another's: %v", name, p.labels)
			}
		}
	}
}

// What is below is contained: only one cgroup of each workload is read.
func TestMemoryOfNestedCgroups(t *testing.T) {
	group := newControlled(t, "memory")
	if !group.v1 {
		group.write(t, "cgroup.subtree_control", "+memory")
	}
	inner, unit := group.child(t, "inner"), group.child(t, "kaon-test.service")
	if !group.v1 {
		unit.write(t, "cgroup.subtree_control", "+memory")
	}
	below := unit.child(t, "below")
	r := load(t, "memory", group.dir)
	for _, c := range []controlled{inner, below} {
		if answer := c.start(t, "memory").say("touch"); answer != "done" {
			t.Fatal(answer)
		}
	}
	families := r.collect()
	for _, p := range families["memory_anon_bytes"] {
		if n := p.row[0]; n < privateMemory-2<<20 || n > 2*privateMemory {
			t.Errorf("%v: %d bytes", p.labels, n)
		}
	}
	for _, label := range []string{"cgroup=" + inner.path, "unit=kaon-test.service"} {
		if got := pick(families["memory_anon_bytes"], label); len(got) != 1 {
			t.Errorf("%s: %v", label, got)
		}
	}
	if n := len(families["memory_anon_bytes"]); n != 2 {
		t.Errorf("%d workloads: %v", n, families["memory_anon_bytes"])
	}
}

// hundredCgroups makes cgroups where workloads are told apart and where the files are.
func hundredCgroups(b *testing.B) {
	layout, err := workload.Detect()
	if err != nil {
		b.Skip("needs cgroups:", err)
	}
	mounts := map[string]bool{}
	for _, h := range layout.Controllers {
		if h.Controller == "memory" || h.Controller == "cpu" || h.Number == layout.V1.Number {
			mounts[h.Mount] = true
		}
	}
	if len(mounts) == 0 {
		mounts[layout.V2.Mount] = true
	}
	for mount := range mounts {
		for i := range 100 {
			dir := fmt.Sprintf("%s/kaon-test-%d-%d", mount, os.Getpid(), i)
			if err := os.Mkdir(dir, 0o755); err != nil {
				b.Skip("needs the right to make cgroups:", err)
			}
			b.Cleanup(func() {
				if err := unix.Rmdir(dir); err != nil {
					b.Errorf("remove the cgroup %s: %v", dir, err)
				}
			})
		}
	}
}
