// Kaon turns eBPF programs into metrics with a Kubernetes identity.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/terminal"
)

// version is set by the linker.
var version = ""

// errReported ends a command with exit code 1 after it has said everything itself.
var errReported = errors.New("reported")

// brokenPipe is the exit code of a command whose reader went away, as a shell has it of others.
const brokenPipe = 128 + int(syscall.SIGPIPE)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A second signal ends what does not end.
	context.AfterFunc(ctx, stop)
	// A reader that has seen enough, as in `kaon run exec | head`, must not end this process before
	// programs are unloaded: then writing fails instead.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	root := newRootCommand()
	errorOutput := terminal.Plain(os.Stderr)
	root.SetErr(errorOutput)
	for _, command := range root.Commands() {
		// These two draw on a terminal.
		if name := command.Name(); name != "run" && name != "top" {
			command.SetOut(terminal.Plain(os.Stdout))
		}
	}
	err := root.ExecuteContext(ctx)
	if err == nil {
		return
	}
	if readerGone(err) {
		os.Exit(brokenPipe)
	}
	if !errors.Is(err, errReported) {
		for _, problem := range program.Problems(err) {
			fmt.Fprintln(errorOutput, "kaon:", problem)
		}
	}
	os.Exit(1)
}

// readerGone says that a command ended because nobody reads its output any more.
func readerGone(err error) bool {
	failed, ok := errors.AsType[*fs.PathError](err)
	return ok && failed.Path == os.Stdout.Name() && errors.Is(failed, syscall.EPIPE)
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "kaon",
		Short: "Turns eBPF programs into metrics",
		Long: `Kaon loads eBPF programs and exposes what their maps hold as OpenMetrics,
labelled by workload: container, systemd unit or cgroup.

  kaon run exec          watch one program here and now
  kaon up                run the agent: http://` + agent.DefaultListen + `/metrics
  kaon list              see what there is
  kaon doctor            see what this kernel allows
  kaon new hello         begin a program of your own
  kaon lab               learn with a particle accelerator`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       buildVersion(),
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newUpCommand(),
		newControllerCommand(),
		newRunCommand(),
		newListCommand(),
		newDescribeCommand(),
		newCheckCommand(),
		newTopCommand(),
		newDoctorCommand(),
		newNewCommand(),
		newBuildCommand(),
		newMigrateCommand(),
		newLabCommand(),
	)
	return root
}

// buildVersion is what the linker or the module's build information says.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}
