// Package sandbox lets tests and benchmarks run the kaon binary as a whole without meeting the
// rest of the machine: in a network namespace of their own, on a cgroup of their own.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Errors of a machine that lacks what a sandbox is made of.
var (
	ErrNoRoot    = errors.New("needs root")
	ErrNoCgroup  = errors.New("needs cgroup v2")
	ErrNoNetwork = errors.New("needs network namespaces")
	ErrNoVeth    = errors.New("needs iproute2 and veth interfaces")
	ErrNoModule  = errors.New("needs the source: run it in the repository")
)

// Interface and Peer are the two ends of the cable that Network lays.
const (
	Interface = "kaon0"
	Peer      = "kaon1"
)

const inside = "KAON_SANDBOX"

// Inside tells whether this process runs in a network namespace that Reenter made.
func Inside() bool { return os.Getenv(inside) != "" }

// Reenter runs this executable again with the same arguments in a network namespace of
// its own, and returns its exit code.
func Reenter() (int, error) {
	if os.Geteuid() != 0 {
		return 1, ErrNoRoot
	}
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	// The child dies with the thread that began it: this one must last.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	command := exec.Command(self, os.Args[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), inside+"=1")
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	// An interrupt reaches the child from the terminal: it decides.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	defer signal.Stop(signals)
	if err := command.Start(); err != nil {
		return 1, fmt.Errorf("%w: %w", ErrNoNetwork, err)
	}
	stop := make(chan struct{})
	go func() {
		select {
		case <-signals:
			_ = command.Process.Signal(unix.SIGTERM)
		case <-stop:
		}
	}()
	err = command.Wait()
	close(stop)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return 1, err
	}
	return max(command.ProcessState.ExitCode(), 0), nil
}

// Network brings loopback up and lays a cable from Interface to Peer in this network namespace. It
// must not be called outside of one that Reenter made.
func Network() error {
	if !Inside() {
		return fmt.Errorf("%w: this is the machine's own", ErrNoNetwork)
	}
	for _, arguments := range []string{
		"link set lo up",
		"link add " + Interface + " type veth peer name " + Peer,
		"link set " + Interface + " up",
		"link set " + Peer + " up",
	} {
		if out, err := exec.Command("ip", strings.Fields(arguments)...).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: ip %s: %w: %s", ErrNoVeth, arguments, err, out)
		}
	}
	return nil
}

// Root returns the top of the repository.
func Root() (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(directory, "go.mod")); err == nil {
			return directory, nil
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return "", ErrNoModule
		}
		directory = parent
	}
}

// Build compiles kaon as `make build` does and returns the binary's path in directory.
func Build(ctx context.Context, directory string) (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(directory, "kaon")
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=test", "-o", binary, "./cmd/kaon")
	command.Dir = root
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kaon: %w: %s", err, out)
	}
	return binary, nil
}

// A Cgroup is a cgroup v2 of one's own.
type Cgroup struct {
	Path string
	dir  *os.File
}

// NewCgroup makes one; Remove takes it away.
func NewCgroup(name string) (*Cgroup, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNoRoot
	}
	for _, mount := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(mount, "cgroup.controllers")); err != nil {
			continue
		}
		return makeCgroup(filepath.Join(mount, fmt.Sprintf("kaon-test-%s-%d", name, os.Getpid())))
	}
	return nil, ErrNoCgroup
}

func makeCgroup(path string) (*Cgroup, error) {
	if err := os.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &Cgroup{Path: path, dir: dir}, nil
}

// Child makes a cgroup below this one; its parent can't be removed before it is.
func (c *Cgroup) Child(name string) (*Cgroup, error) { return makeCgroup(filepath.Join(c.Path, name)) }

// ID is the number by which BPF programs know the cgroup.
func (c *Cgroup) ID() (uint64, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(c.dir.Fd()), &stat); err != nil {
		return 0, err
	}
	return stat.Ino, nil
}

// Put makes a command that is not started yet start in the cgroup.
func (c *Cgroup) Put(command *exec.Cmd) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.UseCgroupFD, command.SysProcAttr.CgroupFD = true, int(c.dir.Fd())
}

// Run runs a command in the cgroup to its end.
func (c *Cgroup) Run(name string, arguments ...string) error {
	command := exec.Command(name, arguments...)
	c.Put(command)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}

// Remove waits until the cgroup's processes are gone, and removes it.
func (c *Cgroup) Remove() error {
	c.dir.Close()
	var err error
	for range 100 {
		if err = os.Remove(c.Path); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("remove a cgroup: %w", err)
}
