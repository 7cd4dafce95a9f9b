package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/doctor"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/programs"
)

func newDoctorCommand() *cobra.Command {
	var verbose bool
	var output string
	command := &cobra.Command{
		Use:   "doctor [PROGRAM...]",
		Short: "Say what this kernel and these privileges can do",
		Long: `Tries what the kernel and your privileges allow (hooks, map types, features), says which
programs would work (the built-in ones, or those named), and what each thing that is missing
costs and what to do about it. It leaves nothing behind. The exit code is 1 if a program that
you named would not work.`,
		Example: `  kaon doctor
  kaon doctor ./mine.bpf.o -o json`,
		RunE: func(command *cobra.Command, args []string) error {
			named := len(args) > 0
			if !named {
				args = programs.Names()
			}
			var specs []*program.Spec
			for _, arg := range args {
				resolved, err := agent.Resolve(arg)
				if err != nil {
					return err
				}
				specs = append(specs, resolved...)
			}
			report := doctor.Probe(command.Context(), doctor.Options{})
			report.Programs = report.Assess(specs)
			if err := report.Write(command.OutOrStdout(), output, verbose); err != nil {
				return err
			}
			if named && slices.ContainsFunc(report.Programs, func(a doctor.Assessment) bool { return a.State == doctor.No }) {
				return errReported
			}
			return nil
		},
	}
	command.Flags().BoolVarP(&verbose, "verbose", "v", false, "list every item")
	command.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return command
}
