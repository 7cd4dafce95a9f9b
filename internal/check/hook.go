package check

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// trampolines are the hooks that lockdown and some hypervisors refuse.
var trampolines = []program.HookKind{program.Fentry, program.Fexit, program.FmodRet, program.LSM, program.LSMCgroup}

func (c *checker) hooks() {
	groups := map[string][]*program.Hook{}
	for i := range c.spec.Hooks {
		h := &c.spec.Hooks[i]
		if h.Group != "" {
			for _, other := range groups[h.Group] {
				if other.Rank == h.Rank && other.When == h.When && other.Unless == h.Unless {
					c.warn("function "+h.Function, fmt.Sprintf("%s has the same rank in group %s: which one is used is not defined", other.Function, h.Group), "give them different ranks")
				}
			}
			groups[h.Group] = append(groups[h.Group], h)
		}
	}
	for i := range c.spec.Hooks {
		h := &c.spec.Hooks[i]
		where := "function " + h.Function
		if c.spec.Collection != nil && c.spec.Collection.Programs[h.Function] == nil {
			c.error(where, "the object has no such function", "name one of its functions")
			continue
		}
		if h.Kind == program.Tracepoint {
			group, name, ok := strings.Cut(h.Target, "/")
			if !ok || group == "" || name == "" || strings.Contains(name, "/") {
				c.error(where, fmt.Sprintf("the tracepoint %q is not GROUP/NAME", h.Target), `write SEC("tracepoint/sched/sched_switch")`)
			}
		}
		alone := !slices.ContainsFunc(groups[h.Group], func(o *program.Hook) bool { return !slices.Contains(trampolines, o.Kind) })
		if slices.Contains(trampolines, h.Kind) && alone && !h.Optional {
			c.warn(where, fmt.Sprintf("%s is refused by kernels under lockdown and some hypervisors, and it has no alternative", h.Kind),
				"add a tp_btf, tracepoint or kprobe function to the same group (KAON_ALTERNATIVE), or make it KAON_OPTIONAL")
		}
		if c.options.Types != nil {
			c.target(where, h)
		}
	}
	for name := range groups {
		if len(groups[name]) == 1 {
			h := groups[name][0]
			c.warn("function "+h.Function, fmt.Sprintf("it is the only one of group %s", name), "add an alternative, or remove the tag; a misspelt group is a group of its own")
		}
	}
}

// target looks up what a hook attaches to in the kernel's types.
func (c *checker) target(where string, h *program.Hook) {
	prefix, kind := "", "function"
	switch h.Kind {
	case program.TracepointBTF, program.RawTracepoint:
		prefix, kind = "btf_trace_", "tracepoint"
	case program.Fentry, program.Fexit, program.FmodRet:
	case program.LSM, program.LSMCgroup:
		prefix, kind = "bpf_lsm_", "LSM hook"
	case program.Iterator:
		prefix, kind = "bpf_iter_", "iterator"
	default:
		return
	}
	name := prefix + h.Target
	types, err := c.options.Types.AnyTypesByName(name)
	if err == nil && slices.ContainsFunc(types, func(t btf.Type) bool { return isTarget(t, kind) }) {
		return
	}
	if err != nil && !errors.Is(err, btf.ErrNotFound) {
		c.error(where, fmt.Sprintf("the BTF can't be searched for %s: %v", name, err), "")
		return
	}
	fix := "attach to something else, or add an alternative"
	if near := program.Nearest(h.Target, c.targets(prefix, kind)); near != "" {
		fix = fmt.Sprintf("did you mean %s?", near)
	}
	what := fmt.Sprintf("that kernel has no %s %s", kind, h.Target)
	if h.Optional || h.Group != "" {
		c.warn(where, what, fix)
		return
	}
	c.error(where, what, fix)
}

func isTarget(t btf.Type, kind string) bool {
	if kind == "tracepoint" {
		_, ok := t.(*btf.Typedef)
		return ok
	}
	_, ok := t.(*btf.Func)
	return ok
}

// targets lists what there is of a kind. It walks all types: only for messages.
func (c *checker) targets(prefix, kind string) []string {
	var names []string
	for t, err := range c.options.Types.All() {
		if err != nil {
			return names
		}
		if name, ok := strings.CutPrefix(t.TypeName(), prefix); ok && name != "" && isTarget(t, kind) {
			names = append(names, name)
		}
	}
	return names
}
