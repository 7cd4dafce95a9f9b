package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// childVariable makes the test binary play another process, which waits for its input to end. A "lab" enters a tree
// first, and says which.
const childVariable = "KAON_TEST_CGROUP_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		os.Exit(m.Run())
	}
	if os.Getenv(childVariable) == "lab" {
		tree, err := Enter()
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(tree.Dir() + "\n")
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func enter(t *testing.T) *Tree {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	tree, err := Enter()
	if errors.Is(err, ErrNone) {
		t.Skip("needs the right to make cgroups:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestEnterAndClose(t *testing.T) {
	before, err := own()
	if err != nil {
		t.Skip("needs a mounted cgroup v2 hierarchy:", err)
	}
	tree := enter(t)
	if now, err := own(); err != nil || now != filepath.Join(tree.Dir(), leaf) {
		t.Errorf("the process is in %s (%v), want the leaf of %s", now, err, tree.Dir())
	}
	leaves, err := tree.Leaves()
	if err != nil || len(leaves) != 1 || leaves[0].Name != "lab" || leaves[0].Inode == 0 {
		t.Errorf("the leaves are %v (%v)", leaves, err)
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	if now, err := own(); err != nil || now != before {
		t.Errorf("the process is in %s (%v), want %s", now, err, before)
	}
	if _, err := os.Stat(tree.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", tree.Dir(), err)
	}
}

func TestCellOfTheTree(t *testing.T) {
	tree := enter(t)
	defer func() {
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	}()
	cell, err := Make("inject-cpu", 1)
	if err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(cell.Dir()) != tree.Dir() {
		t.Errorf("the cell is %s, want it in %s", cell.Dir(), tree.Dir())
	}
	leaves, err := tree.Leaves()
	if err != nil || len(leaves) != 2 || !slices.ContainsFunc(leaves, func(l Leaf) bool { return l.Name == "inject-cpu" && l.Dir == cell.Dir() }) {
		t.Errorf("the leaves are %v (%v)", leaves, err)
	}
	there, err := cell.Limit("kaon.nothing", "1")
	if there || err != nil {
		t.Errorf("a file that is not there: %v, %v", there, err)
	}
	command := exec.Command("/proc/self/exe")
	command.Env = append(os.Environ(), childVariable+"=child")
	command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cell.FD()}
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	procs, err := os.ReadFile(filepath.Join(cell.Dir(), "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(procs)) != strconv.Itoa(command.Process.Pid) {
		t.Errorf("in the cell: %q (%v), want %d", procs, err, command.Process.Pid)
	}
	in.Close()
	if err := command.Wait(); err != nil {
		t.Error(err)
	}
	if err := cell.Remove(); err != nil {
		t.Error(err)
	}
}

// aside moves this process, and what it starts from now on, into a cgroup where no other package's test sweeps.
func aside(t *testing.T) {
	t.Helper()
	home, err := own()
	if err != nil {
		t.Skip("needs a mounted cgroup v2 hierarchy:", err)
	}
	dir, err := os.MkdirTemp(home, "kaon-test-cgroup-")
	if err != nil {
		t.Skip("needs the right to make cgroups:", err)
	}
	back := func() {
		if err := errors.Join(move(home), removeTree(dir)); err != nil {
			t.Error(err)
		}
	}
	if err := move(dir); err != nil {
		back()
		t.Skip("needs the right to move to another cgroup:", err)
	}
	t.Cleanup(back)
}

// TestSweepAndMakeAtOnce: what one lab makes, the sweep of another never takes from it. No cgroup is needed for that.
func TestSweepAndMakeAtOnce(t *testing.T) {
	parent := t.TempDir()
	stop := make(chan struct{})
	var wait sync.WaitGroup
	defer wait.Wait()
	defer close(stop)
	for range 3 {
		wait.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					sweep(parent)
				}
			}
		})
	}
	for n := range 500 {
		// The name of no process: so only the lock keeps it.
		dir, file, err := makeLocked(parent, fmt.Sprintf("%s%d-%d", prefix, 1<<30, n))
		if err != nil {
			t.Fatal(err)
		}
		if !isAt(file, dir) {
			t.Fatalf("%s was taken away", dir)
		}
		if err := errors.Join(remove(dir), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSweepLeavesTheLiving: a lab that lives may not have locked yet what it made.
func TestSweepLeavesTheLiving(t *testing.T) {
	parent := t.TempDir()
	make := func(pid int) string {
		dir := filepath.Join(parent, fmt.Sprintf("%s%d-inject-cpu.1", prefix, pid))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	other := exec.Command("/proc/self/exe")
	other.Env = append(os.Environ(), childVariable+"=child")
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(in.Close(), other.Wait()) }()
	living, dead := make(other.Process.Pid), make(1<<30)
	sweep(parent)
	if _, err := os.Stat(living); err != nil {
		t.Errorf("the cgroup of a process that lives: %v", err)
	}
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the cgroup of a process that is no more: %v", err)
	}
}

// TestAKilledLabLeavesNothing: the next lab removes what one that was killed could not.
func TestAKilledLabLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	aside(t)
	start := func() (*exec.Cmd, string) {
		command := exec.Command("/proc/self/exe")
		command.Env = append(os.Environ(), childVariable+"=lab")
		command.Stderr = os.Stderr
		if _, err := command.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		out, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 4096)
		n, err := out.Read(line)
		if err != nil {
			t.Skip("needs the right to make cgroups")
		}
		return command, strings.TrimSpace(string(line[:n]))
	}
	kill := func(command *exec.Cmd) {
		_ = command.Process.Kill()
		_ = command.Wait()
	}
	killed, left := start()
	alive, held := start()
	defer kill(alive)
	kill(killed)
	if _, err := os.Stat(left); err != nil {
		t.Fatalf("the killed lab's %s: %v", left, err)
	}
	// The kernel needs a moment after a process's end; sweep tries once.
	if err := remove(filepath.Join(left, leaf)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(left, leaf), 0o755); err != nil {
		t.Fatal(err)
	}
	tree := enter(t)
	defer tree.Close()
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(held, leaf)); err != nil {
		t.Errorf("the living lab lost %s: %v", held, err)
	}
	kill(alive)
	if err := removeTree(held); err != nil {
		t.Error(err)
	}
}

func TestFind(t *testing.T) {
	const mount = "30 25 0:26 %ROOT %POINT rw,nosuid - cgroup2 cgroup2 rw\n"
	at := func(root, point string) string {
		return strings.NewReplacer("%ROOT", root, "%POINT", point).Replace(mount)
	}
	for _, c := range []struct {
		name, groups, mounts string
		want                 []string
	}{
		{"v2", "0::/user.slice/session-1.scope\n", at("/", "/sys/fs/cgroup"), []string{"/sys/fs/cgroup/user.slice/session-1.scope"}},
		{"hybrid", "3:cpu:/x\n0::/\n", at("/", "/sys/fs/cgroup/unified"), []string{"/sys/fs/cgroup/unified"}},
		{"a bind mount", "0::/a/b/c\n", at("/a/b", "/sys/fs/cgroup") + at("/a/bb", "/other"), []string{"/sys/fs/cgroup/c"}},
		{"a blank", "0::/\n", at("/", `/mnt/my\040groups`), []string{"/mnt/my groups"}},
		{"v1 only", "3:cpu:/x\n", at("/", "/sys/fs/cgroup"), nil},
		{"a mount without options", "0::/\n", "30 25 0:26 / /x rw - cgroup2\n", nil},
		{"not mounted", "0::/\n", "30 25 0:26 / /proc rw - proc proc rw\n", nil},
	} {
		got, err := find(c.groups, c.mounts, "")
		if !slices.Equal(got, c.want) || (err == nil) != (c.want != nil) {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
}

func TestFindOfV1(t *testing.T) {
	const groups = "5:cpu,memory:/a/b\n4:pids:/p\n0::/v2\n"
	const mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
		"31 25 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n" +
		"32 25 0:28 /a /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,cpu,memory\n"
	if got, err := find(groups, mounts, "memory"); err != nil || !slices.Equal(got, []string{"/sys/fs/cgroup/memory/b"}) {
		t.Errorf("memory is at %v (%v)", got, err)
	}
	if got, err := find(groups, mounts, "blkio"); err == nil {
		t.Errorf("blkio is at %v", got)
	}
}

func FuzzFind(f *testing.F) {
	f.Add("0::/a\n", "30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "")
	f.Add("0::\n", `30 25 0:26 \1 \040\ rw - cgroup2 `, "")
	f.Add("4:memory:/a\n", "30 25 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,memory\n", "memory")
	f.Fuzz(func(t *testing.T, groups, mounts, controller string) {
		dirs, err := find(groups, mounts, controller)
		if (err == nil) != (len(dirs) > 0) {
			t.Errorf("%v, %v", dirs, err)
		}
	})
}

func TestOwnIsInTheKernelsList(t *testing.T) {
	dir, err := own()
	if err != nil {
		t.Skip("needs a mounted cgroup v2 hierarchy:", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Errorf("%s is on a file system of type %#x (%v)", dir, st.Type, err)
	}
}
