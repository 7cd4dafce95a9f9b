package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// commandVariable makes this binary kaon itself.
const commandVariable = "KAON_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func kaon(arguments ...string) *exec.Cmd {
	command := exec.Command("/proc/self/exe", arguments...)
	command.Env = append(os.Environ(), commandVariable+"=1")
	return command
}

// A reader that goes away ends a command quietly.
func TestReaderGone(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer writer.Close()
	command := kaon("list")
	var messages bytes.Buffer
	command.Stdout, command.Stderr = writer, &messages
	_ = command.Run()
	if code := command.ProcessState.ExitCode(); code != brokenPipe || messages.Len() > 0 {
		t.Errorf("exit code %d, want %d; %s", code, brokenPipe, messages.String())
	}
}

// What comes from files and arguments moves no cursor.
func TestPlainMessages(t *testing.T) {
	for _, arguments := range [][]string{{"describe", "\x1b[2Jx"}, {"check", "./\x1b[2Jx.o"}} {
		command := kaon(arguments...)
		out, _ := command.CombinedOutput()
		if code := command.ProcessState.ExitCode(); code != 1 || strings.Contains(string(out), "\x1b") || !strings.Contains(string(out), "?[2Jx") {
			t.Errorf("%q: exit code %d: %q", arguments, code, out)
		}
	}
}
