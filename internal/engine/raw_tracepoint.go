package engine

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/link"
)

func attachRawTracepoint(r *attachRequest) (attachment, error) {
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: r.hook.Target, Program: r.program})
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: this kernel has no raw tracepoint %s%s", ErrNoTarget, r.hook.Target, r.engine.suggestTracepoint(r.hook.Target))
	}
	return l, err
}
