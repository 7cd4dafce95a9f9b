package main

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the reference page anew")

const commandLinePage = "../../docs/reference/command-line.md"

// document renders the help of all commands as a page.
func document() string {
	var b strings.Builder
	b.WriteString("# Command line\n\n<!-- Written by \"go test ./cmd/kaon -update\"; don't edit. -->\n\n")
	b.WriteString("What `kaon COMMAND --help` says. A PROGRAM is a built-in name (`kaon list`), the path of an object or of a manifest.\n" +
		"Errors go to standard error; the exit code is then 1, otherwise 0.\n")
	for _, command := range newRootCommand().Commands() {
		if command.Hidden || command.Name() == "help" {
			continue
		}
		command.InitDefaultHelpFlag()
		b.WriteString("\n## " + command.CommandPath() + "\n\n```text\n" + help(command) + "```\n")
		for _, verb := range command.Commands() {
			verb.InitDefaultHelpFlag()
			b.WriteString("\n### " + verb.CommandPath() + "\n\n```text\n" + help(verb) + "```\n")
		}
	}
	return b.String()
}

// help is what the command says of itself, without spaces at the ends of lines.
func help(command *cobra.Command) string {
	text := command.Long
	if text == "" {
		text = command.Short
	}
	var b strings.Builder
	for line := range strings.Lines(text + "\n\n" + command.UsageString()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

func TestCommandLinePage(t *testing.T) {
	want := document()
	if strings.Count(want, "\n## kaon ") < 9 {
		t.Fatalf("commands are missing:\n%s", want)
	}
	if *update {
		if err := os.WriteFile(commandLinePage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(commandLinePage)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date: run `go test ./cmd/kaon -update`", commandLinePage)
	}
}

// Whoever asks for help must find an example, and every flag explained.
func TestHelp(t *testing.T) {
	for _, command := range newRootCommand().Commands() {
		if command.Short == "" || strings.HasSuffix(command.Short, ".") {
			t.Errorf("%s: %q", command.Name(), command.Short)
		}
		if !strings.Contains(command.Example, "  kaon "+command.Name()) {
			t.Errorf("%s has no example", command.Name())
		}
		for line := range strings.Lines(command.LocalFlags().FlagUsages()) {
			if len(strings.Fields(line)) < 3 {
				t.Errorf("%s: %q explains nothing", command.Name(), line)
			}
		}
	}
}

// Who forgets an argument, or gives too many, is told what is wanted.
func TestArguments(t *testing.T) {
	f := func(want string, args ...string) {
		t.Helper()
		root := newRootCommand()
		root.SetArgs(args)
		err := root.Execute()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
	f("kaon run exec", "run")
	f("kaon describe exec", "describe")
	f("kaon describe exec", "describe", "exec", "tasks")
	f("kaon check hello.bpf.o", "check")
	f("kaon new hello", "new")
	f("kaon build hello.bpf.c", "build")
	f("kaon lab run --kick 40", "lab", "go")
	f("kaon lab run --program", "lab", "run", "kick.star")
	f("unknown command", "lst")
}
