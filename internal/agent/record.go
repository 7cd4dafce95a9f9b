package agent

import (
	"context"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/profile"
)

// Record samples the stacks of a Program that runs with profile.Param set, until the context ends.
// Meanwhile the Program can't be replaced.
func (a *Agent) Record(ctx context.Context, program string) (*profile.Profile, error) {
	for _, u := range a.all() {
		if u.name != program {
			continue
		}
		u.use.RLock()
		defer u.use.RUnlock()
		if u.instance == nil {
			return nil, fmt.Errorf("program %s is down: %w", program, u.err)
		}
		instance := u.instance
		return profile.Record(ctx, profile.Options{
			Map:       func(name string) *ebpf.Map { return instance.Map(name) },
			Lost:      func() (uint64, error) { return lostSamples(instance) },
			Workloads: a.workloads, Symbol: a.host.Symbol,
		})
	}
	return nil, fmt.Errorf("there is no program %s", program)
}

// lostSamples is how often the Program found no room in a map.
func lostSamples(instance *engine.Instance) (uint64, error) {
	lost, err := instance.Lost()
	return lost["kaon_lost"], err
}
