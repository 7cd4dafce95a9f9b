package series

import (
	"errors"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

func (r *fakeResolver) name(id workload.ID, w workload.Workload, state workload.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names[id], r.state[id] = w, state
}

// extraResolver tells more of a workload than its name.
type extraResolver struct{ *fakeResolver }

func (extraResolver) ExtraLabels() []string { return []string{"node", "label_a"} }

// What is in a pod whose names are not known yet is shown once they are, with all that it counted; sums
// without the names have it at once. It is not removed before, even if it is gone.
func TestPendingWorkload(t *testing.T) {
	for _, state := range []workload.State{workload.Alive, workload.Gone} {
		key := workloadKey()
		ms := hashSpec(12, 8, 100)
		spec := oneMap(ms, program.Metric{}, key...)
		sum := spec.Readers[0].Metrics[0]
		sum.Name, sum.Labels = "sum_total", key[1:]
		spec.Readers[0].Metrics = append(spec.Readers[0].Metrics, sum)
		f := newFixtureOf(t, newMap(t, ms), spec)
		pending := workload.Workload{Container: "0123", PodUID: "u", Pending: true}
		f.resolver.name(1, pending, state)
		f.put(wkey(1, 7), uint64(10))
		for range 3 {
			got := f.collectAll()
			values(t, got[0], nil)
			values(t, got[1], map[string]uint64{`op="7"`: 10})
			if s := f.collector.Stats()[0]; s.Unresolved != 1 {
				t.Errorf("unresolved: %d", s.Unresolved)
			}
		}
		f.put(wkey(1, 7), uint64(12))
		f.resolver.name(1, workload.Workload{Namespace: "shop", Pod: "web", Container: "app", PodUID: "u"}, state)
		got := f.collectAll()
		values(t, got[0], map[string]uint64{`namespace="shop",pod="web",container="app",op="7"`: 12})
		values(t, got[1], map[string]uint64{`op="7"`: 12})
		f.collectAll()
		if want := map[workload.State]int{workload.Alive: 1, workload.Gone: 0}[state]; f.entries() != want {
			t.Errorf("state %d: %d entries, want %d", state, f.entries(), want)
		}
	}
}

// What was shown already stays while better names are waited for, and takes value and start along.
func TestPendingAfterUnresolved(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	f.put(wkey(1, 7), uint64(10))
	first := f.collect()
	values(t, first, map[string]uint64{`cgroup="unresolved:1",op="7"`: 10})
	f.resolver.name(1, workload.Workload{Container: "0123", Pending: true}, workload.Alive)
	values(t, f.collect(), map[string]uint64{`container="0123",op="7"`: 10})
	f.resolver.name(1, workload.Workload{Namespace: "shop", Pod: "web", Container: "app"}, workload.Alive)
	f.put(wkey(1, 7), uint64(11))
	last := f.collect()
	values(t, last, map[string]uint64{`namespace="shop",pod="web",container="app",op="7"`: 11})
	for _, a := range first {
		for _, b := range last {
			if a.start != b.start {
				t.Errorf("start %d became %d", a.start, b.start)
			}
		}
	}
}

// Two instances of a container are one series that goes on.
func TestRestartedContainer(t *testing.T) {
	f := newFixture(t, hashSpec(12, 8, 100), program.Metric{}, workloadKey()...)
	app := workload.Workload{Namespace: "shop", Pod: "web", Container: "app"}
	series := `namespace="shop",pod="web",container="app",op="7"`
	f.resolver.name(1, app, workload.Alive)
	f.put(wkey(1, 7), uint64(10))
	values(t, f.collect(), map[string]uint64{series: 10})
	f.resolver.name(1, app, workload.Gone)
	f.resolver.name(2, app, workload.Alive)
	f.put(wkey(2, 7), uint64(1))
	values(t, f.collect(), map[string]uint64{series: 11})
	values(t, f.collect(), map[string]uint64{series: 11})
	f.put(wkey(2, 7), uint64(5))
	values(t, f.collect(), map[string]uint64{series: 15})
	if f.entries() != 1 {
		t.Error("the key of the first is still there")
	}
}

func TestExtraLabels(t *testing.T) {
	ms := hashSpec(16, 8, 100)
	spec := oneMap(ms, program.Metric{}, label("client", "workload", 0, 8), label("server", "workload", 8, 8))
	resolver := newFakeResolver()
	source := &fakeSource{maps: map[string]*ebpf.Map{"m": newMap(t, ms)}}
	options := Options{Resolver: extraResolver{resolver}, Started: started, Clock: func() time.Time { return started.Add(time.Minute) }}
	c, err := NewCollector(spec, source, options)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, m: source.maps["m"], collector: c}
	extra := workload.Extra("").Append("node", "n1").Append("label_a", `"b"`)
	resolver.name(1, workload.Workload{Namespace: "shop", Pod: "web", Extra: extra}, workload.Alive)
	resolver.name(2, workload.Workload{Unit: "ssh.service"}, workload.Alive)
	f.put(key32(1, 0, 2, 0), uint64(5))
	f.put(key32(2, 0, 1, 0), uint64(6))
	values(t, f.collect(), map[string]uint64{
		`namespace="shop",pod="web",node="n1",label_a="\"b\"",server_unit="ssh.service"`:                      5,
		`unit="ssh.service",server_namespace="shop",server_pod="web",server_node="n1",server_label_a="\"b\""`: 6,
	})
	for _, name := range []string{"node", "server_label_a"} {
		spec.Readers[0].Metrics[0].StaticLabels = []program.StaticLabel{{Name: name, Value: "x"}}
		if _, err := NewCollector(spec, source, options); !errors.Is(err, ErrMetric) {
			t.Errorf("a second label %s: %v", name, err)
		}
	}
}
