package workload

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestUndivided(t *testing.T) {
	const (
		pod       = "/kubepods/burstable/pod01234567-89ab-cdef-0123-456789abcdef"
		container = pod + "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	)
	f := func(paths, want string) {
		t.Helper()
		var groups []Cgroup
		for i, path := range strings.Fields(paths) {
			groups = append(groups, Cgroup{ID: ID(i + 1), Path: path})
		}
		var got []string
		for _, g := range undivided(groups) {
			got = append(got, g.Path)
		}
		slices.Sort(got)
		wanted := strings.Fields(want)
		slices.Sort(wanted)
		if !slices.Equal(got, wanted) {
			t.Errorf("%s:\ngot  %q\nwant %q", paths, got, wanted)
		}
	}
	f("/", "/")
	f("/ /a /a-b /a/b /a/b/c", "/a-b /a/b/c")
	f("/a/b /a", "/a/b") // the root of a scope is not there
	f("/ /system.slice /system.slice/ssh.service /system.slice/docker.service /system.slice/docker.service/x", "/system.slice/ssh.service /system.slice/docker.service")
	f("/ /kubepods /kubepods/burstable "+pod+" "+container+" "+container+"/init "+container+"/init/deep", container)
	f(pod, pod)
	// Units of a user's manager are workloads of their own, what is beside them is the manager's.
	const user = "/user.slice/user-1.slice/user@1.service"
	f("/ /user.slice /user.slice/user-1.slice "+user+" "+user+"/init.scope "+user+"/app.slice "+user+"/app.slice/a.service "+user+"/app.slice/a.service/x "+user+"/empty.slice",
		user+"/init.scope "+user+"/app.slice/a.service "+user+"/empty.slice")
}

// Two hierarchies may have cgroups of the same path.
func TestUndividedHierarchies(t *testing.T) {
	groups := []Cgroup{{1, "/"}, {2, "/a"}, {1 | 7<<hierarchyShift, "/"}, {2 | 7<<hierarchyShift, "/a"}, {3 | 7<<hierarchyShift, "/a/b"}}
	got := undivided(groups)
	if want := []Cgroup{groups[1], groups[4]}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLister(t *testing.T) {
	layout := Layout{Mode: ModeHybrid, V2: Hierarchy{Mount: "/cg/unified"}, V1: Hierarchy{Number: 8, Controller: "pids", Mount: "/cg/pids"},
		Controllers: []Hierarchy{{Number: 4, Controller: "memory", Mount: "/cg/memory", Base: "/base"}, {Number: 8, Controller: "pids", Mount: "/cg/pids"}}}
	o := Options{MaxKnown: 100, MaxTombstones: 100}
	c := &Cgroups{layout: layout, table: newTable(Scope{}, []Hierarchy{layout.V2, layout.V1}, o)}
	v1 := layout.V1.ID(5)
	c.table.add(1, 0, "/", false, 0)
	c.table.add(2, 1, "/a", false, 0)
	c.table.add(3, 1, "/gone", false, 0)
	c.table.remove(3, 1, "/gone", false, time.Time{})
	c.table.add(v1, 0, "/base/b", false, 0)
	paths := func() []string {
		var all []string
		for _, g := range c.Cgroups() {
			all = append(all, g.Path)
		}
		slices.Sort(all)
		return all
	}
	if got := paths(); !slices.Equal(got, []string{"/", "/a", "/base/b"}) {
		t.Errorf("hybrid: %q", got)
	}
	c.layout.Mode = ModeV1
	if got := paths(); !slices.Equal(got, []string{"/base/b"}) {
		t.Errorf("v1: %q", got)
	}
	c.layout.Mode = ModeV2
	if got := paths(); !slices.Equal(got, []string{"/", "/a"}) {
		t.Errorf("v2: %q", got)
	}
	f := func(id ID, path, controller, want string) {
		t.Helper()
		if got := c.Directory(Cgroup{id, path}, controller); got != want {
			t.Errorf("%s of %s: %q, want %q", controller, path, got, want)
		}
	}
	f(2, "/a", "memory", "/cg/unified/a")
	f(1, "/", "", "/cg/unified")
	f(v1, "/base/b", "memory", "/cg/memory/b")
	f(v1, "/base", "memory", "/cg/memory")
	f(v1, "/other", "memory", "")
	f(v1, "/base/b", "pids", "/cg/pids/base/b")
	f(v1, "/base/b", "cpu", "")
}

// Ten thousand containers of Kubernetes, as at each scrape of their files.
func BenchmarkUndivided(b *testing.B) {
	groups := []Cgroup{{1, "/"}, {2, "/kubepods"}}
	for i := range 10000 {
		pod := fmt.Sprintf("/kubepods/pod%08d-0000-0000-0000-000000000000", i)
		groups = append(groups, Cgroup{ID(2*i + 3), pod}, Cgroup{ID(2*i + 4), pod + "/" + fmt.Sprintf("%064x", i)})
	}
	b.ResetTimer()
	for range b.N {
		if n := len(undivided(groups)); n != 10000 {
			b.Fatal(n)
		}
	}
}
