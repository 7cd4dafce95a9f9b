package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	client "github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

const prometheusAddress = controlAddress + ":9090"

// Prometheus is a server in the control plane's network, from where it reaches all pods and nodes.
type Prometheus struct {
	// API is the server's.
	API prometheus.API

	config  string
	process *process
}

// StartPrometheus starts a Prometheus with a configuration: its YAML. It ends with the cluster. A kubernetes_sd_config
// needs kubeconfig_file: InsideKubeconfig().
func (c *Cluster) StartPrometheus(ctx context.Context, configuration string) (*Prometheus, error) {
	if _, err := Binary("prometheus"); err != nil {
		return nil, err
	}
	directory := filepath.Join(c.Dir, "prometheus")
	if err := os.Mkdir(directory, 0o755); err != nil {
		return nil, err
	}
	p := &Prometheus{config: filepath.Join(directory, "prometheus.yml")}
	if err := os.WriteFile(p.config, []byte(configuration), 0o644); err != nil {
		return nil, err
	}
	connection, err := client.NewClient(client.Config{Address: "http://" + prometheusAddress, RoundTripper: &http.Transport{DialContext: c.Dial}})
	if err != nil {
		return nil, err
	}
	p.API = prometheus.NewAPI(connection)
	p.process, err = c.control.daemon("prometheus", "--config.file", p.config, "--storage.tsdb.path", filepath.Join(directory, "data"),
		"--web.listen-address", prometheusAddress, "--enable-feature", "exemplar-storage",
		"--scrape.discovery-reload-interval", "100ms")
	if err != nil {
		return nil, err
	}
	return p, wait(ctx, "prometheus", []*process{p.process}, func(ctx context.Context) error {
		// It answers as soon as it has replayed its log.
		_, err := p.Query(ctx, "vector(1)")
		return err
	})
}

// Configure gives the server another configuration.
func (p *Prometheus) Configure(configuration string) error {
	if err := os.WriteFile(p.config, []byte(configuration), 0o644); err != nil {
		return err
	}
	return p.process.command.Process.Signal(syscall.SIGHUP)
}

// Query evaluates an expression now.
func (p *Prometheus) Query(ctx context.Context, expression string) (model.Vector, error) {
	value, _, _, err := p.API.Query(ctx, expression, time.Now())
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", expression, err)
	}
	vector, ok := value.(model.Vector)
	if !ok {
		return nil, fmt.Errorf("query %s: the result is a %s, not a vector", expression, value.Type())
	}
	return vector, nil
}

// WaitQuery evaluates an expression until accept has no error about the result, which may be empty.
func (p *Prometheus) WaitQuery(ctx context.Context, expression string, accept func(model.Vector) error) (model.Vector, error) {
	var vector model.Vector
	err := wait(ctx, expression, []*process{p.process}, func(ctx context.Context) error {
		var err error
		if vector, err = p.Query(ctx, expression); err != nil {
			return err
		}
		if err := accept(vector); err != nil {
			return fmt.Errorf("%w: %v", err, vector)
		}
		return nil
	})
	return vector, err
}
