package doctor

import (
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// scratch is a thread of its own network and mount namespace, which vanish with it:
// there XDP, tcx, netfilter and others can be attached, tracefs and bpffs
// mounted, without anybody being affected.
type scratch struct {
	// network and mounts say whether the namespaces are own ones.
	network, mounts bool
	// networkError and mountsError are why not.
	networkError, mountsError error
	// bpffs is a private bpffs, "" if none.
	bpffs string
	// tracefs is where tracefs can be read, "" if nowhere; securityfs likewise.
	tracefs, securityfs string
	// loopback is the index of the loopback interface in the network namespace.
	loopback int
}

// onScratchThread runs f on a thread of its own that ends with it.
// isolated says that the process is in a network namespace made for this purpose.
func onScratchThread(isolated bool, f func(*scratch)) {
	done := make(chan struct{})
	var start func()
	start = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread never ends, and would keep the namespaces. While it
			// is locked, another goroutine gets another thread.
			next := make(chan struct{})
			go func() { defer close(next); start() }()
			<-next
			runtime.UnlockOSThread()
			return
		}
		// Never unlocked: the runtime ends the thread together with the goroutine.
		defer close(done)
		s := &scratch{loopback: 1}
		s.enter(isolated)
		f(s)
		s.leave()
	}
	go start()
	<-done
}

func (s *scratch) enter(isolated bool) {
	if isolated {
		s.network = true
	} else if s.networkError = unix.Unshare(unix.CLONE_NEWNET); s.networkError == nil {
		s.network = true
	}
	if s.mountsError = unix.Unshare(unix.CLONE_NEWNS); s.mountsError == nil {
		// Otherwise the mounts below would propagate to everybody.
		s.mountsError = unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		s.mounts = s.mountsError == nil
	}
	s.tracefs = s.find("tracefs", unix.TRACEFS_MAGIC, "/sys/kernel/tracing", "/sys/kernel/debug/tracing")
	s.securityfs = s.find("securityfs", unix.SECURITYFS_MAGIC, "/sys/kernel/security")
	if s.mounts {
		// A new mount of bpffs is an instance of its own.
		if dir := "/sys/fs/bpf"; unix.Mount("bpf", dir, "bpf", 0, "") == nil {
			s.bpffs = dir
		}
	}
}

// find returns where a filesystem is, after mounting it in the own namespace if need be.
func (s *scratch) find(name string, magic int64, dirs ...string) string {
	for _, dir := range dirs {
		if mounted(dir, magic) {
			return dir
		}
	}
	if s.mounts && unix.Mount(name, dirs[0], name, 0, "") == nil {
		return dirs[0]
	}
	return ""
}

// leave removes what was pinned; the namespaces go with the thread.
func (s *scratch) leave() {
	if s.bpffs == "" {
		return
	}
	entries, _ := os.ReadDir(s.bpffs)
	for _, e := range entries {
		_ = os.Remove(filepath.Join(s.bpffs, e.Name()))
	}
	_ = unix.Unmount(s.bpffs, unix.MNT_DETACH)
}

func mounted(dir string, magic int64) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == magic
}
