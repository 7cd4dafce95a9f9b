//go:build linux

// Command init is the first process of a guest of the kernel matrix. It mounts
// what tests expect of a machine, runs the test binaries of the plan one after
// the other, reports over the serial console, and powers the guest off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/test/vm/console"
)

func main() {
	// It kills every process and reboots: never on a real machine.
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "init: refusing to run: this is the first process of a test guest only")
		os.Exit(2)
	}
	out := console.NewWriter(os.Stdout)
	if err := run(out); err != nil {
		_ = out.Write(console.Event{Kind: console.Warn, Text: err.Error()})
	} else {
		_ = out.Write(console.Event{Kind: console.Done})
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	for { // the first process must not return
		time.Sleep(time.Hour)
	}
}

func run(out *console.Writer) error {
	warn := func(err error) {
		if err != nil {
			_ = out.Write(console.Event{Kind: console.Warn, Text: err.Error()})
		}
	}
	for _, m := range mounts() {
		warn(m.mount())
	}
	for _, l := range [][2]string{
		{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
	} {
		_ = os.Symlink(l[0], l[1])
	}
	for name, value := range map[string]string{
		// Only the kernel's death may break into the lines of the tests; a
		// panic or an oops makes the kernel verbose by itself.
		"kernel/printk":             "1",
		"kernel/panic_on_oops":      "1",
		"kernel/kptr_restrict":      "0",
		"net/core/bpf_jit_kallsyms": "1",
	} {
		warn(os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0))
	}
	// As systemd does: the controllers are available to child groups.
	for _, controller := range []string{"+cpu", "+memory", "+io", "+pids", "+cpuset"} {
		_ = os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte(controller), 0)
	}
	warn(unix.Sethostname([]byte("kaon-vm")))
	// 5.10 charges maps to the locked memory of the process.
	warn(unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}))
	warn(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 65536, Max: 65536}))
	warn(loopbackUp())

	data, err := os.ReadFile(console.PlanPath)
	if err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	var plan console.Plan
	if err := json.Unmarshal(data, &plan); err != nil {
		return fmt.Errorf("parse the plan: %w", err)
	}
	for _, path := range plan.Modules {
		warn(loadModule(path))
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("read the kernel's release: %w", err)
	}
	_ = out.Write(console.Event{Kind: console.Hello, Text: unix.ByteSliceToString(name.Release[:])})

	for _, p := range plan.Packages {
		_ = out.Write(console.Event{Kind: console.Begin, Package: p.Name})
		start := time.Now()
		code, err := runPackage(out, p)
		if err != nil {
			_ = out.Write(console.Event{Kind: console.Output, Text: "init: " + err.Error()})
			code = -1
		}
		_ = out.Write(console.Event{Kind: console.End, Package: p.Name, Code: code, Elapsed: time.Since(start)})
	}
	for _, line := range kernelComplaints() {
		warn(errors.New("kernel: " + line))
	}
	return nil
}

// kernelComplaints are the lines of the kernel's log that say that it found
// something wrong with itself, which tests may have caused and passed.
func kernelComplaints() []string {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil || size <= 0 {
		return nil
	}
	buffer := make([]byte, size)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, buffer)
	if err != nil {
		return nil
	}
	var lines []string
	for line := range strings.Lines(string(buffer[:n])) {
		for _, sign := range []string{"WARNING: ", "BUG: ", "Oops: ", "INFO: rcu", "INFO: task ", "Out of memory"} {
			if strings.Contains(line, sign) {
				lines = append(lines, strings.TrimSpace(line))
				break
			}
		}
	}
	return lines
}

// runPackage runs one test binary and returns its exit code. Whatever the
// tests leave running is killed, so that packages do not see each other's.
func runPackage(out *console.Writer, p console.PackagePlan) (int, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, fmt.Errorf("create a pipe: %w", err)
	}
	defer r.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	process, err := os.StartProcess(p.Path, append([]string{p.Path}, p.Args...), &os.ProcAttr{
		Dir:   p.Dir,
		Env:   []string{"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "USER=root", "PWD=" + p.Dir, "KAON_VM=1"},
		Files: []*os.File{null, w, w},
	})
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.Path, err)
	}
	copied := make(chan error, 1)
	go func() { copied <- out.Copy(r) }()

	code, err := wait(process.Pid)
	_ = unix.Kill(-1, unix.SIGKILL)
	if copyErr := <-copied; err == nil && copyErr != nil && !errors.Is(copyErr, io.EOF) {
		err = fmt.Errorf("copy the output of %s: %w", p.Name, copyErr)
	}
	for { // the killed, so that their cgroups and devices are free
		if _, werr := unix.Wait4(-1, nil, 0, nil); werr == unix.EINTR {
			continue
		} else if werr != nil {
			break
		}
	}
	return code, err
}

// wait reaps every process that ends, orphans included, until pid has. It
// returns the exit code of pid, or -1 where a signal ended it.
func wait(pid int) (int, error) {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if got == pid && (status.Exited() || status.Signaled()) {
			return status.ExitStatus(), nil
		}
	}
}

type mount struct {
	kind, target, options string
	flags                 uintptr
}

func mounts() []mount {
	const quiet = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	return []mount{
		{"proc", "/proc", "", quiet},
		{"sysfs", "/sys", "", quiet},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
		{"devpts", "/dev/pts", "mode=0620,ptmxmode=0666", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", "/dev/shm", "", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
		{"bpf", "/sys/fs/bpf", "mode=0700", quiet},
		{"cgroup2", "/sys/fs/cgroup", "", quiet},
		{"tracefs", "/sys/kernel/tracing", "", quiet},
		{"debugfs", "/sys/kernel/debug", "", quiet},
		{"securityfs", "/sys/kernel/security", "", quiet},
	}
}

func (m mount) mount() error {
	// Directories in sysfs and procfs exist or can't be made.
	_ = os.MkdirAll(m.target, 0o755)
	// The kernel mounts devtmpfs by itself on some machines.
	if err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.options); err != nil && err != unix.EBUSY {
		return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
	}
	return nil
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open a module: %w", err)
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return fmt.Errorf("load module %s: %w", strings.TrimSuffix(filepath.Base(path), ".ko"), err)
	}
	return nil
}

func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("name the loopback: %w", err)
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring the loopback up: %w", err)
	}
	return nil
}
