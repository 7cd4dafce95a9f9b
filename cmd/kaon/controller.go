package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/server"
)

func newControllerCommand() *cobra.Command {
	var options server.ControllerOptions
	command := &cobra.Command{
		Use:   "controller",
		Short: "Gather what the agents of a cluster report into the status of Programs",
		Long: `Run the controller of a Kubernetes cluster. It takes reports from the agents (kaon up --kubernetes) and writes the
status of Program resources. One replica is enough; of several, one is in charge. It needs no privileges.`,
		Example: `  kaon controller
  kaon controller --kubeconfig admin.kubeconfig --namespace kaon --address 127.0.0.1`,
		Args: exactly(0, "it takes none"),
		RunE: func(command *cobra.Command, _ []string) error {
			options.Out = command.ErrOrStderr()
			return server.Controller(command.Context(), options)
		},
	}
	flags := command.Flags()
	flags.StringVar(&options.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server (default: as the pod that this runs in)")
	flags.StringVar(&options.Namespace, "namespace", "", "`namespace` of the agents (default POD_NAMESPACE in the environment)")
	flags.StringVar(&options.AgentAccount, "agent-account", "kaon", "ServiceAccount of the agents, by `name`")
	flags.StringVar(&options.Identity, "identity", "", "`name` of this replica (default POD_NAME in the environment, or the host's name)")
	flags.StringVar(&options.Listen, "listen", ":9498", "`address` on which reports are taken")
	flags.StringVar(&options.Address, "address", "", "`host` at which agents reach it (default POD_IP in the environment)")
	flags.StringVar(&options.MetricsListen, "metrics-listen", ":9499", "`address` of the controller's own metrics")
	flags.DurationVar(&options.WriteInterval, "write-interval", 5*time.Second, "write the status of a Program at most once in this `time`, and less often with more than 500 agents")
	flags.StringVar(&options.LogLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&options.LogFormat, "log-format", "text", "text or json")
	return command
}
