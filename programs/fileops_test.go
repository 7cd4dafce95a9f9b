package programs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// operateOnFiles does to files what filesDone says.
func operateOnFiles() error {
	if err := os.Chdir(os.Getenv("DIRECTORY")); err != nil {
		return err
	}
	var failures []error
	step := func(what string, got, want error) {
		if !errors.Is(got, want) {
			failures = append(failures, errors.New(fmt.Sprint(what, ": ", got, ", want ", want)))
		}
	}
	open := func(name string, flags int, want error) {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
		step("open "+name, err, want)
		if err == nil {
			unix.Close(fd)
		}
	}
	open("new", unix.O_CREAT|unix.O_WRONLY, nil)
	open("other", unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, nil)
	open("new", unix.O_CREAT|unix.O_RDWR, nil) // creates nothing
	open("new", unix.O_CREAT|unix.O_EXCL|unix.O_RDWR, unix.EEXIST)
	for range 3 {
		open("new", unix.O_RDONLY, nil)
	}
	for range 4 {
		open("missing", unix.O_RDONLY, unix.ENOENT)
	}
	for _, name := range []string{"new", "third"} {
		fd, err := unix.Openat2(unix.AT_FDCWD, name, &unix.OpenHow{Flags: unix.O_CREAT | unix.O_WRONLY, Mode: 0o600})
		step("openat2", err, nil)
		unix.Close(fd)
	}
	step("mkdir", unix.Mkdir("directory", 0o700), nil)
	step("mkdir", unix.Mkdir("directory", 0o700), unix.EEXIST)
	step("rename", unix.Rename("other", "renamed"), nil)
	step("rename", unix.Rename("missing", "renamed"), unix.ENOENT)
	step("rename", unix.Renameat2(unix.AT_FDCWD, "renamed", unix.AT_FDCWD, "new", unix.RENAME_EXCHANGE), nil)
	step("link", unix.Link("new", "link"), nil)
	step("symlink", unix.Symlink("new", "symlink"), nil)
	step("mknod", unix.Mknod("fifo", unix.S_IFIFO|0o600, 0), nil)
	for _, name := range []string{"new", "renamed", "third", "link", "symlink", "fifo"} {
		step("unlink "+name, unix.Unlink(name), nil)
	}
	step("unlink", unix.Unlink("directory"), unix.EISDIR)
	step("rmdir", unix.Rmdir("directory"), nil)
	step("rmdir", unix.Rmdir("directory"), unix.ENOENT)
	if runtime.GOARCH == "amd64" {
		step("calls of old", oldCalls(), nil)
	}
	return errors.Join(failures...)
}

// oldCalls are those which newer architectures lack: Go does not use them.
func oldCalls() error {
	call := func(number uintptr, path string, b, c uintptr) (uintptr, error) {
		bytes := append([]byte(path), 0)
		result, _, errno := unix.Syscall(number, uintptr(unsafe.Pointer(&bytes[0])), b, c)
		if errno != 0 {
			return 0, fmt.Errorf("call %d: %w", number, errno)
		}
		return result, nil
	}
	second := []byte("second\x00")
	address := uintptr(unsafe.Pointer(&second[0]))
	var failures []error
	step := func(_ uintptr, err error) { failures = append(failures, err) }
	for _, f := range []struct {
		number uintptr
		flags  uintptr
	}{{85, 0o600}, {2, unix.O_RDONLY}, {2, unix.O_CREAT | unix.O_RDWR}} { // creat, open
		fd, err := call(f.number, "first", f.flags, 0o600)
		step(0, err)
		unix.Close(int(fd))
	}
	step(call(82, "first", address, 0))              // rename
	step(call(264, "second", address, 0))            // renameat: the descriptor is no directory
	step(call(86, "second", address, 0))             // link: EEXIST
	step(call(88, "x", address, 0))                  // symlink: EEXIST
	step(call(133, "second", unix.S_IFREG|0o600, 0)) // mknod: EEXIST
	step(call(87, "second", 0, 0))                   // unlink
	step(call(83, "old", 0o700, 0))                  // mkdir
	step(call(84, "old", 0, 0))                      // rmdir
	runtime.KeepAlive(second)
	wanted := []error{nil, nil, nil, nil, unix.EBADF, unix.EEXIST, unix.EEXIST, unix.EEXIST, nil, nil, nil}
	for i, err := range failures {
		if !errors.Is(err, wanted[i]) {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

func TestFileOps(t *testing.T) {
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "fileops", group.dir)
	outside, inside := t.TempDir(), t.TempDir()
	h := other.start(t, "files", "DIRECTORY="+outside)
	h.expectLine("ready")
	if status := h.wait(); status.ExitStatus() != 0 {
		t.Fatalf("the helper ended with %v", status)
	}
	before, after := r.during(group, "files", "DIRECTORY="+inside)
	operations := map[string]uint64{"open": 9, "create": 4, "delete": 7, "rename": 3, "mkdir": 2, "rmdir": 2, "link": 1, "symlink": 1, "mknod": 1}
	failed := map[string]uint64{"open ENOENT": 4, "create EEXIST": 1, "delete EISDIR": 1, "rename ENOENT": 1, "mkdir EEXIST": 1, "rmdir ENOENT": 1}
	if runtime.GOARCH == "amd64" {
		for operation, n := range map[string]uint64{"open": 2, "create": 1, "delete": 1, "rename": 2, "mkdir": 1, "rmdir": 1, "link": 1, "symlink": 1, "mknod": 1} {
			operations[operation] += n
		}
		for operation, n := range map[string]uint64{"rename EBADF": 1, "link EEXIST": 1, "symlink EEXIST": 1, "mknod EEXIST": 1} {
			failed[operation] += n
		}
	}
	var all uint64
	for operation, want := range operations {
		expectMore(t, before, after, "file_operations_total", want, "cgroup="+group.path, "operation="+operation)
		all += want
	}
	expectMore(t, before, after, "file_operations_total", all)
	all = 0
	for failure, want := range failed {
		var operation, errno string
		if _, err := fmt.Sscan(failure, &operation, &errno); err != nil {
			t.Fatal(err)
		}
		expectMore(t, before, after, "file_operation_errors_total", want, "cgroup="+group.path, "operation="+operation, "errno="+errno)
		all += want
	}
	expectMore(t, before, after, "file_operation_errors_total", all)
	expect(t, after, "file_operations_total", 0, "cgroup="+other.path)
	left, err := filepath.Glob(filepath.Join(inside, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the helper left %v (%v)", left, err)
	}
}
