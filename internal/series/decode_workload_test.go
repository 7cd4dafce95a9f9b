package series

import (
	"testing"

	"github.com/kaon-project/kaon/internal/workload"
)

// A workload whose name the resolver forgot before its keys were reaped keeps it, or its
// series would change its labels.
func TestForgottenWorkloadKeepsItsName(t *testing.T) {
	f := func(after workload.State) {
		t.Helper()
		resolver := newFakeResolver()
		resolver.set(1, "web", workload.Alive)
		w := newWorkloads(resolver, nil)
		w.get(1)
		resolver.names[1], resolver.state[1] = workload.Workload{}, after
		w.begin()
		if s := w.get(1); s.workload.Container != "web" || s.state != workload.Gone || s.renamed {
			t.Errorf("after state %d: %+v", after, s)
		}
	}
	f(workload.Gone)
	f(workload.Unresolved)
}
