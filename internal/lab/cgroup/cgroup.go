// Package cgroup gives the lab cgroups of its own (v2): one tree, so that programs can be limited to the lab, and in it a
// leaf for the lab's process and one for each thing that is injected. All are removed afterwards; those of labs that
// were killed are removed by the next one.
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNone means that this process can't make cgroups; what wraps it says why.
var ErrNone = errors.New("no cgroup of its own")

const (
	// prefix begins the names of all cgroups that are made outside of a Tree.
	prefix = "kaon-lab-"
	// leaf is the lab's own cgroup in its Tree.
	leaf = "lab"
	// removeWithin is how long the kernel may take to let go of a cgroup whose last process has ended.
	removeWithin = 5 * time.Second
	// makeTries is how often a cgroup is made that others sweep away before it is locked.
	makeTries = 100
)

// Tree is a cgroup that holds the lab and what it injects, and nothing else.
type Tree struct {
	dir string
	// home is where the process was before.
	home string
	lock *os.File
}

// Enter makes a Tree below the cgroup of this process and moves the process into a leaf of it, with all its
// threads. Controllers are shared out to the leaves where this cgroup has any. Close undoes it.
func Enter() (_ *Tree, err error) {
	home, err := own()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	dir, lock, err := makeLocked(home, prefix+strconv.Itoa(os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	t := &Tree{dir: dir, home: home, lock: lock}
	if err := t.enter(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrNone, err), t.Close())
	}
	return t, nil
}

func (t *Tree) enter() error {
	// Before there are processes below: v2 allows controllers only where there are none beside the leaves.
	if err := delegate(t.dir); err != nil {
		return err
	}
	lab := filepath.Join(t.dir, leaf)
	if err := os.Mkdir(lab, 0o755); err != nil {
		return err
	}
	return move(lab)
}

// Dir is the Tree's directory.
func (t *Tree) Dir() string { return t.dir }

// Leaf is a cgroup that holds processes.
type Leaf struct {
	Dir string
	// Name is "lab", or what was injected: "inject-cpu", "inject-memory".
	Name string
	// Inode is the kernel's id of the cgroup.
	Inode uint64
}

// Leaves lists what is in the Tree now.
func (t *Tree) Leaves() ([]Leaf, error) {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil, err
	}
	var leaves []Leaf
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		dir := filepath.Join(t.dir, e.Name())
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); errors.Is(err, unix.ENOENT) {
			continue // gone meanwhile
		} else if err != nil {
			return nil, fmt.Errorf("stat %s: %w", dir, err)
		}
		name, _, _ := strings.Cut(e.Name(), ".") // a number follows
		leaves = append(leaves, Leaf{Dir: dir, Name: name, Inode: st.Ino})
	}
	return leaves, nil
}

// Close moves the process back to where it was and removes the Tree. What is still injected must have been stopped.
func (t *Tree) Close() error {
	errs := []error{move(t.home)}
	errs = append(errs, removeTree(t.dir), t.lock.Close())
	return errors.Join(errs...)
}

// Cell is a cgroup for one child process, which is started in it (syscall.SysProcAttr.CgroupFD).
type Cell struct {
	dir string
	// file is the directory, opened.
	file *os.File
}

// Make makes a Cell: in the Tree if this process is in one, else below this process's cgroup.
func Make(name string, number int) (*Cell, error) {
	home, err := own()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	full := fmt.Sprintf("%s.%d", name, number)
	if tree := filepath.Dir(home); filepath.Base(home) == leaf && strings.HasPrefix(filepath.Base(tree), prefix) {
		home = tree
	} else {
		full = fmt.Sprintf("%s%d-%s", prefix, os.Getpid(), full)
	}
	dir, file, err := makeLocked(home, full)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return &Cell{dir: dir, file: file}, nil
}

// Dir is the Cell's directory.
func (c *Cell) Dir() string { return c.dir }

// FD is the directory's descriptor, open until Remove.
func (c *Cell) FD() int { return int(c.file.Fd()) }

// Limit writes a file such as memory.max. It returns false if the cgroup has no such file, as its controller is not there.
func (c *Cell) Limit(file, value string) (bool, error) {
	err := os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		// cgroupfs answers EACCES where a file would have to be created.
		if _, missing := os.Stat(filepath.Join(c.dir, file)); errors.Is(missing, os.ErrNotExist) {
			return false, nil
		}
	}
	return err == nil, err
}

// Remove removes the Cell, whose process must have ended.
func (c *Cell) Remove() error {
	return errors.Join(remove(c.dir), c.file.Close())
}

// makeLocked makes a cgroup and locks its directory, for as long as this process lives. It first
// removes those of labs that are no more.
func makeLocked(parent, name string) (string, *os.File, error) {
	sweep(parent)
	dir := filepath.Join(parent, name)
	for tries := 1; ; tries++ {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return "", nil, err
		}
		file, err := lock(dir)
		if err == nil {
			return dir, file, nil
		}
		// Who has it locked removes it: another might have been made in its place by then.
		if !errors.Is(err, errTaken) {
			err = errors.Join(err, remove(dir))
		} else if tries < makeTries {
			continue
		}
		return "", nil, err
	}
}

// errTaken means that another lab's sweep came between the making and the locking of a cgroup.
var errTaken = errors.New("another process removes it")

// lock opens and locks a cgroup that was just made.
func lock(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w", dir, errTaken)
	}
	if err != nil {
		return nil, err
	}
	// A sweep holds it for a moment.
	for err = unix.EINTR; errors.Is(err, unix.EINTR); {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	if err == nil && !isAt(file, dir) {
		err = errTaken
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), file.Close())
	}
	return file, nil
}

// isAt tells whether a path still leads to an open file.
func isAt(file *os.File, path string) bool {
	open, err := file.Stat()
	if err != nil {
		return false
	}
	now, err := os.Stat(path)
	return err == nil && os.SameFile(open, now)
}

// ofAnother tells whether a cgroup's name is that of another process that lives, which may be about to lock it. What has this process's own
// number may be left by one that had it before.
func ofAnother(name string) bool {
	number, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
	pid, err := strconv.Atoi(number)
	return err == nil && pid > 0 && pid != os.Getpid() && !errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// sweep removes the cgroups of labs that were killed: those that nobody holds locked. What can't be removed stays.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) || ofAnother(e.Name()) {
			continue
		}
		dir := filepath.Join(parent, e.Name())
		file, err := os.Open(dir)
		if err != nil {
			continue
		}
		if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && isAt(file, dir) {
			for _, d := range append(children(dir), dir) {
				_ = unix.Rmdir(d) // refused if a process is in it
			}
		}
		file.Close()
	}
}

// delegate lets the cgroups below dir have the controllers by which what is injected is bounded, those of them that dir has.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(have)) {
		if controller != "cpu" && controller != "memory" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return err
		}
	}
	return nil
}

// move moves this process.
func move(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

func removeTree(dir string) error {
	var errs []error
	for _, child := range children(dir) {
		errs = append(errs, remove(child))
	}
	return errors.Join(append(errs, remove(dir))...)
}

func children(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var all []string
	for _, e := range entries {
		if e.IsDir() {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all
}

// remove removes a cgroup, which the kernel holds a moment longer than its last process lives.
func remove(dir string) error {
	deadline := time.Now().Add(removeWithin)
	for {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(deadline):
			return fmt.Errorf("remove the cgroup %s: %w", dir, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// own returns the directory of this process's cgroup in v2.
func own() (string, error) { return ownOf("") }

// ownOf returns that of a controller's hierarchy in v1; of v2 for "".
func ownOf(controller string) (string, error) {
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	candidates, err := find(string(groups), string(mounts), controller)
	if err != nil {
		return "", err
	}
	// Mounts of other namespaces show other parts: the right directory has this process in it.
	for _, dir := range candidates {
		procs, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if err == nil && slices.Contains(strings.Fields(string(procs)), strconv.Itoa(os.Getpid())) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("none of %v is this process's cgroup: /sys/fs/cgroup is that of another cgroup namespace", candidates)
}

// find returns where the cgroup of a controller in /proc/PID/cgroup may be ("": that of v2), given /proc/PID/mountinfo
// (cgroups(7), proc_pid_mountinfo(5)).
func find(groups, mounts, controller string) ([]string, error) {
	path, found := "", false
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) == 3 && slices.Contains(strings.Split(fields[1], ","), controller) && (controller != "" || fields[0] == "0") {
			path, found = fields[2], true
		}
	}
	var dirs []string
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		fields, special := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 6 || len(special) < 3 {
			continue
		}
		v2 := special[0] == "cgroup2" && controller == ""
		v1 := special[0] == "cgroup" && controller != "" && slices.Contains(strings.Split(special[2], ","), controller)
		if !v2 && !v1 {
			continue
		}
		root, point := unescape(fields[3]), unescape(fields[4])
		if rest, ok := strings.CutPrefix(path, strings.TrimSuffix(root, "/")); ok && (rest == "" || rest[0] == '/') {
			dirs = append(dirs, filepath.Join(point, rest))
		}
	}
	if len(dirs) == 0 {
		return nil, errors.New("cgroup v2 is not mounted here")
	}
	return dirs, nil
}

// unescape undoes mountinfo's octal escapes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
