package programs_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// needMemory answers each line of its input, on one thread: "thread" with its number, "read PATH" after reading
// the file to its end, "write PATH TEXT" after writing.
func needMemory() {
	runtime.LockOSThread()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := append(strings.Fields(lines.Text()), "", "")
		err := func() error {
			switch words[0] {
			case "thread":
				fmt.Println(unix.Gettid())
				return nil
			case "write":
				return os.WriteFile(words[1], []byte(words[2]), 0)
			}
			fd, err := unix.Open(words[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			buffer := make([]byte, 64<<10)
			for {
				if n, err := unix.Read(fd, buffer); n <= 0 {
					return err
				}
			}
		}()
		switch {
		case err != nil:
			fmt.Println(err)
		case words[0] != "thread":
			fmt.Println("done")
		}
	}
}

// countTracepoint counts how often a thread runs over a tracepoint from now on.
func countTracepoint(t testing.TB, name string, thread int) func() uint64 {
	t.Helper()
	mount := "/sys/kernel/tracing"
	if _, err := os.Stat(mount + "/events"); err != nil {
		mount = t.TempDir()
		if err := unix.Mount("tracefs", mount, "tracefs", 0, ""); err != nil {
			t.Skip("needs tracefs:", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(mount, 0); err != nil {
				t.Error(err)
			}
		})
	}
	id, err := os.ReadFile(mount + "/events/" + name + "/id")
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.ParseUint(strings.TrimSpace(string(id)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	attributes := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: number}
	attributes.Size = uint32(unsafe.Sizeof(attributes))
	fd, err := unix.PerfEventOpen(&attributes, thread, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		t.Skip("needs perf events:", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() uint64 {
		var b [8]byte
		if _, err := unix.Read(fd, b[:]); err != nil {
			t.Fatal(err)
		}
		return binary.NativeEndian.Uint64(b[:])
	}
}

func (h *helper) ask(line string) {
	h.t.Helper()
	if answer := h.say(line); answer != "done" {
		h.t.Fatalf("%s: %s", line, answer)
	}
}

func (h *helper) thread() int {
	h.t.Helper()
	thread, err := strconv.Atoi(h.say("thread"))
	if err != nil {
		h.t.Fatal(err)
	}
	return thread
}

// setMemoryLimit limits a cgroup to so many bytes.
func (c controlled) setMemoryLimit(t testing.TB, bytes int) {
	t.Helper()
	file := "memory.max"
	if c.v1 {
		file = "memory.limit_in_bytes"
	}
	c.write(t, file, strconv.Itoa(bytes))
}

// A file that is larger than the limit pushes its own pages out of the cache.
func TestReclaimAtLimit(t *testing.T) {
	const size, limit = 32 << 20, 16 << 20
	group, other := newControlled(t, "memory"), newControlled(t, "memory")
	device, _ := loopDeviceOf(t, size)
	another, _ := loopDeviceOf(t, size)
	r := load(t, "reclaim", group.dir)
	for _, c := range []controlled{other, group} { // the other's is not counted
		c.setMemoryLimit(t, limit)
	}
	h := other.start(t, "reclaim")
	h.ask("read " + another)

	h = group.start(t, "reclaim")
	begins := countTracepoint(t, "vmscan/mm_vmscan_memcg_reclaim_begin", h.thread())
	h.ask("read " + device)
	want := begins()
	families := r.collect()
	stalls := pick(families["memory_stall_seconds"], "cause=limit")
	if len(stalls) != 1 || want == 0 || stalls[0].count() != want || stalls[0].row[0] == 0 || stalls[0].labels["cgroup"] != group.path {
		t.Errorf("want %d stalls: %v", want, stalls)
	}
	// What was read and is not there any more was freed; Go's own memory counts too.
	pages := total(pick(families["memory_stall_reclaimed_pages_total"], "cause=limit", "cgroup="+group.path))
	if least := uint64(size-limit) / 4096; pages < least || pages > uint64(size)/4096+2048 {
		t.Errorf("%d pages were freed, want %d or more; all: %v", pages, least, families["memory_stall_reclaimed_pages_total"])
	}
	if all := families["memory_stall_reclaimed_pages_total"]; total(all) != pages {
		t.Errorf("others': %v", all)
	}
}

// More pages of 2 MiB than there is memory make the machine look for it.
func TestReclaimOfMachine(t *testing.T) {
	if os.Getenv("KAON_VM") == "" {
		t.Skip("needs a guest of the kernel matrix")
	}
	const pages = "/proc/sys/vm/nr_hugepages"
	before, err := os.ReadFile(pages)
	if err != nil {
		t.Skip("needs huge pages:", err)
	}
	group := newCgroup(t)
	r := load(t, "reclaim", group.dir)
	h := group.start(t, "reclaim")
	thread := h.thread()
	direct := countTracepoint(t, "vmscan/mm_vmscan_direct_reclaim_begin", thread)
	compaction := countTracepoint(t, "compaction/mm_compaction_begin", thread)
	t.Cleanup(func() {
		if err := os.WriteFile(pages, before, 0); err != nil {
			t.Error(err)
		}
	})
	h.ask("write " + pages + " 4096")
	h.ask("write /proc/sys/vm/compact_memory 1")
	for cause, want := range map[string]uint64{"machine": direct(), "compaction": compaction()} {
		stalls := pick(r.collect()["memory_stall_seconds"], "cause="+cause, "cgroup="+group.path)
		if len(stalls) != 1 || want == 0 || stalls[0].count() != want || stalls[0].row[0] == 0 {
			t.Errorf("%s: want %d stalls: %v", cause, want, stalls)
		}
	}
	if all := pick(r.collect()["memory_stall_reclaimed_pages_total"], "cause=compaction"); len(all) != 0 {
		t.Errorf("pages that were only moved: %v", all)
	}
}

// reclaimAtLimit has a thread stall b.N times or a little more.
func reclaimAtLimit(b *testing.B) {
	const limit = 16 << 20
	group := newControlled(b, "memory")
	group.setMemoryLimit(b, limit)
	device, _ := loopDeviceOf(b, 2*limit)
	h := group.start(b, "reclaim")
	begins := countTracepoint(b, "vmscan/mm_vmscan_memcg_reclaim_begin", h.thread())
	b.ResetTimer()
	for begins() < uint64(b.N) {
		h.ask("read " + device)
	}
}
