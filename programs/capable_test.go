package programs_test

import (
	"errors"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// useCapability changes the root directory to the one that it is, seven times with the capability and five times without.
func useCapability() {
	runtime.LockOSThread()
	for range 7 {
		if err := unix.Chroot("/"); err != nil {
			os.Exit(101)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		os.Exit(102)
	}
	sets[0].Effective &^= 1 << unix.CAP_SYS_CHROOT
	if err := unix.Capset(&header, &sets[0]); err != nil {
		os.Exit(103)
	}
	for range 5 {
		if err := unix.Chroot("/"); !errors.Is(err, unix.EPERM) {
			os.Exit(104)
		}
	}
}

func TestCapable(t *testing.T) {
	group, outside := newCgroup(t), newCgroup(t)
	f := func(granted uint64, params ...string) {
		t.Helper()
		r := load(t, "capable", group.dir, params...)
		for _, c := range []cgroup{group, outside} {
			if status := c.start(t, "capable").wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		families := r.collect()
		missed := r.missedAll()
		cgroup := "cgroup=" + group.path
		expectUpTo(t, families, "capability_checks_total", granted, missed, cgroup, "capability=sys_chroot", "result=granted")
		expectUpTo(t, families, "capability_checks_total", 5, missed, cgroup, "capability=sys_chroot", "result=denied")
		expectUpTo(t, families, "capability_checks_total", granted+5, missed, "capability=sys_chroot")
	}
	f(7)
	f(0, "denied_only=true")
}
