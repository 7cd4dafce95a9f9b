package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/cilium/ebpf/features"

	"github.com/kaon-project/kaon/internal/program"
)

// A place attaches a function where reading a binary told to, at a path by which the file is to be had now.
type place func(r *attachRequest, path string) (attachment, error)

// filePlaces are where one hook is attached in one file. They don't change, and are made without a lock: reading a file may take long.
type filePlaces struct {
	places []place
	// err says why there are none.
	err error
}

// placedFile is a file in containers that a function is to be attached to.
type placedFile struct {
	file *os.File
	*filePlaces
}

// path by which this process opens the file. It may be unlinked, or out of reach for this process's root directory.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// placeKey is what filePlaces depend on.
type placeKey struct {
	kind   program.HookKind
	hook   string
	target target
}

// locate reads the files that functions are to be attached to, each once for a hook, until the context ends.
func (s *containerScan) locate(ctx context.Context, functions []*function) {
	known := s.places
	s.places = make(map[placeKey]*filePlaces)
	for _, f := range functions {
		binary, rest, err := splitBinary(&f.hook)
		if err != nil {
			continue // it failed when it was loaded
		}
		files := s.filesOf(binary)
		for _, o := range files[:min(len(files), maxContainerFiles)] {
			if ctx.Err() != nil {
				return
			}
			key := placeKey{f.hook.Kind, f.hook.Target, o.target}
			if s.places[key] = known[key]; s.places[key] == nil {
				s.places[key] = placesIn(f, o.file, binary, rest)
			}
		}
	}
}

// placesOf returns what locate found for a function in a file, nil if it did not get there.
func (s *containerScan) placesOf(f *function, t target) *filePlaces {
	return s.places[placeKey{f.hook.Kind, f.hook.Target, t}]
}

// placesIn reads a file.
func placesIn(f *function, file *os.File, binary, rest string) *filePlaces {
	path := descriptorPath(file)
	hook := f.hook
	hook.Target = path + rest
	places, err := f.family.places(&hook)
	if err != nil {
		return &filePlaces{err: &renamedError{err, path, binary}}
	}
	if len(places) > maxContainerPlaces {
		return &filePlaces{err: fmt.Errorf("%s has %d places for it, more than %d", binary, len(places), maxContainerPlaces)}
	}
	return &filePlaces{places: places}
}

// attachPlaces attaches a function to the file of a target as it would be to a path on the host.
func attachPlaces(r *attachRequest, f *function) (attachment, error) {
	in, known := f.places[r.target]
	if !known {
		return nil, fmt.Errorf("%w: the file is gone", ErrNoTarget)
	}
	if in.err != nil {
		return nil, in.err
	}
	binary, _, err := splitBinary(r.hook)
	if err != nil {
		return nil, err
	}
	path := descriptorPath(in.file)
	var made attachments
	for _, attach := range in.places {
		a, err := attach(r, path)
		if err != nil {
			return nil, errors.Join(&renamedError{err, path, binary}, made.Close())
		}
		made = append(made, a)
	}
	return made, nil
}

func uprobePlaces(hook *program.Hook) ([]place, error) {
	_, offsets, err := locateUprobe(hook)
	if err != nil {
		return nil, err
	}
	multi, ret := hook.Kind == program.UprobeMulti || hook.Kind == program.UretprobeMulti, hook.Kind == program.Uretprobe || hook.Kind == program.UretprobeMulti
	addresses := sortedOffsets(offsets)
	if multi && features.HaveBPFLinkUprobeMulti() == nil {
		if len(addresses) > maxContainerFunctions {
			return nil, fmt.Errorf("%s matches %d functions, more than %d", hook.Target, len(addresses), maxContainerFunctions)
		}
		return []place{func(r *attachRequest, path string) (attachment, error) {
			return setUprobes(r.program, path, addresses, hook.PID, ret)
		}}, nil
	}
	if !multi && len(offsets) > 1 {
		return nil, fmt.Errorf("%s matches %d functions: use uprobe.multi", hook.Target, len(offsets))
	}
	places := make([]place, 0, len(addresses))
	for _, offset := range addresses {
		places = append(places, func(r *attachRequest, path string) (attachment, error) {
			return setUprobe(r.program, path, offset, hook.PID, ret, 0, 0)
		})
	}
	return places, nil
}

func usdtPlaces(hook *program.Hook) ([]place, error) {
	_, probe, err := usdtLocations(hook)
	if err != nil {
		return nil, err
	}
	places := make([]place, 0, len(probe.locations))
	for n := range probe.locations {
		places = append(places, func(r *attachRequest, path string) (attachment, error) { return probe.attach(r, path, n) })
	}
	return places, nil
}

// setPlace remembers the file of a target: it is attached to by that, and again when the function is replaced.
func (f *function) setPlace(t target, file *os.File, places *filePlaces) {
	if f.places == nil {
		f.places = make(map[target]placedFile)
	}
	f.closePlace(t)
	f.places[t] = placedFile{file, places}
}

func (f *function) closePlace(t target) {
	if p, known := f.places[t]; known {
		p.file.Close()
		delete(f.places, t)
	}
}

// inheritPlaces lets functions begin with the files that their predecessors are attached to, so that nothing is lost until they are found again.
func (i *Instance) inheritPlaces(old *Instance) {
	for _, f := range i.order {
		before := old.functions[f.hook.Function]
		if before == nil || !i.inContainers(f) || !old.inContainers(before) || before.hook.Target != f.hook.Target || before.hook.Kind != f.hook.Kind {
			continue
		}
		for t, p := range before.places {
			if duplicate, err := duplicateFile(p.file); err == nil {
				f.setPlace(t, duplicate, p.filePlaces)
			}
		}
	}
}

// placeTargets are the targets whose files are known, in a fixed order.
func (f *function) placeTargets() ([]target, error) {
	if _, _, err := splitBinary(&f.hook); err != nil {
		return nil, err
	}
	if len(f.places) == 0 {
		return nil, errNothingYet
	}
	targets := make([]target, 0, len(f.places))
	for t := range f.places {
		targets = append(targets, t)
	}
	slices.SortFunc(targets, compareTargets)
	return targets, nil
}
