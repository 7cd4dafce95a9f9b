package workload

import (
	"bytes"
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// maxPath bounds the paths that are kept. The kernel's own limit for opening a path is 4,096 bytes.
const maxPath = 4095

// walk calls visit for each directory at or below root with its inode and its path below
// root ("" for root itself). Directories that vanish meanwhile are no error. It reports whether all that
// exists was visited: false if a directory could not be read or lies too deep.
//
// On cgroupfs it costs one syscall for a directory without children and four for others: the
// number of links says whether there are any, and readdir tells their inodes.
func walk(root string, visit func(inode uint64, path string)) (complete bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return false, err
	}
	visit(st.Ino, "")

	stack := []string{""}
	buf := make([]byte, 32<<10)
	complete = true
	for len(stack) > 0 {
		dir := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		fd, err := openDir(root + dir)
		if err != nil {
			if !vanished(err) {
				complete = false
			}
			continue
		}
		for {
			n, err := readDirent(fd, buf)
			if err != nil && !vanished(err) {
				complete = false
			}
			if n <= 0 || err != nil {
				break
			}
			eachDirectory(buf[:n], func(inode uint64, name []byte) {
				path := dir + "/" + string(name)
				visit(inode, path)
				if len(root)+len(path) > maxPath {
					return
				}
				// Two links: "." and the entry itself. File systems that don't count say 1.
				if unix.Fstatat(fd, path[len(dir)+1:], &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Nlink != 2 {
					stack = append(stack, path)
				}
			})
		}
		_ = unix.Close(fd)
	}
	return complete, nil
}

func openDir(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func readDirent(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Getdents(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func vanished(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

// eachDirectory calls visit for the directories among the entries of a getdents64 buffer.
func eachDirectory(buf []byte, visit func(inode uint64, name []byte)) {
	const header = 8 + 8 + 2 + 1 // d_ino, d_off, d_reclen, d_type
	for len(buf) > header {
		length := int(binary.NativeEndian.Uint16(buf[16:]))
		if length <= header || length > len(buf) {
			return
		}
		name := buf[header:length]
		if end := bytes.IndexByte(name, 0); end >= 0 {
			name = name[:end]
		}
		if buf[18] == unix.DT_DIR && string(name) != "." && string(name) != ".." {
			visit(binary.NativeEndian.Uint64(buf), name)
		}
		buf = buf[length:]
	}
}
