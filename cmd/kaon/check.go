package main

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/check"
	"github.com/kaon-project/kaon/internal/exposition/lint"
	"github.com/kaon-project/kaon/internal/program"
)

func newCheckCommand() *cobra.Command {
	var resolving agent.ResolveOptions
	var options check.Options
	var types, output string
	var expositions bool
	var source lint.Source
	command := &cobra.Command{
		Use:   "check FILE...",
		Short: "Find what is wrong with programs, without a kernel or root",
		Long: `Checks objects, manifests and configurations of ebpf_exporter: tags, types, names, cardinality, the memory that each map may
take, hooks. Every problem is listed; the exit code is 1 if there is an error.

With --exposition, checks what exporters answer instead: OpenMetrics 1.0 or Prometheus text 0.0.4, from addresses, files or
standard input (-). It says line by line what is wrong, why it matters and what to write. The format is the one that the
answer's Content-Type names; a file is OpenMetrics if it has a line # EOF.`,
		Example: `  kaon check hello.bpf.o shop.yaml
  kaon check --btf vmlinux --cpus 64 -o json hello.bpf.o
  kaon check --exposition http://127.0.0.1:9497/metrics
  my-exporter --once | kaon check --exposition --format openmetrics -`,
		Args: atLeastOne("name a file, as in `kaon check hello.bpf.o`"),
		RunE: func(command *cobra.Command, args []string) error {
			if expositions {
				source.Stdin = command.InOrStdin()
				result := source.All(command.Context(), args)
				if err := result.Write(command.OutOrStdout(), output); err != nil {
					return err
				}
				if result.Failed() {
					return errReported
				}
				return nil
			}
			if source.Format != "" {
				return errors.New("--format is for --exposition: give both")
			}
			if types != "" {
				spec, err := btf.LoadSpec(types)
				if err != nil {
					return fmt.Errorf("BTF of %s: %w", types, err)
				}
				options.Types = spec
			}
			resolve := func(arg string) ([]*program.Spec, error) { return agent.ResolveWithOptions(arg, resolving) }
			result := check.All(args, resolve, options)
			if err := result.Write(command.OutOrStdout(), output); err != nil {
				return err
			}
			if result.Failed() {
				return errReported
			}
			return nil
		},
	}
	command.Flags().Var(optionalText{&resolving.Prefix}, "prefix", "begin the metrics of ebpf_exporter's configurations with this `text` (default ebpf_exporter_)")
	command.Flags().StringVar(&types, "btf", "", "look up the hooks' targets in the BTF of this file (a vmlinux, or a copy of /sys/kernel/btf/vmlinux)")
	command.Flags().IntVar(&options.CPUs, "cpus", 0, "estimate memory for that many CPUs (0: this machine's)")
	command.Flags().BoolVar(&expositions, "exposition", false, "check what exporters answer: the arguments are addresses, files, or - for standard input")
	command.Flags().StringVar((*string)(&source.Format), "format", "", "read expositions as `openmetrics` or text, whatever they say")
	command.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return command
}
