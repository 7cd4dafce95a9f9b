package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/ebpfexporter"
	"github.com/kaon-project/kaon/internal/kubebpf"
	"github.com/kaon-project/kaon/internal/series"
)

func newMigrateCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "migrate",
		Short:   "Turn what another tool reads into manifests",
		Example: "  kaon migrate ebpf-exporter /etc/ebpf_exporter --output manifests\n  kaon migrate kube-bpf packets.yaml",
		Args:    exactly(0, "name a tool, as in `kaon migrate ebpf-exporter DIR`"),
		RunE:    func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	command.AddCommand(newMigrateExporterCommand(), newMigrateKubeBPFCommand())
	return command
}

func newMigrateKubeBPFCommand() *cobra.Command {
	var options kubebpf.Options
	command := &cobra.Command{
		Use:   "kube-bpf FILE",
		Short: "Write the Program resources that kube-bpf's resources are equivalent to",
		Long: `Reads resources of kind BPF (bpf.sh/v1alpha1) and the ConfigMaps that they name from a YAML file (- is standard
input), and writes Programs and ConfigMaps to standard output. The report on standard error says what became better and what
somebody should look at. The exit code is 1 if a resource could not be migrated.`,
		Example: `  kubectl get bpfs,configmaps -A -o yaml | kaon migrate kube-bpf - | kubectl apply -f -
  kaon migrate kube-bpf packets.yaml > programs.yaml`,
		Args: exactly(1, "name the file with the resources, or -"),
		RunE: func(command *cobra.Command, args []string) error {
			err := kubebpf.Migrate(args[0], command.InOrStdin(), command.OutOrStdout(), command.ErrOrStderr(), options)
			if errors.Is(err, kubebpf.ErrMigrate) {
				return errReported
			}
			return err
		},
	}
	command.Flags().StringVar(&options.Namespace, "namespace", "kaon", "`namespace` of Kaon's agents, into which the ConfigMaps go")
	return command
}

func newMigrateExporterCommand() *cobra.Command {
	options := ebpfexporter.Options{Steps: series.Steps()}
	var output string
	command := &cobra.Command{
		Use:   "ebpf-exporter DIR",
		Short: "Write the manifests that configurations of ebpf_exporter are equivalent to",
		Long: `Reads each NAME.yaml with NAME.bpf.o beside it, as ebpf_exporter's --config.dir has them, and writes a
manifest of the same metrics, with types and units. The report says what became better and what
somebody should look at. The exit code is 1 if a configuration has a mistake. There is no need to
migrate: kaon run and kaon up read the configurations as they are.`,
		Example: `  kaon migrate ebpf-exporter /etc/ebpf_exporter --output manifests`,
		Args:    exactly(1, "name the directory of the configurations"),
		RunE: func(command *cobra.Command, args []string) error {
			out := command.OutOrStdout()
			err := ebpfexporter.MigrateDirectory(args[0], output, out, options)
			if errors.Is(err, ebpfexporter.ErrMigrate) {
				return errReported
			}
			if err == nil {
				_, err = fmt.Fprintf(out, "\nCheck them with `kaon check %s/*.yaml`, try one with `kaon run %s/NAME.yaml`.\n", output, output)
			}
			return err
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "kaon", "write the manifests into this `directory`")
	command.Flags().Var(optionalText{&options.Prefix}, "prefix", "begin the names of metrics with this `text` (default ebpf_exporter_)")
	return command
}
