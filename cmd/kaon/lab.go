package main

import (
	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/page"
)

func newLabCommand() *cobra.Command {
	var options page.RunOptions
	command := &cobra.Command{
		Use:   "lab",
		Short: "Run a particle accelerator to learn with",
		Long: `A simulated particle accelerator, as a page to learn metrics with: kicks make the beam faster, too weak ones take too
long, too strong ones overload it. The page shows the particle, the data and the code, and leads on step by step.

The code is a kick program (see kaon lab run --help) in a file that any editor may change: it is taken up at once.
The accelerator runs in this process; pages only show it. Everything else is at /metrics.`,
		Example: `  kaon lab
  kaon lab --mode physics --warp 120 --program /tmp/kick.star
  kaon lab run --kick 40 --until success`,
		Args: exactly(0, "say what to do, as in `kaon lab run --kick 40`"),
		RunE: func(command *cobra.Command, _ []string) error {
			options.Version = buildVersion()
			options.Out, options.Log = command.OutOrStdout(), command.ErrOrStderr()
			return page.Run(command.Context(), options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Listen, "listen", page.DefaultListen, "`address` to listen on")
	flags.StringArrayVar(&options.Hosts, "host", nil, "`name` under which the page may be asked for, besides localhost and IP addresses; can be repeated")
	flags.StringVar((*string)(&options.Mode), "mode", string(lab.Compatible), "compatible (the workshop's numbers) or physics (those of the LHC)")
	flags.Uint64Var(&options.Seed, "seed", 0, "`number` that the accidents of physics mode come from")
	flags.Float64Var(&options.Warp, "warp", 0, "seconds to simulate in one second, 0.1 to 1000 (0: 1, in physics mode 60)")
	flags.StringVar(&options.Program, "program", "kick.star", "kick program, a Starlark `file`; written if there is none")
	command.AddCommand(newLabRunCommand(), newLabInjectCommand())
	return command
}

func newLabRunCommand() *cobra.Command {
	var options lab.RunOptions
	var kick float64
	command := &cobra.Command{
		Use:   "run",
		Short: "Launch one beam and say how the run ended",
		Long: `Launches one beam and waits until it succeeds, runs out of time or overloads. The same mode, seed and program give the
same run. With --until the exit code is 1 if it ended otherwise.

A kick program is a Starlark file (Python's syntax) with KICK_POWER, from 0 to 100, and if wanted a function
kick(turn, beam) that returns the power of one kick; beam has speed, ratio, gamma, energy, elapsed, temperature, protons.
It has no files and no network, and is stopped when it does not end.`,
		Example: `  kaon lab run --kick 40 --until success
  kaon lab run --mode physics --seed 7 --program kick.star -o json
  kaon lab run --warp 1`,
		Args: exactly(0, "name no argument, as in `kaon lab run --program kick.star`"),
		RunE: func(command *cobra.Command, _ []string) error {
			options.Out = command.OutOrStdout()
			if command.Flags().Changed("kick") {
				options.Kick = &kick
			}
			return lab.Run(command.Context(), options)
		},
	}
	flags := command.Flags()
	flags.Float64Var(&kick, "kick", lab.DefaultKickPower, "`power` of every kick, from 0 to 100, instead of a program")
	flags.StringVar((*string)(&options.Until), "until", "", "fail unless the run ends in this `outcome`: success, timeout or overload")
	flags.StringVar((*string)(&options.Mode), "mode", string(lab.Compatible), "compatible (the workshop's numbers) or physics (those of the LHC)")
	flags.Uint64Var(&options.Seed, "seed", 0, "`number` that the accidents of physics mode come from")
	flags.StringVar(&options.Program, "program", "", "kick program, a Starlark `file`")
	flags.Float64Var(&options.Warp, "warp", 0, "seconds to simulate in one second (0: as fast as possible)")
	flags.StringVarP(&options.Output, "output", "o", "text", "text or json")
	return command
}
