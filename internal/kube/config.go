// Package kube is what talks to a Kubernetes API server.
package kube

import (
	"errors"
	"fmt"
	"os"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Errors that say what is missing to reach an API server.
var (
	// ErrNoCluster: neither a kubeconfig nor a pod's own credentials.
	ErrNoCluster = errors.New("no Kubernetes API server is known")
	// ErrNoNode: which node this is can't be told.
	ErrNoNode = errors.New("the node's name is not known: set NODE_NAME from the field spec.nodeName, or --node-name")
)

// Connect returns how to reach the API server: as a kubeconfig says, or, if that is empty, as the
// pod does in which this process runs. It does not talk to it yet.
func Connect(kubeconfig string) (*rest.Config, error) {
	if kubeconfig != "" {
		config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
		}
		return config, nil
	}
	config, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, fmt.Errorf("%w: this is no pod: name a kubeconfig", ErrNoCluster)
	}
	if err != nil {
		return nil, fmt.Errorf("use the pod's own service account: %w", err)
	}
	return config, nil
}

// InPod tells whether this process has a pod's credentials.
func InPod() bool {
	_, err := os.Stat("/var/run/secrets/kubernetes.io/serviceaccount/token")
	return err == nil && os.Getenv("KUBERNETES_SERVICE_HOST") != ""
}

// NodeName returns the name of this node: what was configured, else NODE_NAME of the environment.
func NodeName(configured string) (string, error) {
	if configured == "" {
		configured = os.Getenv("NODE_NAME")
	}
	if configured == "" {
		return "", ErrNoNode
	}
	return configured, nil
}
