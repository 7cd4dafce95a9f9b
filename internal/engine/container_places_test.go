package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// A file is read once for a hook however often its containers are looked into, and is forgotten with the last of them.
func TestFilesAreReadOnce(t *testing.T) {
	reads, many := 0, 1
	f := &function{hook: program.Hook{Kind: program.Uprobe, Target: "/bin/app:work"}, family: family{places: func(*program.Hook) ([]place, error) {
		reads++
		return make([]place, many), nil
	}}}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s := &containerScan{looked: map[string]*lookedInto{}}
	put := func(container string, number uint64) target {
		o := (&openFile{file: file, identity: fileIdentity{inode: number}}).called("/bin/app")
		s.looked[container] = &lookedInto{files: map[string]*openFile{"/bin/app": o}}
		return o.target
	}
	locate := func(want int) {
		t.Helper()
		s.locate(context.Background(), []*function{f})
		if reads != want {
			t.Errorf("read %d times, want %d", reads, want)
		}
	}
	first := put("a", 1)
	put("b", 1)
	locate(1)
	locate(1)
	second := put("b", 2)
	many = maxContainerPlaces + 1
	locate(2)
	if p := s.placesOf(f, first); p == nil || p.err != nil || len(p.places) != 1 {
		t.Errorf("got %+v", p)
	}
	if p := s.placesOf(f, second); p == nil || p.err == nil || p.err.Error() != "/bin/app has 65 places for it, more than 64" {
		t.Errorf("got %+v", p)
	}
	delete(s.looked, "a")
	locate(2)
	if s.placesOf(f, first) != nil || s.placesOf(f, second) == nil {
		t.Errorf("got %v", s.places)
	}
}

// Nobody goes through the functions as long as a look finds what the one before did.
func TestLookTellsChanges(t *testing.T) {
	p := startInRoot(t, newRoot(t), "/bin/app")
	s := &containerScan{looked: map[string]*lookedInto{}}
	defer s.close()
	now := time.Now()
	look := func(what string, want bool, at time.Time, containers ...Container) {
		t.Helper()
		if changed, _ := s.look(containers, []string{"/bin/app"}, at); changed != want {
			t.Errorf("%s: changed is %v", what, changed)
		}
	}
	nobody := filepath.Join(t.TempDir(), "cgroup.procs")
	if err := os.WriteFile(nobody, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	look("new", true, now, Container{ID: "x", Processes: []string{nobody}})
	look("nothing yet", false, now.Add(startInterval), Container{ID: "x", Processes: []string{nobody}})
	if err := os.WriteFile(nobody, fmt.Appendf(nil, "%d\n", p.cmd.Process.Pid), 0o600); err != nil {
		t.Fatal(err)
	}
	look("it has the file", true, now.Add(2*startInterval), Container{ID: "x", Processes: []string{nobody}})
	look("the same file", false, now.Add(time.Second+settledInterval-settledContainer/4), Container{ID: "x", Processes: []string{nobody}})
	look("it settles", true, now.Add(2*settledContainer), Container{ID: "x", Processes: []string{nobody}})
	look("the same again", false, now.Add(3*settledContainer), Container{ID: "x", Processes: []string{nobody}})
	look("it is gone", true, now.Add(4*settledContainer))
}

func TestIsLocal(t *testing.T) {
	for _, kind := range []string{"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse", "fuse.sshfs", "fuseblk", "virtiofs", "afs", "lustre", ""} {
		if isLocal(kind) {
			t.Errorf("%q is local", kind)
		}
	}
	for _, kind := range []string{"overlay", "ext4", "xfs", "btrfs", "tmpfs", "rootfs", "erofs"} {
		if !isLocal(kind) {
			t.Errorf("%q is not local", kind)
		}
	}
}

func TestPlaceTargetsAreSorted(t *testing.T) {
	f := &function{hook: program.Hook{Kind: program.Uprobe, Target: "/bin/app:work"}, places: map[target]placedFile{}}
	for n := range uint64(20) {
		f.places[target{Name: "same", ID: n}] = placedFile{}
	}
	targets, err := f.placeTargets()
	if err != nil {
		t.Fatal(err)
	}
	for n, got := range targets {
		if got.ID != uint64(n) {
			t.Fatalf("got %v", targets)
		}
	}
}

// What is attached in containers ends with the agent also where the Program is pinned, which is told.
func TestContainersArePinnedNever(t *testing.T) {
	p := startInRoot(t, newRoot(t), "/bin/app")
	l := &listed{all: []Container{p.container("one")}}
	spec := loadSpec(t, "probes.bpf.o", "on_uprobe")
	spec.Hooks[0].Target, spec.Pin = "/bin/app:work", true
	e := newEngine(t, Options{PinDir: pinDir(t)})
	i, err := e.LoadWithOptions(context.Background(), spec, LoadOptions{Containers: l})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(i.Close(), e.Remove(spec.Name)); err != nil {
			t.Error(err)
		}
	})
	attachedTo(t, i, "on_uprobe", 1)
	if h := hookOf(t, i, "on_uprobe"); h.Pinned || h.PinErr == nil || !strings.Contains(h.PinErr.Error(), "attachments in containers are not pinned") {
		t.Errorf("got %+v", h)
	}
	l.set()
	eventually(t, "it is detached", func() bool { h := hookOf(t, i, "on_uprobe"); return h.State == Waiting && h.PinErr == nil })
}

// Entries are used again once nothing is attached with them.
func TestUSDTSpecsAreGivenBack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	newEngine(t, Options{}) // with what an engine needs
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: usdtSpecSize, MaxEntries: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var u usdtSpecs
	spec := func(n byte) []byte { return append([]byte{n}, make([]byte, usdtSpecSize-1)...) }
	take := func(n byte, want uint32) {
		t.Helper()
		id, err := u.take(m, spec(n))
		if err != nil || id != want {
			t.Fatalf("%d: %d, %v, want %d", n, id, err, want)
		}
		var held []byte
		if err := m.Lookup(id, &held); err != nil || held[0] != n {
			t.Fatalf("%d: the map holds %v, %v", n, held, err)
		}
	}
	full := func() {
		t.Helper()
		if _, err := u.take(m, spec(99)); err == nil || !strings.Contains(err.Error(), "BPF_USDT_MAX_SPEC_CNT above 2") {
			t.Fatal(err)
		}
	}
	take(1, 0)
	take(1, 0)
	take(2, 1)
	full()
	u.giveBack(0)
	full() // it is used once more
	u.giveBack(0)
	take(3, 0)
	full()
	u.giveBack(1)
	u.giveBack(0)
	take(4, 1)
	take(2, 0)
}

// A new version that does not come to be leaves its specs in the map.
func TestUSDTAfterAFailedReplacement(t *testing.T) {
	if !haveCookies() {
		t.Skip("needs attachment cookies")
	}
	path := targetBinary(t)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "other")
	if err := os.WriteFile(other, []byte(strings.ReplaceAll(string(data), "4@$77", "4@$78")), 0o700); err != nil {
		t.Fatal(err)
	}
	e := newEngine(t, Options{})
	spec := parseSpec(t, "usdt.bpf.o")
	spec.Hooks[0].Target = path + ":kaon:tick"
	old := mustAttach(t, e, spec)
	next := parseSpec(t, "usdt.bpf.o")
	next.Hooks[0].Target = other + ":kaon:tick"
	third := func(i *Instance, binary string, want uint64) {
		t.Helper()
		runTarget(t, binary, "1")
		var got uint64
		if err := i.Map("arguments").Lookup(uint32(2), &got); err != nil || got != want {
			t.Errorf("the third argument is %d, %v, want %d", got, err, want)
		}
	}
	third(old, path, 77)
	refused := errors.New("refused")
	_, err = e.ReplaceWithOptions(context.Background(), old, next, ReplaceOptions{Exchanged: func(i *Instance) error {
		third(i, other, 78)
		return refused
	}})
	if !errors.Is(err, refused) {
		t.Fatal(err)
	}
	third(old, path, 77)
}
