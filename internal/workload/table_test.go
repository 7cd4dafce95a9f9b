package workload

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var testTime = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

func testTable(scope Scope, o Options) *table {
	setDefault(&o.MaxKnown, 100)
	setDefault(&o.MaxTombstones, 100)
	setDefault(&o.TombstoneAge, time.Minute)
	return newTable(scope, []Hierarchy{{Number: 0}, {Number: 8}}, o)
}

// merge is a walk of v2 that finds these paths.
func merge(t *table, walk uint32, complete bool, paths map[ID]string) {
	f := t.beginWalk(0)
	f.paths, f.complete = paths, complete
	t.mergeWalk(f, walk, true, testTime)
}

func check(t *testing.T, tab *table, id ID, path string, state State, ask bool) {
	t.Helper()
	if p, s, a := tab.resolve(id); p != path || s != state || a != ask {
		t.Errorf("resolve(%#x) = %q, %d, %v, want %q, %d, %v", id, p, s, a, path, state, ask)
	}
}

func TestPathsOfEvents(t *testing.T) {
	tab := testTable(Scope{}, Options{})
	merge(tab, 1, true, map[ID]string{1: "/", 5: "/ns/a"})
	f := func(id, parent ID, path string, truncated bool, want string) {
		t.Helper()
		tab.add(id, parent, path, truncated, 1)
		check(t, tab, id, want, Alive, false)
	}
	f(10, 1, "/x", false, "/x")
	f(11, 5, "/outer/ns/a/b", false, "/ns/a/b") // as this namespace sees it
	f(12, 99, "/p/q", false, "/p/q")            // parent unknown
	f(13, 0, "/r", false, "/r")
	f(14, 11, "/outer/ns/a/b/lo", true, "/ns/a/b") // cut by the kernel
	f(10, 5, "/y", false, "/x")                    // known already
	deep := ID(10)
	for i := range 100 {
		id := ID(1000 + i)
		tab.add(id, deep, "/x/"+fmt.Sprintf("%0200d", i), false, 1)
		deep = id
	}
	if path, _, _ := tab.resolve(deep); len(path) > maxPath {
		t.Errorf("a path of %d bytes is kept", len(path))
	}
}

func TestTombstones(t *testing.T) {
	tab := testTable(Scope{}, Options{MaxTombstones: 3})
	merge(tab, 1, true, map[ID]string{1: "/", 5: "/a", 6: "/b"})
	tab.remove(5, 1, "/a", false, testTime)
	tab.remove(5, 1, "/a", false, testTime)
	tab.remove(7, 6, "/b/never-seen", false, testTime.Add(time.Second))
	check(t, tab, 5, "/a", Gone, false)
	check(t, tab, 7, "/b/never-seen", Gone, false)

	// A walk that began before knows better than nothing, but worse than an event.
	merge(tab, 2, true, map[ID]string{1: "/", 5: "/a", 6: "/b"})
	check(t, tab, 5, "/a", Gone, false)

	ids, next := tab.gone(0)
	if !slices.Equal(ids, []ID{5, 7}) || next != 2 {
		t.Errorf("gone = %v, %d", ids, next)
	}
	if ids, next = tab.gone(next); ids != nil || next != 2 {
		t.Errorf("gone again = %v, %d", ids, next)
	}
	tab.remove(6, 1, "/b", false, testTime.Add(2*time.Second))
	if ids, next = tab.gone(next); !slices.Equal(ids, []ID{6}) || next != 3 {
		t.Errorf("gone later = %v, %d", ids, next)
	}

	// One too many, then one too old.
	tab.remove(8, 1, "/c", false, testTime.Add(3*time.Second))
	if _, tombstones, evicted, _ := tab.figures(); tombstones != 3 || evicted != 1 {
		t.Errorf("%d tombstones, %d evicted", tombstones, evicted)
	}
	if ids, next = tab.gone(0); !slices.Equal(ids, []ID{7, 6, 8}) || next != 4 {
		t.Errorf("gone after eviction = %v, %d", ids, next)
	}
	tab.expire(testTime.Add(time.Minute + 1500*time.Millisecond))
	if known, tombstones, evicted, _ := tab.figures(); known != 1 || tombstones != 2 || evicted != 1 {
		t.Errorf("%d known, %d tombstones, %d evicted", known, tombstones, evicted)
	}
	check(t, tab, 6, "/b", Gone, false)
	tab.expire(testTime.Add(time.Hour))
	if known, tombstones, _, _ := tab.figures(); known != 1 || tombstones != 0 || len(tab.groups) != 1 {
		t.Errorf("%d known, %d tombstones, %d groups", known, tombstones, len(tab.groups))
	}
}

func TestWalkBuriesTheMissing(t *testing.T) {
	tab := testTable(Scope{}, Options{})
	merge(tab, 1, true, map[ID]string{1: "/", 5: "/a", 6: "/b"})
	f := tab.beginWalk(0)
	tab.add(7, 1, "/during", false, 2) // while walk 2 is under way
	tab.add(8|8<<hierarchyShift, 0, "/v1", false, 1)
	f.paths, f.complete = map[ID]string{1: "/", 5: "/a"}, false
	tab.mergeWalk(f, 2, true, testTime)
	check(t, tab, 6, "/b", Alive, false) // it may be where the walk could not look
	f.complete = true
	tab.mergeWalk(f, 2, true, testTime)
	check(t, tab, 5, "/a", Alive, false)
	check(t, tab, 6, "/b", Gone, false)
	check(t, tab, 7, "/during", Alive, false)
	check(t, tab, 8|8<<hierarchyShift, "/v1", Alive, false)
	if ids, _ := tab.gone(0); !slices.Equal(ids, []ID{6}) {
		t.Errorf("gone = %v", ids)
	}
}

func TestWalkSeesNewNames(t *testing.T) {
	tab := testTable(Scope{}, Options{})
	tab.add(5, 0, "/a", false, 1)
	merge(tab, 2, true, map[ID]string{1: "/", 5: "/b"})
	check(t, tab, 5, "/b", Alive, false)
}

func TestUnknownIDs(t *testing.T) {
	tab := testTable(Scope{}, Options{})
	check(t, tab, 50, "", Unresolved, true)
	merge(tab, 1, true, map[ID]string{1: "/", 100: "/a"})
	check(t, tab, 50, "", Unresolved, true) // made during the walk, perhaps
	merge(tab, 2, true, map[ID]string{1: "/", 100: "/a"})
	check(t, tab, 50, "", Gone, false) // older than the walk, and not found
	check(t, tab, 101, "", Unresolved, true)
	tab.wanted(101)
	merge(tab, 3, true, map[ID]string{1: "/", 100: "/a"})
	check(t, tab, 101, "", Gone, false)

	// Numbers that are no ids must not make what comes look old.
	tab.wanted(1 << 40)
	merge(tab, 4, true, map[ID]string{1: "/"})
	check(t, tab, 200, "", Unresolved, true)

	// Where no walk can help, none is asked for.
	check(t, tab, 0, "", Unresolved, false)
	check(t, tab, 7<<hierarchyShift|5, "", Unresolved, false)
	check(t, tab, ^ID(0), "", Unresolved, false)

	// A walk that did not see everything proves nothing.
	tab.wanted(300)
	merge(tab, 5, false, map[ID]string{1: "/"})
	check(t, tab, 250, "", Unresolved, false)
}

func TestTooManyCgroups(t *testing.T) {
	tab := testTable(Scope{}, Options{MaxKnown: 3})
	for id := ID(1); id <= 5; id++ {
		tab.add(id, 0, "/x", false, 1)
	}
	if known, _, _, refused := tab.figures(); known != 3 || refused != 2 {
		t.Errorf("%d known, %d refused", known, refused)
	}
	merge(tab, 2, true, map[ID]string{1: "/", 2: "/b", 3: "/c", 4: "/d"})
	merge(tab, 3, true, map[ID]string{1: "/", 2: "/b", 3: "/c", 4: "/d"})
	check(t, tab, 4, "", Unresolved, false) // not said to be gone
	tab.remove(1, 0, "/x", false, testTime)
	tab.add(6, 0, "/y", false, 3)
	check(t, tab, 6, "/y", Alive, false)
}

func TestOutside(t *testing.T) {
	tab := testTable(Scope{Path: "/in", ID: 5, Level: 1}, Options{})
	merge(tab, 1, true, map[ID]string{1: "/", 5: "/in", 6: "/in/a", 7: "/inn", 8: "/out"})
	v1 := Hierarchy{Number: 8}
	tab.add(9, 6, "/in/a/b", false, 1)
	tab.add(10, 8, "/out/b", false, 1)
	tab.add(v1.ID(11), 0, "/in", false, 1)
	check(t, tab, 5, "/in", Alive, false)
	check(t, tab, 6, "/in/a", Alive, false)
	check(t, tab, 9, "/in/a/b", Alive, false)
	for _, id := range []ID{1, 7, 8, 10, v1.ID(11)} {
		check(t, tab, id, "", Outside, false)
	}
	tab.remove(10, 8, "/out/b", false, testTime)
	tab.remove(9, 6, "/in/a/b", false, testTime)
	check(t, tab, 10, "", Outside, false)
	check(t, tab, 9, "/in/a/b", Gone, false)
	if ids, _ := tab.gone(0); !slices.Equal(ids, []ID{9}) {
		t.Errorf("gone = %v", ids)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, eventHeader))
	f.Add(append(make([]byte, eventHeader), "/a/b\x00rest"...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := decodeEvent(raw)
		if (err != nil) != (len(raw) < eventHeader) {
			t.Fatal(err)
		}
		if err == nil {
			testTable(Scope{}, Options{}).add(e.id, e.parent, e.path, e.truncated, 1)
		}
	})
}

func BenchmarkResolve(b *testing.B) {
	tab := testTable(Scope{}, Options{MaxKnown: 1 << 20})
	c := &Cgroups{table: tab}
	paths := map[ID]string{}
	for i := range 20_000 {
		paths[ID(i)] = fmt.Sprintf("/system.slice/docker-%064x.scope", i)
	}
	merge(tab, 1, true, paths)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, state := c.Resolve(ID(i)); state != Alive {
			b.Fatal(state)
		}
		i = (i + 7) % 20_000
	}
}
