package workload

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func newSet(t *testing.T, entries uint32) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "kaon_selected", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: entries})
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("needs the right to make maps:", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func isMember(t *testing.T, set *ebpf.Map, id ID) bool {
	t.Helper()
	var value uint64
	err := set.Lookup(uint64(id), &value)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

// What is made below a member is one when mkdir returns, and is none when rmdir does.
func TestInherit(t *testing.T) {
	l, hs := detect(t)
	c := open(t, l, Options{})
	for _, h := range hs {
		sets := []*ebpf.Map{newSet(t, 100), newSet(t, 5000)}
		var releases []func() error
		for _, set := range sets {
			release, err := c.Inherit(set)
			if err != nil {
				t.Fatal(err)
			}
			releases = append(releases, release)
		}
		top := testName(t, 1)
		other := makeCgroup(t, h, top)
		member := makeCgroup(t, h, top+"/member")
		if isMember(t, sets[0], member) {
			t.Error("a member without a member above it")
		}
		if err := sets[0].Put(uint64(member), uint64(1)); err != nil {
			t.Fatal(err)
		}
		child := makeCgroup(t, h, top+"/member/child")
		grandchild := makeCgroup(t, h, top+"/member/child/child")
		sibling := makeCgroup(t, h, top+"/other")
		for id, want := range map[ID]bool{child: true, grandchild: true, sibling: false, other: false} {
			if got := isMember(t, sets[0], id); got != want {
				t.Errorf("%s: %#x is a member: %v, want %v", h.Mount, id, got, want)
			}
			if isMember(t, sets[1], id) {
				t.Errorf("%s: %#x is in the other set", h.Mount, id)
			}
		}
		removeCgroup(t, h, top+"/member/child/child")
		if isMember(t, sets[0], grandchild) {
			t.Errorf("%s: a cgroup that is gone is a member", h.Mount)
		}
		for _, release := range releases {
			if err := release(); err != nil {
				t.Error(err)
			}
		}
		if late := makeCgroup(t, h, top+"/member/late"); isMember(t, sets[0], late) {
			t.Errorf("%s: a set that was let go still grows", h.Mount)
		}
	}
	// There is an end to it, and slots are used again.
	set := newSet(t, 1)
	var releases []func() error
	for range maxSets {
		release, err := c.Inherit(set)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	if _, err := c.Inherit(set); err == nil {
		t.Error("more sets than there are slots")
	}
	for _, release := range releases {
		if err := release(); err != nil {
			t.Error(err)
		}
	}
	if release, err := c.Inherit(set); err != nil {
		t.Error(err)
	} else if err := release(); err != nil {
		t.Error(err)
	}
}

func TestInheritNeedsEvents(t *testing.T) {
	l, _ := detect(t)
	if _, err := open(t, l, Options{NoEvents: true}).Inherit(nil); err == nil {
		t.Error("it inherits without events")
	}
}

func TestFollow(t *testing.T) {
	l, hs := detect(t)
	c := open(t, l, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	seen := make(chan []Cgroup, 1000)
	other := make(chan chan struct{}, 1000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.Follow(ctx, func() <-chan struct{} {
			again := make(chan struct{})
			other <- again
			return again
		}, func(groups []Cgroup) { seen <- groups })
	}()
	wait := func(id ID, want bool) {
		t.Helper()
		for {
			select {
			case groups := <-seen:
				if slices.ContainsFunc(groups, func(g Cgroup) bool { return g.ID == id }) == want {
					return
				}
			case <-ctx.Done():
				t.Fatal("nothing was told")
			}
		}
	}
	for _, h := range hs {
		top := testName(t, 2)
		id := makeCgroup(t, h, top)
		wait(id, true)
		removeCgroup(t, h, top)
		wait(id, false)
	}
	// It is also told when the caller wants that.
	for len(other) > 1 {
		<-other
	}
	for len(seen) > 0 {
		<-seen
	}
	close(<-other)
	wait(0, false)
	cancel()
	<-done
}
