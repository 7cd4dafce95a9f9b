package agent

import (
	"context"
	"slices"
	"strings"

	"github.com/kaon-project/kaon/internal/engine"
	"github.com/kaon-project/kaon/internal/workload"
)

// selectedContainers are the containers of selected pods. They implement engine.ContainerSource.
type selectedContainers struct {
	agent     *Agent
	selection Selection
}

// containers returns where a Program's hooks of user space are attached; nil: on the host.
func (a *Agent) containers(config ProgramConfig) engine.ContainerSource {
	if s := config.selection(); s != nil {
		return &selectedContainers{a, s}
	}
	return nil
}

// FollowContainers implements engine.ContainerSource.
func (s *selectedContainers) FollowContainers(ctx context.Context, f func([]engine.Container)) {
	var before [][]string
	s.agent.workloads.Follow(ctx, s.selection.Changed, func(groups []workload.Cgroup) {
		containers := s.among(groups)
		now := make([][]string, 0, len(containers))
		for _, c := range containers {
			now = append(now, append([]string{c.ID}, c.Processes...))
		}
		if before != nil && slices.EqualFunc(before, now, slices.Equal) {
			return
		}
		before = now
		f(containers)
	})
}

// among returns the containers that the cgroups are of, in the order of their IDs.
func (s *selectedContainers) among(groups []workload.Cgroup) []engine.Container {
	var containers []engine.Container
	index := map[string]int{}
	for _, c := range groups {
		w := workload.Name(c.Path)
		if w.Container == "" || !s.agent.layout.Counts(c.ID) || !s.selection.Selects(w) {
			continue
		}
		file := s.agent.workloads.ProcessesOf(c)
		if file == "" {
			continue
		}
		id := w.PodUID + "/" + w.Container
		i, known := index[id]
		if !known {
			i = len(containers)
			index[id] = i
			// A pod's sandbox has nothing in it, and is recognised once another container has a name.
			containers = append(containers, engine.Container{ID: id, Matters: func() bool {
				named, _ := s.agent.workloads.Resolve(c.ID)
				return named.Container != w.Container && named.Container != workload.SandboxName
			}})
		}
		containers[i].Processes = append(containers[i].Processes, file)
	}
	for _, c := range containers {
		slices.Sort(c.Processes)
	}
	slices.SortFunc(containers, func(a, b engine.Container) int { return strings.Compare(a.ID, b.ID) })
	return containers
}
