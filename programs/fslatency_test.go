package programs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// useFiles reads, writes, opens, syncs and lists files in DIRECTORY.
func useFiles() error {
	dir := os.Getenv("DIRECTORY")
	fd, err := unix.Open(filepath.Join(dir, "used"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for range 2 {
		again, err := unix.Open(filepath.Join(dir, "used"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		unix.Close(again)
	}
	if _, err := unix.Open(filepath.Join(dir, "missing"), unix.O_RDONLY|unix.O_CLOEXEC, 0); !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("open what is missing: %w", err)
	}
	list, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(list)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	buffer := make([]byte, 4096)
	times := func(n int, do func() (int, error)) {
		for range n {
			if _, e := do(); e != nil {
				err = errors.Join(err, e)
			}
		}
	}
	times(5, func() (int, error) { return unix.Write(fd, buffer) })
	times(4, func() (int, error) { return unix.Pwrite(fd, buffer, 0) })
	times(3, func() (int, error) { return unix.Pwritev(fd, [][]byte{buffer, buffer}, 0) })
	times(6, func() (int, error) { return unix.Pread(fd, buffer, 0) })
	times(2, func() (int, error) { return unix.Read(fd, buffer) })
	times(1, func() (int, error) { return unix.Preadv(fd, [][]byte{buffer[:100], buffer[100:]}, 0) })
	times(2, func() (int, error) { return 0, unix.Fsync(fd) })
	times(1, func() (int, error) { return 0, unix.Fdatasync(fd) })
	times(2, func() (int, error) { return unix.Getdents(list, buffer) })
	times(7, func() (int, error) { return unix.Write(pipe[1], buffer[:10]) })
	times(7, func() (int, error) { return unix.Read(pipe[0], buffer[:10]) })
	return err
}

func TestFilesystemLatency(t *testing.T) {
	dir, _ := ext4(t)
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "fslatency", group.dir)
	r.during(other, "fslatency", "DIRECTORY="+dir)
	before, after := r.during(group, "fslatency", "DIRECTORY="+dir)
	for operation, want := range map[string]uint64{"open": 4, "write": 12, "read": 9, "fsync": 3, "readdir": 2} {
		labels := []string{"cgroup=" + group.path, "filesystem=ext4", "operation=" + operation}
		expectMoreObserved(t, before, after, "filesystem_latency_seconds", want, labels...)
		if took := total(pick(after["filesystem_latency_seconds"], labels...)); took == 0 {
			t.Errorf("%s took no time", operation)
		}
	}
	expectMoreObserved(t, before, after, "filesystem_latency_seconds", 30, "filesystem=ext4")
	expectMoreObserved(t, before, after, "filesystem_latency_seconds", 0, "filesystem=pipefs")

	slow := load(t, "fslatency", group.dir, "minimum=1h")
	slow.during(group, "fslatency", "DIRECTORY="+dir)
	expect(t, slow.collect(), "filesystem_latency_seconds", 0)
}
