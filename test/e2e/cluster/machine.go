package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a network and a mount namespace: the control plane's, or a node's. A process holds them.
type machine struct {
	cluster *Cluster
	name    string
	dir     string
	holder  *process
	network *os.File // network namespace
}

func (c *Cluster) newMachine(ctx context.Context, name string) (*machine, error) {
	binary, err := ownBinary(ctx, "keeper")
	if err != nil {
		return nil, err
	}
	m := &machine{cluster: c, name: name, dir: filepath.Join(c.Dir, name)}
	if err := os.Mkdir(m.dir, 0o755); err != nil {
		return nil, err
	}
	command := exec.Command(binary, "machine", m.dir)
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if m.holder, err = c.start(name+"-machine", command); err != nil {
		return nil, err
	}
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "ready\n" {
		return nil, fmt.Errorf("make the machine %s: %s", name, m.holder.tail())
	}
	m.network, err = os.Open(filepath.Join("/proc", strconv.Itoa(m.pid()), "ns/net"))
	return m, err
}

func (m *machine) pid() int { return m.holder.command.Process.Pid }

// enter returns a command in the machine's namespaces.
func (m *machine) enter(ctx context.Context, name string, arguments ...string) *exec.Cmd {
	target := strconv.Itoa(m.pid())
	command := exec.CommandContext(ctx, "nsenter", append([]string{"--target", target, "--mount", "--net", "--", name}, arguments...)...)
	command.SysProcAttr = &syscall.SysProcAttr{}
	m.cluster.put(command)
	return command
}

// run runs a command in the machine to its end and returns what it wrote.
func (m *machine) run(ctx context.Context, name string, arguments ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	command := m.enter(ctx, name, arguments...)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("on %s: %s %s: %w: %s", m.name, name, strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// lines runs several commands, one a line.
func (m *machine) lines(ctx context.Context, script string) error {
	for line := range strings.Lines(script) {
		if fields := strings.Fields(line); len(fields) > 0 {
			if _, err := m.run(ctx, fields[0], fields[1:]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// daemon starts a binary of the cache, or of the machine, in the namespaces. Its log is log/MACHINE-NAME.log.
func (m *machine) daemon(name string, arguments ...string) (*process, error) {
	path, err := Binary(name)
	if err != nil {
		if path, err = exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	return m.cluster.start(m.name+"-"+name, m.enter(context.Background(), path, arguments...))
}

// dial connects from the machine's network namespace. The address has no host name.
func (m *machine) dial(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, 1)
	go func() {
		// A socket belongs to the namespace of the thread that makes it.
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(m.network.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			runtime.UnlockOSThread()
			results <- result{err: fmt.Errorf("enter the network of %s: %w", m.name, err)}
			return
		}
		dialer := net.Dialer{Timeout: 10 * time.Second}
		conn, err := dialer.DialContext(ctx, network, address)
		// A thread that can't go back is not used again.
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		results <- result{conn, err}
	}()
	r := <-results
	return r.conn, r.err
}

// process is one that the cluster started.
type process struct {
	name    string
	command *exec.Cmd
	log     string
	done    chan struct{}
}

// put makes a command start in the cluster's cgroup.
func (c *Cluster) put(command *exec.Cmd) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{}
	}
	command.SysProcAttr.UseCgroupFD, command.SysProcAttr.CgroupFD = true, int(c.cgroups.daemons.Fd())
}

// start starts a process in the cluster's cgroup. What it writes is kept in its log.
func (c *Cluster) start(name string, command *exec.Cmd) (*process, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.stopped {
		return nil, errors.New("the cluster was stopped")
	}
	p := &process{name: name, command: command, log: filepath.Join(c.Dir, "log", name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if command.Stdout == nil {
		command.Stdout = log
	}
	command.Stderr = log
	c.put(command)
	// An interrupt from the terminal is for the one who started the cluster.
	command.SysProcAttr.Setsid = true
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		// How it ends says its log.
		_ = command.Wait()
		close(p.done)
	}()
	c.processes = append(c.processes, p)
	return p, nil
}

// ended tells that the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail returns the end of the process's log.
func (p *process) tail() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-2000):])
}

// wait calls ready until it is, until the context ends or one of the processes does, at most 5 minutes.
func wait(ctx context.Context, what string, processes []*process, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		for _, p := range processes {
			if p.ended() {
				return fmt.Errorf("wait for %s: %s ended:\n%s", what, p.name, p.tail())
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
