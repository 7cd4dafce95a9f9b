package ebpfexporter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/program"
)

// unattached are the kinds of functions that libbpf attaches to nothing by itself, as their section does not say to what.
var unattached = []program.HookKind{
	program.TCXIngress, program.TCXEgress, program.Cgroup, program.LSMCgroup, program.SockOps, program.SocketFilter,
	program.SKLookup, program.Netfilter, program.Syscall, program.Iterator,
}

// hooks leaves of the object's hooks what libbpf would attach.
func (b *builder) hooks() {
	programs := b.spec.Collection.Programs
	b.spec.Hooks = slices.DeleteFunc(b.spec.Hooks, func(h program.Hook) bool {
		// libbpf loads such functions only if somebody asks, which ebpf_exporter does not.
		if !strings.HasPrefix(programs[h.Function].SectionName, "?") {
			return false
		}
		b.doubt(b.functionPlace(h.Function), fmt.Sprintf("it is not loaded: its section is %q", programs[h.Function].SectionName), "remove the question mark to load it")
		delete(programs, h.Function)
		return true
	})
	for i := range b.spec.Hooks {
		h := &b.spec.Hooks[i]
		if !slices.Contains(unattached, h.Kind) && (h.Kind != program.XDP || len(h.Interfaces) > 0) {
			continue
		}
		fix := ""
		if h.Kind == program.XDP {
			fix = `write SEC("xdp/INTERFACE")`
		}
		b.doubt(b.functionPlace(h.Function), fmt.Sprintf("it is attached to nothing: its section %q does not say to what", programs[h.Function].SectionName), fix)
		*h = program.Hook{Function: h.Function, Kind: program.Unattached}
	}
	b.spec.Params = program.AimParams(b.spec.Hooks)
}

func (b *builder) functionPlace(name string) place {
	return place(b.spec.Origin.Files[0] + ": function " + name)
}
