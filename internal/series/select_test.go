package series

import (
	"testing"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// pick names a container that is selected or not.
func (r *fakeResolver) pick(id workload.ID, container string, selected bool, state workload.State) {
	r.set(id, container, state)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[id] = workload.Workload{Container: container, Unselected: !selected}
}

func TestSelection(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	f.resolver.pick(1, "mine", true, workload.Alive)
	f.resolver.pick(2, "others", false, workload.Alive)
	f.resolver.pick(3, "", false, workload.Unresolved)
	for id := range uint64(3) {
		f.put(wkey(id+1, 1), 10*(id+1))
	}
	values(t, f.collect(), map[string]uint64{`container="mine",op="1"`: 10})
	// Labels may be given later; what they were taken from stays.
	f.resolver.pick(3, "late", true, workload.Alive)
	f.resolver.pick(1, "mine", false, workload.Alive)
	values(t, f.collect(), map[string]uint64{`container="mine",op="1"`: 10, `container="late",op="1"`: 30})
}

// Keys of workloads that were never shown don't fill the map either.
func TestUnselectedAreReaped(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	f.resolver.pick(1, "mine", true, workload.Alive)
	f.resolver.pick(2, "others", false, workload.Alive)
	f.put(wkey(1, 1), uint64(1))
	f.put(wkey(2, 1), uint64(2))
	values(t, f.collect(), map[string]uint64{`container="mine",op="1"`: 1})
	f.resolver.pick(1, "mine", true, workload.Gone)
	f.resolver.pick(2, "others", false, workload.Gone)
	values(t, f.collect(), map[string]uint64{`container="mine",op="1"`: 1})
	f.collect()
	if n := f.entries(); n != 0 {
		t.Errorf("%d keys are left", n)
	}
}

// A sum over workloads has the selected ones, and does not go back when one goes.
func TestSelectionOfSums(t *testing.T) {
	key := workloadKey()
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{Labels: key[1:]}, key...)
	f.resolver.pick(1, "mine", true, workload.Alive)
	f.resolver.pick(2, "others", false, workload.Alive)
	f.resolver.pick(3, "mine too", true, workload.Alive)
	for id := range uint64(3) {
		f.put(wkey(id+1, 1), 10*(id+1))
	}
	values(t, f.collect(), map[string]uint64{`op="1"`: 40})
	f.resolver.pick(3, "mine too", false, workload.Gone) // its labels are forgotten
	for range 3 {
		values(t, f.collect(), map[string]uint64{`op="1"`: 40})
	}
}
