package programs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	blockWrites, blockWriteBytes = 10, 8192
	blockReads, blockReadBytes   = 20, 4096
)

// doBlockIO writes to and reads from a block device, past the page cache. FAIL=1: one write, which must fail.
func doBlockIO() {
	if err := func() error {
		fd, err := unix.Open(os.Getenv("DEVICE"), unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		buffer, err := unix.Mmap(-1, 0, blockWriteBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		if os.Getenv("FAIL") == "1" {
			if _, err := unix.Pwrite(fd, buffer[:blockReadBytes], 0); err == nil {
				return fmt.Errorf("a write to a sealed device did not fail")
			}
			return nil
		}
		for n := range blockWrites {
			if _, err := unix.Pwrite(fd, buffer, int64(n*blockWriteBytes)); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		for n := range blockReads {
			if _, err := unix.Pread(fd, buffer[:blockReadBytes], int64(n*blockReadBytes)); err != nil {
				return fmt.Errorf("read: %w", err)
			}
		}
		return nil
	}(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// loopDevice makes a block device of memory, 1 MiB large. seal refuses all further writes.
func loopDevice(t testing.TB) (path string, seal func()) {
	t.Helper()
	return loopDeviceOf(t, 1<<20)
}

func loopDeviceOf(t testing.TB, size int64) (path string, seal func()) {
	t.Helper()
	memory, err := unix.MemfdCreate("kaon-test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(memory) })
	if err := unix.Ftruncate(memory, size); err != nil {
		t.Fatal(err)
	}
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs the loop module:", err)
	}
	defer unix.Close(control)
	for range 10 { // somebody else may take the same one
		number, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skip("needs a free loop device:", err)
		}
		path = fmt.Sprintf("/dev/loop%d", number)
		device, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Skip("needs a free loop device:", err)
		}
		if err = unix.IoctlSetInt(device, unix.LOOP_SET_FD, memory); err != nil {
			unix.Close(device)
			continue
		}
		t.Cleanup(func() {
			if err := unix.IoctlSetInt(device, unix.LOOP_CLR_FD, 0); err != nil {
				t.Error(err)
			}
			unix.Close(device)
		})
		return path, func() {
			t.Helper()
			if _, err := unix.FcntlInt(uintptr(memory), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Skip("needs a free loop device")
	return "", nil
}

func TestBlockIO(t *testing.T) {
	f := func(params ...string) {
		t.Run(fmt.Sprint(params), func(t *testing.T) {
			path, seal := loopDevice(t)
			group := newCgroup(t)
			r := load(t, "blockio", group.dir, params...)
			if status := group.start(t, "blockio", "DEVICE="+path).wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
			common := []string{"cgroup=" + group.path, "device=" + filepath.Base(path)}
			families := r.collect()
			for operation, want := range map[string]struct{ requests, bytes uint64 }{
				"write": {blockWrites, blockWrites * blockWriteBytes},
				"read":  {blockReads, blockReads * blockReadBytes},
			} {
				labels := append(common, "operation="+operation)
				expect(t, families, "blockio_bytes_total", want.bytes, labels...)
				latencies := pick(families["blockio_latency_seconds"], labels...)
				if len(latencies) != 1 || latencies[0].count() != want.requests || latencies[0].row[0] == 0 {
					t.Errorf("%s: want %d requests: %v", operation, want.requests, latencies)
				}
			}
			expect(t, families, "blockio_errors_total", 0)

			seal()
			if status := group.start(t, "blockio", "DEVICE="+path, "FAIL=1").wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
			families = r.collect()
			expect(t, families, "blockio_errors_total", 1, append(common, "operation=write", "errno=EIO")...)
			expect(t, families, "blockio_bytes_total", blockWrites*blockWriteBytes, append(common, "operation=write")...)
		})
	}
	f()
	f("device_only=true")
}
