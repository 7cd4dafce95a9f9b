package engine

import (
	"fmt"
	"os"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// netnsTargets returns the network namespace that a hook names by a path, by default this process's own.
func netnsTargets(_ *Engine, hook *program.Hook) ([]target, error) {
	path := hook.Target
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("%w: network namespace %s: %w", ErrNoTarget, path, err)
	}
	return []target{{Name: path, ID: st.Ino}}, nil
}

func attachSKLookup(r *attachRequest) (attachment, error) {
	ns, err := os.Open(r.target.Name)
	if err != nil {
		return nil, fmt.Errorf("%w: network namespace: %w", ErrNoTarget, err)
	}
	defer ns.Close()
	return link.AttachNetNs(int(ns.Fd()), r.program)
}
