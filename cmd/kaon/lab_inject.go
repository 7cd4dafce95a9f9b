package main

import (
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/lab/inject"
	"github.com/kaon-project/kaon/internal/program"
)

func newLabInjectCommand() *cobra.Command {
	var options inject.Options
	var bytes string
	command := &cobra.Command{
		Use:   "inject cpu|memory",
		Short: "Use CPU time or memory on purpose, within bounds",
		Long: fmt.Sprintf(`Keeps CPUs busy, or touches memory and holds it, to see it in metrics. It runs in a process of its own, in a cgroup of
its own where there can be one, and ends by itself, by Ctrl-C, and with this command whatever happens to it.

It lasts %v at most and uses no more CPUs than there are. Of memory it takes no more than half of what is available,
here or to this container, and ends early when only a quarter of that would be left.`, inject.MaxDuration),
		Example: `  kaon lab inject cpu --cpus 0.5 --for 1m
  kaon lab inject memory --bytes 256Mi`,
		Args:      exactly(1, "say what to inject, as in `kaon lab inject cpu` or `kaon lab inject memory`"),
		ValidArgs: []string{string(inject.CPU), string(inject.Memory)},
		RunE: func(command *cobra.Command, args []string) error {
			kind := inject.Kind(args[0])
			for flag, of := range map[string]inject.Kind{"cpus": inject.CPU, "bytes": inject.Memory} {
				if command.Flags().Changed(flag) && kind != of {
					return fmt.Errorf("--%s says nothing about %s: it is for `kaon lab inject %s`", flag, kind, of)
				}
			}
			n, err := program.ParseSize(bytes)
			if err != nil {
				return fmt.Errorf("--bytes: %w", err)
			}
			options.Bytes = int64(min(n, math.MaxInt64))
			return inject.Run(command.Context(), command.OutOrStdout(), kind, options)
		},
	}
	flags := command.Flags()
	flags.Float64Var(&options.CPUs, "cpus", inject.DefaultCPUs, "`number` of CPUs to keep busy, such as 0.5")
	flags.StringVar(&bytes, "bytes", fmt.Sprintf("%dMi", inject.DefaultBytes>>20), "`size` of the memory to hold, such as 256Mi")
	flags.DurationVar(&options.Duration, "for", inject.DefaultDuration, "`time` until it ends by itself")
	command.AddCommand(&cobra.Command{
		Use: "child", Short: "Inject in this process", Hidden: true, DisableFlagParsing: true,
		RunE: func(command *cobra.Command, args []string) error {
			return inject.ChildMain(command.Context(), args)
		},
	})
	return command
}
