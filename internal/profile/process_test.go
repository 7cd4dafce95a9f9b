package profile

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeProc is a procfs with one process, 7 (3 in its own namespace), that has its own root.
type fakeProc struct {
	t         *testing.T
	proc, dir string
	root      string
}

func newFakeProc(t *testing.T) *fakeProc {
	t.Helper()
	f := &fakeProc{t: t, proc: t.TempDir()}
	f.dir = filepath.Join(f.proc, "7")
	f.root = filepath.Join(f.dir, "root")
	for _, directory := range []string{f.dir, f.root, filepath.Join(f.root, "tmp"), filepath.Join(f.root, "bin")} {
		if err := os.Mkdir(directory, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f.write("7/status", fmt.Sprintf("Name:\tapp\nNSpid:\t7\t3\nUid:\t%d\t0\t0\t0\n", os.Getuid()))
	return f
}

func (f *fakeProc) write(path, text string) uint64 {
	f.t.Helper()
	path = filepath.Join(f.proc, path)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		f.t.Fatal(err)
	}
	return st.Ino
}

func (f *fakeProc) maps(lines ...string) { f.write("7/maps", strings.Join(lines, "\n")+"\n") }

func mapsLine(start uint64, inode uint64, path string) string {
	return fmt.Sprintf("%x-%x r-xp 00001000 fd:01 %d %s", start, start+0x10000, inode, path)
}

// label says what an address of the process is called.
func (f *fakeProc) label(p *processes, a uint64) string {
	f.t.Helper()
	p.see(space{7, 1}, "app", []uint64{a}, time.Now())
	n := &namer{recorder: &recorder{processes: p}, frames: map[place]*Frame{}, byObject: map[*object][]*Frame{}, perfMaps: map[*process][]*Frame{}, unmapped: map[uint64]*Frame{}}
	frame := n.user(space{7, 1}, a)
	if !n.lookUp(context.Background()) {
		f.t.Error("looking up did not come to an end")
	}
	return frame.label()
}

func (f *fakeProc) check(a uint64, want string) {
	f.t.Helper()
	p := newProcesses(f.proc)
	defer p.close()
	if got := f.label(p, a); got != want {
		f.t.Errorf("%#x is %q, want %q", a, got, want)
	}
}

// appFile is a file in which foo::bar is at 0x2000, which is at the offset 0x1000.
func appFile() string {
	return string(symbolFile(symbol(20, 1, 2, 0x2000, 0x100)))
}

func TestProcess(t *testing.T) {
	f := newFakeProc(t)
	inode := f.write("7/root/bin/app", appFile())
	f.maps(mapsLine(0x10000, inode, "/bin/app"), mapsLine(0x40000, inode+1, "/bin/app"), mapsLine(0x60000, inode, "/bin/old (deleted)"), mapsLine(0x80000, 5, "/bin/gone"))
	f.check(0x10010, "foo::bar")
	f.check(0x10200, "[app+0x2200]") // nothing there has a name
	f.check(0x9000, "[unknown]")
	f.check(0x40010, "[app+0x1010]") // another file is there now
	f.check(0x60010, "[old+0x1010]")
	f.check(0x80010, "[gone+0x1010]")

	// What is opened once stays, whatever becomes of file and process.
	p := newProcesses(f.proc)
	defer p.close()
	p.see(space{7, 1}, "app", []uint64{0x10010}, time.Now())
	if err := os.RemoveAll(f.dir); err != nil {
		t.Fatal(err)
	}
	if got := f.label(p, 0x10010); got != "foo::bar" {
		t.Errorf("after its end: %q", got)
	}
	p.see(space{8, 1}, "app", []uint64{1}, time.Now())
	if !p.known[space{8, 1}].gone {
		t.Error("a process that does not exist is there")
	}
}

// Links lead nowhere but into the process's own root.
func TestProcessRoot(t *testing.T) {
	f := newFakeProc(t)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte(appFile()), 0o644); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(outside, &st); err != nil {
		t.Fatal(err)
	}
	inode := f.write("7/root/bin/real", appFile())
	for link, target := range map[string]string{"out": outside, "up": "../../../../../../../../../.." + outside, "in": "/bin/real"} {
		if err := os.Symlink(target, filepath.Join(f.root, "bin", link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(f.root, "bin/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	var fifo unix.Stat_t
	if err := unix.Stat(filepath.Join(f.root, "bin/fifo"), &fifo); err != nil {
		t.Fatal(err)
	}
	f.maps(mapsLine(0x10000, st.Ino, "/bin/out"), mapsLine(0x30000, st.Ino, "/bin/up"), mapsLine(0x50000, inode, "/bin/in"), mapsLine(0x70000, fifo.Ino, "/bin/fifo"))
	f.check(0x10010, "[out+0x1010]")
	f.check(0x30010, "[up+0x1010]")
	f.check(0x50010, "foo::bar")
	f.check(0x70010, "[fifo+0x1010]")
}

func TestProcessPerfMap(t *testing.T) {
	const list = "10000 100 LazyCompile:~handle\n"
	f := newFakeProc(t)
	f.maps("10000-20000 rwxp 00000000 00:00 0")
	f.check(0x10010, "[generated code]")
	f.write("7/root/tmp/perf-3.map", list)
	f.check(0x10010, "LazyCompile:~handle")
	f.check(0x10100, "[generated code]")

	// It is found also if it was not there at first, and read to where it is in the end.
	if err := os.Remove(filepath.Join(f.root, "tmp/perf-3.map")); err != nil {
		t.Fatal(err)
	}
	p := newProcesses(f.proc)
	defer p.close()
	now := time.Now()
	p.see(space{7, 1}, "app", []uint64{0x10010}, now)
	f.write("7/root/tmp/perf-3.map", "")
	p.see(space{7, 1}, "app", []uint64{0x10010}, now.Add(time.Hour))
	f.write("7/root/tmp/perf-3.map", list)
	if got := f.label(p, 0x10010); got != "LazyCompile:~handle" {
		t.Errorf("a list that came later: %q", got)
	}

	// Somebody else's is not believed.
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(f.root, "tmp/perf-3.map"), 12345, 12345); err != nil {
			t.Fatal(err)
		}
		f.check(0x10010, "[generated code]")
	}
	if err := os.Remove(filepath.Join(f.root, "tmp/perf-3.map")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(f.root, "tmp/perf-3.map"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.check(0x10010, "[generated code]")
}

// A look at a process that takes too long is not waited for. What it finds is taken when it has ended.
func TestProcessHangs(t *testing.T) {
	f := newFakeProc(t)
	inode := f.write("7/root/bin/app", appFile())
	if err := unix.Mkfifo(filepath.Join(f.dir, "maps"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProcesses(f.proc)
	defer p.close()
	p.patience = 50 * time.Millisecond
	see := func() *process {
		p.see(space{7, 1}, "app", []uint64{0x10010}, time.Now())
		return p.known[space{7, 1}]
	}
	for range 2 {
		if known := see(); known.gone || len(known.mappings) > 0 || p.hanging != 1 {
			t.Errorf("%+v, %d hang", known, p.hanging)
		}
	}
	w, err := os.OpenFile(filepath.Join(f.dir, "maps"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString(mapsLine(0x10000, inode, "/bin/app")); err != nil {
		t.Fatal(err)
	}
	w.Close()
	for range 1000 {
		if known := see(); len(known.mappings) == 1 {
			if p.hanging != 0 {
				t.Errorf("%d hang", p.hanging)
			}
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Error("it still hangs")
}

// A program that maps more while it runs is looked at again.
func TestProcessGrows(t *testing.T) {
	f := newFakeProc(t)
	inode := f.write("7/root/bin/app", appFile())
	f.maps(mapsLine(0x10000, inode, "/bin/app"))
	p := newProcesses(f.proc)
	defer p.close()
	if got := f.label(p, 0x10010); got != "foo::bar" {
		t.Error(got)
	}
	f.maps(mapsLine(0x50000, inode, "/bin/app"))
	p.known[space{7, 1}].looked = time.Time{}
	if got := f.label(p, 0x50010); got != "foo::bar" {
		t.Error(got)
	}
	if got := f.label(p, 0x10010); got != "foo::bar" {
		t.Error("what was mapped before:", got)
	}
}

func TestVDSO(t *testing.T) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	all, err := parseMaps(maps)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		if m.path != "[vdso]" {
			continue
		}
		image := ownVDSO(m.end - m.start)
		if image == nil {
			t.Fatal("it can't be read")
		}
		f, err := openELF(image)
		if err != nil || len(f.segments) == 0 {
			t.Fatalf("%+v, %v", f, err)
		}
		if ownVDSO(m.end-m.start+1) != nil {
			t.Error("one of another size is the same")
		}
		return
	}
	t.Skip("needs a vDSO")
}
