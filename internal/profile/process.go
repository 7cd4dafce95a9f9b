package profile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what is kept of processes.
const (
	maxProcesses = 8192
	// maxOpenFiles are kept open, so that files that are deleted meanwhile can be read in the end.
	maxOpenFiles = 512
	// lookTime is how long looking at a process may take: its file systems may be those of a program that hangs.
	lookTime = time.Second
	// maxHanging looks that took longer: then no more processes are looked at.
	maxHanging = 4
)

var errTooManyFiles = errors.New("too many files are open")

// space is one address space: a process from its exec to its end.
type space struct {
	process uint32
	memory  uint64
}

// process is what is known of an address space.
type process struct {
	mappings []mapping
	perfMap  *os.File
	// looked is when it was looked at last, wait for how long it need not be again.
	looked time.Time
	wait   time.Duration
	gone   bool
	// late has what a look that took too long found after all; nil: none is under way.
	late chan seen
	// fromEvents is how many of the mappings were known by events when they were last asked.
	fromEvents int
}

// object is a file that code is mapped from. It stays open.
type object struct {
	binary *Binary
	file   io.ReaderAt // nil: could not be opened
}

type objectKey struct {
	device string
	inode  uint64
	path   string
}

// processes remembers what the sampled processes have mapped.
type processes struct {
	proc     string
	patience time.Duration // lookTime, but for tests
	known    map[space]*process
	lives    *lives

	mu      sync.Mutex // guards what follows, and the files of objects: looks that hang go on in the background
	objects map[objectKey]*object
	opened  int
	closed  bool
	hanging int
}

func newProcesses(proc string) *processes {
	return &processes{proc: proc, patience: lookTime, known: map[space]*process{}, lives: newLives(), objects: map[objectKey]*object{}}
}

// see makes sure that the mappings of a process are known, and again if addresses lie in none of them. name is the one under
// which it was sampled.
func (p *processes) see(s space, name string, addresses []uint64, now time.Time) {
	known := p.known[s]
	if known == nil {
		if len(p.known) >= maxProcesses {
			return
		}
		known = &process{}
		p.known[s] = known
	} else if known.covers(addresses) || !known.takeLate() {
		return
	}
	life := p.lives.byPID[s.process]
	if life != nil {
		if mapped := life.named(name); len(mapped) > known.fromEvents {
			known.fromEvents = len(mapped)
			p.attempt(known, func() seen { return p.follow(s.process, life.parent, mapped, known.perfMap == nil) })
		}
	}
	if known.covers(addresses) || known.gone || known.late != nil || now.Sub(known.looked) < known.wait {
		return
	}
	// Where a stack was walked wrongly it won't help: not as often, then.
	known.looked, known.wait = now, max(2*known.wait, 100*time.Millisecond)
	wantPerfMap := known.perfMap == nil
	p.attempt(known, func() seen { return p.snapshot(s.process, wantPerfMap) })
	if known.gone && len(known.mappings) == 0 && life != nil && life.parent != 0 {
		// It did not live to run a program of its own: what it had was its parent's.
		p.attempt(known, func() seen { return p.snapshot(life.parent, false) })
		known.gone = true
	}
}

// covers says that all addresses lie in mappings, and that there is a list of names for those that lie in no file.
func (p *process) covers(addresses []uint64) bool {
	for _, a := range addresses {
		m := find(p.mappings, a)
		if m == nil || m.object == nil && p.perfMap == nil {
			return false
		}
	}
	return true
}

// seen is what one look at a process found.
type seen struct {
	mappings []mapping
	perfMap  *os.File
	err      error
}

func (p *process) take(found seen) {
	p.gone = found.err != nil
	if len(found.mappings) > 0 {
		p.mappings = merge(p.mappings, found.mappings)
	}
	if found.perfMap != nil {
		p.perfMap = found.perfMap
	}
}

// takeLate takes what a look found that took too long. false: it is still under way.
func (p *process) takeLate() bool {
	if p.late == nil {
		return true
	}
	select {
	case found := <-p.late:
		p.late = nil
		p.take(found)
		return true
	default:
		return false
	}
}

// attempt takes what a look at a process finds, later if it takes too long.
func (p *processes) attempt(known *process, look func() seen) {
	p.mu.Lock()
	hanging := p.hanging
	p.mu.Unlock()
	if hanging >= maxHanging {
		return
	}
	done := make(chan seen, 1)
	go func() { done <- look() }()
	timer := time.NewTimer(p.patience)
	defer timer.Stop()
	select {
	case found := <-done:
		known.take(found)
	case <-timer.C:
		p.mu.Lock()
		p.hanging++
		p.mu.Unlock()
		late := make(chan seen, 1)
		known.late = late
		go func() { // it may end after all
			found := <-done
			p.mu.Lock()
			defer p.mu.Unlock()
			p.hanging--
			if p.closed && found.perfMap != nil {
				found.perfMap.Close()
				return
			}
			late <- found
		}()
	}
}

func (p *processes) directory(pid uint32) string {
	return p.proc + "/" + strconv.FormatUint(uint64(pid), 10)
}

// snapshot reads the mappings of a process and opens the files.
func (p *processes) snapshot(pid uint32, wantPerfMap bool) (found seen) {
	directory := p.directory(pid)
	f, err := os.Open(directory + "/maps")
	if err != nil {
		return seen{err: fmt.Errorf("look at process %d: %w", pid, err)}
	}
	found.mappings, err = parseMaps(f)
	f.Close()
	if err == nil && len(found.mappings) == 0 {
		err = fmt.Errorf("look at process %d: it has ended", pid)
	}
	if err != nil {
		return seen{err: err}
	}
	found.perfMap = p.open(found.mappings, directory, nil, wantPerfMap)
	return found
}

// follow opens the files of mappings that events told of. The process may have ended: then its parent, or this one, may have the same files.
func (p *processes) follow(pid, parent uint32, mappings []mapping, wantPerfMap bool) (found seen) {
	found.mappings = slices.Clone(mappings)
	var others []string
	if parent != 0 {
		others = append(others, p.directory(parent))
	}
	found.perfMap = p.open(found.mappings, p.directory(pid), append(others, p.proc+"/self"), wantPerfMap)
	return found
}

// open finds the files of mappings.
func (p *processes) open(mappings []mapping, directory string, others []string, wantPerfMap bool) *os.File {
	generated := false
	for i := range mappings {
		m := &mappings[i]
		switch {
		case strings.HasPrefix(m.path, "/") && m.inode != 0:
			m.object = p.object(m, directory, others)
		case m.path == "[vdso]":
			m.object = p.vdso(m)
		default:
			generated = true
		}
	}
	if !generated || !wantPerfMap {
		return nil
	}
	f, err := openPerfMap(directory)
	if err != nil {
		return nil // that there is none is the rule
	}
	return f
}

// object returns the file behind a mapping, opened once: as the process has it, or as others do.
func (p *processes) object(m *mapping, directory string, others []string) *object {
	key := objectKey{m.device, m.inode, m.path}
	p.mu.Lock()
	o, full := p.objects[key], p.opened >= maxOpenFiles
	ready := o != nil && o.file != nil
	p.mu.Unlock()
	if ready {
		return o
	}
	if o == nil {
		o = &object{binary: &Binary{Path: m.path}}
	}
	f, err := (*os.File)(nil), errTooManyFiles
	if !full {
		f, err = openMapped(directory, m)
		for _, other := range others {
			if err != nil {
				f, err = openElsewhere(other, m)
			}
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if other := p.objects[key]; other != nil {
		o = other // it came in between
	} else {
		p.objects[key] = o
	}
	switch {
	case err != nil:
	case o.file != nil || p.closed:
		f.Close()
	default:
		o.file = f
		p.opened++
	}
	return o
}

// contents returns what to read an object from, nil if it could not be opened.
func (p *processes) contents(o *object) io.ReaderAt {
	p.mu.Lock()
	defer p.mu.Unlock()
	return o.file
}

// openMapped opens the very file that is mapped, deleted or not. Who may not follow the kernel's links to mapped files opens the path.
func openMapped(directory string, m *mapping) (*os.File, error) {
	link := fmt.Sprintf("%s/map_files/%x-%x", directory, m.start, m.end)
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		return reopen(fd, nil)
	}
	if m.deleted {
		return nil, os.ErrNotExist
	}
	fd, err = openInRoot(directory, m.path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return reopen(fd, func(st *unix.Stat_t) error {
		if st.Ino != m.inode {
			return fmt.Errorf("%s is another file now", m.path)
		}
		return nil
	})
}

// openElsewhere opens the file where another process has it, if it is the same: there the path may lead to another.
func openElsewhere(directory string, m *mapping) (*os.File, error) {
	fd, err := openInRoot(directory, m.path)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return reopen(fd, func(st *unix.Stat_t) error {
		if device := fmt.Sprintf("%02x:%02x", unix.Major(st.Dev), unix.Minor(st.Dev)); st.Ino != m.inode || device != m.device {
			return fmt.Errorf("%s is another file there", m.path)
		}
		return nil
	})
}

// openInRoot finds a path as the process does. Symbolic links must not lead out of its root.
func openInRoot(directory, path string) (int, error) {
	root, err := unix.Open(directory+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return unix.Openat2(root, path, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
}

// reopen opens for reading what an O_PATH descriptor leads to, if it is a regular file and passes the test.
func reopen(fd int, test func(*unix.Stat_t) error) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.New("not a regular file")
	}
	if test != nil {
		if err := test(&st); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
}

// openPerfMap opens the list of functions that a compiler at run time left, by the number that the process has in
// its own namespace. It must belong to the process's user: others could name its functions as they like.
func openPerfMap(directory string) (*os.File, error) {
	pid, uid, err := identity(directory)
	if err != nil {
		return nil, err
	}
	fd, err := openInRoot(directory, "/tmp/perf-"+strconv.FormatUint(uint64(pid), 10)+".map")
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	return reopen(fd, func(st *unix.Stat_t) error {
		if st.Uid != uid && st.Uid != 0 {
			return errors.New("it belongs to another user")
		}
		return nil
	})
}

// identity returns a process's number in its own namespace, and its user.
func identity(directory string) (pid, uid uint32, err error) {
	f, err := os.Open(directory + "/status")
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "NSpid:":
			n, err := strconv.ParseUint(fields[len(fields)-1], 10, 32)
			if err != nil {
				return 0, 0, fmt.Errorf("%s/status: %w", directory, err)
			}
			pid = uint32(n)
		case "Uid:":
			n, err := strconv.ParseUint(fields[1], 10, 32)
			if err != nil {
				return 0, 0, fmt.Errorf("%s/status: %w", directory, err)
			}
			uid = uint32(n)
		}
	}
	if pid == 0 {
		return 0, 0, fmt.Errorf("%s/status has no NSpid", directory)
	}
	return pid, uid, lines.Err()
}

// vdso is the code that the kernel maps into every process: this process has the same, if it is as large.
func (p *processes) vdso(m *mapping) *object {
	key := objectKey{path: m.path, inode: m.end - m.start}
	p.mu.Lock()
	defer p.mu.Unlock()
	if o := p.objects[key]; o != nil {
		return o
	}
	o := &object{binary: &Binary{Path: m.path}, file: ownVDSO(m.end - m.start)}
	p.objects[key] = o
	return o
}

// ownVDSO returns this process's vDSO if it has that size, else nil.
func ownVDSO(size uint64) io.ReaderAt {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil
	}
	defer f.Close()
	mappings, err := parseMaps(f)
	if err != nil {
		return nil
	}
	for _, m := range mappings {
		if m.path != "[vdso]" || m.end-m.start != size || size > 1<<20 {
			continue
		}
		memory, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil
		}
		defer memory.Close()
		image := make([]byte, size)
		if _, err := memory.ReadAt(image, int64(m.start)); err != nil {
			return nil
		}
		return strings.NewReader(string(image))
	}
	return nil
}

// close closes all files. What still hangs closes its own.
func (p *processes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, o := range p.objects {
		if f, ok := o.file.(*os.File); ok {
			f.Close()
		}
	}
	for _, process := range p.known {
		process.takeLate()
		if process.perfMap != nil {
			process.perfMap.Close()
		}
	}
}
