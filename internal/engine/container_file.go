package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inode identifies a file on this machine, now.
type inode struct{ device, number uint64 }

func inodeOf(fd int) (inode, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return inode{}, err
	}
	return inode{st.Dev, st.Ino}, nil
}

// hostRoot is the root directory of the machine's first process. What has the same is in no container (yet).
func hostRoot() inode {
	var st unix.Stat_t
	if unix.Stat("/proc/1/root", &st) != nil && unix.Stat("/", &st) != nil {
		return inode{}
	}
	return inode{st.Dev, st.Ino}
}

// fileIdentity tells whether two files are one inode for the kernel's uprobes, also where containers have layers in common: an overlay
// has a device of its own, but shows the number and the times of the file below.
type fileIdentity struct {
	device, inode uint64 // device 0: of an overlay
	size          int64
	// In nanoseconds since 1970.
	changed, modified int64
}

func (i fileIdentity) digest() uint64 {
	var b bytes.Buffer
	// Writing numbers to a buffer does not fail.
	_ = binary.Write(&b, binary.LittleEndian, []int64{int64(i.device), int64(i.inode), i.size, i.changed, i.modified})
	sum := sha256.Sum256(b.Bytes())
	return binary.LittleEndian.Uint64(sum[:])
}

// containerRoot is the root directory of a process in a container.
type containerRoot struct {
	pid  int
	root *os.File // O_PATH
}

var (
	errNotInContainer = errors.New("no process of it runs in its own root directory")
	errNoProcesses    = errors.New("no process of it runs")
	errOtherPIDs      = errors.New("its processes are not in the agent's PID namespace: the agent needs the host's (hostPID)")
)

// containerRoots opens the root directories of processes of a container. The caller closes them.
func containerRoots(c Container, host inode) ([]containerRoot, error) {
	pids, err := processesOf(c.Processes)
	if err != nil {
		return nil, err
	}
	if len(pids) == 0 {
		return nil, errNoProcesses
	}
	var roots []containerRoot
	failure := errNotInContainer
	for _, pid := range pids {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
				failure = fmt.Errorf("its root directory can't be opened (CAP_SYS_PTRACE?): %w", err)
			}
			continue // it may have ended
		}
		// A runtime enters the container's cgroup before its root.
		if at, err := inodeOf(fd); err != nil || at == host {
			unix.Close(fd)
			continue
		}
		roots = append(roots, containerRoot{pid, os.NewFile(uintptr(fd), "root")})
	}
	if len(roots) == 0 {
		return nil, failure
	}
	return roots, nil
}

// processesOf reads lists of processes, as far as the limit goes.
func processesOf(lists []string) ([]int, error) {
	var pids []int
	for _, name := range lists {
		data, err := readAtMost(name, maxContainerProcesses*11)
		if err != nil {
			continue // the cgroup is gone
		}
		for line := range strings.Lines(string(data)) {
			number, whole := strings.CutSuffix(line, "\n")
			pid, err := strconv.Atoi(number)
			switch {
			case err != nil || !whole:
			case pid == 0:
				return nil, errOtherPIDs
			case len(pids) < maxContainerProcesses && !slices.Contains(pids, pid):
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

func readAtMost(name string, size int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, size))
}

// findInContainer finds a binary by its path, or a library by its name, in the first of the processes in which it is.
func findInContainer(roots []containerRoot, name string) (*openFile, error) {
	failure := fmt.Errorf("%w: no %s", ErrNoTarget, name)
	if !strings.HasPrefix(name, "/") {
		if strings.Contains(name, "/") {
			return nil, fmt.Errorf("%q is neither an absolute path nor a library's name", name)
		}
		for _, r := range roots {
			if mapped := mappedLibrary(r.pid, name); mapped != "" {
				if o, err := r.openFile(mapped); err == nil {
					return o, nil
				}
			}
		}
		o, err := roots[0].findLibrary(name)
		if err == nil || !errors.Is(err, ErrNoTarget) {
			return o, err
		}
		return nil, failure
	}
	for n, r := range roots {
		o, err := r.openFile(name)
		if err == nil {
			return o, nil
		}
		if n == 0 && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			failure = fmt.Errorf("%w: %s: %w", ErrNoTarget, name, err)
		}
	}
	return nil, failure
}

// open opens a path as the process sees it: links lead nowhere out of its root directory.
func (r containerRoot) open(name string, flags uint64) (int, error) {
	// It fails like that while somebody renames what is on the way, which a container may do all the time.
	const maxTries = 32
	for try := 1; ; try++ {
		fd, err := unix.Openat2(int(r.root.Fd()), name, &unix.OpenHow{
			Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err != unix.EINTR && err != unix.EAGAIN {
			return fd, err
		}
		if try == maxTries {
			return -1, fmt.Errorf("open %s: it is being renamed all the time: %w", name, err)
		}
	}
}

// openFile opens a regular file of the container.
func (r containerRoot) openFile(name string) (*openFile, error) {
	fd, err := r.open(name, unix.O_PATH)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	identity, err := r.identify(fd)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &openFile{file: file, identity: identity}, nil
}

// localFilesystem returns the type of the file system that a file is on; an error unless it is a local one.
func (r containerRoot) localFilesystem(fd int) (string, error) {
	filesystem, err := r.filesystem(fd)
	if err == nil && !isLocal(filesystem) {
		return "", fmt.Errorf("it is on a file system of the type %s, which is not known to be local: it could keep the agent waiting", filesystem)
	}
	return filesystem, err
}

func (r containerRoot) identify(fd int) (fileIdentity, error) {
	filesystem, err := r.localFilesystem(fd)
	if err != nil {
		return fileIdentity{}, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fileIdentity{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fileIdentity{}, errors.New("it is no regular file")
	}
	i := fileIdentity{device: st.Dev, inode: st.Ino, size: st.Size, changed: unix.TimespecToNsec(st.Ctim), modified: unix.TimespecToNsec(st.Mtim)}
	if filesystem == "overlay" {
		i.device = 0
	}
	return i, nil
}

// isLocal says that a file system of that type needs neither another machine nor a process to answer. Of an overlay that is not known:
// the node's runtime makes it, of directories of its own.
func isLocal(filesystem string) bool {
	local := [...]string{
		"overlay", "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "bcachefs", "f2fs", "jfs", "nilfs2", "reiserfs", "tmpfs", "ramfs", "rootfs",
		"squashfs", "erofs", "cramfs", "romfs", "aufs", "iso9660", "udf", "vfat", "exfat", "ntfs3",
	}
	return slices.Contains(local[:], filesystem)
}

// filesystem returns the type of the file system that a file is on, without asking that.
func (r containerRoot) filesystem(fd int) (string, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return "", err
	}
	mount := ""
	for line := range strings.Lines(string(info)) {
		if value, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			mount = strings.TrimSpace(value)
		}
	}
	const maxMounts = 4 << 20
	mounts, err := readAtMost(fmt.Sprintf("/proc/%d/mountinfo", r.pid), maxMounts)
	if err != nil {
		return "", err
	}
	if kind := mountType(string(mounts), mount); kind != "" {
		return kind, nil
	}
	return "", errors.New("its file system is not known")
}

// mountType finds the type of the mount of that number in the text of a mountinfo file, "" if there is none.
func mountType(mounts, number string) string {
	for line := range strings.Lines(mounts) {
		if first, _, _ := strings.Cut(line, " "); first != number {
			continue
		}
		_, after, _ := strings.Cut(line, " - ")
		kind, _, _ := strings.Cut(after, " ")
		return strings.TrimSpace(kind)
	}
	return ""
}

// findLibrary looks for a library where dynamic loaders do.
func (r containerRoot) findLibrary(name string) (*openFile, error) {
	for _, dir := range libraryDirs {
		names, err := r.list(dir)
		if err != nil {
			continue
		}
		for _, pattern := range libraryPatterns(name) {
			for _, entry := range names {
				if match, err := path.Match(pattern, entry); err != nil || !match {
					continue
				}
				o, err := r.openFile(path.Join(dir, entry))
				if err != nil {
					continue
				}
				if isELF(fmt.Sprintf("/proc/self/fd/%d", o.file.Fd())) {
					return o, nil
				}
				o.file.Close()
			}
		}
	}
	return nil, fmt.Errorf("%w: no library %s", ErrNoTarget, name)
}

// list returns the names in a directory, sorted.
func (r containerRoot) list(dir string) ([]string, error) {
	fd, err := r.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	path := os.NewFile(uintptr(fd), filepath.Clean(dir))
	defer path.Close()
	if _, err := r.localFilesystem(fd); err != nil {
		return nil, err
	}
	d, err := os.Open(descriptorPath(path))
	if err != nil {
		return nil, err
	}
	defer d.Close()
	const maxEntries = 20000
	names, err := d.Readdirnames(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}
