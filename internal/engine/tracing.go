package engine

import (
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// prepareTracing aims a function at what the hook says, which a manifest may have changed.
func prepareTracing(_ *Engine, hook *program.Hook, function *ebpf.ProgramSpec) error {
	function.AttachTo = hook.Target
	return nil
}

// attachTracing attaches functions whose target is part of the loaded
// function: tp_btf, fentry, fexit and fmod_ret.
func attachTracing(r *attachRequest) (attachment, error) {
	return link.AttachTracing(link.TracingOptions{Program: r.program, AttachType: r.attachType})
}

func attachLSM(r *attachRequest) (attachment, error) {
	return link.AttachLSM(link.LSMOptions{Program: r.program})
}
