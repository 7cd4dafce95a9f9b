package series

import (
	"testing"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// A label that is zero is left out where the key says so. Nobody's workload is not an unresolved one.
func TestLabelsThatAreZero(t *testing.T) {
	omit := func(l program.Label) program.Label {
		l.OmitZero = true
		return l
	}
	f := newFixture(t, hashSpec(16, 8, 10), program.Metric{},
		omit(label("w", "workload", 0, 8)), omit(label("a", "port", 8, 4)), label("b", "port", 12, 4))
	f.resolver.set(7, "shop", workload.Alive)
	f.put(key32(0, 0, 0, 0), uint64(1))
	f.put(key32(7, 0, 80, 0), uint64(2))
	f.put(key32(8, 0, 80, 443), uint64(3))
	values(t, f.collect(), map[string]uint64{
		`b="0"`: 1, `container="shop",a="80",b="0"`: 2, `cgroup="unresolved:8",a="80",b="443"`: 3,
	})
	if s := f.collector.Stats()[0]; s.Unresolved != 1 {
		t.Errorf("stats %+v", s)
	}

	f = newFixture(t, hashSpec(8, 8, 10), program.Metric{}, label("w", "workload", 0, 8))
	f.put(key32(0, 0), uint64(1))
	values(t, f.collect(), map[string]uint64{`cgroup="unresolved:0"`: 1})
}
