package agent

import (
	"bufio"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/object"
)

// server is a process in a container: a cgroup, a mount namespace and a root directory. It works as often as it is told, as
// ../engine/testdata/target.c says.
type server struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// newImage makes a directory with the program at /bin/app.
func newImage(t *testing.T) string {
	t.Helper()
	const target = "../engine/testdata/target"
	f, err := elf.Open(target)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if runtime.GOARCH != map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine] {
		t.Skipf("needs a machine of type %s", f.Machine)
	}
	data, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	app := filepath.Join(dir, "bin/app")
	if err := errors.Join(os.MkdirAll(filepath.Dir(app), 0o755), os.WriteFile(app, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// startIn runs an image's program in a cgroup.
func startIn(t *testing.T, cgroup, image string) *server {
	t.Helper()
	root := t.TempDir()
	if err := unix.Mount(image, root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	s := &server{t: t, cmd: exec.Command("/bin/app", "s")}
	s.cmd.Dir = "/"
	s.cmd.SysProcAttr = &unix.SysProcAttr{Chroot: root, Cloneflags: unix.CLONE_NEWNS, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.out = bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

func (s *server) work(n int) {
	s.t.Helper()
	if _, err := fmt.Fprint(s.in, n); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.out.ReadByte(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) stop() {
	s.in.Close()
	_ = s.cmd.Wait()
}

// byContainer returns the values of a counter by the number of the container.
func byContainer(t *testing.T, a *Agent, metric string) map[string]uint64 {
	t.Helper()
	got := map[string]uint64{}
	for container, value := range valuesBy(t, a, metric, "container") {
		got[strings.TrimLeft(container, "0")] += value
	}
	return got
}

// Probes of user programs are set in the containers of selected pods, and what unselected ones do in the same files is not counted.
func TestProbesInSelectedPods(t *testing.T) {
	root := newCgroup(t)
	a := newAgent(t, root)
	spec, err := object.Load("testdata/probes.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	selected := chose(podUID(1))
	apply(t, a, ProgramConfig{Source: "programs.kaon.dev/probes", Resolved: &Resolved{Name: spec.Name, Spec: spec, Selection: selected}})
	if s := a.Status()[0]; s.State != Up {
		t.Fatalf("without pods: %+v", s)
	}
	attached := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d files are attached to", n), func() bool {
			for _, h := range a.Status()[0].Hooks {
				if len(h.Targets) != n || h.Attached != (n > 0) {
					return false
				}
			}
			return true
		})
	}
	want := map[string]uint64{}
	expect := func() {
		t.Helper()
		for _, metric := range []string{"test_work_total", "test_ticks_total"} {
			if got := byContainer(t, a, metric); !maps.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", metric, got, want)
			}
		}
	}
	image, other := newImage(t), newImage(t)
	first, second := newPod(t, root, 1), newPod(t, root, 2)
	one, two := startIn(t, newContainer(t, first, 1), image), startIn(t, newContainer(t, second, 2), image)
	attached(1)
	one.work(3)
	two.work(5)
	want["1"] = 3
	expect()
	// Another container of the selected pod, with a file of its own, in a cgroup of a cgroup.
	inner := newChild(t, newContainer(t, first, 3), "container")
	three := startIn(t, inner, other)
	attached(2)
	three.work(4)
	want["3"] = 4
	expect()
	// The other pod is selected, too: its file is attached to already.
	selected.set(podUID(1), podUID(2))
	eventually(t, "the second is selected", func() bool { return selectionOf(t, a).Cgroups == 6 })
	two.work(2)
	want["2"] = 2
	expect()
	attached(2)
	// A container ends.
	three.stop()
	attached(1)
	selected.set()
	attached(0)
	one.work(1)
	two.work(1)
	expect()
}

// What is followed are containers with all of their cgroups, whenever those are made.
func TestFollowContainers(t *testing.T) {
	root := newCgroup(t)
	a := newAgent(t, root)
	ctx, cancel := context.WithCancel(context.Background())
	seen, done := make(chan []engine.Container, 100), make(chan struct{})
	go func() {
		defer close(done)
		(&selectedContainers{a, chose(podUID(1))}).FollowContainers(ctx, func(all []engine.Container) { seen <- all })
	}()
	defer func() { cancel(); <-done }()
	wait := func(what string, processes ...int) {
		t.Helper()
		eventually(t, what, func() bool {
			select {
			case all := <-seen:
				return slices.EqualFunc(all, processes, func(c engine.Container, n int) bool { return len(c.Processes) == n })
			default:
				return false
			}
		})
	}
	wait("nothing at first")
	pod, other := newPod(t, root, 1), newPod(t, root, 2)
	newContainer(t, other, 9)
	container := newContainer(t, pod, 1)
	wait("a container", 1)
	newChild(t, container, "container")
	wait("its cgroup below", 2)
	newContainer(t, pod, 2)
	wait("another container", 2, 1)
}
