package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestConcerns(t *testing.T) {
	f := func(path, name string, want bool) {
		t.Helper()
		if got := concerns(name, []string{path}); got != want {
			t.Errorf("%s and %s: %v", path, name, got)
		}
	}
	f("/etc/kaon/kaon.yaml", "/etc/kaon/kaon.yaml", true)
	f("/etc/kaon/kaon.yaml", "/etc/kaon/.kaon.yaml.swp", false)
	f("/etc/kaon/kaon.yaml", "/etc/other/kaon.yaml", false)
	f("/etc/kaon/kaon.yaml", "/etc/kaon/..data", true)
	f("/etc/kaon/*.yaml", "/etc/kaon/..data", true)
	f("kaon.yaml", "./kaon.yaml", true)
	f("./a/../kaon.yaml", "kaon.yaml", true)
	f("/p/*.bpf.o", "/p/new.bpf.o", true)
	f("/p/*.bpf.o", "/p/new.o", false)
	f("/p/*.bpf.o", "/p/new.yaml", true) // the object's manifest
	f("/p/x.bpf.o", "/p/x.yaml", true)
	f("/p/x.yaml", "/p/x.bpf.o", true)
	f("/p/x.yaml", "/p/y.bpf.o", false)
	f("/p/*/x.yaml", "/p/one/x.yaml", true)
	f("/p/*/x.yaml", "/p/one", true)
	f("/p/*/x.yaml", "/p", false)
	f("/p/*/x.yaml", "/p/one/..data", true)
	f("/p/[x.yaml", "/p/[x.yaml", true) // a malformed pattern is a name
}

func TestDirectories(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"a/x", "b/x", "b/y"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	f := func(path string, want ...string) {
		t.Helper()
		for i := range want {
			want[i] = filepath.Join(root, want[i])
		}
		if got := directories([]string{filepath.Join(root, path)}); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	f("kaon.yaml", "")
	f("*.yaml", "")
	f("a/*.yaml", "a")
	f("*/x/*.yaml", "", "a", "a/x", "b", "b/x")
	f("absent/x.yaml", "absent")
}

// Every way in which a file comes to be another one is noticed.
func TestWatch(t *testing.T) {
	const settle, patrol = 20 * time.Millisecond, 50 * time.Millisecond
	root := t.TempDir()
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(root, name) }
	put := func(name, text string) error { return os.WriteFile(in(name), []byte(text), 0o644) }
	do(os.MkdirAll(in("dir"), 0o755), put("dir/kaon.yaml", "1"), os.MkdirAll(in("late"), 0o755),
		os.MkdirAll(in("mount/..1"), 0o755), put("mount/..1/x.yaml", "1"), os.Symlink("..1", in("mount/..data")), os.Symlink("..data/x.yaml", in("mount/x.yaml")),
		os.MkdirAll(in("v1"), 0o755), os.MkdirAll(in("v2"), 0o755), os.Symlink("v1", in("version")))

	ctx, cancel := context.WithCancel(context.Background())
	changes := make(chan struct{}, 100)
	ended := make(chan error, 1)
	started := make(chan struct{}, 100)
	paths := func() []string {
		select {
		case started <- struct{}{}:
		default:
		}
		return []string{in("dir/kaon.yaml"), in("late/*/*.yaml"), in("mount/x.yaml"), in("version/x.yaml"), in("absent/x.yaml")}
	}
	go func() {
		ended <- watch(ctx, paths, func() { changes <- struct{}{} }, slog.New(slog.DiscardHandler), settle, patrol)
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	// Until the first change is noticed it is not known whether anything is watched.
	<-started
	noticed := func(what string, change func()) {
		t.Helper()
		change()
		select {
		case <-changes:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: not noticed", what)
		}
		// What belongs to the same change is no part of the next one.
		for quiet := false; !quiet; {
			select {
			case <-changes:
			case <-time.After(10 * settle):
				quiet = true
			}
		}
	}
	for begun := false; !begun; {
		do(put("dir/kaon.yaml", time.Now().String()))
		select {
		case <-changes:
			begun = true
		case <-time.After(20 * settle):
		}
	}
	noticed("written in place", func() { do(put("dir/kaon.yaml", "2")) })
	noticed("renamed over", func() { do(put("dir/new", "3"), os.Rename(in("dir/new"), in("dir/kaon.yaml"))) })
	noticed("removed", func() { do(os.Remove(in("dir/kaon.yaml"))) })
	noticed("there again", func() { do(put("dir/kaon.yaml", "4")) })
	noticed("directory removed and made again", func() { do(os.RemoveAll(in("dir")), os.Mkdir(in("dir"), 0o755), put("dir/kaon.yaml", "5")) })
	noticed("written in the new directory", func() { do(put("dir/kaon.yaml", "6")) })
	noticed("directory exchanged", func() {
		do(os.Mkdir(in("dir2"), 0o755), put("dir2/kaon.yaml", "7"), os.Rename(in("dir"), in("dir.old")), os.Rename(in("dir2"), in("dir")))
	})
	noticed("written in the exchanged directory", func() { do(put("dir/kaon.yaml", "8")) })
	noticed("ConfigMap", func() {
		do(os.Mkdir(in("mount/..2"), 0o755), put("mount/..2/x.yaml", "2"), os.Symlink("..2", in("mount/..tmp")), os.Rename(in("mount/..tmp"), in("mount/..data")))
	})
	noticed("a directory that matches", func() { do(os.Mkdir(in("late/one"), 0o755)) })
	noticed("a file in it", func() { do(put("late/one/x.yaml", "1")) })
	noticed("link to a directory exchanged", func() {
		do(put("v2/x.yaml", "1"), os.Symlink("v2", in("version.new")), os.Rename(in("version.new"), in("version")))
	})
	noticed("a directory that was absent", func() { do(os.Mkdir(in("absent"), 0o755)) })
	do(put("dir/other.txt", "1"))
	select {
	case <-changes:
		t.Error("a file that nobody names is noticed")
	case <-time.After(10 * settle):
	}
}

// An object that a manifest names belongs to what is watched.
func TestFiles(t *testing.T) {
	cgroup := newCgroup(t)
	a := newAgent(t, cgroup)
	dir := t.TempDir()
	copyFile(t, "calls.bpf.o", filepath.Join(dir, "code.bpf.o"))
	manifest := filepath.Join(dir, "mine.yaml")
	if err := os.WriteFile(manifest, []byte("apiVersion: kaon.dev/v1alpha1\nkind: Program\nspec: {source: {object: {path: code.bpf.o}}}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	apply(t, a, ProgramConfig{Source: manifest, Params: number})
	if got := a.Files(); !slices.Equal(got, []string{filepath.Join(dir, "code.bpf.o")}) {
		t.Errorf("got %v", got)
	}
}
