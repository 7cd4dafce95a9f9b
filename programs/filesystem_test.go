package programs_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A helper that has something to do to files says that it is ready and does it when its input ends. What a process does
// to files when it starts was counted before.
func whenTold(do func() error) func() {
	return func() {
		fmt.Println("ready")
		waitForInput()
		if err := do(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(101)
		}
	}
}

// during returns what a Program counted before and after a helper did its work in the cgroup.
func (r *running) during(group cgroup, name string, environment ...string) (before, after map[string][]point) {
	r.t.Helper()
	h := group.start(r.t, name, environment...)
	h.expectLine("ready")
	before = r.collect()
	if status := h.wait(); status.ExitStatus() != 0 {
		r.t.Fatalf("the helper ended with %v", status)
	}
	return before, r.collect()
}

// expectMore is expect for what came between two readings.
func expectMore(t testing.TB, before, after map[string][]point, name string, want uint64, labels ...string) {
	t.Helper()
	points, ok := after[name]
	if !ok {
		t.Errorf("there is no metric %s", name)
		return
	}
	if got := total(pick(points, labels...)) - total(pick(before[name], labels...)); got != want {
		t.Errorf("%s%v rose by %d, want %d; all: %v", name, labels, got, want, points)
	}
}

// expectMoreObserved is expectMore for the number of a histogram's observations.
func expectMoreObserved(t testing.TB, before, after map[string][]point, name string, want uint64, labels ...string) {
	t.Helper()
	observed := func(families map[string][]point) (n uint64) {
		for _, p := range pick(families[name], labels...) {
			n += p.count()
		}
		return n
	}
	if got := observed(after) - observed(before); got != want {
		t.Errorf("%s%v had %d observations more, want %d; all: %v", name, labels, got, want, after[name])
	}
}

// ext4 mounts a filesystem of 16 MiB on a device of memory.
func ext4(t testing.TB) (dir, device string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	packed, err := os.ReadFile(filepath.Join("testdata", "ext4.img.gz"))
	if err != nil {
		t.Fatal(err)
	}
	reader, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	image, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	device, _ = loopDeviceOf(t, 16<<20)
	fd, err := unix.Open(device, unix.O_WRONLY|unix.O_SYNC|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, image, 0); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if err := unix.Mount(device, dir, "ext4", unix.MS_NOATIME, ""); err != nil {
		t.Skipf("needs the ext4 filesystem: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir, device
}
