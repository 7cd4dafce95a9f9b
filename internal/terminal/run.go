package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/kube"
	"github.com/kaon-project/kaon/internal/profile"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// RunOptions are those of `kaon run`.
type RunOptions struct {
	Programs []string
	// Prefix of the metrics of ebpf_exporter's configurations; nil: the default.
	Prefix *string
	// Set are params, NAME=VALUE or PROGRAM.NAME=VALUE.
	Set        []string
	Filter     []string
	Output     string // text, json, openmetrics, folded or pprof
	OutputFile string // instead of Out
	ByWorkload bool   // folded: stacks begin with the workload
	Once       bool
	For        time.Duration
	Interval   time.Duration // default 1 s
	CgroupRoot string
	// Kubeconfig and NodeName say where the names of pods come from; empty: whatever is found.
	Kubeconfig, NodeName string
	Verbose              bool
	Out                  io.Writer
	Err                  io.Writer
}

// ErrDown means that none of the Programs runs; the reasons were printed.
var ErrDown = errors.New("no program runs")

// Run loads Programs, shows what they tell, and unloads them.
func Run(ctx context.Context, options RunOptions) (err error) {
	filter, err := ParseFilter(options.Filter)
	if err != nil {
		return err
	}
	if !slices.Contains([]string{"text", "json", "openmetrics", "folded", "pprof"}, options.Output) {
		return fmt.Errorf("--output %q: want text, json, openmetrics, folded or pprof", options.Output)
	}
	if options.OutputFile != "" {
		options.Out = nil // no terminal
	}
	if err := options.checkStacks(); err != nil {
		return err
	}
	if options.Interval <= 0 {
		options.Interval = time.Second
	}
	config, err := options.config()
	if err != nil {
		return err
	}
	closeOutput, err := options.openOutput()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeOutput()) }()
	level := slog.LevelError + 1
	if options.Verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(options.Err, &slog.HandlerOptions{Level: level}))
	agentOptions := agent.Options{Logger: log, CgroupRoot: options.CgroupRoot}
	names, err := kube.FindNames(options.Kubeconfig, kube.PodsOptions{Node: options.NodeName, Logger: log})
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
			fmt.Fprintln(options.Err, "kaon: could not unload everything:", err)
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
	if err := a.Apply(ctx, *config); err != nil {
		return ended(ctx, err)
	}
	if err := options.waitForNames(ctx, names); err != nil {
		fmt.Fprintln(options.Err, "kaon: pods may have no names:", err)
	}
	if err := options.report(a); err != nil {
		return err
	}
	r := &runner{options: options, agent: a, filter: filter, view: View{Filter: filter}}
	if options.stacked() {
		return r.record(ctx)
	}
	return r.run(ctx)
}

// waitForNames waits a moment for the names of pods, so that the first series have them. In a pod
// without rights it is no news that the API server refuses: log files have names, too.
func (o *RunOptions) waitForNames(ctx context.Context, names *kube.Names) error {
	if names == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := names.WaitForAnswer(ctx); o.Kubeconfig != "" {
		return err
	}
	return nil
}

// ended makes an interruption by the user no error.
func ended(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// config turns arguments into the configuration of an agent.
func (o *RunOptions) config() (*agent.Config, error) {
	config := &agent.Config{}
	known := map[string][]string{} // params by program
	for _, source := range o.Programs {
		specs, err := agent.ResolveWithOptions(source, agent.ResolveOptions{Prefix: o.Prefix})
		if err != nil {
			return nil, err
		}
		var params []string
		for _, spec := range specs {
			for _, p := range spec.Params {
				params = append(params, p.Name)
			}
			known[spec.Name] = params
		}
		config.Programs = append(config.Programs, agent.ProgramConfig{Source: source, Prefix: o.Prefix, Params: map[string]agent.Text{}})
		for _, set := range o.Set {
			name, value, ok := strings.Cut(set, "=")
			if !ok {
				return nil, fmt.Errorf("--set %q: want NAME=VALUE", set)
			}
			target, bare, qualified := strings.Cut(name, ".")
			if qualified && !slices.ContainsFunc(specs, func(s *program.Spec) bool { return s.Name == target }) {
				continue
			}
			if qualified {
				name = bare
			} else if len(o.Programs) > 1 && !slices.Contains(params, name) {
				continue
			}
			config.Programs[len(config.Programs)-1].Params[name] = agent.Text(value)
		}
	}
	if o.stacked() {
		config.Programs[0].Params[profile.Param] = "true"
	}
	// Each --set must have found somebody; a single program reports its own unknown params.
	for _, set := range o.Set {
		name, _, _ := strings.Cut(set, "=")
		target, bare, qualified := strings.Cut(name, ".")
		found := len(o.Programs) == 1 && !qualified
		for program, params := range known {
			found = found || qualified && program == target && slices.Contains(params, bare) || !qualified && slices.Contains(params, name)
		}
		if !found {
			return nil, fmt.Errorf("--set %q: none of the programs has this param: `kaon describe PROGRAM` lists them", set)
		}
	}
	return config, nil
}

// report prints what does not run and why; it is an error if nothing does.
func (o *RunOptions) report(a *agent.Agent) error {
	running := 0
	for _, s := range a.Status() {
		if s.State != agent.Down {
			running++
		}
		if s.Reason != "" {
			fmt.Fprintf(o.Err, "kaon: %s is %s: %s\n", s.Name, s.State, strings.TrimPrefix(s.Reason, "program "+s.Name+": "))
		}
	}
	if running == 0 {
		return ErrDown
	}
	return nil
}

// runner shows series until the time is over.
type runner struct {
	options RunOptions
	agent   *agent.Agent
	filter  Filter
	view    View
	lines   Lines
}

func (r *runner) run(ctx context.Context) error {
	file, isFile := r.options.Out.(*os.File)
	interactive := isFile && term.IsTerminal(int(file.Fd())) && r.options.Output == "text"
	final := r.options.Once || r.options.For > 0
	var end <-chan time.Time
	switch {
	case r.options.For > 0:
		end = time.After(r.options.For)
	case r.options.Once || r.options.Output == "openmetrics":
		end, final = time.After(r.options.Interval), true
	}
	if interactive && !r.options.Once {
		fmt.Fprint(file, "\x1b[2J")
	}
	ticker := time.NewTicker(r.options.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			// Interrupted: what was counted is still worth showing, unless it is on the screen.
			if final && !interactive {
				return r.show(context.WithoutCancel(ctx), r.last)
			}
			return nil
		case <-end:
			return ended(ctx, r.show(ctx, r.last))
		case now := <-ticker.C:
			var err error
			switch {
			case interactive && !r.options.Once:
				err = r.redraw(ctx, file, now)
			case !final && r.options.Output == "json":
				err = r.show(ctx, func(f []*series.Family) error { return WriteJSON(r.options.Out, f, r.filter) })
			case !final:
				err = r.show(ctx, func(f []*series.Family) error { return r.lines.Update(r.options.Out, f, r.filter, now) })
			}
			if err != nil {
				return ended(ctx, err)
			}
		}
	}
}

func (r *runner) show(ctx context.Context, write func([]*series.Family) error) error {
	return r.gather(ctx, r.options.Err, write)
}

// gather reads all series; what could not be read is said to messages.
func (r *runner) gather(ctx context.Context, messages io.Writer, write func([]*series.Family) error) error {
	snapshot := r.agent.Gather(ctx, nil)
	defer snapshot.Release()
	if err := ctx.Err(); err != nil {
		return err // interrupted: what was read is not all there is
	}
	if snapshot.Err != nil {
		fmt.Fprintln(messages, "kaon:", snapshot.Err)
	}
	return write(snapshot.Families)
}

// last writes what there is at the end.
func (r *runner) last(families []*series.Family) error {
	switch r.options.Output {
	case "json":
		return WriteJSON(r.options.Out, families, r.filter)
	case "openmetrics":
		return r.writeOpenMetrics(families)
	}
	v := View{Filter: r.filter}
	return v.Update(r.options.Out, families, time.Now())
}

func (r *runner) writeOpenMetrics(families []*series.Family) error {
	groups, err := exposition.Group(r.filter.Families(families))
	if err != nil {
		return err
	}
	w := exposition.NewWriter(r.options.Out, exposition.Format{Syntax: exposition.OpenMetrics}, exposition.Options{})
	for _, group := range groups {
		if err := w.Write(group); err != nil {
			return err
		}
	}
	return w.Close()
}

func (r *runner) redraw(ctx context.Context, file *os.File, now time.Time) error {
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil {
		width, height = 100, 30
	}
	r.view.Width, r.view.Height, r.view.Color = width, max(height-3, 5), true
	var b strings.Builder
	fmt.Fprintf(&b, "kaon run %s   %s   Ctrl-C ends\n\n", strings.Join(r.options.Programs, " "), now.Format(time.TimeOnly))
	if err := r.gather(ctx, Plain(&b), func(f []*series.Family) error { return r.view.Update(&b, f, now) }); err != nil {
		return err
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if len(lines) > height-1 {
		lines = lines[:max(height-1, 1)]
	}
	// Without wrapping (?7l), a line that is too long for a narrow terminal does not push the others down.
	_, err = io.WriteString(file, "\x1b[?7l\x1b[H"+strings.Join(lines, "\x1b[K\n")+"\x1b[K\n\x1b[J\x1b[?7h")
	return err
}
