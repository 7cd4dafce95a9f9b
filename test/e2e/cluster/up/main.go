// Command up starts a Kubernetes cluster on this machine and keeps it until it is interrupted, or until a command has ended:
//
//	go run ./test/e2e/cluster/up                      until Ctrl-C; prints what to type
//	go run ./test/e2e/cluster/up -- kubectl get nodes with KUBECONFIG set
//	go run ./test/e2e/cluster/up -build               only build what the cache lacks
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/kaon-project/kaon/test/e2e/cluster"
)

func main() {
	var options cluster.Options
	flag.IntVar(&options.Nodes, "nodes", 2, "number of nodes; 0 for the control plane alone")
	flag.StringVar(&options.Dir, "dir", "", "folder to be made for the cluster's files, and removed with it")
	flag.BoolVar(&options.Keep, "keep", false, "leave the folder, with the logs")
	onlyBuild := flag.Bool("build", false, "build the binaries that the cache lacks, and no more")
	flag.Parse()
	// Closed terminals end the cluster, too.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	code, err := run(ctx, options, *onlyBuild, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "up:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(ctx context.Context, options cluster.Options, onlyBuild bool, arguments []string) (int, error) {
	if err := cluster.Build(ctx, os.Stderr); err != nil || onlyBuild {
		return 0, err
	}
	options.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	c, err := cluster.Start(ctx, options)
	if err != nil {
		return 1, err
	}
	code, err := use(ctx, c, arguments)
	return code, errors.Join(err, c.Stop())
}

func use(ctx context.Context, c *cluster.Cluster, arguments []string) (int, error) {
	if len(arguments) == 0 {
		fmt.Printf("export KUBECONFIG=%s\n%s/kubectl get nodes\n", c.Kubeconfig(), c.Dir)
		for _, n := range c.Nodes() {
			fmt.Printf("%s/enter-%s sh    # cgroups of its pods: %s\n", c.Dir, n.Name(), n.CgroupRoot())
		}
		fmt.Println("Ctrl-C ends the cluster.")
		<-ctx.Done()
		return 0, nil
	}
	kubectl, err := cluster.Binary("kubectl")
	if err != nil {
		return 1, err
	}
	if err := os.Setenv("PATH", filepath.Dir(kubectl)+":"+os.Getenv("PATH")); err != nil {
		return 1, err
	}
	command := exec.CommandContext(ctx, arguments[0], arguments[1:]...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	err = command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}
