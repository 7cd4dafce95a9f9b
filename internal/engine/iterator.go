package engine

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// prepareIterator takes the map's name off the target: "bpf_map_elem:MAP".
func prepareIterator(_ *Engine, hook *program.Hook, function *ebpf.ProgramSpec) error {
	function.AttachTo, _, _ = strings.Cut(hook.Target, ":")
	return nil
}

func attachIterator(r *attachRequest) (attachment, error) {
	options := link.IterOptions{Program: r.program}
	kind, name, _ := strings.Cut(r.hook.Target, ":")
	switch {
	case name != "":
		lm := r.maps[name]
		if lm == nil {
			return nil, fmt.Errorf("%w: iter/%s: the Program has no map %s", ErrNoTarget, r.hook.Target, name)
		}
		options.Map = lm.m
	case kind == "bpf_map_elem" || kind == "bpf_sk_storage_map":
		return nil, fmt.Errorf("iter/%s must name the map whose elements it visits: iter/%s:MAP", kind, kind)
	}
	return link.AttachIter(options)
}
