package programs_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// failToExec executes what can't be executed: a program that does not exist, four times, and one that may not be, twice.
func failToExec() {
	file := os.Getenv("NO_PROGRAM")
	for range 4 {
		if err := syscall.Exec(file+"-absent", []string{"x"}, nil); !errors.Is(err, unix.ENOENT) {
			os.Exit(101)
		}
	}
	for range 2 {
		if err := syscall.Exec(file, []string{"x"}, nil); !errors.Is(err, unix.EACCES) {
			os.Exit(102)
		}
	}
}

func TestExec(t *testing.T) {
	group := newCgroup(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(errors bool, params ...string) *running {
		t.Helper()
		r := load(t, "exec", group.dir, params...)
		for range 3 {
			if status := group.start(t, "noexec", "NO_PROGRAM="+file).wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		// A second thread that executes a program: two starts.
		if status := group.start(t, "reexec").wait(); status.ExitStatus() != 9 {
			t.Fatalf("the helper ended with %v", status)
		}
		families := r.collect()
		cgroup := "cgroup=" + group.path
		expectUpTo(t, families, "process_starts_total", 3+2, r.missed("process_exec"), cgroup)
		expectUpTo(t, families, "process_starts_total", 3+2, r.missed("process_exec"))
		if !errors {
			if _, ok := families["process_start_errors_total"]; ok {
				t.Error("errors are counted")
			}
			return r
		}
		missed := r.missedAll()
		expectUpTo(t, families, "process_start_errors_total", 3*4, missed, cgroup, "errno=ENOENT")
		expectUpTo(t, families, "process_start_errors_total", 3*2, missed, cgroup, "errno=EACCES")
		expectUpTo(t, families, "process_start_errors_total", 3*6, missed)
		return r
	}
	f(false)
	if f(true, "errors=true").attached("execve_trampoline") {
		f(true, "errors=true", "-fexit")
	}
}
