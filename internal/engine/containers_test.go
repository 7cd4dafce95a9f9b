package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// listed is a list of containers that a test changes.
type listed struct {
	mu   sync.Mutex
	all  []Container
	tell []func([]Container)
}

func (l *listed) FollowContainers(ctx context.Context, f func([]Container)) {
	l.mu.Lock()
	l.tell = append(l.tell, f)
	f(l.all)
	l.mu.Unlock()
	<-ctx.Done()
}

func (l *listed) set(all ...Container) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = all
	for _, f := range l.tell {
		f(all)
	}
}

// inRoot is a process in a mount namespace and a root directory of its own. It serves as testdata/target.c says.
type inRoot struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	list string
}

// startInRoot runs the target, which is at path in the directory. As a container's, the directory is a mount.
func startInRoot(t testing.TB, dir, path string) *inRoot {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	p := &inRoot{t: t, cmd: exec.Command(path, "s")}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: dir, Cloneflags: syscall.CLONE_NEWNS}
	p.cmd.Dir = "/"
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	p.list = filepath.Join(t.TempDir(), "cgroup.procs")
	if err := os.WriteFile(p.list, fmt.Appendf(nil, "%d\n", p.cmd.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// work has the process call work() n times.
func (p *inRoot) work(n int) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, "%d", n); err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.out.ReadByte(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *inRoot) stop() {
	p.in.Close()
	_ = p.cmd.Wait()
}

func (p *inRoot) container(id string) Container {
	return Container{ID: id, Processes: []string{p.list}}
}

// newRoot makes a root directory with the target at /bin/app.
func newRoot(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	copyTarget(t, filepath.Join(dir, "bin/app"))
	return dir
}

func copyTarget(t testing.TB, to string) {
	t.Helper()
	data, err := os.ReadFile(targetBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, data, 0o755)); err != nil {
		t.Fatal(err)
	}
}

// inContainers loads a spec for the containers of a list.
func inContainers(t *testing.T, l *listed, spec *program.Spec) *Instance {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	e := newEngine(t, Options{})
	i, err := e.LoadWithOptions(context.Background(), spec, LoadOptions{Containers: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

func probesIn(t *testing.T, binary string) *program.Spec {
	t.Helper()
	spec := loadSpec(t, "probes.bpf.o", "on_uprobe", "on_uretprobe", "on_uprobe_multi")
	spec.Hooks[0].Target = binary + ":work"
	spec.Hooks[1].Target = binary + ":work_more"
	spec.Hooks[2].Target = binary + ":work*"
	return spec
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: it did not happen", what)
		}
	}
}

// attachedTo waits until a function is attached to so many files.
func attachedTo(t *testing.T, i *Instance, function string, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is attached to %d files", function, n), func() bool {
		attached := 0
		for _, target := range hookOf(t, i, function).Targets {
			attached += boolInt(target.Err == nil)
		}
		return attached == n
	})
}

func TestProbesFollowContainers(t *testing.T) {
	checkFDs(t)
	l := &listed{}
	i := inContainers(t, l, probesIn(t, "/bin/app"))
	if h := hookOf(t, i, "on_uprobe"); h.State != Waiting || h.Err == nil || i.Degraded() != nil {
		t.Errorf("without containers: %+v, %v", h, i.Degraded())
	}
	first, second := startInRoot(t, newRoot(t), "/bin/app"), startInRoot(t, newRoot(t), "/bin/app")
	l.set(first.container("first"))
	for _, function := range []string{"on_uprobe", "on_uretprobe", "on_uprobe_multi"} {
		attachedTo(t, i, function, 1)
	}
	want := map[string]uint64{}
	expect := func() {
		t.Helper()
		for name, n := range want {
			if got := counter(t, i, name); got != n {
				t.Errorf("%s = %d, want %d", name, got, n)
			}
		}
	}
	add := func(n uint64) {
		want["by_uprobe"] += n
		want["by_uretprobe"] += n
		want["by_uprobe_multi"] += 2 * n
	}
	first.work(3)
	second.work(5)
	runTarget(t, targetBinary(t), "7")
	add(3)
	expect()
	// Another container, with a file of its own.
	l.set(first.container("first"), second.container("second"))
	for _, function := range []string{"on_uprobe", "on_uretprobe", "on_uprobe_multi"} {
		attachedTo(t, i, function, 2)
	}
	first.work(1)
	second.work(2)
	add(3)
	expect()
	// A new version of the Program counts at once, and the first container goes.
	i = replaceInContainers(t, i, l, probesIn(t, "/bin/app"))
	first.work(1)
	second.work(1)
	add(2)
	expect()
	l.set(second.container("second"))
	for _, function := range []string{"on_uprobe", "on_uretprobe", "on_uprobe_multi"} {
		attachedTo(t, i, function, 1)
	}
	first.work(4)
	second.work(1)
	add(1)
	expect()
	l.set()
	eventually(t, "nothing is attached", func() bool { return hookOf(t, i, "on_uprobe").State == Waiting })
	if err := i.Degraded(); err != nil {
		t.Error(err)
	}
}

func replaceInContainers(t *testing.T, old *Instance, l *listed, spec *program.Spec) *Instance {
	t.Helper()
	i, err := old.engine.ReplaceWithOptions(context.Background(), old, spec, ReplaceOptions{Containers: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Close(); err != nil {
			t.Error(err)
		}
	})
	return i
}

func TestUSDTInContainers(t *testing.T) {
	checkFDs(t)
	if !haveCookies() {
		t.Skip("needs attachment cookies")
	}
	spec := parseSpec(t, "usdt.bpf.o")
	spec.Hooks[0].Target = "/bin/app:kaon:tick"
	p := startInRoot(t, newRoot(t), "/bin/app")
	l := &listed{all: []Container{p.container("one")}}
	i := inContainers(t, l, spec)
	attachedTo(t, i, "on_probe", 1)
	p.work(4)
	if got := counter(t, i, "calls"); got != 4 {
		t.Errorf("%d calls, want 4", got)
	}
	var third uint64
	if err := i.Map("arguments").Lookup(uint32(2), &third); err != nil || third != 77 {
		t.Errorf("the third argument is %d (%v), want 77", third, err)
	}
	l.set()
	eventually(t, "it is detached", func() bool { return hookOf(t, i, "on_probe").State == Waiting })
	p.work(4)
	if got := counter(t, i, "calls"); got != 4 {
		t.Errorf("%d calls after it was detached, want 4", got)
	}
}

// Containers of one image have its files in common, under overlays of their own: one attachment is enough, and two would count twice.
func TestSharedLayer(t *testing.T) {
	checkFDs(t)
	layer, empty := newRoot(t), t.TempDir()
	var processes [2]*inRoot
	var containers [2]Container
	for n := range processes {
		root := t.TempDir()
		if err := unix.Mount("overlay", root, "overlay", unix.MS_RDONLY, "lowerdir="+layer+":"+empty); err != nil {
			t.Skip("needs overlays: ", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		processes[n] = startInRoot(t, root, "/bin/app")
		containers[n] = processes[n].container(fmt.Sprint(n))
	}
	l := &listed{all: containers[:]}
	i := inContainers(t, l, probesIn(t, "/bin/app"))
	attachedTo(t, i, "on_uprobe", 1)
	eventually(t, "both were looked into", func() bool { return hookOf(t, i, "on_uprobe").Err == nil })
	processes[0].work(2)
	processes[1].work(3)
	if got := counter(t, i, "by_uprobe"); got != 5 {
		t.Errorf("%d, want 5", got)
	}
	// It stays attached until the last one goes. What comes along in the list is attached to when the first is forgotten.
	other := startInRoot(t, newRoot(t), "/bin/app")
	l.set(containers[1], other.container("other"))
	attachedTo(t, i, "on_uprobe", 2)
	processes[1].work(2)
	if got := counter(t, i, "by_uprobe"); got != 7 {
		t.Errorf("%d, want 7", got)
	}
	l.set()
	eventually(t, "it is detached", func() bool { return hookOf(t, i, "on_uprobe").State == Waiting })
}

// What lacks in containers is told with their number, and the others go on.
func TestContainersWithoutIt(t *testing.T) {
	good, without := startInRoot(t, newRoot(t), "/bin/app"), startInRoot(t, newRoot(t), "/bin/app")
	other := t.TempDir()
	copyTarget(t, filepath.Join(other, "usr/bin/other"))
	stripped := startInRoot(t, other, "/usr/bin/other")
	sandbox := stripped.container("sandbox")
	sandbox.Matters = func() bool { return false }
	l := &listed{all: []Container{good.container("good"), stripped.container("other"), sandbox}}
	spec := loadSpec(t, "probes.bpf.o", "on_uprobe")
	spec.Hooks[0].Target = "/bin/app:work"
	i := inContainers(t, l, spec)
	attachedTo(t, i, "on_uprobe", 1)
	// One has the file, so the other may be a sidecar.
	eventually(t, "it is told", func() bool { return hookOf(t, i, "on_uprobe").Err != nil })
	if err := hookOf(t, i, "on_uprobe").Err; !strings.Contains(err.Error(), "attached in 1 of 2 containers (1: no such target: no /bin/app)") {
		t.Error(err)
	}
	if err := i.Degraded(); err != nil {
		t.Error(err)
	}
	// None has it.
	l.set(stripped.container("other"))
	eventually(t, "it is degraded", func() bool { return i.Degraded() != nil })
	if err := i.Degraded(); !strings.Contains(err.Error(), "attached in 0 of 1 containers") {
		t.Error(err)
	}
	l.set(good.container("good"))
	attachedTo(t, i, "on_uprobe", 1)
	eventually(t, "it is well again", func() bool { return i.Degraded() == nil })
	// One has the file but not the symbol.
	spec = loadSpec(t, "probes.bpf.o", "on_uprobe")
	spec.Hooks[0].Target = "/bin/app:wark"
	l = &listed{all: []Container{good.container("good"), without.container("too")}}
	i = inContainers(t, l, spec)
	eventually(t, "it is degraded", func() bool { return i.Degraded() != nil })
	eventually(t, "both were tried", func() bool { return strings.Contains(i.Degraded().Error(), "of 2 containers") })
	if err := i.Degraded(); !strings.Contains(err.Error(), "attached in 0 of 2 containers (2: ") || !strings.Contains(err.Error(), "/bin/app has no function wark (did you mean work?)") {
		t.Error(err)
	}
}

// Links of a container lead to its own files, never to the host's.
func TestLinksStayInTheContainer(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	copyTarget(t, secret)
	root := newRoot(t)
	up := strings.Repeat("../", 40)
	for link, to := range map[string]string{
		"bin/absolute": secret, "bin/relative": up + secret[1:], "bin/magic": "/proc/self/root" + secret, "bin/inside": "/bin/app", "bin/above": up + "bin/app", "bin/loop": "loop",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(root, "bin/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startInRoot(t, root, "/bin/app")
	roots, err := containerRoots(p.container("x"), hostRoot())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, r := range roots {
			r.root.Close()
		}
	}()
	f := func(path string, found bool) {
		t.Helper()
		o, err := findInContainer(roots, path)
		if err == nil {
			defer o.file.Close()
		}
		if found != (err == nil) || err != nil && !errors.Is(err, ErrNoTarget) {
			t.Errorf("%s: %v, found should be %v", path, err, found)
		}
	}
	f("/bin/app", true)
	f("/bin/inside", true)
	f("/bin/above", true)
	f("/"+up+"bin/app", true)
	f("/bin/absolute", false)
	f("/bin/relative", false)
	f("/bin/magic", false)
	f("/bin/loop", false)
	f("/bin/fifo", false)
	f("/bin", false)
	f(secret, false)
}

// A library is found by its name in what a process has mapped, or where loaders look.
func TestLibraryInContainer(t *testing.T) {
	root := newRoot(t)
	copyTarget(t, filepath.Join(root, "usr/lib/libkaon.so.1"))
	if err := os.WriteFile(filepath.Join(root, "usr/lib/libkaon.so"), []byte("INPUT(libkaon.so.1)"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startInRoot(t, root, "/bin/app")
	l := &listed{all: []Container{p.container("x")}}
	spec := loadSpec(t, "probes.bpf.o", "on_uprobe")
	spec.Hooks[0].Target = "libkaon:work"
	i := inContainers(t, l, spec)
	attachedTo(t, i, "on_uprobe", 1)
	if name := hookOf(t, i, "on_uprobe").Targets[0].Name; !strings.HasPrefix(name, "libkaon (inode ") {
		t.Error(name)
	}
}

// What runs in the host's root directory, as a container that is being made does, is not looked into.
func TestNotInContainerYet(t *testing.T) {
	l := &listed{}
	list := filepath.Join(t.TempDir(), "cgroup.procs")
	if err := os.WriteFile(list, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Container{ID: "x", Processes: []string{list, "/nonexistent"}}
	if _, err := containerRoots(c, hostRoot()); !errors.Is(err, errNotInContainer) {
		t.Error(err)
	}
	if err := os.WriteFile(list, []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := containerRoots(c, hostRoot()); !errors.Is(err, errOtherPIDs) {
		t.Error(err)
	}
	// It is looked into again until it is one.
	spec := loadSpec(t, "probes.bpf.o", "on_uprobe")
	spec.Hooks[0].Target = "/bin/app:work"
	l.set(c)
	i := inContainers(t, l, spec)
	p := startInRoot(t, newRoot(t), "/bin/app")
	if err := os.WriteFile(list, fmt.Appendf(nil, "%d\n", p.cmd.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	attachedTo(t, i, "on_uprobe", 1)
}

// A container's processes may be in a cgroup below its own, which is made later.
func TestProcessesBelow(t *testing.T) {
	p := startInRoot(t, newRoot(t), "/bin/app")
	above := filepath.Join(t.TempDir(), "cgroup.procs")
	if err := os.WriteFile(above, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &containerScan{looked: map[string]*lookedInto{}}
	defer s.close()
	now := time.Now()
	s.look([]Container{{ID: "x", Processes: []string{above}}}, []string{"/bin/app"}, now.Add(-time.Hour))
	if l := s.looked["x"]; l.files["/bin/app"] != nil || !l.starting {
		t.Errorf("without processes: %+v", l)
	}
	s.looked["x"].due = now.Add(time.Hour)
	s.look([]Container{{ID: "x", Processes: []string{above, p.list}}}, []string{"/bin/app"}, now)
	if l := s.looked["x"]; l.files["/bin/app"] == nil {
		t.Errorf("with a process below: %+v", l)
	}
}

func TestMountType(t *testing.T) {
	const mounts = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n23 22 0:21 / /a\\040b rw - fuse.sshfs x rw\n24 22 0:22 / /c rw master:1 - overlay overlay rw,lowerdir=/a - b\n"
	f := func(number, want string) {
		t.Helper()
		if got := mountType(mounts, number); got != want {
			t.Errorf("%q: %q, want %q", number, got, want)
		}
	}
	f("22", "ext4")
	f("23", "fuse.sshfs")
	f("24", "overlay")
	f("2", "")
	f("", "")
}

func FuzzMountType(f *testing.F) {
	f.Add("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n", "22")
	f.Fuzz(func(t *testing.T, mounts, number string) {
		if kind := mountType(mounts, number); !strings.Contains(mounts, kind) {
			t.Errorf("%q is not in the text", kind)
		}
	})
}

// What is beyond a limit is told.
func TestContainerLimits(t *testing.T) {
	list := filepath.Join(t.TempDir(), "cgroup.procs")
	var text strings.Builder
	for pid := 1; pid <= 5*maxContainerProcesses; pid++ {
		fmt.Fprintln(&text, pid)
	}
	if err := os.WriteFile(list, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if pids, err := processesOf([]string{list, list}); err != nil || len(pids) != maxContainerProcesses || pids[0] != 1 {
		t.Errorf("%v, %v", pids, err)
	}
	f := &function{hook: program.Hook{Kind: program.Uprobe, Target: "/bin/app:work", Function: "on"}}
	s := &containerScan{looked: map[string]*lookedInto{}}
	for n := range maxContainerFiles + 2 {
		o := (&openFile{identity: fileIdentity{inode: uint64(n)}}).called("/bin/app")
		s.looked[fmt.Sprint(n)] = &lookedInto{files: map[string]*openFile{"/bin/app": o}}
	}
	files := s.filesOf("/bin/app")
	if len(files) != maxContainerFiles+2 {
		t.Fatalf("%d files", len(files))
	}
	for _, o := range files[:maxContainerFiles] {
		f.attached = append(f.attached, &attachedTarget{target: o.target, attachment: attachments{}})
	}
	_, missing := s.summary(f, "/bin/app", 3, 2)
	want := "uprobe//bin/app:work (on): attached in 256 of 261 containers (2: more than 256 different files; 3: beyond the limit of 1000 containers)"
	if missing == nil || missing.Error() != want {
		t.Errorf("got %v, want %s", missing, want)
	}
}
