package programs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const writtenPages = 40

// writeBack dirties pages of a file in DIRECTORY and has them written to the device.
func writeBack() error {
	fd, err := unix.Open(filepath.Join(os.Getenv("DIRECTORY"), "written"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, make([]byte, writtenPages*4096)); err != nil {
		return err
	}
	return unix.Syncfs(fd)
}

// keepDirty says which thread it is and then, until its input ends, writes a file of 8 MiB again and again. That is
// far above the limit: most of it is clean again, and counts as dirtied, when its turn comes.
func keepDirty() {
	runtime.LockOSThread()
	fmt.Println(unix.Gettid())
	var told atomic.Bool
	go func() {
		waitForInput()
		told.Store(true)
	}()
	fd, err := unix.Open(filepath.Join(os.Getenv("DIRECTORY"), "dirty"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	buffer := make([]byte, 64<<10)
	for n := 0; err == nil && !told.Load(); n = (n + 1) % 128 {
		_, err = unix.Pwrite(fd, buffer, int64(n*len(buffer)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(101)
	}
}

func TestWriteback(t *testing.T) {
	dir, device := ext4(t)
	group := newControlled(t, "memory")
	// A new device has so small a share of the machine's dirty pages that they are written at once, in the background.
	set(t, bdiOf(t, device)+"min_ratio", "5")
	f := func(scope, cgroup string, want uint64) {
		t.Helper()
		r := load(t, "writeback", scope)
		h := group.start(t, "writeback", "DIRECTORY="+dir)
		h.expectLine("ready")
		if status := h.wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
		families := r.collect()
		labels := []string{"device=" + filepath.Base(device), "reason=sync", "cgroup=" + cgroup}
		expect(t, families, "writeback_pages_total", want, labels...)
		rounds := pick(families["writeback_latency_seconds"], labels...)
		if want > 0 && (len(rounds) != 1 || rounds[0].count() == 0 || rounds[0].row[0] == 0) {
			t.Errorf("there was no round that took time: %v", rounds)
		}
		if scope != "" {
			expect(t, families, "writeback_pages_total", want)
		}
	}
	if group.v1 {
		f("", "/", writtenPages)
		return
	}
	// Each cgroup of v2 that has the memory controller has its own dirty pages.
	f("", group.path, writtenPages)
	f(group.dir, group.path, writtenPages)
	f(newControlled(t, "memory").dir, group.path, 0)
}

// bdiOf is the directory of a device's settings for writeback.
func bdiOf(t *testing.T, device string) string {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat(device, &stat); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/sys/class/bdi/%d:%d/", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
}

// limitDirty makes a writer of that device wait soon.
func limitDirty(t *testing.T, device string) {
	t.Helper()
	const machine = "/proc/sys/vm/dirty_"
	if os.Getenv("KAON_VM") != "" { // where nobody else has to wait
		for _, limit := range []string{"", "background_"} {
			set(t, machine+limit+"ratio", "1") // restoring this also ends the next
			if err := os.WriteFile(machine+limit+"bytes", []byte("524288"), 0); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	bdi := bdiOf(t, device)
	if _, err := os.Stat(bdi + "strict_limit"); err != nil {
		t.Skip("needs a limit on dirty pages by device:", err)
	}
	set(t, bdi+"strict_limit", "1")
	set(t, bdi+"max_ratio", "0")
}

// set changes a number in a file of the kernel until the test ends.
func set(t *testing.T, file, number string) {
	t.Helper()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(number), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, before, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestWritebackThrottle(t *testing.T) {
	dir, device := ext4(t)
	group, other := newCgroup(t), newCgroup(t)
	limitDirty(t, device)
	r := load(t, "writeback", group.dir)
	dirty := func(group cgroup, enough func(pauses uint64) bool) uint64 {
		t.Helper()
		h := group.start(t, "dirty", "DIRECTORY="+dir)
		line, err := h.out.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		thread, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		pauses := countTracepoint(t, "writeback/balance_dirty_pages", thread)
		for deadline := time.Now().Add(2 * time.Minute); !enough(pauses()); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the writer was not made to wait")
			}
		}
		if status := h.wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
		return pauses()
	}
	dirty(other, func(pauses uint64) bool { return pauses > 2 })
	expect(t, r.collect(), "writeback_throttle_seconds", 0)
	mine := func() []point {
		return pick(r.collect()["writeback_throttle_seconds"], "cgroup="+group.path, "device="+filepath.Base(device))
	}
	dirty(group, func(uint64) bool {
		throttles := mine()
		return len(throttles) == 1 && throttles[0].count() > 2
	})
	throttles := mine()
	if all := r.collect()["writeback_throttle_seconds"]; len(all) != 1 {
		t.Errorf("others', too: %v", all)
	}
	if throttles[0].row[0] < throttles[0].count()*1000000 {
		t.Errorf("a pause is 1 ms or more: %v", throttles)
	}
}
