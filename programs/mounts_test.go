package programs_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// changeMounts mounts and unmounts in a mount namespace of its own, on the directory MOUNT_DIR.
func changeMounts() {
	runtime.LockOSThread()
	dir := os.Getenv("MOUNT_DIR")
	must := func(what string, err, want error) {
		if !errors.Is(err, want) {
			fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
			os.Exit(101)
		}
	}
	must("unshare", unix.Unshare(unix.CLONE_NEWNS), nil)
	must("make private", unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""), nil)
	for range 3 {
		must("mount", unix.Mount("none", dir, "tmpfs", 0, ""), nil)
	}
	for range 2 {
		must("remount", unix.Mount("none", dir, "whatever", unix.MS_REMOUNT|unix.MS_NODEV, ""), nil)
	}
	must("bind", unix.Mount(dir, dir, "", unix.MS_BIND, ""), nil)
	for range 4 {
		must("mount", unix.Mount("none", dir, "kaon-no-such", 0, ""), unix.ENODEV)
	}
	for range 4 {
		must("unmount", unix.Unmount(dir, unix.MNT_DETACH), nil)
	}
	for range 5 {
		must("unmount", unix.Unmount(dir, 0), unix.EINVAL)
	}
	must("pivot", unix.PivotRoot(filepath.Join(dir, "absent"), dir), unix.ENOENT)

	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	must("fsopen", err, nil)
	must("fsconfig", unix.FsconfigCreate(fs), nil)
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must("fsmount", err, nil)
	must("move_mount", unix.MoveMount(mount, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH), nil)
	attributes := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, dir, 0, &attributes); !errors.Is(err, unix.ENOSYS) {
		must("mount_setattr", err, nil)
	}
	must("unmount", unix.Unmount(dir, unix.MNT_DETACH), nil)
}

func TestMounts(t *testing.T) {
	group, outside := newCgroup(t), newCgroup(t)
	f := func(params ...string) *running {
		t.Helper()
		r := load(t, "mounts", group.dir, params...)
		for _, c := range []cgroup{group, outside} {
			if status := c.start(t, "mounts", "MOUNT_DIR="+t.TempDir()).wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		families := r.collect()
		missed := r.missedAll()
		f := func(want uint64, labels ...string) {
			t.Helper()
			expectUpTo(t, families, "mount_calls_total", want, missed, append(labels, "cgroup="+group.path)...)
		}
		f(1, "operation=propagation", "errno=0", "filesystem=")
		f(3, "operation=mount", "errno=0", "filesystem=tmpfs")
		f(4, "operation=mount", "errno=ENODEV", "filesystem=")
		f(2, "operation=remount", "errno=0", "filesystem=")
		f(1, "operation=bind", "errno=0", "filesystem=")
		f(5, "operation=umount", "errno=0")
		f(5, "operation=umount", "errno=EINVAL")
		f(1, "operation=pivot_root", "errno=ENOENT")
		f(1, "operation=fsopen", "errno=0", "filesystem=tmpfs")
		f(1, "operation=fsmount", "errno=0", "filesystem=")
		f(1, "operation=move_mount", "errno=0")
		setattr := uint64(1)
		if !r.attached("mount_setattr_exit") && !r.attached("mount_setattr_trampoline") {
			t.Log("needs Linux 5.12 for mount_setattr")
			setattr = 0
		}
		f(setattr, "operation=mount_setattr", "errno=0")
		expectUpTo(t, families, "mount_calls_total", 1+3+4+2+1+10+1+3+setattr, missed)
		return r
	}
	if f().attached("mount_trampoline_exit") {
		f("-fentry", "-fexit")
	}
}
