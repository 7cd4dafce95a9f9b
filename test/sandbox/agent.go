package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/agent"
)

// An Agent is a `kaon up` that runs as a process of its own.
type Agent struct {
	URL     string
	Process *os.Process
	// Client talks to it; by default one that keeps its connection and asks for no compression.
	Client *http.Client

	command *exec.Cmd
	output  Output
	ended   chan struct{}
}

// Output keeps what a process writes; it can be read meanwhile.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// FreeAddress returns an address of loopback that nobody listens on.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Start starts a command that serves HTTP at address. It does not wait until it does.
func Start(command *exec.Cmd, address string) (*Agent, error) {
	a := &Agent{URL: "http://" + address, command: command, ended: make(chan struct{})}
	a.Client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableCompression: true}}
	command.Stdout, command.Stderr = &a.output, &a.output
	if err := command.Start(); err != nil {
		return nil, err
	}
	a.Process = command.Process
	go func() {
		_ = command.Wait() // Exited tells
		close(a.ended)
	}()
	return a, nil
}

// Log returns what the agent wrote so far.
func (a *Agent) Log() string { return a.output.String() }

// Ended is closed once the process is gone.
func (a *Agent) Ended() <-chan struct{} { return a.ended }

// ExitCode is that of a process that ended; -1 if a signal did it.
func (a *Agent) ExitCode() int { return a.command.ProcessState.ExitCode() }

// Get asks for a path and returns status, body and header.
func (a *Agent) Get(path string, header ...string) (int, string, http.Header, error) {
	request, err := http.NewRequest(http.MethodGet, a.URL+path, nil)
	if err != nil {
		return 0, "", nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := a.Client.Do(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), response.Header, err
}

// WaitServing waits until the agent answers at /metrics, and returns the first answer.
func (a *Agent) WaitServing(ctx context.Context) (string, error) {
	for {
		code, body, _, err := a.Get("/metrics")
		if err == nil && code == http.StatusOK {
			return body, nil
		}
		if err == nil {
			err = fmt.Errorf("%d %s", code, body)
		}
		select {
		case <-a.ended:
			return "", fmt.Errorf("the agent ended with code %d:\n%s", a.ExitCode(), a.Log())
		case <-ctx.Done():
			return "", fmt.Errorf("the agent does not answer: %w: %w:\n%s", ctx.Err(), err, a.Log())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Status returns what the agent says of its programs.
func (a *Agent) Status() ([]agent.Status, error) {
	_, body, _, err := a.Get("/api/v1/programs")
	if err != nil {
		return nil, err
	}
	var status []agent.Status
	return status, json.Unmarshal([]byte(body), &status)
}

// Stop sends a signal and waits until the process ended; after the time it is killed.
func (a *Agent) Stop(signal syscall.Signal, within time.Duration) error {
	_ = a.Process.Signal(signal) // which fails if it ended already
	select {
	case <-a.ended:
		return nil
	case <-time.After(within):
		_ = a.Process.Kill()
		<-a.ended
		return fmt.Errorf("the agent did not end within %v of %v:\n%s", within, signal, a.Log())
	}
}

// CPU returns the CPU time that the process used so far, in nanoseconds, its gone threads included.
func (a *Agent) CPU() (int64, error) { return ProcessCPU(a.Process.Pid) }

// ProcessCPU returns the CPU time of a process in nanoseconds: finer than the ticks in /proc.
func ProcessCPU(pid int) (int64, error) {
	var t unix.Timespec
	// As clock_getcpuclockid(3) makes it.
	clock := int32(^pid<<3 | 2)
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return t.Nano(), nil
}

// Memory returns a field of /proc/PID/status in bytes: "RssAnon", "VmRSS".
func (a *Agent) Memory(field string) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", a.Process.Pid, field)
}

// Sample returns the value of a sample line that begins with the name (and labels) given, and whether it is there.
func Sample(exposition, series string) (float64, bool) {
	for line := range strings.Lines(exposition) {
		rest, ok := strings.CutPrefix(line, series+" ")
		if !ok {
			continue
		}
		value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if x, err := strconv.ParseFloat(value, 64); err == nil {
			return x, true
		}
	}
	return 0, false
}
