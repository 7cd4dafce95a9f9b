package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// containerScan is what is known of the binaries in containers. One goroutine uses it.
type containerScan struct {
	looked map[string]*lookedInto
	// places of hooks in the files.
	places map[placeKey]*filePlaces
}

// lookedInto is one container.
type lookedInto struct {
	container Container
	first     time.Time
	due       time.Time
	// files by the binary's name; errs where there is none.
	files map[string]*openFile
	errs  map[string]error
	// starting: there is no process in a root directory of its own yet.
	starting bool
	// settled: it had the time to get its binaries.
	settled bool
}

// openFile is a binary in a container. The descriptor is a path's (O_PATH): it reads nothing.
type openFile struct {
	file     *os.File
	identity fileIdentity
	// target is what functions are attached to: the file, whatever the container.
	target target
}

func (o *openFile) duplicate() (*os.File, error) { return duplicateFile(o.file) }

func duplicateFile(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// called names the file as what was looked for.
func (o *openFile) called(binary string) *openFile {
	o.target = target{Name: fmt.Sprintf("%s (inode %d)", binary, o.identity.inode), ID: o.identity.digest()}
	return o
}

// look looks into the containers whose time has come. It returns whether what is known is other than before, and when to look again.
func (s *containerScan) look(containers []Container, binaries []string, now time.Time) (changed bool, wait time.Duration) {
	there := make(map[string]bool, len(containers))
	next := now.Add(settledInterval)
	host := hostRoot()
	for _, c := range containers {
		there[c.ID] = true
		l := s.looked[c.ID]
		if l == nil {
			l = &lookedInto{first: now}
			s.looked[c.ID] = l
			changed = true
		}
		if !slices.Equal(l.container.Processes, c.Processes) {
			l.due = now // they may be in a cgroup that was made below
		}
		l.container = c
		if !now.Before(l.due) {
			if l.look(binaries, host) {
				changed = true
			}
			age := now.Sub(l.first)
			settled := age >= settledContainer
			changed = changed || settled != l.settled
			l.settled = settled
			switch {
			case len(l.errs) == 0 || l.settled:
				l.due = now.Add(settledInterval)
			case age < newContainer && l.starting:
				l.due = now.Add(startInterval)
			case age < newContainer:
				l.due = now.Add(newInterval)
			default:
				l.due = now.Add(unsettledInterval)
			}
		}
		if l.due.Before(next) {
			next = l.due
		}
	}
	for id, l := range s.looked {
		if !there[id] {
			l.close()
			delete(s.looked, id)
			changed = true
		}
	}
	return changed, max(startInterval, next.Sub(now))
}

func (s *containerScan) close() {
	for _, l := range s.looked {
		l.close()
	}
}

func (l *lookedInto) close() {
	for _, o := range l.files {
		o.file.Close()
	}
	l.files = nil
}

// look finds the binaries in the container as it is now, and returns whether they are other than before.
func (l *lookedInto) look(binaries []string, host inode) bool {
	files, errs := make(map[string]*openFile), make(map[string]error)
	roots, err := containerRoots(l.container, host)
	l.starting = errors.Is(err, errNoProcesses) || errors.Is(err, errNotInContainer)
	for _, name := range binaries {
		if err != nil {
			errs[name] = err
			continue
		}
		o, err := findInContainer(roots, name)
		if err != nil {
			errs[name] = err
			continue
		}
		files[name] = o.called(name)
	}
	for _, r := range roots {
		r.root.Close()
	}
	same := maps.EqualFunc(l.files, files, func(a, b *openFile) bool { return a.identity == b.identity }) &&
		maps.EqualFunc(l.errs, errs, func(a, b error) bool { return a.Error() == b.Error() })
	l.close()
	l.files, l.errs = files, errs
	return !same
}

// filesOf returns the different files of a binary, in a fixed order.
func (s *containerScan) filesOf(binary string) []*openFile {
	distinct := make(map[fileIdentity]*openFile)
	for _, id := range slices.Sorted(maps.Keys(s.looked)) {
		if o := s.looked[id].files[binary]; o != nil && distinct[o.identity] == nil {
			distinct[o.identity] = o
		}
	}
	return slices.SortedFunc(maps.Values(distinct), func(a, b *openFile) int { return compareTargets(a.target, b.target) })
}

// summary says in how many containers the function is not attached and why, and whether the Program is less than it should be for that:
// if no container has the binary, or one has it and can't be attached to.
func (s *containerScan) summary(f *function, binary string, leftOut, excess int) (all, missing error) {
	type reason struct {
		text  string
		count int
	}
	var reasons []reason
	add := func(text string) {
		for i := range reasons {
			if reasons[i].text == text {
				reasons[i].count++
				return
			}
		}
		reasons = append(reasons, reason{text, 1})
	}
	attached, without, failed := 0, 0, 0
	for _, id := range slices.Sorted(maps.Keys(s.looked)) {
		l := s.looked[id]
		o := l.files[binary]
		switch {
		case o == nil && l.errs[binary] != nil:
			if l.settled && (l.container.Matters == nil || l.container.Matters()) {
				without++
				add(l.errs[binary].Error())
			}
		case o == nil:
		default:
			a := f.find(o.target)
			if a != nil && a.attachment != nil {
				attached++
				continue
			}
			failed++
			if a != nil && a.err != nil {
				add(strings.TrimPrefix(firstLine(a.err), f.at(a.target)+": "))
			} else {
				add(fmt.Sprintf("more than %d different files", maxContainerFiles))
			}
		}
	}
	if without+failed+leftOut+excess == 0 {
		if attached == 0 {
			return errNoContainer, nil
		}
		return nil, nil
	}
	slices.SortStableFunc(reasons, func(a, b reason) int { return cmp.Compare(b.count, a.count) })
	const told = 5
	parts := make([]string, 0, told+1)
	for n, r := range reasons {
		if n == told {
			parts = append(parts, fmt.Sprintf("and %d more reasons", len(reasons)-told))
			break
		}
		parts = append(parts, fmt.Sprintf("%d: %s", r.count, r.text))
	}
	if leftOut > 0 {
		parts = append(parts, fmt.Sprintf("%d: beyond the limit of %d containers", leftOut, maxContainers))
	}
	all = fmt.Errorf("%s: attached in %d of %d containers (%s)", f, attached, attached+without+failed+leftOut, strings.Join(parts, "; "))
	if failed+leftOut+excess > 0 || attached == 0 {
		missing = all
	}
	return all, missing
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// errNoContainer is what a function waits for.
var errNoContainer = errors.New("no selected container has it yet")
