package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/kaon-project/kaon/internal/server"
)

func newUpCommand() *cobra.Command {
	var options server.UpOptions
	command := &cobra.Command{
		Use:   "up [PROGRAM...]",
		Short: "Run the agent: programs in, /metrics out",
		Long: `Run the agent. Without a configuration and without arguments it runs the default programs
(kaon list marks them). A change of the configuration, or of a file that it names, is taken up
at once; so is SIGHUP. One program's change or failure leaves the others alone.`,
		Example: `  kaon up
  kaon up exec ./mine.bpf.o
  kaon up -c kaon.yaml --cgroup-root /sys/fs/cgroup/kubepods.slice
  kaon up --kubernetes`,
		RunE: func(command *cobra.Command, programs []string) error {
			options.Programs = programs
			options.Version = buildVersion()
			options.Out = command.ErrOrStderr()
			options.Command = os.Args[0]
			return server.Up(command.Context(), options)
		},
	}
	flags := command.Flags()
	flags.Var(optionalText{&options.Prefix}, "prefix", "begin the metrics of ebpf_exporter's configurations with this `text` (default ebpf_exporter_)")
	flags.StringVarP(&options.ConfigFile, "config", "c", "", "configuration `file` (kaon.yaml)")
	flags.StringArrayVar(&options.Listen, "listen", nil, "`address` to listen on (default 127.0.0.1:9497); can be repeated")
	flags.StringVar(&options.CgroupRoot, "cgroup-root", "", "measure this cgroup `path` and what is below it only")
	flags.BoolVar(&options.Kubernetes.Enabled, "kubernetes", false, "label the containers of this node's pods with namespace, pod and container, and run the cluster's Program resources")
	flags.StringVar(&options.Kubernetes.Namespace, "namespace", "", "`namespace` in which Program resources find ConfigMaps and Secrets (default POD_NAMESPACE in the environment, or the pod's own)")
	flags.StringArrayVar(&options.Kubernetes.Allow, "allow", nil, "let objects of Program resources use this `kind` of hook, or helper, although it can act; can be repeated")
	flags.StringVar(&options.Kubernetes.NodeName, "node-name", "", "what Kubernetes calls this node (default NODE_NAME in the environment)")
	flags.StringVar(&options.Kubernetes.Kubeconfig, "kubeconfig", "", "`file` that says how to reach the API server (default: as the pod that this runs in)")
	flags.BoolVar(&options.Profiling, "profiling", false, "serve /debug/pprof")
	flags.BoolVar(&options.DropCapabilities, "drop-capabilities", false, "give up all capabilities once the programs are loaded (no reload then)")
	flags.StringVar(&options.LogLevel, "log-level", "info", "debug, info, warn or error")
	flags.StringVar(&options.LogFormat, "log-format", "text", "text or json")
	return command
}
