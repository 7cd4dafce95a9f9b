// Package kernelview shows the lab as the kernel sees it: Kaon's own programs, limited to the process of the lab and what it
// injects. Nothing in the lab is instrumented for it.
package kernelview

import (
	"context"
	_ "embed" // for the object
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/cgroup"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/internal/workload"
	"github.com/kaon-project/kaon/programs"
)

//go:embed bpf/lab.bpf.o
var labObject []byte

// labProgram is the name of the Program that counts kicks. The others are of the library.
const labProgram = "lab"

// library lists the Programs of the library that look at the lab, with their params.
func library() []libraryProgram {
	return []libraryProgram{
		{name: "exec"},
		{name: "exit"},
		{name: "oncpu"},
		{name: "memory"},
		{name: "syscalls"},
		// Requests come from this machine.
		{name: "netbytes", params: map[string]string{"loopback": "true"}},
	}
}

type libraryProgram struct {
	name   string
	params map[string]string
}

// Options of a View. The zero value is useful.
type Options struct {
	// Logger; nil discards.
	Logger *slog.Logger
}

// Status tells what the kernel is asked.
type Status struct {
	// Available: at least one Program runs.
	Available bool `json:"available"`
	// Loading: it is not known yet.
	Loading bool `json:"loading"`
	// Reason says why nothing is available, or why only the kicks are; empty if all is well or single Programs say why.
	Reason string `json:"reason,omitempty"`
	// Cgroup is the directory of the cgroup that holds the lab alone; empty without one.
	Cgroup   string          `json:"cgroup,omitempty"`
	Programs []ProgramStatus `json:"programs"`
}

// ProgramStatus tells how one Program is.
type ProgramStatus struct {
	Name string `json:"name"`
	Help string `json:"help"`
	// Up: it counts. Reason says why it does not, or what of it is missing.
	Up     bool   `json:"up"`
	Reason string `json:"reason,omitempty"`
	// Missed are the runs that the kernel left out: events that were not counted.
	Missed uint64 `json:"missed"`
}

// View is what the kernel says of this process. Its methods are safe for concurrent use.
type View struct {
	log    *slog.Logger
	tree   *cgroup.Tree // nil without a cgroup of its own
	names  *names       // nil unless Programs can be limited to tree
	host   *series.Host
	engine *engine.Engine // nil if there is none
	cancel context.CancelFunc
	loaded chan struct{}
	// reason is Status.Reason, as far as it is not the Programs'.
	reason string

	// mu guards what follows, and keeps Programs loaded while they are read.
	mu       sync.RWMutex
	units    []*unit
	finished bool
}

// Start begins to look at this process, and never fails: Status says what could not be had. When it returns the process is in
// a cgroup of its own, so that sockets which are opened afterwards belong to it, and kicks are counted; the other
// Programs are loaded in the background (Loaded). There can be one View at a time. Close undoes it.
func Start(ctx context.Context, options Options) *View {
	v := &View{log: options.Logger, host: series.NewHost(), loaded: make(chan struct{})}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	ctx, v.cancel = context.WithCancel(ctx)
	tree, err := cgroup.Enter()
	if err != nil {
		v.limitedTo(err)
	}
	v.tree = tree
	if v.engine, err = v.newEngine(); err != nil {
		v.reason = err.Error()
		v.finished = true
		close(v.loaded)
		return v
	}
	// First, so that no kick is missed.
	v.add(v.open(ctx, v.kicks()))
	go func() {
		defer close(v.loaded)
		if v.names != nil {
			for _, p := range library() {
				if ctx.Err() != nil {
					break // it is closed already
				}
				v.add(v.open(ctx, fromLibrary(p)))
			}
		}
		v.engine.ForgetTypes()
		v.mu.Lock()
		defer v.mu.Unlock()
		v.finished = true
	}()
	return v
}

// limitedTo notes that all but kicks would be the whole machine's.
func (v *View) limitedTo(err error) {
	v.reason = fmt.Sprintf("only kicks are counted, as nothing else can be limited to the lab: %v", err)
	v.log.Info("the kernel's view is limited to kicks", "reason", err)
}

// Loaded is closed when it is known which Programs run.
func (v *View) Loaded() <-chan struct{} { return v.loaded }

// newEngine returns what loads Programs, limited to the tree if there is one.
func (v *View) newEngine() (*engine.Engine, error) {
	types := btf.NewCache()
	options := engine.Options{Logger: v.log, Types: types}
	if v.tree != nil {
		kernel, err := types.Kernel()
		if err != nil {
			v.log.Info("this kernel has no BTF", "error", err) // Programs that need it say so
		}
		layout, err := workload.DetectWithOptions(workload.DetectOptions{CgroupRoot: v.tree.Dir(), Types: kernel})
		if err != nil {
			v.limitedTo(err)
		} else {
			v.names = &names{tree: v.tree, path: layout.Scope.Path, byID: map[workload.ID]string{}}
			options.CgroupMount, options.CgroupRoot = layout.V2.Mount, v.tree.Dir()
			options.Constants = engine.Constants{
				CgroupMode: uint32(layout.Mode), CgroupSubsys: layout.Subsystem,
				ScopeID: uint64(layout.Scope.ID), ScopeLevel: layout.Scope.Level,
			}
		}
	}
	return engine.New(options)
}

// unit is one Program.
type unit struct {
	name, help string
	// instance and collector are nil if it is down.
	instance  *engine.Instance
	collector *series.Collector
	err       error
}

// source makes the spec of a Program.
type source struct {
	name string
	spec func() (*program.Spec, error)
}

// kicks is the Program that counts kicks, of this process alone.
func (v *View) kicks() source {
	return source{labProgram, func() (*program.Spec, error) {
		spec, err := object.Parse(labObject, "builtin:"+labProgram)
		if err != nil {
			return nil, err
		}
		offset, err := fileOffset(lab.KickEntry())
		if err != nil {
			return nil, err
		}
		for i := range spec.Hooks {
			if spec.Hooks[i].Kind == program.Uprobe {
				spec.Hooks[i].Target = fmt.Sprintf("%s:%#x", executable, offset)
				spec.Hooks[i].PID = os.Getpid()
			}
		}
		return spec, errors.Join(
			spec.SetParam("page_size", strconv.Itoa(os.Getpagesize())),
			spec.SetParam("memory", strconv.FormatBool(v.names != nil)),
		)
	}}
}

func fromLibrary(p libraryProgram) source {
	return source{p.name, func() (*program.Spec, error) {
		spec, err := programs.Load(p.name)
		if err != nil {
			return nil, err
		}
		for name, value := range p.params {
			if err := spec.SetParam(name, value); err != nil {
				return nil, err
			}
		}
		return spec, nil
	}}
}

// open loads a Program. A failure is the unit's own.
func (v *View) open(ctx context.Context, s source) *unit {
	u := &unit{name: s.name}
	spec, err := s.spec()
	if err != nil {
		u.err = err
		return u
	}
	u.help = spec.Help
	if u.instance, u.err = v.engine.Load(ctx, spec); u.err != nil {
		u.instance = nil
		return u
	}
	options := series.Options{Host: v.host, Logger: v.log.With("program", s.name), Started: u.instance.Started()}
	if v.names != nil { // a nil *names would be no nil Resolver
		options.Resolver, options.Cgroups = v.names, v.names
	}
	if u.collector, u.err = series.NewCollector(spec, u.instance, options); u.err != nil {
		u.err = errors.Join(u.err, u.instance.Close())
		u.instance, u.collector = nil, nil
	}
	return u
}

func (v *View) add(u *unit) {
	if u.err != nil {
		v.log.Info("a program of the kernel's view is down", "program", u.name, "error", u.err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.units = append(v.units, u)
}

// Status tells what the kernel is asked, and why not more.
func (v *View) Status() Status {
	v.mu.RLock()
	defer v.mu.RUnlock()
	s := Status{Loading: !v.finished, Reason: v.reason, Programs: []ProgramStatus{}}
	if v.tree != nil {
		s.Cgroup = v.tree.Dir()
	}
	var reasons []string
	for _, u := range v.units {
		p := u.status()
		s.Available = s.Available || p.Up
		if !p.Up && !slices.Contains(reasons, p.Reason) {
			reasons = append(reasons, p.Reason)
		}
		s.Programs = append(s.Programs, p)
	}
	if !s.Available && !s.Loading && len(reasons) > 0 {
		s.Reason = reasons[0] // mostly all have the same one
	}
	return s
}

func (u *unit) status() ProgramStatus {
	p := ProgramStatus{Name: u.name, Help: u.help, Up: u.instance != nil}
	err := u.err
	if u.instance != nil {
		err = u.instance.Degraded()
		stats, statsErr := u.instance.Stats()
		if statsErr != nil {
			err = errors.Join(err, statsErr)
		}
		for _, function := range stats {
			p.Missed += function.Missed
		}
	}
	if err != nil {
		p.Reason = strings.TrimPrefix(err.Error(), "program "+u.name+": ")
	}
	return p
}

// Families reads all Programs. The families are the caller's. A Program that can't be read is missing, and the
// error says why.
func (v *View) Families(ctx context.Context) ([]*series.Family, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	var all []*series.Family
	var errs []error
	for _, u := range v.units {
		if u.collector == nil {
			continue
		}
		snapshot, err := u.collector.Collect(ctx, nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("program %s: %w", u.name, err))
			continue
		}
		for _, err := range snapshot.Errors {
			errs = append(errs, fmt.Errorf("program %s: %w", u.name, err))
		}
		for i := range snapshot.Families {
			all = append(all, clone(&snapshot.Families[i]))
		}
		snapshot.Release()
	}
	slices.SortFunc(all, func(a, b *series.Family) int { return strings.Compare(a.Metric.Name, b.Metric.Name) })
	return all, errors.Join(errs...)
}

// clone copies what a collector will use again.
func clone(f *series.Family) *series.Family {
	c := &series.Family{
		Metric: f.Metric, Stride: f.Stride, Values: slices.Clone(f.Values),
		Points: slices.Clone(f.Points), Exemplars: slices.Clone(f.Exemplars),
	}
	for i := range c.Points {
		c.Points[i].Labels = strings.Clone(c.Points[i].Labels)
	}
	for i := range c.Exemplars {
		c.Exemplars[i].Labels = strings.Clone(c.Exemplars[i].Labels)
	}
	return c
}

// Close unloads the Programs and moves the process back to where it was. What is still injected must have been stopped.
func (v *View) Close() error {
	v.cancel()
	<-v.loaded
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, u := range v.units {
		if u.instance != nil {
			u.collector.Close()
			errs = append(errs, u.instance.Close())
		}
	}
	v.units = nil
	if v.engine != nil {
		errs = append(errs, v.engine.Close())
		v.engine = nil
	}
	if v.tree != nil {
		errs = append(errs, v.tree.Close())
		v.tree = nil
	}
	return errors.Join(errs...)
}
