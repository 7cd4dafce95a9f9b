package engine

import (
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/program"
)

// interfaceTargets returns the network interfaces that a hook names: by default
// every one that is up, loopback excepted.
func interfaceTargets(e *Engine, hook *program.Hook) ([]target, error) {
	interfaces, err := e.options.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	for _, p := range hook.Interfaces {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("interface pattern %q: %w", p, err)
		}
	}
	var targets []target
	var names []string
	found := make(map[string]bool)
	for _, n := range interfaces {
		names = append(names, n.Name)
		match := len(hook.Interfaces) == 0 && n.Flags&net.FlagUp != 0 && n.Flags&net.FlagLoopback == 0
		for _, p := range hook.Interfaces {
			if ok, _ := path.Match(p, n.Name); ok || p == n.Name {
				match = true
				found[p] = true
			}
		}
		if match {
			targets = append(targets, target{Name: n.Name, ID: uint64(n.Index)})
		}
	}
	slices.Sort(names)
	var missing []string
	for _, p := range hook.Interfaces {
		if !isPattern(p) && !found[p] {
			missing = append(missing, p)
		}
	}
	switch {
	case len(missing) > 0:
		return targets, fmt.Errorf("%w: there is no network interface %s; there are %s", ErrNoTarget, strings.Join(missing, ", "), strings.Join(names, ", "))
	case len(targets) > 0:
		return targets, nil
	case len(hook.Interfaces) == 0:
		return nil, fmt.Errorf("%w: no network interface is up, except loopback", errNothingYet)
	}
	return nil, fmt.Errorf("%w: no network interface matches %s; there are %s", errNothingYet, strings.Join(hook.Interfaces, ", "), strings.Join(names, ", "))
}
