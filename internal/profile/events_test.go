package profile

import (
	"encoding/binary"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// rawRecord makes a record as the kernel does: header, body, padding, time.
func rawRecord(kind uint32, misc uint16, time uint64, body ...any) []byte {
	var b []byte
	for _, part := range body {
		switch v := part.(type) {
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, v)
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, v)
		case string:
			b = append(b, v+"\x00"...)
			for len(b)%8 != 0 {
				b = append(b, 0)
			}
		}
	}
	h := binary.LittleEndian.AppendUint32(nil, kind)
	h = binary.LittleEndian.AppendUint16(h, misc)
	h = binary.LittleEndian.AppendUint16(h, uint16(8+len(b)+8))
	return binary.LittleEndian.AppendUint64(append(h, b...), time)
}

func rawFork(time uint64, pid, parent, tid uint32) []byte {
	return rawRecord(unix.PERF_RECORD_FORK, 0, time, pid, parent, tid, parent, time)
}

func rawExit(time uint64, pid, tid uint32) []byte {
	return rawRecord(unix.PERF_RECORD_EXIT, 0, time, pid, pid, tid, tid, time)
}

func rawMap(time uint64, pid uint32, start, size, offset uint64, protection uint32, path string) []byte {
	return rawRecord(unix.PERF_RECORD_MMAP2, 0, time, pid, pid, start, size, offset, uint32(0xfd), uint32(1), uint64(1234), uint64(0), protection, uint32(2), path)
}

func rawName(time uint64, misc uint16, pid, tid uint32, name string) []byte {
	return rawRecord(unix.PERF_RECORD_COMM, misc, time, pid, tid, name)
}

func TestRecords(t *testing.T) {
	code := uint32(unix.PROT_READ | unix.PROT_EXEC)
	data := slices.Concat(
		rawFork(1, 10, 9, 10),
		rawFork(2, 10, 10, 11), // a thread
		rawName(3, commExec, 10, 10, "cat"),
		rawName(4, 0, 10, 11, "worker"), // a thread's
		rawMap(5, 10, 0x1000, 0x2000, 0x3000, code, "/usr/bin/cat"),
		rawMap(6, 10, 0x9000, 0x1000, 0, unix.PROT_READ, "/usr/share/data"),
		rawMap(7, 10, 0x5000, 0x1000, 0, code, "//anon"),
		rawMap(8, 10, ^uint64(0), 0x1000, 0, code, "overflows"),
		rawExit(9, 10, 11),
		rawExit(10, 10, 10),
		rawRecord(unix.PERF_RECORD_LOST, 0, 11, uint64(1), uint64(2)),
		[]byte{1, 2, 3},
	)
	got := parseRecords(nil, data)
	want := []record{
		{time: 1, kind: unix.PERF_RECORD_FORK, pid: 10, parent: 9},
		{time: 3, kind: unix.PERF_RECORD_COMM, pid: 10, exec: true, name: "cat"},
		{time: 5, kind: unix.PERF_RECORD_MMAP2, pid: 10, mapping: mapping{start: 0x1000, end: 0x3000, offset: 0x3000, device: "fd:01", inode: 1234, path: "/usr/bin/cat"}},
		{time: 7, kind: unix.PERF_RECORD_MMAP2, pid: 10, mapping: mapping{start: 0x5000, end: 0x6000, device: "fd:01", inode: 1234}},
		{time: 10, kind: unix.PERF_RECORD_EXIT, pid: 10, parent: 10},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(slices.Concat(rawFork(1, 10, 9, 10), rawName(3, commExec, 10, 10, "cat"), rawMap(5, 10, 0x1000, 0x2000, 0, 4, "/usr/bin/cat"), rawExit(9, 10, 10)))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLives()
		for _, r := range parseRecords(nil, data) {
			l.apply(&r)
		}
		for _, p := range l.byPID {
			if len(p.generations) > maxGenerations {
				t.Fatal(len(p.generations))
			}
			for _, m := range p.named("cat") {
				if m.start >= m.end {
					t.Fatalf("%+v", m)
				}
			}
		}
		l.turn()
		l.turn()
	})
}

func TestLives(t *testing.T) {
	l := newLives()
	apply := func(data ...[]byte) {
		for _, r := range parseRecords(nil, slices.Concat(data...)) {
			l.apply(&r)
		}
	}
	check := func(pid uint32, name string, want ...string) {
		t.Helper()
		var got []string
		if p := l.byPID[pid]; p != nil {
			for _, m := range p.named(name) {
				got = append(got, m.path)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("process %d as %q has %q mapped, want %q", pid, name, got, want)
		}
	}
	code := uint32(unix.PROT_EXEC)
	apply(rawName(1, commExec, 10, 10, "sh"), rawMap(2, 10, 0x1000, 0x1000, 0, code, "/bin/sh"), rawMap(3, 10, 0x5000, 0x1000, 0, code, "/lib/libc"))
	check(10, "sh", "/bin/sh", "/lib/libc")
	// A child has its parent's, then its own at the same place; both by their names.
	apply(rawFork(4, 11, 10, 11))
	check(11, "sh", "/bin/sh", "/lib/libc")
	apply(rawName(5, commExec, 11, 11, "cat"), rawMap(6, 11, 0x1000, 0x1000, 0, code, "/bin/cat"))
	check(11, "sh", "/bin/sh", "/lib/libc")
	check(11, "cat", "/bin/cat")
	check(10, "sh", "/bin/sh", "/lib/libc")
	// It names itself.
	apply(rawName(7, 0, 11, 11, "purr"))
	check(11, "purr", "/bin/cat")
	check(11, "cat", "/bin/cat")
	// What is mapped after a fork is not the other's.
	apply(rawFork(8, 12, 10, 12), rawMap(9, 12, 0x9000, 0x1000, 0, code, "/lib/child"), rawMap(10, 10, 0x9000, 0x1000, 0, code, "/lib/parent"))
	check(12, "sh", "/bin/sh", "/lib/libc", "/lib/child")
	check(10, "sh", "/bin/sh", "/lib/libc", "/lib/parent")
	// Who ended is known until the turn after the next, unless the number is another's by then.
	apply(rawExit(11, 11, 11), rawExit(12, 12, 12))
	l.turn()
	check(11, "cat", "/bin/cat")
	apply(rawFork(13, 12, 10, 12))
	l.turn()
	check(11, "cat")
	check(12, "sh", "/bin/sh", "/lib/libc", "/lib/parent")
}

// The kernel tells of a process that nobody could have looked at.
func TestEvents(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	e, err := openEvents()
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self, "-test.run=^$")
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(command.Process.Pid)
	l := newLives()
	for begun := time.Now(); time.Since(begun) < 10*time.Second; time.Sleep(time.Millisecond) {
		for _, r := range e.read() {
			l.apply(&r)
		}
		if slices.Contains(l.ended[0], pid) {
			break
		}
	}
	p := l.byPID[pid]
	if p == nil || p.parent != uint32(os.Getpid()) {
		t.Fatalf("process %d is %+v", pid, p)
	}
	name := self[strings.LastIndexByte(self, '/')+1:]
	mapped := p.named(name[:min(len(name), 15)])
	i := slices.IndexFunc(mapped, func(m mapping) bool { return m.path == self })
	if i < 0 {
		t.Fatalf("%s is not among %+v", self, mapped)
	}
	// It is the file that it was, and found by whoever has it.
	processes := newProcesses("/proc")
	defer processes.close()
	found := processes.follow(pid, p.parent, mapped, false)
	if o := found.mappings[i].object; o == nil || o.file == nil {
		t.Errorf("%s could not be opened", self)
	}
}
