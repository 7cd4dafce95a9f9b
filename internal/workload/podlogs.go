package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// ErrNoPodLogs: there is no directory of the logs of pods here.
var ErrNoPodLogs = errors.New("no logs of pods")

const (
	podLogs, containerLogs = "pods", "containers"
	// maxPodLogs bounds the pods that are kept, and the containers.
	maxPodLogs = 20_000
	// podLogsAge is how long names are kept of what has no log any more.
	podLogsAge = 5 * time.Minute
)

// PodLogs knows pods by the names of the files in which the kubelet keeps their logs: a directory
// pods/NAMESPACE_POD_UID for each pod, a link containers/POD_NAMESPACE_CONTAINER-ID.log for each container that
// was started. So it needs no API server and no rights there. It reads no log.
type PodLogs struct {
	directory string
	log       *slog.Logger
	watcher   *fsnotify.Watcher // nil if the directories can't be watched

	mu         sync.RWMutex
	pods       map[string]loggedPod       // by UID
	containers map[string]loggedContainer // by id
	stats      PodStats
}

type loggedPod struct {
	namespace, name string
	gone            time.Time
}

type loggedContainer struct {
	loggedPod
	container string
}

// FindPodLogs returns the place where a node's /var/log can be seen: this machine's own, that of a host whose
// processes are visible, or where kubectl debug mounts it. One that has logs of pods is better than one that has none yet.
func FindPodLogs() (directory string, ok bool) {
	for _, d := range []string{"/var/log", "/proc/1/root/var/log", "/host/var/log"} {
		names, err := readNames(filepath.Join(d, podLogs))
		if err != nil {
			continue
		}
		if slices.ContainsFunc(names, func(name string) bool { _, _, ok := parsePodLog(name); return ok }) {
			return d, true
		}
		if !ok {
			directory, ok = d, true
		}
	}
	return directory, ok
}

// NewPodLogs reads the names below a directory that is a node's /var/log. Run follows them.
func NewPodLogs(directory string, log *slog.Logger) (*PodLogs, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &PodLogs{directory: directory, log: log, pods: map[string]loggedPod{}, containers: map[string]loggedContainer{}}
	if info, err := os.Stat(filepath.Join(directory, podLogs)); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%w: %s is no directory", ErrNoPodLogs, filepath.Join(directory, podLogs))
	}
	if err := l.watch(); err != nil {
		log.Debug("logs of pods are looked for now and then only", "error", err)
	}
	// After watching, so that nothing falls in between.
	l.scan(time.Now())
	return l, nil
}

func (l *PodLogs) watch() error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch logs of pods: %w", err)
	}
	for _, sub := range []string{podLogs, containerLogs} {
		err := w.Add(filepath.Join(l.directory, sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return errors.Join(fmt.Errorf("watch logs of pods: %w", err), w.Close())
		}
	}
	l.watcher = w
	return nil
}

// Run follows what comes and goes until the context ends.
func (l *PodLogs) Run(ctx context.Context) {
	var events chan fsnotify.Event
	var failures chan error
	every := 2 * time.Second
	if l.watcher != nil {
		events, failures, every = l.watcher.Events, l.watcher.Errors, time.Minute
		defer func() { _ = l.watcher.Close() }()
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			l.scan(now)
		case err := <-failures:
			l.log.Debug("changes of the logs of pods were lost", "error", err)
			l.scan(time.Now())
		case e, ok := <-events:
			if !ok {
				return
			}
			l.enter(filepath.Base(filepath.Dir(e.Name)), filepath.Base(e.Name), e.Has(fsnotify.Create), time.Now())
		}
	}
}

// enter takes in that a file of that name was made, or is gone.
func (l *PodLogs) enter(sub, name string, made bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Events++
	l.stats.LastSync = now
	l.set(sub, name, made, now)
}

func (l *PodLogs) set(sub, name string, exists bool, now time.Time) {
	gone := time.Time{}
	if !exists {
		gone = now
	}
	if sub == podLogs {
		if uid, pod, ok := parsePodLog(name); ok && (exists || l.pods[uid].gone.IsZero()) && room(l.pods, uid) {
			pod.gone = gone
			l.pods[uid] = pod
		}
		return
	}
	if id, c, ok := parseContainerLog(name); ok && (exists || l.containers[id].gone.IsZero()) && room(l.containers, id) {
		c.gone = gone
		l.containers[id] = c
	}
}

func room[V any](m map[string]V, key string) bool {
	_, known := m[key]
	return known || len(m) < maxPodLogs
}

// scan reads both directories and forgets what has been gone for long.
func (l *PodLogs) scan(now time.Time) {
	defer l.forget(now)
	names := map[string][]string{}
	for _, sub := range []string{podLogs, containerLogs} {
		all, err := readNames(filepath.Join(l.directory, sub))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			l.log.Debug("logs of pods could not be listed", "error", err)
			l.mu.Lock()
			l.stats.Errors++
			l.mu.Unlock()
			return
		}
		names[sub] = all
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// What is not seen again is gone.
	for uid, p := range l.pods {
		p.gone = goneSince(p.gone, now)
		l.pods[uid] = p
	}
	for id, c := range l.containers {
		c.gone = goneSince(c.gone, now)
		l.containers[id] = c
	}
	for sub, all := range names {
		for _, name := range all {
			l.set(sub, name, true, now)
		}
	}
	l.stats.LastSync = now
}

// forget drops what has been gone for long.
func (l *PodLogs) forget(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for uid, p := range l.pods {
		if !p.gone.IsZero() && now.Sub(p.gone) > podLogsAge {
			delete(l.pods, uid)
		}
	}
	for id, c := range l.containers {
		if !c.gone.IsZero() && now.Sub(c.gone) > podLogsAge {
			delete(l.containers, id)
		}
	}
}

func goneSince(gone, now time.Time) time.Time {
	if gone.IsZero() {
		return now
	}
	return gone
}

// readNames returns the names in a directory, as many as are kept.
func readNames(directory string) ([]string, error) {
	d, err := os.Open(directory)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxPodLogs)
	if errors.Is(err, io.EOF) {
		err = nil // it is empty
	}
	return names, err
}

// Identify implements PodNames.
func (l *PodLogs) Identify(uid, containerID string) PodIdentity {
	l.mu.RLock()
	defer l.mu.RUnlock()
	p, ok := l.pods[uid]
	if !ok {
		return PodIdentity{}
	}
	identity := PodIdentity{Namespace: p.namespace, Pod: p.name}
	if c := l.containers[containerID]; c.namespace == p.namespace && c.name == p.name {
		identity.Container = c.container
	}
	return identity
}

// ExtraLabels implements PodNames: names of files tell no labels.
func (l *PodLogs) ExtraLabels() []string { return nil }

// Stats implements PodNames.
func (l *PodLogs) Stats() []PodStats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	s := l.stats
	s.Source, s.Connected = "logs", true
	for _, p := range l.pods {
		if p.gone.IsZero() {
			s.Pods++
		} else {
			s.Retained++
		}
	}
	return []PodStats{s}
}

// parsePodLog takes a directory's name apart: NAMESPACE_POD_UID. No part can have an underscore.
func parsePodLog(name string) (uid string, pod loggedPod, ok bool) {
	parts := strings.Split(name, "_")
	if len(parts) != 3 || !isName(parts[0], false) || !isName(parts[1], true) || !isPodUID(parts[2]) {
		return "", loggedPod{}, false
	}
	return parts[2], loggedPod{namespace: parts[0], name: parts[1]}, true
}

// parseContainerLog takes a link's name apart: POD_NAMESPACE_CONTAINER-ID.log. The kubelet cuts very long ones,
// and with them the id: these are not accepted.
func parseContainerLog(name string) (id string, c loggedContainer, ok bool) {
	name, isLog := strings.CutSuffix(name, ".log")
	parts := strings.Split(name, "_")
	if !isLog || len(parts) != 3 || len(parts[2]) < containerIDLength+2 {
		return "", loggedContainer{}, false
	}
	end := len(parts[2]) - containerIDLength
	container, dash, id := parts[2][:end-1], parts[2][end-1], parts[2][end:]
	if !isName(parts[0], true) || !isName(parts[1], false) || !isName(container, false) || dash != '-' || !isContainerID(id) {
		return "", loggedContainer{}, false
	}
	return id, loggedContainer{loggedPod: loggedPod{namespace: parts[1], name: parts[0]}, container: container}, true
}

// isName accepts the characters of Kubernetes' names: DNS labels, and subdomains if dots are allowed.
func isName(s string, dots bool) bool {
	for i := range len(s) {
		c := s[i]
		if c-'a' >= 26 && c-'0' >= 10 && c != '-' && (c != '.' || !dots) {
			return false
		}
	}
	return s != "" && len(s) <= 253
}
