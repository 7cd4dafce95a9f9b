package programs_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// tinyProgram is an executable file that ends at once, with the code 0.
func tinyProgram() []byte {
	const base, header = 0x400000, 64 + 56
	machine, code := uint16(62), []byte{0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05}
	if runtime.GOARCH == "arm64" {
		machine, code = 183, []byte{0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4}
	}
	size := uint64(header + len(code))
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header)
	b = le.AppendUint64(b, 64) // program headers
	b = le.AppendUint64(b, 0)  // no sections
	b = le.AppendUint32(b, 0)
	for _, n := range []uint16{64, 56, 1, 64, 0, 0} {
		b = le.AppendUint16(b, n)
	}
	b = le.AppendUint32(b, 1) // PT_LOAD
	b = le.AppendUint32(b, 5) // readable, executable
	for _, n := range []uint64{0, base, base, size, size, 4096} {
		b = le.AppendUint64(b, n)
	}
	return append(b, code...)
}

// runFileless runs a program three times from memory, twice from a deleted file and four times from a file.
func runFileless() {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(101)
		}
	}
	run := func(path string, times int) {
		for range times {
			must(exec.Command(path).Run())
		}
	}
	// A file that is open for writing can't be executed.
	reopen := func(fd int) string {
		again, err := unix.Open(fmt.Sprint("/proc/self/fd/", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(err)
		must(unix.Close(fd))
		return fmt.Sprint("/proc/self/fd/", again)
	}
	memory, err := unix.MemfdCreate("kaon-test", unix.MFD_CLOEXEC)
	must(err)
	_, err = unix.Write(memory, tinyProgram())
	must(err)
	run(reopen(memory), 3)

	path := filepath.Join(os.Getenv("DIRECTORY"), "kaon-tiny")
	must(os.WriteFile(path, tinyProgram(), 0o755))
	run(path, 4)
	file, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(err)
	must(os.Remove(path))
	run(reopen(file), 2)
}

func TestFilelessExec(t *testing.T) {
	group, outside := newCgroup(t), newCgroup(t)
	f := func(memory, deleted string, params ...string) {
		t.Helper()
		r := load(t, "filelessexec", group.dir, params...)
		for _, c := range []cgroup{group, outside} {
			if status := c.start(t, "fileless", "DIRECTORY="+t.TempDir()).wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		families := r.collect()
		missed := r.missed("fileless_exec")
		cgroup := "cgroup=" + group.path
		expectUpTo(t, families, "fileless_executions_total", 3, missed, cgroup, "kind=memory", "file="+memory)
		expectUpTo(t, families, "fileless_executions_total", 2, missed, cgroup, "kind=deleted", "file="+deleted)
		expectUpTo(t, families, "fileless_executions_total", 5, missed)
	}
	f("", "")
	f("memfd:kaon-test", "kaon-tiny", "names=true")
}
