package programs_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

// bpftrace is a running script: what a Program is compared with.
type bpftrace struct {
	cmd      *exec.Cmd
	programs []*ebpf.Program
}

// startBpftrace runs a script until the benchmark ends. It returns nil where bpftrace is not installed.
func startBpftrace(b *testing.B, script string) *bpftrace {
	b.Helper()
	path, err := exec.LookPath("bpftrace")
	if err != nil {
		return nil
	}
	s := &bpftrace{cmd: exec.Command(path, "-B", "line", "-e", script+` BEGIN { printf("attached\n"); }`)}
	var complaints bytes.Buffer
	s.cmd.Stderr = &complaints
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.stop)
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	deadline := time.After(time.Minute)
	for attached := false; !attached; {
		select {
		case line, ok := <-lines:
			if !ok {
				b.Fatalf("bpftrace ended: %s: %s", script, complaints.String())
			}
			attached = line == "attached"
		case <-deadline:
			b.Fatalf("bpftrace does not attach: %s", script)
		}
	}
	go func() {
		for range lines { // what the script prints in the end
		}
	}()
	s.programs = programsOf(b, s.cmd.Process.Pid)
	if len(s.programs) == 0 {
		b.Fatalf("bpftrace holds no programs: %s", script)
	}
	return s
}

func (s *bpftrace) stop() {
	for _, p := range s.programs {
		_ = p.Close()
	}
	s.programs = nil
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// runtime returns how long its programs ran, less what the measuring itself takes, in ns.
func (s *bpftrace) runtime(b *testing.B, empty float64) float64 {
	b.Helper()
	sum := 0.0
	for _, p := range s.programs {
		stats, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		sum += float64(stats.Runtime) - float64(stats.RunCount)*empty
	}
	return sum
}

// programsOf returns the BPF programs that a process has open.
func programsOf(b *testing.B, pid int) []*ebpf.Program {
	b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		b.Fatal(err)
	}
	ids := map[ebpf.ProgramID]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(text)) {
			var id uint32
			if _, err := fmt.Sscanf(line, "prog_id: %d", &id); err == nil {
				ids[ebpf.ProgramID(id)] = true
			}
		}
	}
	var open []*ebpf.Program
	for id := range ids {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			open = append(open, p)
		}
	}
	return open
}
