package workload

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeNames knows the pods and containers that a test tells it.
type fakeNames struct {
	mu         sync.Mutex
	pods       map[string]PodIdentity
	containers map[string]string
	refused    bool
}

func newFakeNames() *fakeNames {
	return &fakeNames{pods: map[string]PodIdentity{}, containers: map[string]string{}}
}

func (f *fakeNames) pod(uid, namespace, name string, extra Extra) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pods[uid] = PodIdentity{Namespace: namespace, Pod: name, Extra: extra}
}

func (f *fakeNames) container(id, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.containers[id] = name
}

func (f *fakeNames) forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.pods)
	clear(f.containers)
}

func (f *fakeNames) Identify(uid, containerID string) PodIdentity {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.pods[uid]
	if ok {
		p.Container = f.containers[containerID]
	}
	return p
}

func (f *fakeNames) ExtraLabels() []string { return []string{"node"} }
func (f *fakeNames) Stats() []PodStats     { return []PodStats{{Source: "fake", Refused: f.refused}} }

// Every way in which kubelets and runtimes name the cgroup of a container, in each class of service.
func TestPodPaths(t *testing.T) {
	for _, class := range []string{"", "burstable", "besteffort"} {
		for _, id := range []string{uid, staticUID} {
			dashed := strings.ReplaceAll(id, "-", "_")
			slice, directory := "/kubepods.slice/", "/kubepods/"
			if class != "" {
				slice += "kubepods-" + class + ".slice/kubepods-" + class + "-pod" + dashed + ".slice"
				directory += class + "/pod" + id
			} else {
				slice += "kubepods-pod" + dashed + ".slice"
				directory += "pod" + id
			}
			f := func(path, container, runtime string) {
				t.Helper()
				got := Name(path)
				if got.PodUID != id || got.Container != container || got.Runtime != runtime {
					t.Errorf("%s: %+v", path, got)
				}
			}
			for prefix, runtime := range map[string]string{"cri-containerd-": "containerd", "crio-": "cri-o", "docker-": "docker"} {
				f(slice+"/"+prefix+idA+".scope", idA, runtime)
				f(slice+"/"+prefix+idA+".scope/container", idA, runtime) // crun
				f(slice+"/"+prefix+idA+".scope/init.scope", idA, runtime)
				f("/docker/"+idB+slice+"/"+prefix+idA+".scope", idA, runtime) // a node in a container
			}
			f(directory+"/"+idA, idA, "")
			f(directory+"/"+idA+"/child", idA, "")
			f(directory+"/crio-"+idA, idA, "cri-o")
			f("/kubelet.slice/kubelet"+directory+"/"+idA, idA, "")
			f("/system.slice/containerd.service/kubepods-"+strings.TrimPrefix(class+"-", "-")+"pod"+dashed+".slice:cri-containerd:"+idA, idA, "containerd")
			f(directory, "", "")
			f(slice, "", "")
		}
	}
}

func podTable() *table {
	return newTable(Scope{}, []Hierarchy{{}, {Number: 8}}, Options{MaxKnown: 1000, MaxTombstones: 100, TombstoneAge: time.Hour, Names: newFakeNames()})
}

// containerID makes an id that is easy to tell.
func containerID(c byte) string { return strings.Repeat(string(c), containerIDLength) }

// The sandbox is the oldest of a pod's containers, but nobody says so before another is known.
func TestSandbox(t *testing.T) {
	type step struct {
		do string // make, remove, known
		id byte
	}
	f := func(name, want string, steps ...step) {
		t.Helper()
		for _, nested := range []bool{false, true} {
			table := podTable()
			next := ID(100)
			ids := map[byte][]ID{}
			enter := func(path string, to byte) {
				table.add(next, 0, path, false, 0)
				ids[to] = append(ids[to], next)
				next++
			}
			for _, s := range steps {
				path := "/kubepods/pod" + uid + "/" + containerID(s.id)
				switch s.do {
				case "make":
					enter(path, s.id)
					if nested {
						enter(path+"/container", s.id)
					}
				case "remove":
					for _, id := range slices.Backward(ids[s.id]) {
						table.remove(id, 0, path, false, time.Now())
					}
				case "known":
					table.podHas(ids[s.id][0], uid, containerID(s.id))
				}
			}
			got := ""
			for _, c := range slices.Sorted(maps.Keys(ids)) {
				for range 2 { // the answer stays
					if table.isSandbox(ids[c][0], uid, containerID(c)) {
						got += string(c)
					}
				}
			}
			doubled := ""
			for _, c := range want {
				doubled += string(c) + string(c)
			}
			if got != doubled {
				t.Errorf("%s (nested %v): got %q, want %q", name, nested, got, doubled)
			}
		}
	}
	f("nothing is known", "", step{"make", 'a'}, step{"make", 'b'})
	f("usual", "a", step{"make", 'a'}, step{"make", 'b'}, step{"known", 'b'})
	f("one is late", "a", step{"make", 'a'}, step{"make", 'b'}, step{"make", 'c'}, step{"known", 'b'})
	f("the other is late", "a", step{"make", 'a'}, step{"make", 'b'}, step{"make", 'c'}, step{"known", 'c'})
	f("no sandbox", "", step{"make", 'b'}, step{"known", 'b'}, step{"make", 'c'})
	f("all ended at once", "a", step{"make", 'a'}, step{"make", 'b'}, step{"remove", 'b'}, step{"remove", 'a'}, step{"known", 'b'})
	f("restarted unseen", "a", step{"make", 'a'}, step{"make", 'b'}, step{"remove", 'b'}, step{"make", 'c'}, step{"known", 'c'})
	f("a new sandbox", "ac", step{"make", 'a'}, step{"make", 'b'}, step{"known", 'b'}, step{"remove", 'b'}, step{"remove", 'a'},
		step{"make", 'c'}, step{"make", 'd'}, step{"known", 'd'})
}

// What is known of containers goes with the last of their cgroups.
func TestPodContainersAreForgotten(t *testing.T) {
	table := podTable()
	table.maxTombstones = 0
	path := "/kubepods/pod" + uid + "/" + containerID('a')
	table.add(1, 0, path, false, 0)
	table.add(2, 1, path+"/container", false, 0)
	table.add(3, 0, "/kubepods/pod"+uid+"/"+containerID('b'), false, 0)
	table.remove(1, 0, path, false, time.Now())
	if len(table.pods[podKey{0, uid}]) != 2 {
		t.Errorf("%+v", table.pods)
	}
	table.remove(2, 1, path, false, time.Now())
	if all := table.pods[podKey{0, uid}]; len(all) != 1 || all[0].id != containerID('b') {
		t.Errorf("%+v", table.pods)
	}
	table.remove(3, 0, path, false, time.Now())
	// One whose making was not seen.
	table.remove(4, 0, path, false, time.Now())
	if len(table.pods) != 0 {
		t.Errorf("%+v", table.pods)
	}
}

func TestExtra(t *testing.T) {
	var e Extra
	e = e.Append("a", "1").Append("b", "").Append("c\x00", "2\x003")
	var got []string
	e.Each(func(name, value string) { got = append(got, name+"="+value) })
	if want := []string{"a=1", "c=23"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	Extra("").Each(func(string, string) { t.Error("a label of none") })
}

func TestFirstOf(t *testing.T) {
	api, logs := newFakeNames(), newFakeNames()
	both := FirstOf{api, logs}
	f := func(container string, want PodIdentity) {
		t.Helper()
		if got := both.Identify("u", container); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	f("1", PodIdentity{})
	logs.pod("u", "shop", "web", "")
	logs.container("1", "app")
	f("1", PodIdentity{Namespace: "shop", Pod: "web", Container: "app"})
	api.pod("u", "shop", "web", "node\x00n\x00")
	f("1", PodIdentity{Namespace: "shop", Pod: "web", Container: "app", Extra: "node\x00n\x00"})
	f("", PodIdentity{Namespace: "shop", Pod: "web", Extra: "node\x00n\x00"})
	if len(both.Stats()) != 2 || len(both.ExtraLabels()) != 2 {
		t.Error("not all sources")
	}
}

// identified is a Cgroups with a table but without a kernel.
func identified(names PodNames, wait time.Duration) *Cgroups {
	o := Options{MaxKnown: 100, MaxTombstones: 100, TombstoneAge: time.Hour, Names: names}
	return &Cgroups{names: names, nameWait: wait, ask: make(chan struct{}, 1), table: newTable(Scope{}, []Hierarchy{{}}, o)}
}

func TestIdentify(t *testing.T) {
	names := newFakeNames()
	c := identified(names, time.Hour)
	pod := "/kubepods.slice/kubepods-pod" + uidUnderscore + ".slice"
	paths := []string{1: pod, 2: pod + "/cri-containerd-" + idB + ".scope", 3: pod + "/cri-containerd-" + idA + ".scope", 4: pod + "/cri-containerd-" + idA + ".scope/container", 5: "/system.slice/ssh.service", 6: pod + "/other"}
	for id := 1; id < len(paths); id++ {
		c.table.add(ID(id), 0, paths[id], false, 0)
	}
	f := func(id ID, want Workload) {
		t.Helper()
		if got, _ := c.Resolve(id); got != want {
			t.Errorf("%s\ngot  %+v\nwant %+v", paths[id], got, want)
		}
	}
	// Before anything is known.
	f(1, Workload{PodUID: uid, Cgroup: pod, Pending: true})
	f(3, Workload{PodUID: uid, Container: idA, Runtime: "containerd", Pending: true})
	f(5, Workload{Unit: "ssh.service"})
	// Nobody waits for names that will not come.
	names.refused = true
	f(3, Workload{PodUID: uid, Container: idA, Runtime: "containerd"})
	names.refused = false
	// The Pod object exists before its cgroups; its status comes later.
	extra := Extra("").Append("node", "n1")
	names.pod(uid, "shop", "web-0", extra)
	f(1, Workload{Namespace: "shop", Pod: "web-0", PodUID: uid, Extra: extra})
	f(2, Workload{Namespace: "shop", Pod: "web-0", PodUID: uid, Container: idB, Runtime: "containerd", Extra: extra, Pending: true})
	f(4, Workload{Namespace: "shop", Pod: "web-0", PodUID: uid, Container: idA, Runtime: "containerd", Extra: extra, Pending: true})
	f(6, Workload{Namespace: "shop", Pod: "web-0", PodUID: uid, Extra: extra})
	names.container(idA, "app")
	app := Workload{Namespace: "shop", Pod: "web-0", PodUID: uid, Container: "app", Runtime: "containerd", Extra: extra}
	f(4, app)
	f(3, app)
	sandbox := app
	sandbox.Container = SandboxName
	f(2, sandbox)
	// Nobody takes a name away.
	c.table.remove(4, 3, paths[4], false, time.Now())
	names.forget()
	f(3, app)
	f(4, app)
	f(2, sandbox)
	// A label that changes is followed.
	names.pod(uid, "shop", "web-0", extra.Append("label_a", "b"))
	app.Extra = extra.Append("label_a", "b")
	f(3, app)
	if s := c.Stats(); s.PodLookups < 10 || s.PodMisses != 6 {
		t.Errorf("%+v", s)
	}
}

// Nobody waits for ever: then there is the id.
func TestIdentifyWaitsNotForEver(t *testing.T) {
	c := identified(newFakeNames(), time.Nanosecond)
	c.table.add(1, 0, "/kubepods/pod"+uid+"/"+idA, false, 0)
	if w, _ := c.Resolve(1); w != (Workload{PodUID: uid, Container: idA}) {
		t.Errorf("%+v", w)
	}
}

// Real cgroups, named as a kubelet does, in each hierarchy: one that lived for a moment has its name, although the
// pod became known after it.
func TestIdentifyKernel(t *testing.T) {
	l, hs := detect(t)
	names := newFakeNames()
	c := open(t, l, Options{Names: names, NameWait: time.Hour})
	for _, h := range hs {
		t.Run(fmt.Sprint("hierarchy ", h.Number), func(t *testing.T) {
			names.forget()
			root := fmt.Sprintf("kaon-test-pods-%d", time.Now().UnixNano())
			makeCgroup(t, h, root)
			for _, layout := range [][]string{
				{"kubepods", "kubepods/burstable", "kubepods/burstable/pod" + uid, "kubepods/burstable/pod" + uid + "/" + idB, "kubepods/burstable/pod" + uid + "/" + idA},
				{"kubepods.slice", "kubepods.slice/kubepods-pod" + uidUnderscore + ".slice", "kubepods.slice/kubepods-pod" + uidUnderscore + ".slice/crio-" + idB + ".scope",
					"kubepods.slice/kubepods-pod" + uidUnderscore + ".slice/crio-" + idA + ".scope", "kubepods.slice/kubepods-pod" + uidUnderscore + ".slice/crio-" + idA + ".scope/container"},
			} {
				names.forget()
				ids := map[string]ID{}
				for _, path := range layout {
					ids[path] = makeCgroup(t, h, root+"/"+path)
				}
				container, sandbox := ids[layout[len(layout)-1]], ids[layout[len(layout)-2]]
				if strings.HasSuffix(layout[len(layout)-1], "/container") {
					sandbox = ids[layout[len(layout)-3]]
				}
				for _, path := range slices.Backward(layout) {
					removeCgroup(t, h, root+"/"+path)
				}
				if err := c.Sync(context.Background()); err != nil {
					t.Fatal(err)
				}
				if w, state := c.Resolve(container); state != Gone || w.Container != idA || !w.Pending {
					t.Errorf("at once: %+v, %v", w, state)
				}
				names.pod(uid, "shop", "short", "")
				names.container(idA, "app")
				if w, _ := c.Resolve(container); w.Namespace != "shop" || w.Pod != "short" || w.Container != "app" || w.Pending {
					t.Errorf("container: %+v", w)
				}
				if w, _ := c.Resolve(sandbox); w.Pod != "short" || w.Container != SandboxName {
					t.Errorf("sandbox: %+v", w)
				}
			}
		})
	}
}

// BenchmarkIdentify is what a name costs at each collection.
func BenchmarkIdentify(b *testing.B) {
	names := newFakeNames()
	c := identified(names, time.Hour)
	c.table.add(1, 0, "/kubepods/burstable/pod"+uid+"/"+idA, false, 0)
	names.pod(uid, "shop", "web-0", "")
	names.container(idA, "app")
	b.ReportAllocs()
	for b.Loop() {
		if w, _ := c.Resolve(1); w.Container != "app" {
			b.Fatal(w)
		}
	}
}
