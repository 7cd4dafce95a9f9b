package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// cgroupSets keep maps of one Program filled while cgroups come and go.
type cgroupSets struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	sets   []*cgroupSet
}

// followCgroups begins to fill the Program's sets. It returns when they hold what there is now. The sets of before, which may be nil, are closed:
// they stop first, so that two don't fill one map, and let the kernel go on adding to their maps until it does to the new ones.
func (a *Agent) followCgroups(spec *program.Spec, selection Selection, maps mapSource, before *cgroupSets) (*cgroupSets, error) {
	before.stop()
	defer before.close()
	ctx, cancel := context.WithCancel(context.Background())
	s := &cgroupSets{cancel: cancel}
	for i := range spec.CgroupSets {
		set, err := a.newCgroupSet(&spec.CgroupSets[i], selection, maps, a.log.With("program", spec.Name))
		if err != nil {
			s.close()
			return nil, err
		}
		s.sets = append(s.sets, set)
		set.inheritNow(false)
		a.knowListed(ctx)
		filled := make(chan struct{})
		var once sync.Once
		s.done.Go(func() {
			a.workloads.Follow(ctx, set.changed, func(groups []workload.Cgroup) {
				set.update(groups)
				once.Do(func() { close(filled) })
			})
		})
		<-filled
	}
	before.close()
	for _, set := range s.sets {
		set.inheritNow(true) // if there was no room beside those before
	}
	return s, nil
}

// fillCgroups fills the sets that a new instance of a Program does not have from the one that it replaces, before it takes over: what is
// selected is counted without a gap. The kernel adds to them until the caller closes what is returned, which it may do once they are followed.
func (a *Agent) fillCgroups(spec *program.Spec, selection Selection, maps interface {
	mapSource
	KeptMap(string) bool
}) (*cgroupSets, error) {
	s := &cgroupSets{cancel: func() {}}
	for i := range spec.CgroupSets {
		if maps.KeptMap(spec.CgroupSets[i].Map) {
			continue
		}
		set, err := a.newCgroupSet(&spec.CgroupSets[i], selection, maps, a.log.With("program", spec.Name))
		if err != nil {
			s.close()
			return nil, err
		}
		s.sets = append(s.sets, set)
		set.inheritNow(false)
		a.knowListed(context.Background())
		set.update(a.workloads.Existing())
	}
	return s, nil
}

// knowListed waits until the cgroups that the kernel added to sets which were just listed are known: an update takes out those that it
// takes for gone. Where that fails, as without events, it puts them back when they are found.
func (a *Agent) knowListed(ctx context.Context) {
	if err := a.workloads.Sync(ctx); err != nil {
		a.log.Debug("could not wait for the latest cgroups", "error", err)
	}
}

// stop stops following. It may be called on nil.
func (s *cgroupSets) stop() {
	if s == nil {
		return
	}
	s.cancel()
	s.done.Wait()
}

// close stops following and lets go of the maps. It may be called on nil, and again.
func (s *cgroupSets) close() {
	if s == nil {
		return
	}
	s.stop()
	for _, set := range s.sets {
		set.release()
		set.release = func() {}
	}
}

// problem says what the sets lack. It may be called on nil.
func (s *cgroupSets) problem() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, set := range s.sets {
		if err := set.problem.Load(); err != nil {
			errs = append(errs, *err)
		}
	}
	return errors.Join(errs...)
}

// selected returns the numbers of the cgroups by which the kernel selects, and of those that found no room there.
func (s *cgroupSets) selected() (members, leftOut int) {
	if s == nil {
		return 0, 0
	}
	for _, set := range s.sets {
		if set.selection != nil {
			members, leftOut = int(set.members.Load()), int(set.leftOut.Load())
		}
	}
	return members, leftOut
}

type mapSource interface{ Map(string) *ebpf.Map }

// cgroupSet is one map, which may hold what an earlier configuration put there.
type cgroupSet struct {
	m       *ebpf.Map
	name    string
	storage bool
	// wants tells whether a cgroup is a member, directory where it is. undecided, asked before, whether that can't be told yet.
	wants     func(workload.Cgroup) bool
	undecided func(workload.Cgroup) bool
	directory func(workload.ID) string
	// selection, if not nil, is what decides that: then the kernel adds what is made below members.
	selection Selection
	// inherit has the kernel do that, nil once it does; release lets it end.
	inherit func() error
	release func()
	// inside are the ids in the map that we know of: of storage that can't be listed, those that we put there.
	inside map[workload.ID]struct{}
	// before are the cgroups of the latest update; nil before the first.
	before map[workload.ID]struct{}
	log    *slog.Logger
	failed bool

	members, leftOut atomic.Int64
	problem          atomic.Pointer[error]
}

func (a *Agent) newCgroupSet(spec *program.CgroupSet, selection Selection, maps mapSource, log *slog.Logger) (*cgroupSet, error) {
	s := &cgroupSet{m: maps.Map(spec.Map), name: spec.Map, storage: spec.Storage, directory: a.workloads.DirectoryOf, undecided: func(workload.Cgroup) bool { return false },
		inside: map[workload.ID]struct{}{}, release: func() {}, log: log.With("map", spec.Map)}
	if s.m == nil {
		return nil, fmt.Errorf("follow cgroups: the program has no map %s", spec.Map)
	}
	if spec.Map == program.SelectedMap {
		a.selectCgroups(s, selection)
	} else if err := s.matchPaths(spec); err != nil {
		return nil, err
	}
	if s.storage {
		return s, nil
	}
	var id, value uint64
	keys := s.m.Iterate()
	for keys.Next(&id, &value) {
		s.inside[workload.ID(id)] = struct{}{}
	}
	if err := keys.Err(); err != nil {
		return nil, fmt.Errorf("follow cgroups: list the map %s: %w", spec.Map, err)
	}
	return s, nil
}

// matchPaths makes the cgroups v2 members whose directories match.
func (s *cgroupSet) matchPaths(spec *program.CgroupSet) error {
	var regexps []*regexp.Regexp
	for _, text := range spec.Regexps {
		r, err := regexp.Compile(text)
		if err != nil {
			return fmt.Errorf("follow cgroups for the map %s: %w", spec.Map, err)
		}
		regexps = append(regexps, r)
	}
	s.wants = func(c workload.Cgroup) bool {
		directory := ""
		if c.Unified() {
			directory = s.directory(c.ID)
		}
		return directory != "" && slices.ContainsFunc(regexps, func(r *regexp.Regexp) bool { return r.MatchString(directory) })
	}
	return nil
}

// selectCgroups makes the cgroups of selected workloads members: of pods, their containers and what is below those.
func (a *Agent) selectCgroups(s *cgroupSet, selection Selection) {
	s.selection = selection
	s.wants = func(c workload.Cgroup) bool {
		return selection != nil && a.layout.Counts(c.ID) && selection.Selects(workload.Name(c.Path))
	}
	s.undecided = func(c workload.Cgroup) bool { return selection != nil && !selection.Known(workload.Name(c.Path)) }
	s.inherit = func() error {
		release, err := a.workloads.Inherit(s.m)
		if err != nil {
			return err
		}
		s.inherit = nil
		s.release = func() {
			if err := release(); err != nil {
				s.log.Warn("could not let go of a map", "error", err)
			}
		}
		return nil
	}
}

// inheritNow has the kernel add what is made below members, if it does not yet and should.
func (s *cgroupSet) inheritNow(tellFailure bool) {
	if s.inherit == nil {
		return
	}
	if err := s.inherit(); err != nil && tellFailure {
		s.log.Warn("the first events of new containers of selected pods are not counted", "reason", err)
	}
}

// changed returns a channel that is closed when other cgroups may be members.
func (s *cgroupSet) changed() <-chan struct{} {
	if s.selection == nil {
		return nil
	}
	return s.selection.Changed()
}

// update makes the map hold the members among these cgroups, which are all that exist. What fails is tried again when cgroups change.
func (s *cgroupSet) update(groups []workload.Cgroup) {
	var errs []error
	there := make(map[workload.ID]struct{}, len(groups))
	var members []workload.Cgroup
	var later []workload.ID
	for _, c := range groups {
		there[c.ID] = struct{}{}
		_, inside := s.inside[c.ID]
		undecided := s.undecided(c)
		if s.wants(c) {
			members = append(members, c)
			continue
		}
		if undecided {
			// It stays as it is, as what an earlier agent selected, until it is known; then it is looked at as if it were new.
			later = append(later, c.ID)
			continue
		}
		_, seen := s.before[c.ID]
		// What an earlier configuration left in storage, or the kernel added meanwhile.
		unknown := !seen && (s.storage && s.before == nil || s.selection != nil)
		if inside || unknown {
			if err := s.remove(c.ID); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for id := range s.inside {
		if _, exists := there[id]; exists {
			continue
		}
		// The kernel itself removes storage along with its cgroup.
		if s.storage {
			delete(s.inside, id)
		} else if err := s.remove(id); err != nil {
			errs = append(errs, err)
		}
	}
	leftOut := 0
	for _, c := range members {
		if _, inside := s.inside[c.ID]; inside {
			continue
		}
		err := s.add(c.ID)
		switch {
		case errors.Is(err, unix.E2BIG):
			leftOut++
		case err != nil:
			errs = append(errs, err)
		default:
			s.inside[c.ID] = struct{}{}
		}
	}
	for _, id := range later {
		delete(there, id)
	}
	s.before = there
	s.report(leftOut, errors.Join(errs...))
}

func (s *cgroupSet) report(leftOut int, err error) {
	s.members.Store(int64(len(s.inside)))
	s.leftOut.Store(int64(leftOut))
	if leftOut > 0 {
		err = errors.Join(err, fmt.Errorf("the map %s is full with %d cgroups: what happens in %d more is not counted: select less", s.name, len(s.inside), leftOut))
	}
	if err == nil {
		s.failed = false
		s.problem.Store(nil)
		return
	}
	s.problem.Store(&err)
	if !s.failed {
		s.log.Warn("a map does not hold all cgroups that it should", "error", err)
	}
	s.failed = true
}

// remove takes a cgroup out of the map if it is there.
func (s *cgroupSet) remove(id workload.ID) error {
	remove := func(key any) error {
		if err := s.m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		return nil
	}
	var err error
	if s.storage {
		err = s.withStorage(id, func(fd uint32) error { return remove(fd) })
	} else {
		err = remove(uint64(id))
	}
	if err == nil {
		delete(s.inside, id)
	}
	return err
}

func (s *cgroupSet) add(id workload.ID) error {
	if !s.storage {
		return s.m.Put(uint64(id), uint64(1))
	}
	return s.withStorage(id, func(fd uint32) error { return s.m.Put(fd, uint64(1)) })
}

// withStorage calls f with the key of a cgroup's storage, which is a descriptor of its directory.
func (s *cgroupSet) withStorage(id workload.ID, f func(fd uint32) error) error {
	directory := s.directory(id)
	if directory == "" {
		return nil
	}
	d, err := os.Open(directory)
	if errors.Is(err, os.ErrNotExist) {
		return nil // gone already
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return f(uint32(d.Fd()))
}
