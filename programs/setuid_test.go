package programs_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// changeIdentity runs a setuid and a setgid program as somebody else, then changes its main thread's ids.
func changeIdentity() {
	runtime.LockOSThread()
	must := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
			os.Exit(101)
		}
	}
	dir := os.Getenv("DIRECTORY")
	for mode, times := range map[os.FileMode]int{
		0o755 | os.ModeSetuid: 3, 0o755 | os.ModeSetgid: 2, 0o755 | os.ModeSetuid | os.ModeSetgid: 1, 0o755: 4,
	} {
		path := filepath.Join(dir, "kaon-tiny")
		must("write", os.WriteFile(path, tinyProgram(), 0o755))
		must("chmod", os.Chmod(path, mode))
		for range times {
			command := exec.Command(path)
			command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, NoSetGroups: true}}
			must("run", command.Run())
			must("run as root", exec.Command(path).Run())
		}
		must("remove", os.Remove(path))
	}

	const same = ^uintptr(0)
	call := func(number, a, b, c uintptr, want unix.Errno) {
		if _, _, err := unix.RawSyscall(number, a, b, c); err != want {
			fmt.Fprintf(os.Stderr, "call %d: %v\n", number, err)
			os.Exit(102)
		}
	}
	call(unix.SYS_SETRESGID, nobody, nobody, nobody, 0)
	call(unix.SYS_SETRESUID, same, nobody, same, 0) // root is left in two ids
	call(unix.SYS_SETRESUID, same, 0, same, 0)
	call(unix.SYS_SETREUID, nobody, nobody, 0, 0)
	for range 4 {
		call(unix.SYS_SETUID, 0, 0, 0, unix.EPERM)
	}
	for range 3 {
		call(unix.SYS_SETGID, 0, 0, 0, unix.EPERM)
	}
	call(unix.SYS_SETREGID, 12345, same, 0, unix.EPERM)
}

// setuidDir makes a directory from which setuid programs can be run, by anybody.
func setuidDir(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{"", "."} {
		dir, err := os.MkdirTemp(parent, "kaon-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		if dir, err = filepath.Abs(dir); err != nil {
			t.Fatal(err)
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(dir, &fs); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		reachable := true
		for d := dir; d != "/"; d = filepath.Dir(d) {
			info, err := os.Stat(d)
			reachable = reachable && err == nil && info.Mode()&0o001 != 0
		}
		if reachable && fs.Flags&(unix.ST_NOSUID|unix.ST_NOEXEC) == 0 {
			return dir
		}
	}
	t.Skip("needs a directory that setuid programs can be run from")
	return ""
}

func TestSetuid(t *testing.T) {
	group, outside := newCgroup(t), newCgroup(t)
	dir := setuidDir(t)
	f := func(params ...string) *running {
		t.Helper()
		r := load(t, "setuid", group.dir, params...)
		for _, c := range []cgroup{group, outside} {
			if status := c.start(t, "setuid", "DIRECTORY="+dir).wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		families := r.collect()
		missed := r.missedAll()
		f := func(metric string, want uint64, labels ...string) {
			t.Helper()
			expectUpTo(t, families, metric, want, missed, append(labels, "cgroup="+group.path)...)
		}
		f("setuid_executions_total", 3, "kind=setuid", "from=other", "to=root")
		f("setuid_executions_total", 2, "kind=setgid", "from=other", "to=root")
		f("setuid_executions_total", 1, "kind=both", "from=other", "to=root")
		expectUpTo(t, families, "setuid_executions_total", 6, missed)
		// Ten children became nobody.
		f("setuid_calls_total", 10, "call=setuid", "from=root", "to=other", "errno=0")
		f("setuid_calls_total", 10, "call=setgid", "from=root", "to=other", "errno=0")
		f("setuid_calls_total", 1, "call=setresgid", "from=root", "to=other", "errno=0")
		f("setuid_calls_total", 1, "call=setresuid", "from=root", "to=root", "errno=0")
		f("setuid_calls_total", 1, "call=setresuid", "from=other", "to=root", "errno=0")
		f("setuid_calls_total", 1, "call=setreuid", "from=root", "to=other", "errno=0")
		f("setuid_calls_total", 4, "call=setuid", "from=other", "to=root", "errno=EPERM")
		f("setuid_calls_total", 3, "call=setgid", "from=other", "to=root", "errno=EPERM")
		f("setuid_calls_total", 1, "call=setregid", "from=other", "to=other", "errno=EPERM")
		expectUpTo(t, families, "setuid_calls_total", 20+4+8, missed)
		return r
	}
	if f().attached("setuid_trampoline_exit") {
		f("-fentry", "-fexit")
	}
}
