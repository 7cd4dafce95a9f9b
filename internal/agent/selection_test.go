package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// choice selects pods by their UIDs.
type choice struct {
	mu   sync.Mutex
	uids []string
	// unlisted: there may be more.
	unlisted bool
	changed  chan struct{}
}

func chose(uids ...string) *choice { return &choice{uids: uids, changed: make(chan struct{})} }

func (c *choice) Selects(w workload.Workload) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.uids, w.PodUID)
}

func (c *choice) Known(w workload.Workload) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.unlisted || slices.Contains(c.uids, w.PodUID)
}

func (c *choice) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// set is what happens when pods' labels change.
func (c *choice) set(uids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.uids, c.changed = uids, make(chan struct{})
}

// podUID is that of the nth pod.
func podUID(n int) string { return fmt.Sprintf("00000000-0000-0000-0000-%012d", n) }

// newChild makes a cgroup in another.
func newChild(t *testing.T, parent, name string) string {
	t.Helper()
	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "remove "+dir, func() bool { err := os.Remove(dir); return err == nil || os.IsNotExist(err) })
	})
	return dir
}

func newPod(t *testing.T, root string, n int) string {
	t.Helper()
	pods := filepath.Join(root, "kubepods")
	if _, err := os.Stat(pods); err != nil {
		newChild(t, root, "kubepods")
	}
	return newChild(t, pods, "pod"+podUID(n))
}

func newContainer(t *testing.T, pod string, n int) string {
	t.Helper()
	return newChild(t, pod, fmt.Sprintf("%064x", n))
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("%s: it did not happen", what)
			return
		}
	}
}

// selectingProgram is a Program with a selection, as a resource would configure it.
func selectingProgram(t *testing.T, selection Selection, change func(*program.Spec)) ProgramConfig {
	t.Helper()
	spec, err := object.Load("testdata/calls.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(spec)
	}
	return ProgramConfig{Source: "programs.kaon.dev/calls", Params: number, Resolved: &Resolved{Name: spec.Name, Spec: spec, Selection: selection}}
}

func selectionOf(t *testing.T, a *Agent) SelectionStatus {
	t.Helper()
	s := a.Status()[0]
	if s.Selection == nil {
		t.Fatalf("no selection: %+v", s)
	}
	return *s.Selection
}

func expect(t *testing.T, a *Agent, want map[string]uint64) {
	t.Helper()
	if got := values(t, a, "test_calls_total"); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The kernel counts what happens in selected pods, from the first event of a new container on.
func TestSelectionInKernel(t *testing.T) {
	root := newCgroup(t)
	first, second, third := newPod(t, root, 1), newPod(t, root, 2), newPod(t, root, 3)
	inFirst, inSecond := newContainer(t, first, 1), newContainer(t, second, 2)
	a := newAgent(t, root)
	selected := chose(podUID(1))
	apply(t, a, selectingProgram(t, selected, nil))
	if got := selectionOf(t, a); got.Cgroups != 2 || got.LeftOut != 0 || !got.InKernel {
		t.Errorf("got %+v", got)
	}
	call(t, inFirst, "first", 3)
	call(t, inSecond, "second", 5)
	call(t, root, "outside", 7)
	expect(t, a, map[string]uint64{"first": 3})

	// Nobody waits for user space: what is below a pod is selected when it is made, as deep as it is.
	restarted := newContainer(t, first, 11)
	call(t, restarted, "restarted", 2)
	call(t, newChild(t, restarted, "container"), "inner", 4)
	call(t, newContainer(t, third, 3), "third", 1)
	expect(t, a, map[string]uint64{"first": 3, "restarted": 2, "inner": 4})
	eventually(t, "all are known", func() bool { return selectionOf(t, a).Cgroups == 4 })

	// Labels change.
	selected.set(podUID(1), podUID(2))
	eventually(t, "the second is selected", func() bool { return selectionOf(t, a).Cgroups == 6 })
	call(t, inSecond, "second", 5)
	selected.set(podUID(2))
	eventually(t, "the first is not selected", func() bool { return selectionOf(t, a).Cgroups == 2 })
	call(t, inFirst, "first", 3)
	call(t, newContainer(t, first, 12), "late", 3)
	expect(t, a, map[string]uint64{"first": 3, "restarted": 2, "inner": 4, "second": 5})

	// Another selector goes on with the counts.
	other := chose(podUID(2), podUID(3))
	apply(t, a, selectingProgram(t, other, func(s *program.Spec) { s.Origin.Digest[0]++ }))
	call(t, inSecond, "second", 1)
	expect(t, a, map[string]uint64{"first": 3, "restarted": 2, "inner": 4, "second": 6})
	if got := selectionOf(t, a); got.Cgroups != 4 {
		t.Errorf("got %+v", got)
	}

	// What is gone leaves room.
	if err := os.Remove(inSecond); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a container is gone", func() bool { return selectionOf(t, a).Cgroups == 3 })

	// Without a selector all count, and with one again less.
	everything := selectingProgram(t, nil, nil)
	apply(t, a, everything)
	call(t, root, "outside", 7)
	if a.Status()[0].Selection != nil || a.units[0].instance.Map(program.SelectedMap) != nil {
		t.Error("there is a selection without a selector")
	}
	apply(t, a, selectingProgram(t, other, nil))
	call(t, root, "outside", 7)
	call(t, third, "third", 2)
	expect(t, a, map[string]uint64{"first": 3, "restarted": 2, "inner": 4, "second": 6, "outside": 7, "third": 2})
}

// A selection that does not fit is told.
func TestSelectionIsFull(t *testing.T) {
	root := newCgroup(t)
	a := newAgent(t, root)
	newContainer(t, newPod(t, root, 1), 1)
	newContainer(t, newPod(t, root, 2), 2)
	selected := chose(podUID(1), podUID(2))
	small := selectingProgram(t, selected, func(s *program.Spec) { s.Collection.Maps[program.SelectedMap].MaxEntries = 3 })
	apply(t, a, small)
	if got := selectionOf(t, a); got.Cgroups != 3 || got.LeftOut != 1 {
		t.Errorf("got %+v", got)
	}
	if state, reason := stateOf(a, "calls"); state != Degraded || !strings.Contains(reason, "full with 3 cgroups: what happens in 1 more is not counted") {
		t.Errorf("%s: %s", state, reason)
	}
	if h := a.Health(); h[0].State != Degraded {
		t.Errorf("got %+v", h)
	}
	selected.set(podUID(2))
	eventually(t, "there is room", func() bool { state, _ := stateOf(a, "calls"); return state == Up })
	if got := selectionOf(t, a); got.Cgroups != 2 || got.LeftOut != 0 {
		t.Errorf("got %+v", got)
	}
}

// Until the API server told of the pods, a pinned Program goes on counting in what was selected when the agent before ended.
func TestSelectionOutlivesTheAgent(t *testing.T) {
	root := newCgroup(t)
	first, second := newPod(t, root, 1), newPod(t, root, 2)
	inFirst, inSecond := newContainer(t, first, 1), newContainer(t, second, 2)
	directory := filepath.Join("/sys/fs/bpf", filepath.Base(root))
	start := func() *Agent {
		t.Helper()
		a, err := New(Options{CgroupRoot: root, PinDirectory: directory, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := start()
	defer func() {
		apply(t, a) // which removes the pins
		if err := errors.Join(a.Close(), os.Remove(directory)); err != nil {
			t.Error(err)
		}
	}()
	pinned := func(selection Selection) ProgramConfig {
		config := selectingProgram(t, selection, nil)
		config.Pin = true
		return config
	}
	apply(t, a, pinned(chose(podUID(1), podUID(2))))
	call(t, inFirst, "before", 1)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}

	a = start()
	selected := chose()
	selected.unlisted = true
	apply(t, a, pinned(selected))
	if got := selectionOf(t, a); got.Cgroups != 4 {
		t.Errorf("nothing is known of the pods yet: %+v", got)
	}
	call(t, inFirst, "first", 3)
	call(t, inSecond, "second", 5)
	expect(t, a, map[string]uint64{"before": 1, "first": 3, "second": 5})
	// What the kernel selected meanwhile goes, too, if its pod turns out not to be selected.
	late := newContainer(t, second, 22)
	call(t, late, "late", 2)
	eventually(t, "the late one is known", func() bool {
		return slices.ContainsFunc(a.workloads.Existing(), func(c workload.Cgroup) bool { return strings.HasSuffix(c.Path, filepath.Base(late)) })
	})
	selected.mu.Lock()
	selected.unlisted = false
	selected.mu.Unlock()
	selected.set(podUID(1))
	eventually(t, "all are known", func() bool { return selectionOf(t, a).Cgroups == 2 })
	call(t, inFirst, "first", 3)
	call(t, inSecond, "second", 5)
	call(t, late, "late", 2)
	expect(t, a, map[string]uint64{"before": 1, "first": 6, "second": 5, "late": 2})
}

// freshMaps are those of an instance that took over nothing.
type freshMaps struct{ selected *ebpf.Map }

func (f freshMaps) Map(string) *ebpf.Map { return f.selected }
func (f freshMaps) KeptMap(string) bool  { return false }

// From the moment the next version's set is filled the kernel adds to it, until it is followed.
func TestFilledSetsInherit(t *testing.T) {
	root := newCgroup(t)
	pod := newPod(t, root, 1)
	a := newAgent(t, root)
	config := selectingProgram(t, chose(podUID(1)), nil)
	apply(t, a, config)
	selected, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 100})
	if err != nil {
		t.Fatal(err)
	}
	defer selected.Close()
	spec := a.units[0].spec
	count := func(want int) {
		t.Helper()
		n := 0
		var id, value uint64
		keys := selected.Iterate()
		for keys.Next(&id, &value) {
			n++
		}
		if err := keys.Err(); err != nil || n != want {
			t.Errorf("%d cgroups are selected, %v, want %d", n, err, want)
		}
	}
	filled, err := a.fillCgroups(spec, config.selection(), freshMaps{selected})
	if err != nil {
		t.Fatal(err)
	}
	count(1)
	followed := filled
	// What the kernel added is there although following begins before anybody was told of it.
	for n := 1; n <= 20; n++ {
		newContainer(t, pod, n)
		count(1 + n)
		if followed, err = a.followCgroups(spec, config.selection(), freshMaps{selected}, followed); err != nil {
			t.Fatal(err)
		}
		count(1 + n)
	}
	followed.close()
	newContainer(t, pod, 21)
	count(21)
}

// Where all slots are taken, the sets of a new version get that of the old one.
func TestSlotIsHandedOn(t *testing.T) {
	root := newCgroup(t)
	pod := newPod(t, root, 1)
	a := newAgent(t, root)
	selected := chose(podUID(1))
	apply(t, a, selectingProgram(t, selected, nil))
	other, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for {
		release, err := a.workloads.Inherit(other)
		if err != nil {
			break
		}
		defer func() {
			if err := release(); err != nil {
				t.Error(err)
			}
		}()
	}
	apply(t, a, selectingProgram(t, selected, func(s *program.Spec) { s.Origin.Digest[0]++ }))
	if release, err := a.workloads.Inherit(other); err == nil {
		t.Errorf("the slot is free, %v", release())
	}
	call(t, newContainer(t, pod, 1), "new", 3)
	expect(t, a, map[string]uint64{"new": 3})
}
