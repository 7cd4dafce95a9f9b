package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// detect returns this machine's layout and its hierarchies.
func detect(tb testing.TB) (Layout, []Hierarchy) {
	tb.Helper()
	l, err := Detect()
	if errors.Is(err, ErrNoCgroups) {
		tb.Skip("needs a mounted cgroup hierarchy")
	}
	if err != nil {
		tb.Fatal(err)
	}
	var hs []Hierarchy
	for _, h := range []Hierarchy{l.V2, l.V1} {
		if h.Present() {
			hs = append(hs, h)
		}
	}
	return l, hs
}

// makeCgroup makes a cgroup that is removed, with its children, at the end of the test.
func makeCgroup(tb testing.TB, h Hierarchy, path string) ID {
	tb.Helper()
	dir := filepath.Join(h.Mount, path)
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			tb.Skip("needs the right to make cgroups:", err)
		}
		tb.Fatal(err)
	}
	tb.Cleanup(func() { removeCgroup(tb, h, path) })
	return cgroupID(tb, h, path)
}

func removeCgroup(tb testing.TB, h Hierarchy, path string) {
	tb.Helper()
	if err := unix.Rmdir(filepath.Join(h.Mount, path)); err != nil && err != unix.ENOENT {
		tb.Errorf("remove cgroup %s: %v", path, err)
	}
}

func cgroupID(tb testing.TB, h Hierarchy, path string) ID {
	tb.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(h.Mount, path), &st); err != nil {
		tb.Fatal(err)
	}
	return h.ID(st.Ino)
}

func open(tb testing.TB, l Layout, o Options) *Cgroups {
	tb.Helper()
	c, err := NewCgroupsWithOptions(l, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error("close:", err)
		}
	})
	if !o.NoEvents && c.EventsErr() != nil {
		if errors.Is(c.EventsErr(), unix.EPERM) {
			tb.Skip("needs the right to load eBPF:", c.EventsErr())
		}
		tb.Fatal(c.EventsErr())
	}
	return c
}

func syncNow(tb testing.TB, c *Cgroups) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := c.Sync(ctx); err != nil {
		tb.Fatal(err)
	}
}

// slow says whether to do less: when asked, and in the emulated machines of test/vm.
func slow() bool { return testing.Short() || os.Getenv("KAON_VM") != "" }

func testName(tb testing.TB, i int) string {
	return fmt.Sprintf("kaon-test-%d-%d", os.Getpid(), i)
}

const testContainer = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestStartupWalk(t *testing.T) {
	l, hs := detect(t)
	for _, h := range hs {
		top := testName(t, 0)
		want := map[ID]Workload{
			makeCgroup(t, h, top): {Cgroup: "/" + top},
			makeCgroup(t, h, top+"/docker-"+testContainer+".scope"):   {Container: testContainer, Runtime: "docker"},
			makeCgroup(t, h, top+"/docker-"+testContainer+".scope/x"): {Container: testContainer, Runtime: "docker"},
			makeCgroup(t, h, top+"/kaon.service"):                     {Unit: "kaon.service"},
			cgroupID(t, h, ""):                                        {Cgroup: "/"},
		}
		for _, events := range []bool{false, true} {
			c := open(t, l, Options{NoEvents: !events})
			for id, w := range want {
				if got, state := c.Resolve(id); got != w || state != Alive {
					t.Errorf("%s, events %v: Resolve(%#x) = %+v, %d, want %+v, Alive", h.Mount, events, id, got, state, w)
				}
			}
		}
	}
}

func TestShortLivedIsNamed(t *testing.T) {
	l, hs := detect(t)
	c := open(t, l, Options{})
	walks := c.Stats().Walks
	for _, h := range hs {
		top := testName(t, 1)
		makeCgroup(t, h, top)
		_, since := c.Gone(0)
		dir := top + "/docker-" + testContainer + ".scope"
		outer := makeCgroup(t, h, dir)
		inner := makeCgroup(t, h, dir+"/child")
		removeCgroup(t, h, dir+"/child")
		removeCgroup(t, h, dir)
		syncNow(t, c)
		want := Workload{Container: testContainer, Runtime: "docker"}
		for _, id := range []ID{outer, inner} {
			if got, state := c.Resolve(id); got != want || state != Gone {
				t.Errorf("%s: Resolve(%#x) = %+v, %d, want %+v, Gone", h.Mount, id, got, state, want)
			}
		}
		ids, _ := c.Gone(since)
		// Others may remove cgroups meanwhile.
		seen := map[ID]bool{}
		for _, id := range ids {
			seen[id] = true
		}
		if !seen[outer] || !seen[inner] {
			t.Errorf("Gone(%d) = %x, want %x and %x", since, ids, inner, outer)
		}
	}
	s := c.Stats()
	if s.Walks != walks || s.Lost != 0 || s.Resolutions < uint64(3*len(hs)) || s.ResolutionSeconds <= 0 {
		t.Errorf("%+v", s)
	}
	t.Logf("%d events, mean %v from the kernel to the table", s.Resolutions, time.Duration(s.ResolutionSeconds/float64(s.Resolutions)*1e9))
}

func TestWithoutEvents(t *testing.T) {
	l, hs := detect(t)
	c := open(t, l, Options{NoEvents: true, WalkInterval: time.Millisecond})
	if c.EventsErr() == nil {
		t.Error("no reason is given for the missing events")
	}
	for _, h := range hs {
		top := testName(t, 2)
		id := makeCgroup(t, h, top)
		if _, state := c.Resolve(id); state != Unresolved {
			t.Fatalf("%s: state %d before any walk", h.Mount, state)
		}
		// The question starts a walk.
		await(t, "named", func() bool { w, state := c.Resolve(id); return state == Alive && w.Cgroup == "/"+top })
		removeCgroup(t, h, top)
		if err := c.Walk(); err != nil {
			t.Fatal(err)
		}
		if w, state := c.Resolve(id); state != Gone || w.Cgroup != "/"+top {
			t.Errorf("%s: after removal %+v, %d", h.Mount, w, state)
		}
	}
	if s := c.Stats(); s.Unresolved < uint64(len(hs)) || s.Walks < 2 || s.WalkSeconds <= 0 {
		t.Errorf("%+v", s)
	}
}

// await waits until ok, which must become true.
func await(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			tb.Fatal("never:", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// many makes and removes n cgroups in a directory of their own.
func many(tb testing.TB, h Hierarchy, top string, n int) map[string]ID {
	tb.Helper()
	makeCgroup(tb, h, top)
	ids := make(map[string]ID, n)
	for i := range n {
		path := fmt.Sprintf("%s/docker-%064x.scope", top, i)
		if err := os.Mkdir(filepath.Join(h.Mount, path), 0o755); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { removeCgroup(tb, h, path) })
		ids[path] = cgroupID(tb, h, path)
	}
	return ids
}

// While nobody reads the ring, more cgroups are made than it holds.
func TestManyWhilePaused(t *testing.T) {
	l, hs := detect(t)
	h, n := hs[0], 20_000
	if slow() {
		n = 6_000
	}
	c := open(t, l, Options{WalkInterval: time.Millisecond})
	c.table.mu.Lock() // stops the reader at its next event
	var ids map[string]ID
	func() {
		defer c.table.mu.Unlock()
		ids = many(t, h, testName(t, 3), n)
	}()
	walks := c.walks.Load()
	syncNow(t, c)
	lost := c.Stats().Lost
	if lost == 0 {
		t.Fatal("nothing was lost: the test proves nothing")
	}
	await(t, "walk after loss", func() bool { return c.walks.Load() > walks && c.Stats().Known >= n })
	for path, id := range ids {
		if w, state := c.Resolve(id); state != Alive || w.Container != filepath.Base(path)[len("docker-"):][:64] {
			t.Fatalf("%s: %+v, %d", path, w, state)
		}
	}
	s := c.Stats()
	t.Logf("%d made, %d events, %d lost, %d walks in %.3f s", n, s.Events, lost, s.Walks, s.WalkSeconds)

	// The same for removals: what was lost is found missing by the walk.
	c.table.mu.Lock()
	func() {
		defer c.table.mu.Unlock()
		for path := range ids {
			removeCgroup(t, h, path)
		}
	}()
	syncNow(t, c)
	if c.Stats().Lost == lost {
		t.Fatal("no removal was lost: the test proves nothing")
	}
	for path, id := range ids {
		await(t, path+" gone", func() bool {
			w, state := c.Resolve(id)
			return state == Gone && w.Container != ""
		})
	}
}

// Cgroups come and go while others ask for names and hierarchies are walked.
func TestChurn(t *testing.T) {
	l, hs := detect(t)
	c := open(t, l, Options{MaxTombstones: 500, WalkInterval: time.Millisecond})
	h := hs[0]
	top := testName(t, 4)
	makeCgroup(t, h, top)
	n := 3_000
	if slow() {
		n = 700
	}
	alive := makeCgroup(t, h, top+"/alive.service")
	syncNow(t, c)
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			var since uint64
			for {
				select {
				case <-stop:
					return
				default:
				}
				if w, state := c.Resolve(alive); state != Alive || w.Unit != "alive.service" {
					t.Errorf("alive: %+v, %d", w, state)
					return
				}
				var ids []ID
				ids, since = c.Gone(since)
				for _, id := range ids {
					if _, state := c.Resolve(id); state == Alive {
						t.Errorf("%#x is gone and alive", id)
						return
					}
				}
				if err := c.Walk(); err != nil {
					t.Error(err)
					return
				}
				c.Stats()
				time.Sleep(time.Millisecond)
			}
		})
	}
	var last ID
	for i := range n {
		path := fmt.Sprintf("%s/%d.service", top, i)
		if err := os.Mkdir(filepath.Join(h.Mount, path), 0o755); err != nil {
			t.Fatal(err)
		}
		last = cgroupID(t, h, path)
		removeCgroup(t, h, path)
	}
	close(stop)
	workers.Wait()
	syncNow(t, c)
	if w, state := c.Resolve(last); state != Gone || w.Unit != fmt.Sprintf("%d.service", n-1) {
		t.Errorf("the last one: %+v, %d", w, state)
	}
	if s := c.Stats(); s.Tombstones > 500 || s.Lost == 0 && s.Evicted < uint64(n-500) {
		t.Errorf("%+v", s)
	}
}

func TestScopeOfThisMachine(t *testing.T) {
	_, hs := detect(t)
	for _, h := range hs {
		top := testName(t, 5)
		root := makeCgroup(t, h, top)
		inside := makeCgroup(t, h, top+"/in")
		outside := makeCgroup(t, h, testName(t, 6))
		l, err := DetectWithOptions(DetectOptions{CgroupRoot: filepath.Join(h.Mount, top)})
		if err != nil {
			t.Fatal(err)
		}
		if l.Scope != (Scope{Path: "/" + top, ID: root, Level: 1}) || (l.Mode == ModeV1) != (h.Number != 0) {
			t.Errorf("%+v", l)
		}
		c := open(t, l, Options{})
		later := makeCgroup(t, h, top+"/in/later")
		syncNow(t, c)
		for id, want := range map[ID]State{root: Alive, inside: Alive, later: Alive, outside: Outside, h.ID(1): Outside} {
			if w, state := c.Resolve(id); state != want {
				t.Errorf("%s: %#x: %+v, %d, want %d", h.Mount, id, w, state, want)
			}
		}
	}
}

func TestCloseReleasesSync(t *testing.T) {
	l, _ := detect(t)
	c, err := NewCgroups(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.EventsErr(); err != nil {
		c.Close()
		t.Skip("needs the right to load eBPF:", err)
	}
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for c.Sync(context.Background()) == nil {
			}
		})
	}
	time.Sleep(10 * time.Millisecond)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	callers.Wait()
	if _, state := c.Resolve(1); state == Unresolved && l.V2.Present() {
		t.Error("nothing is known after Close")
	}
}

func BenchmarkWalk(b *testing.B) {
	_, hs := detect(b)
	for _, n := range []int{1_000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			top := testName(b, 7)
			many(b, hs[0], top, n)
			b.ReportAllocs()
			for b.Loop() {
				found := 0
				if complete, err := walk(filepath.Join(hs[0].Mount, top), func(uint64, string) { found++ }); !complete || err != nil || found != n+1 {
					b.Fatal(complete, err, found)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/cgroup")
		})
	}
}
