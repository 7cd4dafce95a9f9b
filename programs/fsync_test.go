package programs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// syncFile syncs a file in DIRECTORY in all ways but sync(2), which would sync the whole machine.
func syncFile() error {
	fd, err := unix.Open(filepath.Join(os.Getenv("DIRECTORY"), "synced"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 8192); err != nil {
		return err
	}
	mapped, err := unix.Mmap(fd, 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	times := func(n int, what string, want error, do func() error) {
		for range n {
			if got := do(); !errors.Is(got, want) {
				err = errors.Join(err, errors.New(fmt.Sprint(what, ": ", got, ", want ", want)))
			}
		}
	}
	times(3, "fsync", nil, func() error { return unix.Fsync(fd) })
	times(2, "fdatasync", nil, func() error { return unix.Fdatasync(fd) })
	times(4, "sync_file_range", nil, func() error { return unix.SyncFileRange(fd, 0, 4096, unix.SYNC_FILE_RANGE_WRITE) })
	times(1, "syncfs", nil, func() error { return unix.Syncfs(fd) })
	times(2, "msync", nil, func() error { mapped[0]++; return unix.Msync(mapped, unix.MS_SYNC) })
	times(3, "fsync of nothing", unix.EBADF, func() error { return unix.Fsync(12345) })
	times(2, "fdatasync of a pipe", unix.EINVAL, func() error { return unix.Fdatasync(0) })
	times(1, "msync of nothing", unix.EINVAL, func() error { return unix.Msync(mapped, unix.MS_SYNC|unix.MS_ASYNC) })
	return errors.Join(err, unix.Munmap(mapped))
}

func TestFsync(t *testing.T) {
	dir, _ := ext4(t)
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "fsync", group.dir)
	r.during(other, "fsync", "DIRECTORY="+dir)
	before, after := r.during(group, "fsync", "DIRECTORY="+dir)
	f := func(want uint64, labels ...string) {
		t.Helper()
		expectMoreObserved(t, before, after, "fsync_latency_seconds", want, append(labels, "cgroup="+group.path)...)
	}
	f(3, "operation=fsync", "filesystem=ext4")
	f(3, "operation=fsync", "filesystem=")
	f(2, "operation=fdatasync", "filesystem=ext4")
	f(2, "operation=fdatasync", "filesystem=pipefs")
	f(4, "operation=sync_file_range", "filesystem=ext4")
	f(1, "operation=syncfs", "filesystem=ext4")
	f(3, "operation=msync", "filesystem=")
	expectMoreObserved(t, before, after, "fsync_latency_seconds", 18)
	for _, p := range pick(after["fsync_latency_seconds"], "filesystem=ext4") {
		if p.row[0] == 0 {
			t.Errorf("it took no time: %v", p)
		}
	}
	e := func(want uint64, labels ...string) {
		t.Helper()
		expectMore(t, before, after, "fsync_errors_total", want, append(labels, "cgroup="+group.path)...)
	}
	e(3, "operation=fsync", "filesystem=", "errno=EBADF")
	e(2, "operation=fdatasync", "filesystem=pipefs", "errno=EINVAL")
	e(1, "operation=msync", "filesystem=", "errno=EINVAL")
	expectMore(t, before, after, "fsync_errors_total", 6)
}
