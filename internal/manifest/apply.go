package manifest

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/program"
)

// applier changes a spec as a manifest says.
type applier struct {
	spec     *program.Spec
	where    func(field string) string
	decoders []string
	problems []error
	// changed says by which field a metric or hook was changed.
	changed map[string]string
}

func (a *applier) problem(field, what, fix string) {
	a.problems = append(a.problems, &program.Problem{Where: a.where(field), What: shorten(what), Fix: shorten(fix)})
}

// choice is the fix for a name that is not among candidates.
func choice(name string, candidates []string) string {
	if near := nearest(name, candidates); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	if len(candidates) == 0 {
		return "there are none"
	}
	list := slices.Sorted(slices.Values(candidates))
	if len(list) > 30 {
		list = append(list[:30], "...")
	}
	return "there are " + strings.Join(list, ", ")
}

func (a *applier) params(params map[string]v1alpha1.Text) {
	names := make([]string, 0, len(a.spec.Params))
	for _, p := range a.spec.Params {
		names = append(names, p.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		field := child("spec.params", name)
		if !slices.Contains(names, name) {
			a.problem(field, fmt.Sprintf("%s has no such param", a.spec.Name), choice(name, names))
			continue
		}
		if err := a.spec.SetParam(name, string(params[name])); err != nil {
			a.problem(field, err.Error(), "")
		}
	}
}

func (a *applier) pin(pin bool) {
	if !pin {
		return
	}
	for _, h := range a.spec.Hooks {
		switch h.Kind {
		case program.LSM, program.LSMCgroup, program.FmodRet:
			a.problem("spec.pin", fmt.Sprintf("the function %s (%s) can act, and what acts must not outlive the agent", h.Function, h.Kind), "remove pin")
			return
		}
	}
	a.spec.Pin = true
}

func (a *applier) hooks(hooks []v1alpha1.Hook) {
	for i := range hooks {
		h, field := &hooks[i], fmt.Sprintf("spec.hooks[%d]", i)
		index := slices.IndexFunc(a.spec.Hooks, func(s program.Hook) bool { return s.Function == h.Function })
		if first, twice := a.changed["hook "+h.Function]; twice {
			a.problem(field, fmt.Sprintf("the function %s is already changed by %s", h.Function, first), "merge the two")
			continue
		}
		if index < 0 {
			var names []string
			for _, s := range a.spec.Hooks {
				names = append(names, s.Function)
			}
			a.problem(field+".function", fmt.Sprintf("there is no function %q", h.Function), choice(h.Function, names))
			continue
		}
		a.changed["hook "+h.Function] = field
		a.hook(field, &a.spec.Hooks[index], h)
		if h.Enabled != nil && !*h.Enabled {
			a.removeHook(field+".enabled", index)
		}
	}
}

func (a *applier) hook(field string, hook *program.Hook, h *v1alpha1.Hook) {
	if h.Target != "" {
		if prog := a.spec.Collection.Programs[hook.Function]; prog != nil && prog.AttachTo != "" {
			// What is loaded for one target (fentry, tp_btf) must be loaded for the new one.
			prog.AttachTo = h.Target
		}
		hook.Target = h.Target
	}
	if h.Interfaces != nil {
		switch hook.Kind {
		case program.XDP, program.TCXIngress, program.TCXEgress, program.SocketFilter:
			a.patterns(field+".interfaces", h.Interfaces)
			hook.Interfaces = h.Interfaces
		default:
			a.problem(field+".interfaces", fmt.Sprintf("a %s hook does not attach to interfaces", hook.Kind), "remove it")
		}
	}
	if h.Cgroups != nil {
		switch hook.Kind {
		case program.Cgroup, program.SockOps, program.LSMCgroup:
			a.patterns(field+".cgroups", h.Cgroups)
			hook.Cgroups = h.Cgroups
		default:
			a.problem(field+".cgroups", fmt.Sprintf("a %s hook does not attach to cgroups", hook.Kind), "remove it")
		}
	}
	if h.PID != nil {
		switch hook.Kind {
		case program.Uprobe, program.Uretprobe, program.UprobeMulti, program.UretprobeMulti, program.USDT, program.PerfEvent:
			hook.PID = *h.PID
		default:
			a.problem(field+".pid", fmt.Sprintf("a %s hook can't be limited to one process", hook.Kind), "remove it")
		}
	}
	if h.Optional != nil {
		hook.Optional = *h.Optional
	}
}

func (a *applier) patterns(field string, patterns []string) {
	for i, p := range patterns {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			a.problem(fmt.Sprintf("%s[%d]", field, i), fmt.Sprintf("%q is not a name or pattern", p), "write eth0 or eth*")
		}
	}
}

// removeHook takes a function out of the spec, unless something needs it.
func (a *applier) removeHook(field string, index int) {
	function := a.spec.Hooks[index].Function
	for _, r := range a.spec.Readers {
		if r.Kind == program.IteratorReader && r.Function == function {
			a.problem(field, fmt.Sprintf("the metrics of %s are read by the function %s", r.Name, function), "disable the metrics instead")
			return
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.spec.Collection.Maps)) {
		m := a.spec.Collection.Maps[name]
		if slices.ContainsFunc(m.Contents, func(kv ebpf.MapKV) bool { return kv.Value == function }) {
			a.problem(field, fmt.Sprintf("the map %s calls the function %s", name, function), "leave it")
			return
		}
	}
	a.spec.Hooks = slices.Delete(a.spec.Hooks, index, index+1)
	delete(a.spec.Collection.Programs, function)
}
