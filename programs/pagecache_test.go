package programs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The last page is not full: Linux 5.10 adds another, empty one where a file ends with a page.
const cachedFilePages, cachedFileBytes = 64, 64*4096 - 100

// readCached reads a file of 64 pages in DIRECTORY of which nothing is in the cache at first.
func readCached() error {
	fd, err := unix.Open(filepath.Join(os.Getenv("DIRECTORY"), "cached"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buffer := make([]byte, cachedFilePages*4096)
	read := func(first, pages int) {
		want := min(pages*4096, cachedFileBytes-first*4096)
		n, e := unix.Pread(fd, buffer[:pages*4096], int64(first)*4096)
		if e != nil || n != want {
			err = errors.Join(err, fmt.Errorf("read page %d: %d bytes, %w", first, n, e))
		}
	}
	advise := func(advice int) {
		err = errors.Join(err, unix.Fadvise(fd, 0, 0, advice))
	}
	advise(unix.FADV_RANDOM) // nothing is read ahead
	for range 2 {
		for _, first := range []int{0, 5, 9} {
			read(first, 1)
		}
	}
	read(20, 4)
	read(18, 8)
	advise(unix.FADV_DONTNEED)
	advise(unix.FADV_NORMAL)
	read(0, cachedFilePages)
	read(cachedFilePages-2, 32)
	null, e := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if e != nil {
		return e
	}
	defer unix.Close(null)
	offset := int64(0)
	for offset < cachedFileBytes && err == nil {
		_, err = unix.Sendfile(null, fd, &offset, cachedFileBytes-int(offset))
	}
	return err
}

func TestPageCache(t *testing.T) {
	dir, _ := ext4(t)
	path := filepath.Join(dir, "cached")
	prepare := func() {
		t.Helper()
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.Write(make([]byte, cachedFileBytes)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(file.Sync(), unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)); err != nil {
			t.Fatal(err)
		}
	}
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "pagecache", group.dir)
	prepare()
	r.during(other, "pagecache", "DIRECTORY="+dir)
	prepare()
	before, after := r.during(group, "pagecache", "DIRECTORY="+dir)
	const random = 3 + 4 + 4 // pages that were missed one by one
	for metric, want := range map[string]uint64{
		"pagecache_read_pages_total":    2*3 + 4 + 8 + cachedFilePages + 2 + cachedFilePages,
		"pagecache_missed_pages_total":  random + cachedFilePages,
		"pagecache_added_pages_total":   random + cachedFilePages,
		"pagecache_removed_pages_total": random,
	} {
		expectMore(t, before, after, metric, want, "cgroup="+group.path)
		expectMore(t, before, after, metric, want)
	}
}

func missCache(b *testing.B) {
	withFile(b, func(fd int, buffer []byte) error {
		_, err := unix.Pread(fd, buffer, 0)
		return errors.Join(err, unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
	})
}
