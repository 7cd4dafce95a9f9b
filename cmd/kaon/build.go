package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/author"
)

func newNewCommand() *cobra.Command {
	var directory string
	command := &cobra.Command{
		Use:   "new NAME",
		Short: "Begin a program of your own: a complete one in 20 lines of C",
		Example: `  kaon new hello
  kaon new hello -C programs`,
		Args: exactly(1, "name the program, as in `kaon new hello`"),
		RunE: func(command *cobra.Command, args []string) error {
			return author.New(command.OutOrStdout(), directory, args[0])
		},
	}
	command.Flags().StringVarP(&directory, "directory", "C", ".", "`directory` to write to")
	return command
}

func newBuildCommand() *cobra.Command {
	var arch, clang, output, include string
	var all bool
	command := &cobra.Command{
		Use:   "build FILE.bpf.c...",
		Short: "Compile C to an object (needs clang; the headers come with kaon)",
		Example: `  kaon build hello.bpf.c
  kaon build --include ./include     # writes the headers, for editors`,
		RunE: func(command *cobra.Command, sources []string) error {
			out := command.ErrOrStderr()
			switch {
			case include != "":
				return author.Include(include, arch)
			case all:
				return author.BuildAll(command.Context(), out, ".", clang)
			case len(sources) == 0:
				return errors.New("name a C file, as in `kaon build hello.bpf.c`; `kaon new hello` writes one")
			}
			return author.Build(command.Context(), out, sources, arch, clang, output)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&output, "output", "o", "", "object `file` (default: the source's name with .o)")
	flags.StringVar(&arch, "arch", "", "amd64 or arm64 (default: this machine's); matters to programs that read registers")
	flags.StringVar(&clang, "clang", "", "compiler's `path` (default: $KAON_CLANG, or what is found)")
	flags.StringVar(&include, "include", "", "write the headers to this `directory` and end")
	flags.BoolVar(&all, "all", false, "every *.bpf.c below this directory")
	return command
}
