package server

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/kube"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/programs"
)

const (
	defaultControllerToken = "/var/run/secrets/kaon.dev/controller/token"
	podNamespaceFile       = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
	// firstAnswer is how long the API server is waited for before the agent starts without it.
	firstAnswer = 10 * time.Second
)

// resources runs the Program resources of a cluster beside the configured Programs. Nil: there are none.
type resources struct {
	agent    *agent.Agent
	programs *kube.Programs
	// reporter is nil if nothing is reported.
	reporter *kube.Reporter
	log      *slog.Logger

	mu sync.Mutex
	// applied are the resources that were applied the latest.
	applied []kube.Resource
}

// newResources returns nil if the configuration wants none.
func newResources(config agent.KubernetesConfig, names *kube.Names, version string, a *agent.Agent, log *slog.Logger) (*resources, error) {
	if !config.Enabled || config.Programs != nil && !*config.Programs {
		return nil, nil
	}
	connection, err := kube.Connect(config.Kubeconfig)
	if err != nil {
		return nil, err
	}
	node, err := kube.NodeName(config.NodeName)
	if err != nil {
		return nil, err
	}
	namespace := config.Namespace
	if namespace == "" {
		namespace = os.Getenv("POD_NAMESPACE")
	}
	if namespace == "" {
		if data, err := os.ReadFile(podNamespaceFile); err == nil {
			namespace = strings.TrimSpace(string(data))
		}
	}
	r := &resources{agent: a, log: log}
	var pods kube.PodLabels
	if names != nil {
		pods = names
	}
	r.programs, err = kube.NewPrograms(connection, kube.ProgramsOptions{Pods: pods, Node: node, Namespace: namespace, Allow: config.Allow, Logger: log,
		Manifest: manifest.Options{Builtin: programs.Load, Decoders: series.Decoders()}})
	if err != nil {
		return nil, err
	}
	token := config.ControllerToken
	if token == "" {
		token = defaultControllerToken
	}
	if _, err := os.Stat(token); err != nil {
		log.Info("nothing is reported to a controller", "reason", err)
		return r, nil
	}
	kernel := release()
	r.reporter, err = kube.NewReporter(connection, kube.ReporterOptions{Namespace: namespace, TokenFile: token, Logger: log, Report: func() kube.Report {
		r.mu.Lock()
		applied := r.applied
		r.mu.Unlock()
		return kube.NewReport(node, kernel, version, applied, a.Health())
	}})
	return r, err
}

// release is the kernel's.
func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// wait waits a moment for the resources: what they say should not come after something else ran.
func (r *resources) wait(ctx context.Context) {
	waiting, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	for waiting.Err() == nil && !r.programs.Undefined() {
		look, stop := context.WithTimeout(waiting, 100*time.Millisecond)
		err := r.programs.WaitForSync(look)
		stop()
		if err == nil {
			return
		}
	}
}

// apply applies the configuration together with the resources.
func (r *resources) apply(ctx context.Context, config agent.Config) error {
	found := r.programs.Resources(ctx)
	if config.Implied && !r.programs.Undefined() {
		config.Programs = nil // the cluster says what runs
	}
	for _, resource := range found {
		if !resource.Elsewhere {
			config.Programs = append(config.Programs, resource.Config)
		}
	}
	if err := r.agent.Apply(ctx, config); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied = found
	return nil
}

// changed receives after resources changed.
func (r *resources) changed() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.programs.Changed()
}

// reports tells whether a controller is told how the resources are.
func (r *resources) reports() bool { return r != nil && r.reporter != nil }
