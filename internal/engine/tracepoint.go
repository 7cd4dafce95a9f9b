package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

func prepareTracepoint(e *Engine, hook *program.Hook, _ *ebpf.ProgramSpec) error {
	// The library remembers where tracefs is: it must be there before it looks.
	dir, err := e.tracefs()
	if err != nil {
		return err
	}
	group, name, err := splitTracepoint(hook.Target)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "events", group, name)); errors.Is(err, os.ErrNotExist) {
		near := ""
		if entries, err := os.ReadDir(filepath.Join(dir, "events", group)); err == nil {
			names := make([]string, 0, len(entries))
			for _, entry := range entries {
				names = append(names, entry.Name())
			}
			near = suggest(name, names)
		} else if entries, err := os.ReadDir(filepath.Join(dir, "events")); err == nil {
			names := make([]string, 0, len(entries))
			for _, entry := range entries {
				names = append(names, entry.Name())
			}
			near = suggest(group, names)
		}
		return fmt.Errorf("%w: this kernel has no tracepoint %s/%s%s", ErrNoTarget, group, name, near)
	}
	return nil
}

func splitTracepoint(text string) (group, name string, err error) {
	group, name, ok := strings.Cut(text, "/")
	if !ok {
		group, name, ok = strings.Cut(text, ":")
	}
	if !ok || group == "" || name == "" || strings.ContainsAny(name, "/:") || strings.Contains(group, "..") || strings.Contains(name, "..") {
		return "", "", fmt.Errorf("tracepoint %q is not GROUP/NAME, for instance sched/sched_switch", text)
	}
	return group, name, nil
}

func attachTracepoint(r *attachRequest) (attachment, error) {
	group, name, err := splitTracepoint(r.hook.Target)
	if err != nil {
		return nil, err
	}
	return link.Tracepoint(group, name, r.program, nil)
}
