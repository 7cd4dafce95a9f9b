package kube

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/internal/workload"
)

// Names are the names of a node's pods from all sources that there are: the API server, and
// the names of the files in which the kubelet keeps their logs. Run follows them.
type Names struct {
	workload.FirstOf
	pods *Pods             // nil without
	logs *workload.PodLogs // nil without
}

// NewNames returns names from an API server, and from log files if a node's /var/log can be seen.
func NewNames(config *rest.Config, options PodsOptions) (*Names, error) {
	pods, err := NewPods(config, options)
	if err != nil {
		return nil, err
	}
	n := &Names{FirstOf: workload.FirstOf{pods}, pods: pods}
	n.addLogs(options.Logger)
	return n, nil
}

// FindNames returns names from what this process happens to see: nil if it has neither a pod's credentials
// or a kubeconfig nor a view of a node's /var/log. The node is NODE_NAME or else the host's name, as in a pod of
// kubectl debug. An error is only about what options ask for.
func FindNames(kubeconfig string, options PodsOptions) (*Names, error) {
	n := &Names{}
	if kubeconfig != "" || InPod() {
		config, err := Connect(kubeconfig)
		if err != nil && kubeconfig != "" {
			return nil, err
		}
		if options.Node, err = NodeName(options.Node); errors.Is(err, ErrNoNode) {
			options.Node, err = os.Hostname()
		}
		if err == nil && config != nil {
			if n.pods, err = NewPods(config, options); err != nil {
				return nil, err
			}
			n.FirstOf = append(n.FirstOf, n.pods)
		}
	}
	n.addLogs(options.Logger)
	if len(n.FirstOf) == 0 {
		return nil, nil
	}
	return n, nil
}

func (n *Names) addLogs(log *slog.Logger) {
	directory, ok := workload.FindPodLogs()
	if !ok {
		return
	}
	logs, err := workload.NewPodLogs(directory, log)
	if err != nil {
		return // it is gone again
	}
	n.logs, n.FirstOf = logs, append(n.FirstOf, logs)
}

// Run follows all sources until the context ends.
func (n *Names) Run(ctx context.Context) {
	var wait sync.WaitGroup
	if n.pods != nil {
		wait.Go(func() { n.pods.Run(ctx) })
	}
	if n.logs != nil {
		wait.Go(func() { n.logs.Run(ctx) })
	}
	wait.Wait()
}

// WaitForAnswer waits until the API server told of all pods of the node or could not be asked.
func (n *Names) WaitForAnswer(ctx context.Context) error {
	if n.pods == nil {
		return nil
	}
	return n.pods.WaitForAnswer(ctx)
}

// Labels returns the namespace and the labels of a pod, which only the API server tells.
func (n *Names) Labels(uid string) (namespace string, labels map[string]string, known bool) {
	if n.pods == nil {
		return "", nil, false
	}
	return n.pods.Labels(uid)
}

// Listed tells whether the API server told of all pods of the node once.
func (n *Names) Listed() bool { return n.pods != nil && n.pods.Listed() }

// Changed returns a channel that is closed when Labels or Listed have other answers than now; nil if they never will.
func (n *Names) Changed() <-chan struct{} {
	if n.pods == nil {
		return nil
	}
	return n.pods.Changed()
}
