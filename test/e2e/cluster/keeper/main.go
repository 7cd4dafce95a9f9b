// Command keeper is the part of a cluster that outlives whoever started it. It knows two jobs:
//
//	keeper sweep CGROUP DIRECTORY   when standard input ends, kill what is in the cgroup, remove the cgroup and the directory
//	keeper machine DIRECTORY        in new mount and network namespaces: make them look like a machine's, and hold them
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupMount = "/sys/fs/cgroup"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "keeper:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 3 && arguments[0] == "sweep":
		// An interrupt from the terminal is for those who write to standard input.
		signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
		if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
			return err
		}
		return sweep(arguments[1], arguments[2])
	case len(arguments) == 2 && arguments[0] == "machine":
		if err := mounts(arguments[1]); err != nil {
			return err
		}
		fmt.Println("ready")
		for {
			if err := unix.Pause(); err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	}
	return errors.New("usage: keeper sweep CGROUP DIRECTORY | keeper machine DIRECTORY")
}

// sweep removes a cluster. An empty directory is not removed.
func sweep(cgroup, directory string) error {
	if cgroup == "" || strings.ContainsAny(cgroup, "/.") {
		return fmt.Errorf("refuse to sweep the cgroup %q", cgroup)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		roots := cgroupRoots(cgroup)
		left := 0
		for _, root := range roots {
			left += kill(root)
		}
		if left == 0 {
			remaining := 0
			for _, root := range roots {
				remaining += remove(root)
			}
			if remaining == 0 {
				break
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d processes remain in the cgroup %s", left, cgroup)
		}
		time.Sleep(20 * time.Millisecond)
	}
	if directory == "" {
		return nil
	}
	return os.RemoveAll(directory)
}

// cgroupRoots returns the cgroup's directories in all hierarchies.
func cgroupRoots(cgroup string) []string {
	roots, _ := filepath.Glob(filepath.Join(cgroupMount, "*", cgroup))
	if own := filepath.Join(cgroupMount, cgroup); exists(own) {
		roots = append(roots, own)
	}
	return roots
}

// kill ends what is in the cgroup and below, and returns how many processes there were.
func kill(root string) int {
	_ = os.WriteFile(filepath.Join(root, "cgroup.kill"), []byte("1"), 0)
	count := 0
	for _, directory := range tree(root) {
		// A frozen process does not die in the hierarchies of version 1.
		_ = os.WriteFile(filepath.Join(directory, "freezer.state"), []byte("THAWED"), 0)
		content, err := os.ReadFile(filepath.Join(directory, "cgroup.procs"))
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(content)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				count++
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
	return count
}

// remove removes the cgroup and those below, and returns how many could not be removed.
func remove(root string) int {
	directories := tree(root)
	slices.Reverse(directories)
	count := 0
	for _, directory := range directories {
		if err := unix.Rmdir(directory); err != nil && !errors.Is(err, unix.ENOENT) {
			count++
		}
	}
	return count
}

// tree returns the directory and those below it, parents first.
func tree(root string) []string {
	var directories []string
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			directories = append(directories, path)
		}
		return nil
	})
	return directories
}

// mounts gives this process's mount namespace /run, /var/lib and /var/log of its own below the directory, a
// /sys that shows its network namespace, and a bpf file system of its own.
func mounts(directory string) error {
	mount := func(source, target, kind string, flags uintptr) error {
		if err := unix.Mount(source, target, kind, flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", source, target, err)
		}
		return nil
	}
	// What is mounted here stays here.
	if err := mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE); err != nil {
		return err
	}
	kept := filepath.Join(directory, "sys")
	below := []struct{ path, kind string }{{"fs/cgroup", ""}, {"kernel/tracing", "tracefs"}, {"kernel/debug", "debugfs"}, {"kernel/security", "securityfs"}}
	for _, m := range below {
		target := filepath.Join(kept, m.path)
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if m.kind == "" {
			if err := mount(filepath.Join("/sys", m.path), target, "", unix.MS_BIND|unix.MS_REC); err != nil {
				return err
			}
		}
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount /sys: %w", err)
	}
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
		return err
	}
	for _, m := range below {
		target := filepath.Join("/sys", m.path)
		if m.kind == "" {
			if err := mount(filepath.Join(kept, m.path), target, "", unix.MS_MOVE); err != nil {
				return err
			}
		} else if exists(target) {
			// Not every machine has them.
			_ = mount(m.kind, target, m.kind, 0)
		}
	}
	if err := mount("bpf", "/sys/fs/bpf", "bpf", 0); err != nil {
		return err
	}
	for _, d := range []string{"run", "var/lib", "var/log"} {
		source := filepath.Join(directory, d)
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		if err := mount(source, filepath.Join("/", d), "", unix.MS_BIND); err != nil {
			return err
		}
	}
	// Pods may ask for mounts that propagate.
	if err := mount("none", "/", "", unix.MS_REC|unix.MS_SHARED); err != nil {
		return err
	}
	return loopback()
}

// loopback brings up the interface lo.
func loopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
