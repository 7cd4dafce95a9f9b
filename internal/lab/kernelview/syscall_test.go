package kernelview

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// getpriority is a system call that nothing else in a Go program makes.
func getpriority(t *testing.T) {
	t.Helper()
	if _, err := unix.Getpriority(unix.PRIO_PROCESS, 0); err != nil {
		t.Fatal(err)
	}
}

// asNobody makes a command run without root's rights. It needs a copy of the binary that everybody may read.
func asNobody(t *testing.T, command *exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		return // it has none anyway
	}
	data, err := os.ReadFile(executable)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kernelview")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	command.Path = filepath.Join(dir, "lab.test")
	if err := os.WriteFile(command.Path, data, 0o755); err != nil {
		t.Fatal(err)
	}
	command.Dir = dir
	command.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}
