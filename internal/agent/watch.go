package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long files must be at rest before a change is taken up: editors and
	// ConfigMap mounts change a file in several steps.
	settle = 250 * time.Millisecond
	// patrol is how often it is looked whether directories were exchanged, of which the kernel does not tell.
	patrol = 2 * time.Second
)

// Watch calls changed after one of the paths, or a file or directory that matches one as a pattern,
// changed. paths is asked again after each change. It returns when the context ends.
func Watch(ctx context.Context, paths func() []string, changed func(), log *slog.Logger) error {
	return watch(ctx, paths, changed, log, settle, patrol)
}

func watch(ctx context.Context, paths func() []string, changed func(), log *slog.Logger, settle, patrol time.Duration) error {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	defer notify.Close()
	w := &watcher{notify: notify, watched: map[string]os.FileInfo{}, log: log}
	w.follow(paths())
	timer := time.NewTimer(settle)
	timer.Stop()
	ticker := time.NewTicker(patrol)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-notify.Events:
			if event.Op != fsnotify.Chmod && concerns(event.Name, paths()) {
				timer.Reset(settle)
			}
		case err := <-notify.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				log.Warn("changes of files may have been missed: send SIGHUP", "error", err)
				continue
			}
			timer.Reset(settle)
		case <-ticker.C:
			if w.follow(paths()) {
				timer.Reset(settle)
			}
		case <-timer.C:
			changed()
			if w.follow(paths()) {
				// Something may have been put there before it was watched.
				timer.Reset(settle)
			}
		}
	}
}

// watcher watches directories, not files: a file that is replaced would be lost.
type watcher struct {
	notify *fsnotify.Watcher
	// watched says which directory was found under each name; nil if there was none.
	watched map[string]os.FileInfo
	log     *slog.Logger
}

// follow watches the directories of the paths, and reports whether one of them is new.
func (w *watcher) follow(paths []string) bool {
	fresh := false
	list := w.notify.WatchList()
	for _, dir := range directories(paths) {
		before, known := w.watched[dir]
		now, err := os.Stat(dir)
		if err == nil && before != nil && os.SameFile(before, now) && slices.Contains(list, dir) {
			continue
		}
		if slices.Contains(list, dir) {
			// Another directory has the name now. An error says that the old one is not watched, which is what is wanted.
			_ = w.notify.Remove(dir)
		}
		if err == nil {
			err = w.notify.Add(dir)
		}
		if err != nil {
			if !known {
				w.log.Warn("a directory can't be watched: it is tried again", "directory", dir, "error", err)
			}
			w.watched[dir] = nil
			continue
		}
		w.watched[dir] = now
		fresh = true
	}
	return fresh
}

// directories returns the directories in which files and directories may come and go that paths name.
func directories(paths []string) []string {
	var dirs []string
	for _, path := range paths {
		for {
			path = filepath.Dir(path)
			if !isPattern(path) {
				dirs = append(dirs, path)
				break
			}
			// A malformed pattern matches nothing; reading the configuration reports it.
			matches, _ := filepath.Glob(path)
			dirs = append(dirs, matches...)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

func isPattern(path string) bool { return strings.ContainsAny(path, "*?[") }

// concerns reports whether a changed file is one of the paths or what belongs to it, matches a pattern (or a directory in
// it), or is the link by which Kubernetes exchanges a mounted ConfigMap.
func concerns(name string, paths []string) bool {
	name = filepath.Clean(name)
	matches := func(pattern, name string) bool {
		match, err := filepath.Match(pattern, name)
		return err == nil && match || pattern == name
	}
	for _, path := range paths {
		if slices.ContainsFunc(beside(path), func(m string) bool { return matches(m, name) }) {
			return true
		}
		for path = filepath.Clean(path); ; path = filepath.Dir(path) {
			dir := filepath.Dir(path)
			if matches(path, name) || filepath.Base(name) == "..data" && matches(dir, filepath.Dir(name)) {
				return true
			}
			if !isPattern(dir) {
				break
			}
		}
	}
	return false
}

// Paths returns the files that the configuration names, for Watch. Built-in programs have none.
func (c *Config) Paths() []string {
	var paths []string
	for _, p := range c.Programs {
		if p.isPath() {
			paths = append(paths, p.Source)
		}
	}
	return paths
}

// Files returns further files that the Programs were made of, for Watch: the objects that manifests name.
func (a *Agent) Files() []string {
	var files []string
	for _, u := range a.all() {
		u.use.RLock()
		if u.spec != nil {
			files = append(files, u.spec.Origin.Files...)
		}
		u.use.RUnlock()
	}
	return files
}
