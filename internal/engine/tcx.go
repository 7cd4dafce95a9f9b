package engine

import (
	"errors"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// prepareTCX declares the direction that the hook says, which a manifest may have changed.
func prepareTCX(_ *Engine, hook *program.Hook, function *ebpf.ProgramSpec) error {
	if function.AttachType == ebpf.AttachTCXIngress || function.AttachType == ebpf.AttachTCXEgress {
		function.AttachType = tcxDirection(hook.Kind)
	}
	return nil
}

func tcxDirection(kind program.HookKind) ebpf.AttachType {
	if kind == program.TCXEgress {
		return ebpf.AttachTCXEgress
	}
	return ebpf.AttachTCXIngress
}

// attachTCX attaches to traffic control: by a link where the kernel has tcx (6.6), else by a filter
// of the clsact queueing discipline.
func attachTCX(r *attachRequest) (attachment, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: int(r.target.ID), Program: r.program, Attach: tcxDirection(r.hook.Kind)})
	if errors.Is(err, link.ErrNotSupported) {
		return attachClsact(int(r.target.ID), r.hook.Function, r.program, r.hook.Kind == program.TCXEgress)
	}
	return l, err
}
