package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/kube"
)

// namesWait is how long the agent waits at start for the names of pods, so that its first series have them.
const namesWait = 5 * time.Second

// podNames returns where the names of pods come from, nil if they have none.
func podNames(config agent.KubernetesConfig, log *slog.Logger) (*kube.Names, error) {
	if !config.Enabled {
		return nil, nil
	}
	rest, err := kube.Connect(config.Kubeconfig)
	if err != nil {
		return nil, err
	}
	node, err := kube.NodeName(config.NodeName)
	if err != nil {
		return nil, err
	}
	names, err := kube.NewNames(rest, kube.PodsOptions{Node: node, Labels: config.Labels, Owner: config.Owner, NodeLabel: config.Node, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return names, nil
}

// waitForNames waits for a bounded time: the agent works without an API server, too.
func waitForNames(ctx context.Context, names *kube.Names, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, namesWait)
	defer cancel()
	if err := names.WaitForAnswer(ctx); err != nil && ctx.Err() == nil {
		log.Debug("the agent starts without the names of pods", "error", err)
	}
}
