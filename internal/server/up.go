package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/programs"
)

// UpOptions are those of the agent's command line. They win over the configuration file.
type UpOptions struct {
	ConfigFile string
	Programs   []string
	// Prefix of the metrics of ebpf_exporter's configurations where the configuration names none; nil: the default.
	Prefix           *string
	Listen           []string
	CgroupRoot       string
	Kubernetes       KubernetesOptions
	Profiling        bool
	DropCapabilities bool
	LogLevel         string
	LogFormat        string
	Version          string
	// Command is how kaon was called, for the banner's suggestions; empty: kaon.
	Command string
	// Out takes log and banner.
	Out io.Writer
}

// KubernetesOptions say how the agent takes part in a cluster. What is empty is as in the configuration file.
type KubernetesOptions struct {
	Enabled              bool
	NodeName, Kubeconfig string
	Namespace            string
	Allow                []string
}

// ErrStatic is returned for changes that an agent without capabilities can't make.
var ErrStatic = errors.New("the agent gave up its capabilities: restart it to change programs")

// Up runs the agent until the context ends.
func Up(ctx context.Context, options UpOptions) error {
	log, err := newLogger(options.Out, options.LogLevel, options.LogFormat)
	if err != nil {
		return err
	}
	config, err := options.config()
	if err != nil {
		return err
	}
	if !config.Web.Profiling {
		runtime.MemProfileRate = 0 // whose samples nobody could see take half a megabyte
	}
	listeners, err := listen(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = closeAll(listeners) }()
	// From now on: while the programs are being loaded, a SIGHUP must not end the agent.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	agentOptions := agent.Options{Logger: log, CgroupRoot: config.CgroupRoot, PinDirectory: config.PinDirectory, Statistics: config.Statistics,
		MapBytes: config.Limits.MapBytes, Traces: config.Traces, RemoveStalePins: true}
	names, err := podNames(config.Kubernetes, log)
	if err != nil {
		return err
	}
	if names != nil {
		agentOptions.Names = names
	}
	a, err := agent.New(agentOptions)
	if err != nil {
		return err
	}
	defer func() {
		if err := a.Close(); err != nil {
			log.Error("could not unload everything", "error", err)
		}
	}()
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() { a.Run(ctx) })
	if names != nil {
		wait.Go(func() { names.Run(ctx) })
	}
	resources, err := newResources(config.Kubernetes, names, options.Version, a, log)
	if err != nil {
		return err
	}
	apply := a.Apply
	if resources != nil {
		apply = resources.apply
		wait.Go(func() { resources.programs.Run(ctx) })
		resources.wait(ctx)
	}
	if err := apply(ctx, *config); err != nil {
		if ctx.Err() != nil {
			return nil // told to end while it started
		}
		return err
	}
	s := New(a, Options{
		Version: options.Version, Logger: log, CreatedSeries: config.CreatedSeries,
		Profiling: config.Web.Profiling, ScrapeTimeout: time.Duration(config.Limits.ScrapeTimeout),
	})
	if names != nil {
		waitForNames(ctx, names, log)
	}
	if options.DropCapabilities {
		if err := a.DropCapabilities(ctx); err != nil {
			return err
		}
		refuse(ctx, &wait, a, resources.changed(), options, config, hangups, log)
	} else {
		follow(ctx, &wait, a, apply, resources.changed(), options, config, hangups, log)
	}
	if resources.reports() {
		wait.Go(func() { resources.reporter.Run(ctx) })
	}
	banner(options.Out, a, address(listeners[0], config.Web.ConfigFile), options.Command)
	tellSystemd(log, daemon.SdNotifyReady)
	defer context.AfterFunc(ctx, func() { tellSystemd(log, daemon.SdNotifyStopping) })()
	return s.Serve(ctx, listeners, config.Web.ConfigFile)
}

// config reads the configuration and applies the command line to it.
func (o *UpOptions) config() (*agent.Config, error) {
	config := &agent.Config{}
	if o.ConfigFile != "" {
		var err error
		if config, err = agent.ReadConfig(o.ConfigFile); err != nil {
			return nil, err
		}
	}
	for _, source := range o.Programs {
		config.Programs = append(config.Programs, agent.ProgramConfig{Source: source})
	}
	for i := range config.Programs {
		if config.Programs[i].Prefix == nil {
			config.Programs[i].Prefix = o.Prefix
		}
	}
	if len(config.Programs) == 0 {
		config.Implied = true
		for _, name := range programs.Default() {
			config.Programs = append(config.Programs, agent.ProgramConfig{Source: name, Optional: true})
		}
	}
	if len(o.Listen) > 0 {
		config.Listen = o.Listen
	}
	if o.CgroupRoot != "" {
		config.CgroupRoot = o.CgroupRoot
	}
	config.Kubernetes.Enabled = config.Kubernetes.Enabled || o.Kubernetes.Enabled
	if o.Kubernetes.NodeName != "" {
		config.Kubernetes.NodeName = o.Kubernetes.NodeName
	}
	if o.Kubernetes.Kubeconfig != "" {
		config.Kubernetes.Kubeconfig = o.Kubernetes.Kubeconfig
	}
	if o.Kubernetes.Namespace != "" {
		config.Kubernetes.Namespace = o.Kubernetes.Namespace
	}
	config.Kubernetes.Allow = append(config.Kubernetes.Allow, o.Kubernetes.Allow...)
	config.Web.Profiling = config.Web.Profiling || o.Profiling
	return config, nil
}

// follow applies the configuration again whenever a file of it changes, or at SIGHUP.
func follow(ctx context.Context, wait *sync.WaitGroup, a *agent.Agent, apply func(context.Context, agent.Config) error, changes <-chan struct{},
	options UpOptions, config *agent.Config, hangups <-chan os.Signal, log *slog.Logger) {
	var mu sync.Mutex
	paths := func() []string {
		mu.Lock()
		defer mu.Unlock()
		all := append(config.Paths(), a.Files()...)
		if options.ConfigFile != "" {
			all = append(all, options.ConfigFile)
		}
		return all
	}
	reload := func() {
		next, err := options.config()
		if err != nil {
			log.Error("the configuration is broken: what runs goes on", "error", err)
			a.ReloadFailed()
			return
		}
		mu.Lock()
		if fields := config.NeedsRestart(next); len(fields) > 0 {
			log.Warn("changes that take effect once the agent is restarted", "fields", fields)
		}
		config = next
		mu.Unlock()
		if err := apply(ctx, *next); err != nil && ctx.Err() == nil {
			log.Error("could not apply the configuration", "error", err)
		}
	}
	watch(ctx, wait, paths, reload, hangups, changes, log)
}

// refuse answers all that follow would act upon with an error: nothing can be changed.
func refuse(ctx context.Context, wait *sync.WaitGroup, a *agent.Agent, changes <-chan struct{}, options UpOptions, config *agent.Config, hangups <-chan os.Signal, log *slog.Logger) {
	paths := append(config.Paths(), a.Files()...)
	if options.ConfigFile != "" {
		paths = append(paths, options.ConfigFile)
	}
	watch(ctx, wait, func() []string { return paths }, func() {
		log.Error("a change was not taken up", "error", ErrStatic)
		a.ReloadFailed()
	}, hangups, changes, log)
}

// watch calls reload, one call at a time, after a change of a file or of a resource, and at SIGHUP.
func watch(ctx context.Context, wait *sync.WaitGroup, paths func() []string, reload func(), hangups <-chan os.Signal, changes <-chan struct{}, log *slog.Logger) {
	var mu sync.Mutex
	locked := func() {
		mu.Lock()
		defer mu.Unlock()
		tellSystemd(log, reloading())
		reload()
		tellSystemd(log, daemon.SdNotifyReady)
	}
	wait.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				log.Info("reloading at SIGHUP")
				locked()
			case <-changes:
				locked()
			}
		}
	})
	wait.Go(func() {
		if err := agent.Watch(ctx, paths, locked, log); err != nil {
			log.Warn("files are not watched: send SIGHUP after a change", "error", err)
		}
	})
}

// tellSystemd sends a message of sd_notify(3), if somebody listens.
func tellSystemd(log *slog.Logger, message string) {
	if _, err := daemon.SdNotify(false, message); err != nil {
		log.Debug("could not tell systemd", "error", err)
	}
}

// reloading says that a reload begins, and when, as services of Type=notify-reload do.
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return daemon.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000)
}

// bannerWidth is how many columns the hooks of a Program may take before they go on in the next line.
const bannerWidth = 110

// banner says what runs, what does not and why, and where to look.
func banner(w io.Writer, a *agent.Agent, url, command string) {
	var b strings.Builder
	const indent = "          "
	status := a.Status()
	width := 0
	for _, s := range status {
		width = max(width, len(s.Name))
	}
	below := strings.Repeat(" ", len(indent)+width+2)
	for _, s := range status {
		name := fmt.Sprintf("%-9s %-*s", s.State, width, s.Name)
		var hooks []string // several functions may share a hook
		for _, h := range s.Hooks {
			if hook := hookLine(h); hook != "" && !slices.Contains(hooks, hook) {
				hooks = append(hooks, hook)
			}
		}
		if len(hooks) == 0 && s.Reason == "" {
			hooks = []string{"reads files"}
		}
		if len(hooks) == 0 {
			name = strings.TrimRight(name, " ")
		}
		b.WriteString(name)
		column := len(below)
		for i, hook := range hooks {
			switch {
			case i == 0:
				b.WriteString("  ")
			case column+len(hook) > bannerWidth:
				b.WriteString(",\n" + below)
				column = len(below)
			default:
				b.WriteString(", ")
			}
			b.WriteString(hook)
			column += len(hook) + 2
		}
		b.WriteString("\n")
		if s.Reason != "" {
			fmt.Fprintf(&b, "%s%s\n", below, strings.ReplaceAll(s.Reason, "\n", "\n"+below))
		}
	}
	if command == "" {
		command = "kaon"
	}
	fmt.Fprintf(&b, "\nlook:     %s/\n%s%s/metrics, for Prometheus\ntry next: ", url, indent, url)
	for i, suggestion := range [][2]string{
		{"run exec", "one program, live in the terminal"}, {"list", "everything there is"}, {"new hello", "a program of your own"},
	} {
		if i > 0 {
			b.WriteString(indent)
		}
		fmt.Fprintf(&b, "%s %-12s %s\n", command, suggestion[0], suggestion[1])
	}
	fmt.Fprint(w, b.String())
}

// hookLine tells what a function is attached to, or what it waits for; empty for all others.
func hookLine(h agent.HookStatus) string {
	line := string(h.Kind)
	if h.Kind == program.Cgroup {
		line = h.Target // it says cgroup itself
	} else if h.Target != "" {
		line += "/" + h.Target
	}
	switch {
	case h.Attached && len(h.Targets) > 0 && (h.Kind == program.XDP || h.Kind == program.TCXIngress || h.Kind == program.TCXEgress):
		return line + " on " + strings.Join(h.Targets, ", ")
	case h.Attached:
		return line
	case h.State == string(engine.Waiting):
		return line + " waits: " + h.Reason
	}
	return ""
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var options slog.HandlerOptions
	if level != "" {
		var l slog.Level
		if err := l.UnmarshalText([]byte(level)); err != nil {
			return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
		}
		options.Level = l
	}
	switch format {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, &options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &options)), nil
	}
	return nil, fmt.Errorf("--log-format %q: want text or json", format)
}
