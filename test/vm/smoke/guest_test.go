//go:build linux

package smoke

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// needGuest skips tests that say what a guest is like.
func needGuest(t *testing.T) {
	t.Helper()
	if !inGuest() {
		t.Skip("needs a guest of the kernel matrix (go run ./test/vm)")
	}
}

func TestGuestHasMounts(t *testing.T) {
	needGuest(t)
	f := func(path string, magic int64) {
		t.Helper()
		var s unix.Statfs_t
		if err := unix.Statfs(path, &s); err != nil || s.Type != magic {
			t.Errorf("%s: type %#x, want %#x (%v)", path, s.Type, magic, err)
		}
	}
	f("/proc", unix.PROC_SUPER_MAGIC)
	f("/sys", unix.SYSFS_MAGIC)
	f("/tmp", unix.TMPFS_MAGIC)
	f("/sys/fs/bpf", unix.BPF_FS_MAGIC)
	f("/sys/fs/cgroup", unix.CGROUP2_SUPER_MAGIC)
	f("/sys/kernel/tracing", unix.TRACEFS_MAGIC)
	f("/sys/kernel/debug", unix.DEBUGFS_MAGIC)
	for _, file := range []string{"/dev/null", "/dev/urandom", "/sys/kernel/btf/vmlinux", "testdata/sample.txt", "../../../go.mod"} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}

func TestGuestHasModules(t *testing.T) {
	needGuest(t)
	for _, module := range []string{"veth", "sch_ingress", "cls_bpf"} {
		if _, err := os.Stat(filepath.Join("/sys/module", module)); err != nil {
			t.Error(err)
		}
	}
}

func TestGuestHasLimits(t *testing.T) {
	needGuest(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Cur != unix.RLIM_INFINITY {
		t.Errorf("locked memory is limited to %d (%v)", limit.Cur, err)
	}
}

func TestGuestHasLoopback(t *testing.T) {
	needGuest(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	connection, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	connection.Close()
}

func TestGuestMakesCgroups(t *testing.T) {
	needGuest(t)
	dir, err := os.MkdirTemp("/sys/fs/cgroup", "kaon-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	// The test binary is the only program that is certain to be there.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	cmd := exec.Command(self, "-test.run=^$")
	cmd.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("run a process in a cgroup: %v: %s", err, out)
	}
}
