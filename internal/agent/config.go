package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/otlp"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// DefaultListen is where the agent listens unless told otherwise. A neutral kaon weighs 497 MeV.
const DefaultListen = "127.0.0.1:9497"

// Config is kaon.yaml, the configuration of the agent.
type Config struct {
	// Programs that the agent runs. None: the default set.
	Programs []ProgramConfig `json:"programs,omitempty"`
	// Implied says that nobody named these programs: they are the default set.
	Implied bool `json:"-"`
	// Listen are the addresses of the HTTP server, HOST:PORT. Default: 127.0.0.1:9497.
	// Only read at start.
	Listen []string `json:"listen,omitempty"`
	// Web configures the HTTP server. Only read at start.
	Web WebConfig `json:"web,omitempty"`
	// CgroupRoot limits everything to this cgroup and those below it: a path as in
	// /sys/fs/cgroup, or relative to it. Only read at start.
	CgroupRoot string `json:"cgroupRoot,omitempty"`
	// Limits of the whole agent.
	Limits Limits `json:"limits,omitempty"`
	// CreatedSeries adds a _created series to each counter, histogram and
	// summary in OpenMetrics text. Only read at start.
	CreatedSeries bool `json:"createdSeries,omitempty"`
	// Statistics switches the kernel's run-time statistics on for as long as the agent runs.
	// They cost every BPF program of the machine about 70 ns per run. Only read at start.
	Statistics bool `json:"statistics,omitempty"`
	// PinDirectory is a directory in a bpffs for Programs with pin: true.
	// Default: /sys/fs/bpf/kaon. Only read at start.
	PinDirectory string `json:"pinDirectory,omitempty"`
	// Traces says where Programs' spans go. Only read at start.
	Traces TracesConfig `json:"traces,omitempty"`
	// Kubernetes gives the node's pods their names. Only read at start.
	Kubernetes KubernetesConfig `json:"kubernetes,omitempty"`
	// StaticLabels are added to every metric of every Program.
	StaticLabels map[string]string `json:"staticLabels,omitempty"`
}

// ProgramConfig names one or more Programs.
type ProgramConfig struct {
	// Source is a built-in name, the path of an object or a manifest, or a
	// glob of such paths, relative to kaon.yaml.
	Source string `json:"source"`
	// Prefix of the metrics of ebpf_exporter's configurations. Default: ebpf_exporter_.
	Prefix *string `json:"prefix,omitempty"`
	// Params of the Program.
	Params map[string]Text `json:"params,omitempty"`
	// Pin keeps counters across a restart of the agent.
	Pin bool `json:"pin,omitempty"`
	// Optional Programs may fail without the agent being less than ready.
	Optional bool `json:"optional,omitempty"`
	// StaticLabels are added to every metric of the Program.
	StaticLabels map[string]string `json:"staticLabels,omitempty"`

	// Resolved is what Source names, where that is no file and nothing built in. Source is then only a name.
	Resolved *Resolved `json:"-"`
}

// Resolved is a Program that something else than a file describes, or why there is none.
type Resolved struct {
	// Name of the Program, also where there is none.
	Name string
	Spec *program.Spec
	Err  error
	// Selection tells for which workloads the Program is meant; nil: all. What is asked for, not what answers to it, is in the spec's digest.
	Selection Selection
}

// Selection tells for which workloads a Program is meant. Implementations are safe for concurrent use and block on nothing but a lock.
type Selection interface {
	Selects(workload.Workload) bool
	// Known tells whether what Selects says from now on is about a pod, and not for want of an answer about it.
	Known(workload.Workload) bool
	// Changed returns a channel that is closed when an answer may be another than now.
	Changed() <-chan struct{}
}

// selection returns nil if the Program is meant for all.
func (c *ProgramConfig) selection() Selection {
	if c.Resolved == nil {
		return nil
	}
	return c.Resolved.Selection
}

// isPath tells whether the Programs are in files.
func (c *ProgramConfig) isPath() bool { return c.Resolved == nil && isPath(c.Source) }

// UnmarshalJSON accepts a bare string as the source.
func (c *ProgramConfig) UnmarshalJSON(data []byte) error {
	return manifest.UnmarshalShort(data, &c.Source, (*programConfig)(c))
}

// programConfig is ProgramConfig without its UnmarshalJSON.
type programConfig ProgramConfig

// WebConfig configures the HTTP server.
type WebConfig struct {
	// ConfigFile is exporter-toolkit's web configuration: TLS and basic
	// authentication, relative to kaon.yaml.
	ConfigFile string `json:"configFile,omitempty"`
	// SystemdSocket takes the listeners from systemd's socket activation instead of Listen.
	SystemdSocket bool `json:"systemdSocket,omitempty"`
	// Profiling serves /debug/pprof.
	Profiling bool `json:"profiling,omitempty"`
}

// KubernetesConfig says how the agent finds the names of pods, and what else of them becomes labels.
type KubernetesConfig struct {
	// Enabled asks the API server for the pods of this node: with the pod's own credentials, or those of Kubeconfig.
	Enabled bool `json:"enabled,omitempty"`
	// NodeName is what Kubernetes calls this node. Default: NODE_NAME in the environment.
	NodeName string `json:"nodeName,omitempty"`
	// Kubeconfig is a file that says how to reach the API server, relative to kaon.yaml.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// Labels of pods that become labels of series, such as app.kubernetes.io/name, which becomes
	// label_app_kubernetes_io_name.
	Labels []string `json:"labels,omitempty"`
	// Owner adds the labels owner_kind and owner_name: the Deployment, StatefulSet, DaemonSet, Job ... of the pod.
	Owner bool `json:"owner,omitempty"`
	// Node adds the label node.
	Node bool `json:"node,omitempty"`
	// Programs runs the Program resources of the cluster that are meant for this node. Without programs in the configuration these are all
	// that runs. Default: true.
	Programs *bool `json:"programs,omitempty"`
	// Namespace of the agent, in which Program resources find ConfigMaps and Secrets. Default: POD_NAMESPACE in the environment, or the
	// pod's own.
	Namespace string `json:"namespace,omitempty"`
	// Allow names kinds of hooks, such as xdp, and helpers, such as send_signal, that objects of Program resources may use although they
	// can act.
	Allow []string `json:"allow,omitempty"`
	// ControllerToken is a file with a token of the agent's ServiceAccount for the audience kaon-controller. If it is there, the
	// agent reports to the controller. Default: /var/run/secrets/kaon.dev/controller/token.
	ControllerToken string `json:"controllerToken,omitempty"`
}

// TracesConfig says where spans go. Without an endpoint here or in the environment (OTEL_EXPORTER_OTLP_ENDPOINT,
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) they go nowhere.
type TracesConfig struct {
	// Endpoint is the URL of an OTLP/HTTP receiver, such as http://127.0.0.1:4318/v1/traces.
	Endpoint string `json:"endpoint,omitempty"`
	// Headers of each request.
	Headers map[string]string `json:"headers,omitempty"`
}

// exporter returns nil if spans go nowhere.
func (c *TracesConfig) exporter(log *slog.Logger) (*otlp.Exporter, error) {
	options, err := otlp.FromEnvironment(otlp.Options{Endpoint: c.Endpoint, Headers: c.Headers, Logger: log}, os.Getenv)
	if err != nil || options.Endpoint == "" {
		return nil, err
	}
	return otlp.NewExporter(options)
}

// Limits of the whole agent; those of one metric stand in the Program.
type Limits struct {
	// Series in one exposition. Programs that would exceed it are left out of the scrape, and counted.
	// Default: 500000.
	Series int `json:"series,omitempty"`
	// SeriesPerMetric replaces the default limit of 10000 for metrics that set none.
	SeriesPerMetric int `json:"seriesPerMetric,omitempty"`
	// ScrapeTimeout bounds a scrape whose client does not say how long it waits.
	// Default: 10s. Only read at start.
	ScrapeTimeout Duration `json:"scrapeTimeout,omitempty"`
	// MapBytes is the kernel memory that the maps of one Program may take when they are created, such as
	// 512Mi. Default: 1Gi, or half of the available memory if that is less. Only read at start.
	MapBytes Text `json:"mapBytes,omitempty"`
}

// mapBytes returns MapBytes as a number, 0 if it was left out.
func (l *Limits) mapBytes() (uint64, error) {
	if l.MapBytes == "" {
		return 0, nil
	}
	return program.ParseSize(string(l.MapBytes))
}

// Text is a scalar of any kind, kept as it was written.
type Text = manifest.Text

// Duration is a duration such as "10s".
type Duration = manifest.Duration

// ReadConfig reads and checks kaon.yaml.
func ReadConfig(path string) (*Config, error) {
	config := &Config{}
	if err := manifest.ReadFile(path, config); err != nil {
		if fieldOf(path, "apiVersion") {
			return nil, &program.Problem{Where: path, What: "this is a manifest, not the agent's configuration",
				Fix: fmt.Sprintf("run it with `kaon up %[1]s`, or name it in kaon.yaml: programs: [%[1]s]", path)}
		}
		return nil, err
	}
	var problems []error
	for i, p := range config.Programs {
		if p.Source == "" {
			problems = append(problems, &program.Problem{Where: fmt.Sprintf("%s: programs[%d].source", path, i),
				What: "it is empty", Fix: "name a built-in program (`kaon list`), an object or a manifest"})
		}
	}
	if config.Limits.Series < 0 || config.Limits.SeriesPerMetric < 0 || config.Limits.ScrapeTimeout < 0 {
		problems = append(problems, &program.Problem{Where: path + ": limits", What: "a limit is negative", Fix: "leave it out for the default"})
	}
	if n, err := config.Limits.mapBytes(); err != nil || n == 0 && config.Limits.MapBytes != "" {
		problems = append(problems, &program.Problem{Where: path + ": limits.mapBytes", What: fmt.Sprintf("%q is not a size", config.Limits.MapBytes),
			Fix: "write bytes such as 1073741824 or 1Gi, or leave it out for the default"})
	}
	if dir := config.PinDirectory; dir != "" && !filepath.IsAbs(dir) {
		problems = append(problems, &program.Problem{Where: path + ": pinDirectory", What: fmt.Sprintf("%q is not absolute", dir),
			Fix: "name a directory in a bpffs, such as /sys/fs/bpf/kaon"})
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	config.anchor(filepath.Dir(path))
	return config, nil
}

// fieldOf tells whether a YAML file has a field at its top: those who confuse configurations and manifests are told.
func fieldOf(path, field string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, field+":") {
			return true
		}
	}
	return false
}

// anchor makes the paths absolute that are relative to the configuration.
func (c *Config) anchor(dir string) {
	for i := range c.Programs {
		if source := c.Programs[i].Source; c.Programs[i].isPath() && !filepath.IsAbs(source) {
			c.Programs[i].Source = filepath.Join(dir, source)
		}
	}
	if file := c.Web.ConfigFile; file != "" && !filepath.IsAbs(file) {
		c.Web.ConfigFile = filepath.Join(dir, file)
	}
	if file := c.Kubernetes.Kubeconfig; file != "" && !filepath.IsAbs(file) {
		c.Kubernetes.Kubeconfig = filepath.Join(dir, file)
	}
}

// NeedsRestart names the fields in which next differs and that are only read at start.
func (c *Config) NeedsRestart(next *Config) []string {
	var fields []string
	for _, f := range []struct {
		name    string
		changed bool
	}{
		{"listen", !slices.Equal(c.Listen, next.Listen)},
		{"web", c.Web != next.Web},
		{"cgroupRoot", c.CgroupRoot != next.CgroupRoot},
		{"limits.scrapeTimeout", c.Limits.ScrapeTimeout != next.Limits.ScrapeTimeout},
		{"limits.mapBytes", c.Limits.MapBytes != next.Limits.MapBytes},
		{"traces", c.Traces.Endpoint != next.Traces.Endpoint || !maps.Equal(c.Traces.Headers, next.Traces.Headers)},
		{"kubernetes", !reflect.DeepEqual(c.Kubernetes, next.Kubernetes)},
		{"createdSeries", c.CreatedSeries != next.CreatedSeries},
		{"statistics", c.Statistics != next.Statistics},
		{"pinDirectory", c.PinDirectory != next.PinDirectory},
	} {
		if f.changed {
			fields = append(fields, f.name)
		}
	}
	return fields
}

func isPath(source string) bool {
	return strings.ContainsAny(source, "/.*?[")
}

// withDefaults fills what was left out.
func (c Config) withDefaults() Config {
	if len(c.Listen) == 0 {
		c.Listen = []string{DefaultListen}
	}
	if c.Limits.Series == 0 {
		c.Limits.Series = 500000
	}
	if c.Limits.ScrapeTimeout == 0 {
		c.Limits.ScrapeTimeout = Duration(10 * time.Second)
	}
	return c
}
