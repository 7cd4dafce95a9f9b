package main

import (
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/terminal"
)

func newRunCommand() *cobra.Command {
	var options terminal.RunOptions
	command := &cobra.Command{
		Use:   "run PROGRAM...",
		Short: "Run programs in the foreground and watch them",
		Long: `Run programs here and now, and show their series: tables sorted by rate, histograms as bars,
once a second. A PROGRAM is a built-in name (kaon list), an object,
a manifest or a configuration of ebpf_exporter.
Where the output is no terminal, each series that changed is a line.

On a node of Kubernetes, pods have their names: from the API server in a pod that may list pods, or with --kubeconfig;
else from the names of the log files in /var/log, for which no rights in the cluster are needed.

Programs that collect stacks, such as profile, show where time is spent with -o folded (one line for each stack, as flame
graphs are made of) or -o pprof. They do so when --for is over, or after Ctrl-C.`,
		Example: `  kaon run exec
  kaon run runqueue --filter unit=~ssh.*
  kaon run exec --filter namespace=shop
  kaon run ./mine.bpf.o --set minimum=10ms --for 10s -o json
  kaon run tasks --once -o openmetrics
  kaon run profile --for 10s -o pprof --output-file cpu.pb.gz`,
		Args: atLeastOne("name a program, as in `kaon run exec`; `kaon list` shows what there is"),
		RunE: func(command *cobra.Command, programs []string) error {
			options.Programs = programs
			options.Out, options.Err = command.OutOrStdout(), command.ErrOrStderr()
			// When the terminal closes, programs are unloaded as after Ctrl-C.
			ctx, stop := signal.NotifyContext(command.Context(), syscall.SIGHUP)
			defer stop()
			return terminal.Run(ctx, options)
		},
	}
	flags := command.Flags()
	flags.Var(optionalText{&options.Prefix}, "prefix", "begin the metrics of ebpf_exporter's configurations with this `text` (default ebpf_exporter_)")
	flags.StringArrayVar(&options.Set, "set", nil, "set a param, `NAME=VALUE` or PROGRAM.NAME=VALUE; can be repeated")
	flags.StringArrayVar(&options.Filter, "filter", nil, "show series with these labels only: `LABEL=VALUE`, !=, =~, !~; can be repeated")
	flags.StringVarP(&options.Output, "output", "o", "text", "text, json or openmetrics; of stacks: folded or pprof")
	flags.StringVar(&options.OutputFile, "output-file", "", "write to this `file` instead of standard output")
	flags.BoolVar(&options.ByWorkload, "by-workload", false, "with -o folded: stacks begin with the workload")
	flags.BoolVar(&options.Once, "once", false, "show what there is after one interval, then end")
	flags.DurationVar(&options.For, "for", 0, "end after this `time`, showing what there is then")
	flags.DurationVar(&options.Interval, "interval", time.Second, "`time` between two readings")
	flags.StringVar(&options.CgroupRoot, "cgroup-root", "", "measure this cgroup `path` and what is below it only")
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "`file` that says how to reach Kubernetes, for the names of pods")
	flags.StringVar(&options.NodeName, "node-name", "", "what Kubernetes calls this node (default NODE_NAME in the environment, or the host's name)")
	flags.BoolVarP(&options.Verbose, "verbose", "v", false, "log what happens")
	return command
}
