package main

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The exit code says whether the outcome was reached.
func TestLabRun(t *testing.T) {
	f := func(code int, want string, arguments ...string) {
		t.Helper()
		command := kaon(append([]string{"lab", "run"}, arguments...)...)
		out, _ := command.CombinedOutput()
		if got := command.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%q: exit code %d, want %d: %s", arguments, got, code, out)
		}
	}
	f(0, "timeout after 30.0 s", "--until", "timeout")
	f(0, "success after 30.0 s", "--kick", "40", "--until", "success")
	f(1, "another outcome was wanted", "--kick", "40", "--until", "overload")
	f(0, `"outcome":"overload"`, "--mode", "physics", "--seed", "3", "--kick", "50", "-o", "json")
	f(1, "no such file", "--program", "missing.star")
}

// kaon lab says where it is, writes the program that it runs, and ends when it is told to.
func TestLab(t *testing.T) {
	program := filepath.Join(t.TempDir(), "kick.star")
	command := kaon("lab", "--listen", "127.0.0.1:0", "--program", program, "--mode", "physics")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	command.Stderr = &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	url := ""
	for url == "" && lines.Scan() {
		url, _ = strings.CutPrefix(lines.Text(), "look:     ")
	}
	get := func(path string) string {
		t.Helper()
		response, err := http.Get(url + path)
		if err != nil {
			t.Fatalf("%v; %s", err, log.String())
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v", path, response.Status, err)
		}
		return string(body)
	}
	if page := get(""); !strings.Contains(page, "<title>Kaon: the accelerator lab</title>") {
		t.Errorf("the page is %.200q", page)
	}
	if metrics := get("metrics"); !strings.Contains(metrics, `mode="physics"`) || !strings.Contains(metrics, "accelerator_injected_memory_bytes 0") {
		t.Errorf("the metrics are\n%s", metrics)
	}
	if kernel := get("api/kernel"); !strings.Contains(kernel, `"available":`) {
		t.Errorf("the kernel's view is %s", kernel)
	}
	if _, err := os.Stat(program); err != nil {
		t.Error(err)
	}
	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("%v: %s", err, log.String())
	}
	taken := kaon("lab", "--listen", "256.0.0.1:1", "--program", program)
	if out, err := taken.CombinedOutput(); err == nil || !strings.Contains(string(out), "--listen") {
		t.Errorf("%v: %s", err, out)
	}
}

// What is injected is bounded, and ends by itself.
func TestLabInject(t *testing.T) {
	f := func(code int, want string, arguments ...string) {
		t.Helper()
		command := kaon(append([]string{"lab", "inject"}, arguments...)...)
		out, _ := command.CombinedOutput()
		if got := command.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%q: exit code %d, want %d: %s", arguments, got, code, out)
		}
	}
	f(0, "of CPU time were used", "cpu", "--cpus", "0.1", "--for", "200ms")
	f(0, "injecting 2 MiB of memory for 200ms", "memory", "--bytes", "2Mi", "--for", "200ms")
	f(1, "at most 10m0s", "cpu", "--for", "1h")
	f(1, "half of that is the most", "memory", "--bytes", "1000Ti")
	f(1, "--cpus says nothing about memory", "memory", "--cpus", "1")
	f(1, "it is cpu or memory", "disk")
	f(1, "name what to inject", "child", "-cpus", "1")
}
