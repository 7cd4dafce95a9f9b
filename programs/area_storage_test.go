package programs_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

func storageArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"blockio": {"blockio_bytes_total": program.Counter, "blockio_latency_seconds": program.Histogram,
				"blockio_errors_total": program.Counter},
			"fileops":   {"file_operations_total": program.Counter, "file_operation_errors_total": program.Counter},
			"fsync":     {"fsync_latency_seconds": program.Histogram, "fsync_errors_total": program.Counter},
			"fslatency": {"filesystem_latency_seconds": program.Histogram},
			"writeback": {"writeback_pages_total": program.Counter, "writeback_latency_seconds": program.Histogram,
				"writeback_throttle_seconds": program.Histogram},
		},
		helpers: map[string]func(){"blockio": doBlockIO, "files": whenTold(operateOnFiles), "fsync": whenTold(syncFile),
			"fslatency": whenTold(useFiles), "writeback": whenTold(writeBack), "dirty": keepDirty},
		costs: []cost{
			{program: "blockio", event: "request", cause: readBlocks,
				bpftrace: `tracepoint:block:block_rq_issue { @start[args->dev, args->sector] = nsecs; }
					tracepoint:block:block_rq_complete { $t = @start[args->dev, args->sector];
					if ($t) { @took[args->dev] = hist(nsecs - $t); delete(@start[args->dev, args->sector]); } }`},
			{program: "fileops", event: "open", cause: openFiles,
				bpftrace: `tracepoint:syscalls:sys_exit_openat { @[cgroup, args->ret < 0] = count(); }`},
			{program: "fsync", event: "call", cause: syncNothing,
				bpftrace: `tracepoint:syscalls:sys_enter_fsync { @start[tid] = nsecs; }
					tracepoint:syscalls:sys_exit_fsync /@start[tid]/ { @took[cgroup] = hist(nsecs - @start[tid]); delete(@start[tid]); }`},
			{program: "writeback", event: "round of 40 pages", cause: writeBackOften,
				bpftrace: `tracepoint:writeback:writeback_start { @start[tid] = nsecs; }
					tracepoint:writeback:writeback_written /@start[tid]/ { @took[args->name, args->reason] = hist(nsecs - @start[tid]); delete(@start[tid]); }`},
			{program: "fslatency", event: "read", cause: readFiles,
				bpftrace: `tracepoint:syscalls:sys_enter_pread64 { @start[tid] = nsecs; }
					tracepoint:syscalls:sys_exit_pread64 /@start[tid]/ { @took[cgroup] = hist(nsecs - @start[tid]); delete(@start[tid]); }`},
			{program: "fslatency", params: []string{"minimum=1ms"}, event: "read", cause: readFiles},
		},
	}
}

func readBlocks(b *testing.B) {
	path, _ := loopDevice(b)
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	buffer, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		if _, err := unix.Pread(fd, buffer, 0); err != nil {
			b.Fatal(err)
		}
	}
}

// openFiles opens an existing file, b.N times.
func openFiles(b *testing.B) {
	path := b.TempDir()
	for range b.N {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}

// syncNothing syncs a file that has nothing to be written.
func syncNothing(b *testing.B) {
	withFile(b, func(fd int, _ []byte) error { return unix.Fsync(fd) })
}

func readFiles(b *testing.B) {
	withFile(b, func(fd int, buffer []byte) error {
		_, err := unix.Pread(fd, buffer, 0)
		return err
	})
}

func withFile(b *testing.B, do func(fd int, buffer []byte) error) {
	b.Helper()
	buffer := make([]byte, 4096)
	fd, err := unix.Open(filepath.Join(b.TempDir(), "file"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, buffer); err != nil {
		b.Fatal(err)
	}
	if err := unix.Fsync(fd); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for range b.N {
		if err := do(fd, buffer); err != nil {
			b.Fatal(err)
		}
	}
}

func writeBackOften(b *testing.B) {
	dir, _ := ext4(b)
	fd, err := unix.Open(filepath.Join(dir, "file"), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	buffer := make([]byte, writtenPages*4096)
	b.ResetTimer()
	for range b.N {
		if _, err := unix.Pwrite(fd, buffer, 0); err != nil {
			b.Fatal(err)
		}
		if err := unix.Syncfs(fd); err != nil {
			b.Fatal(err)
		}
	}
}
