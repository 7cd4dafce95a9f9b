package main

import (
	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/catalog"
)

func newListCommand() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "list",
		Short: "List the built-in programs",
		Example: `  kaon list
  kaon list -o json`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return catalog.List(command.OutOrStdout(), output)
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return command
}

func newDescribeCommand() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "describe PROGRAM",
		Short: "Tell what a program exports, what it can be set to, and what it needs",
		Example: `  kaon describe exec
  kaon describe ./hello.bpf.o -o json`,
		Args: exactly(1, "name one program, as in `kaon describe exec`; `kaon list` shows what there is"),
		RunE: func(command *cobra.Command, args []string) error {
			return catalog.Describe(command.OutOrStdout(), args[0], output)
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return command
}
