package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/terminal"
)

func newTopCommand() *cobra.Command {
	var options terminal.TopOptions
	command := &cobra.Command{
		Use:   "top",
		Short: "Show what each program of the running agent costs now",
		Long: `Show what each program costs now: runs per second, nanoseconds per run, CPU, and how full its maps are.
The kernel's statistics of BPF programs are switched on only while this looks; they
cost every BPF program of the machine about 70 ns per run.`,
		Example: `  kaon top
  kaon top --once --interval 10s -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.Out, options.Err = command.OutOrStdout(), command.ErrOrStderr()
			return terminal.Top(command.Context(), options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.URL, "url", "http://"+agent.DefaultListen, "`URL` of the agent")
	flags.BoolVar(&options.All, "all", false, "every BPF program of the machine, whoever loaded it")
	flags.BoolVar(&options.Once, "once", false, "show one interval, then end")
	flags.DurationVar(&options.Interval, "interval", time.Second, "`time` between two readings")
	flags.StringVarP(&options.Output, "output", "o", "text", "text or json")
	return command
}
