package engine

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// A pinned Program keeps in its directory: its maps, each under its name and the digest of its layout;
// its links, each under the function's name and a digest of the target; what they run, which only CAP_SYS_ADMIN gets of a link;
// and the map kaon_state, which says what program the links run and since when.

const (
	pinState    = "kaon_state"
	pinRuns     = "kaon_runs"
	pinMap      = "map-"
	pinLink     = "link-"
	pinFunction = "prog-"
)

// pinnedState is the value of the map kaon_state.
type pinnedState struct {
	code    [sha256.Size]byte
	started time.Time
}

const pinnedStateSize = sha256.Size + 8

func (s pinnedState) encode() []byte {
	return binary.NativeEndian.AppendUint64(s.code[:], uint64(s.started.UnixNano()))
}

// refusePin returns an error for Programs that act: those never outlive the agent.
func (i *Instance) refusePin() error {
	if !i.spec.Pin {
		return nil
	}
	for _, f := range i.order {
		reason := ""
		switch f.hook.Kind {
		case program.FmodRet, program.LSM, program.LSMCgroup:
			reason = "is of the kind " + string(f.hook.Kind)
		}
		for n := range f.spec.Instructions {
			ins := &f.spec.Instructions[n]
			if !ins.IsBuiltinCall() {
				continue
			}
			switch call := asm.BuiltinFunc(ins.Constant); call {
			case asm.FnSendSignal, asm.FnSendSignalThread, asm.FnOverrideReturn, asm.FnSetRetval, asm.FnProbeWriteUser:
				reason = "calls " + call.String()
			}
		}
		if reason != "" {
			return fmt.Errorf("program %s can't be pinned: what acts must not outlive the agent, and its function %s %s", i.spec.Name, f.hook.Function, reason)
		}
	}
	return nil
}

// preparePins makes the Program's directory in a bpffs.
func (e *Engine) preparePins(name string) error {
	if err := checkPinName(name); err != nil {
		return err
	}
	const bpffs = "/sys/fs/bpf"
	if strings.HasPrefix(e.options.PinDir, bpffs) {
		if err := e.mount("bpf", bpffs, unix.BPF_FS_MAGIC); err != nil {
			return err
		}
	}
	dir := e.pinPath(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory for pins: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("directory for pins %s: %w", dir, err)
	}
	if st.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("%s is not in a bpffs: mount -t bpf bpf %s", dir, bpffs)
	}
	return nil
}

// lockPins makes sure that no other instance, in this process or another, uses the Program's pins.
func (i *Instance) lockPins() error {
	if i.pinLock != nil {
		return nil
	}
	if err := i.engine.preparePins(i.spec.Name); err != nil {
		return err
	}
	dir, err := os.Open(i.engine.pinPath(i.spec.Name))
	if err != nil {
		return fmt.Errorf("open the directory for pins: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return fmt.Errorf("the pins in %s are in use by another agent: stop it, or choose another directory: %w", i.engine.pinPath(i.spec.Name), err)
	}
	i.pinLock = dir
	return nil
}

func checkPinName(name string) error {
	if name == "" || name != sanitizePin(name) {
		return fmt.Errorf("program %q can't be pinned: its name may contain letters, digits, - and _", name)
	}
	return nil
}

// Pinned returns the names of the Programs that have pins.
func (e *Engine) Pinned() ([]string, error) {
	entries, err := os.ReadDir(e.options.PinDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	return names, nil
}

// Remove deletes the pins of a Program, which is detached and freed by that. It is no error if
// there are none, and ErrPinsInUse while an instance, of this process or another, holds them.
func (e *Engine) Remove(name string) error {
	if err := checkPinName(name); err != nil {
		return err
	}
	held, err := os.Open(e.pinPath(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the pins of %s: %w", name, err)
	}
	defer held.Close()
	if err := unix.Flock(int(held.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("remove the pins of %s: %w", name, ErrPinsInUse)
	}
	return e.removeHeld(name)
}

// removeHeld deletes the pins of a Program whose directory the caller has locked.
func (e *Engine) removeHeld(name string) error {
	dir := e.pinPath(name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove the pins of %s: %w", name, err)
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if err := errors.Join(removePins(dir, names), os.Remove(dir)); err != nil {
		return fmt.Errorf("remove the pins of %s: %w", name, err)
	}
	return nil
}

// removePins deletes files, and returns when what only they kept attached is detached.
func removePins(dir string, names []string) error {
	var errs []error
	var ids []link.ID
	for _, name := range names {
		path := filepath.Join(dir, name)
		if !strings.HasPrefix(name, pinLink) {
			errs = append(errs, os.Remove(path))
			continue
		}
		// Whoever lets go of a link last detaches it: at once if that is a descriptor, some time
		// later if it is the pin.
		l, err := link.LoadPinnedLink(path, nil)
		if err == nil {
			if info, err := l.Info(); err == nil {
				ids = append(ids, info.ID)
			}
		}
		errs = append(errs, os.Remove(path))
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	errs = append(errs, waitDetached(ids))
	return errors.Join(errs...)
}

// waitDetached waits until links are gone: kernels before 6.9 let go of a removed pin's link some time
// later, and until then its function runs.
func waitDetached(ids []link.ID) error {
	const patience = 10 * time.Second
	deadline := time.Now().Add(patience)
	waited := false
	for _, id := range ids {
		for {
			exists, known := linkExists(id)
			if !known {
				// Without CAP_SYS_ADMIN nobody may look; the kernel takes milliseconds.
				time.Sleep(100 * time.Millisecond)
				return nil
			}
			if !exists {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("a link is still attached %v after its pin was removed: does another process hold it?", patience)
			}
			waited = true
			time.Sleep(time.Millisecond)
		}
	}
	if waited {
		// The number is given back just before the function is taken off.
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// linkExists says whether the kernel still has a link, also one that nobody holds any more; known is false if
// this process may not know.
func linkExists(id link.ID) (exists, known bool) {
	const getNextID = 31 // BPF_LINK_GET_NEXT_ID
	attr := struct{ start, next, flags uint32 }{start: uint32(id) - 1}
	_, _, errno := unix.Syscall(unix.SYS_BPF, getNextID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	switch errno {
	case 0:
		return attr.next == uint32(id), true
	case unix.ENOENT:
		return false, true
	}
	return false, false
}

func mapPinName(name string, digest [sha256.Size]byte) string {
	return pinMap + sanitizePin(name) + "-" + hex.EncodeToString(digest[:8])
}

func linkPinName(function, target string) string {
	digest := sha256.Sum256([]byte(target))
	return pinLink + sanitizePin(function) + "-" + hex.EncodeToString(digest[:8])
}

func functionPinName(function string) string { return pinFunction + sanitizePin(function) }

// linkedProgram returns what a link runs: what is pinned at path, or, with CAP_SYS_ADMIN, by its number.
func linkedProgram(l link.Link, path string) (*ebpf.Program, error) {
	info, err := l.Info()
	if err != nil {
		return nil, err
	}
	if pinned, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
		if id, ok := programID(pinned); ok && id == info.Program {
			return pinned, nil
		}
		pinned.Close()
	}
	return ebpf.NewProgramFromID(info.Program)
}

func programID(p *ebpf.Program) (ebpf.ProgramID, bool) {
	info, err := p.Info()
	if err != nil {
		return 0, false
	}
	return info.ID()
}

// readState returns the state of existing pins, and whether there is any.
func (e *Engine) readState(name string) (pinnedState, bool) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(e.pinPath(name), pinState), nil)
	if err != nil {
		return pinnedState{}, false
	}
	defer m.Close()
	value := make([]byte, pinnedStateSize)
	if m.ValueSize() != pinnedStateSize || m.Lookup(uint32(0), &value) != nil {
		return pinnedState{}, false
	}
	s := pinnedState{started: time.Unix(0, int64(binary.NativeEndian.Uint64(value[sha256.Size:])))}
	copy(s.code[:], value)
	return s, true
}

// adopt takes over what a predecessor pinned: it returns the function that load
// asks for maps, and adopts the links if they run this very Program.
func (i *Instance) adopt() (keeper, error) {
	if err := i.lockPins(); err != nil {
		return nil, err
	}
	dir := i.engine.pinPath(i.spec.Name)
	state, ok := i.engine.readState(i.spec.Name)
	if ok && state.code == i.codeDigest() {
		i.adoptFunctions(dir)
	}
	keep := func(name string, layout [sha256.Size]byte, declared *ebpf.MapSpec) *ebpf.Map {
		path := filepath.Join(dir, mapPinName(name, layout))
		m, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			return nil
		}
		// The library adds a flag to data sections when it creates them.
		compatible := declared.Copy()
		compatible.Flags |= m.Flags() & unix.BPF_F_MMAPABLE
		if err := compatible.Compatible(m); err != nil {
			m.Close()
			return nil
		}
		if ok {
			i.started = state.started
		}
		return m
	}
	return keep, nil
}

// adoptFunctions adopts pinned links and what they run.
func (i *Instance) adoptFunctions(dir string) {
	runs, err := ebpf.LoadPinnedMap(filepath.Join(dir, pinRuns), nil)
	if err == nil {
		counter, err := adoptRunCounter(runs, len(i.order))
		if err == nil {
			i.runs = counter
		} else {
			runs.Close()
		}
	}
	groups := make(map[string]bool)
	for _, f := range i.order {
		if f.state != "" || f.family.attach == nil || f.tailCalled || f.hook.Kind == program.Iterator || f.hook.Group != "" && groups[f.hook.Group] {
			continue
		}
		if i.adoptFunction(f, dir) && f.hook.Group != "" {
			groups[f.hook.Group] = true
			for _, other := range i.groups[f.hook.Group] {
				if other != f && other.state == "" {
					other.state = Unused
				}
			}
		}
	}
}

func (i *Instance) adoptFunction(f *function, dir string) bool {
	targets, _ := f.family.findTargets(i.engine, &f.hook)
	for _, t := range targets {
		l, err := link.LoadPinnedLink(filepath.Join(dir, linkPinName(f.hook.Function, t.Name)), nil)
		if err != nil {
			continue
		}
		if f.prog == nil {
			f.prog, err = linkedProgram(l, filepath.Join(dir, functionPinName(f.hook.Function)))
			if err != nil {
				i.engine.log.Warn("a pinned link is not adopted: nothing is counted until another is attached", "program", i.spec.Name, "function", f.hook.Function, "error", err)
				l.Close()
				continue
			}
		}
		f.attached = append(f.attached, &attachedTarget{target: t, attachment: l, pinned: true})
	}
	if f.prog == nil {
		return false
	}
	f.attachType = f.spec.AttachType
	f.adopted, f.state, f.counted = true, Attached, i.runs != nil && countable(f.hook.Kind)
	f.chosen = f.hook.Group != ""
	f.describe()
	// Targets that appeared while no agent ran.
	f.attachTargets(i, targets)
	return true
}

// dropStalePins removes the pins that this instance did not adopt, before it attaches: what they
// keep attached would count the same events.
func (i *Instance) dropStalePins() error {
	if !i.spec.Pin || i.pinLock == nil {
		return nil
	}
	dir := i.engine.pinPath(i.spec.Name)
	used := make(map[string]bool)
	for name, lm := range i.maps {
		used[mapPinName(name, lm.layout)] = true
	}
	for _, f := range i.order {
		for _, a := range f.attached {
			if a.pinned {
				used[linkPinName(f.hook.Function, a.target.Name)] = true
				used[functionPinName(f.hook.Function)] = true
				used[pinState] = true
				used[pinRuns] = true
			}
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("list pins: %w", err)
	}
	var stale []string
	for _, entry := range entries {
		if !used[entry.Name()] {
			stale = append(stale, entry.Name())
		}
	}
	return removePins(dir, stale)
}

// pin pins what an attached instance has, as far as the kernel can. What can't be pinned
// is told by the hooks' PinErr, and stops with the agent.
func (i *Instance) pin() {
	if !i.spec.Pin {
		return
	}
	dir := i.engine.pinPath(i.spec.Name)
	fail := func(err error) {
		i.engine.log.Warn("not all of a program is pinned", "program", i.spec.Name, "error", err)
	}
	if err := i.lockPins(); err != nil {
		fail(err)
		for _, f := range i.order {
			f.pinErr = err
		}
		return
	}
	for name, lm := range i.maps {
		if isConstant(name) {
			continue
		}
		path := filepath.Join(dir, mapPinName(name, lm.layout))
		if err := pinMapAt(lm.m, path); err != nil {
			fail(fmt.Errorf("pin the map %s: %w", name, err))
		}
	}
	if i.runs != nil {
		if err := pinMapAt(i.runs.m, filepath.Join(dir, pinRuns)); err != nil {
			fail(fmt.Errorf("pin the run counters: %w", err))
		}
	}
	for _, f := range i.order {
		f.pinErr = nil
		if f.hook.Kind == program.Iterator {
			continue
		}
		for _, a := range f.attached {
			if a.attachment == nil || a.pinned {
				continue
			}
			path := filepath.Join(dir, linkPinName(f.hook.Function, a.target.Name))
			p, ok := a.attachment.(pinner)
			if !ok && i.inContainers(f) {
				f.pinErr = errContainerPin(f)
				continue
			}
			if !ok {
				f.pinErr = fmt.Errorf("%s: such an attachment can't be pinned: it ends with the agent, its maps stay", f.at(a.target))
				continue
			}
			if err := p.Pin(path); err != nil {
				f.pinErr = fmt.Errorf("%s: this kernel can't pin such an attachment: it ends with the agent, its maps stay: %w", f.at(a.target), err)
				continue
			}
			a.pinned = true
		}
		if f.prog != nil && slices.ContainsFunc(f.attached, func(a *attachedTarget) bool { return a.pinned }) {
			if err := pinProgramAt(f.prog, filepath.Join(dir, functionPinName(f.hook.Function))); err != nil {
				fail(fmt.Errorf("pin the function %s: %w", f.hook.Function, err))
			}
		}
	}
	state, err := ebpf.NewMap(&ebpf.MapSpec{Name: pinState, Type: ebpf.Array, KeySize: 4, ValueSize: pinnedStateSize, MaxEntries: 1})
	if err != nil {
		fail(err)
		return
	}
	defer state.Close()
	if err := state.Put(uint32(0), pinnedState{code: i.codeDigest(), started: i.started}.encode()); err != nil {
		fail(err)
		return
	}
	if err := pinMapAt(state, filepath.Join(dir, pinState)); err != nil {
		fail(err)
	}
}

// pinMapAt pins a map at a path, instead of what is there unless that is the same map.
func pinMapAt(m *ebpf.Map, path string) error {
	if there, err := ebpf.LoadPinnedMap(path, nil); err == nil {
		same := sameMap(m, there)
		there.Close()
		if same {
			return nil
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// A duplicate, because a map object remembers only one place.
	duplicate, err := m.Clone()
	if err != nil {
		return err
	}
	defer duplicate.Close()
	return duplicate.Pin(path)
}

// pinProgramAt pins a program at a path, instead of what is there unless that is the same program.
func pinProgramAt(p *ebpf.Program, path string) error {
	if there, err := ebpf.LoadPinnedProgram(path, nil); err == nil {
		old, known := programID(there)
		now, ok := programID(p)
		there.Close()
		if known && ok && old == now {
			return nil
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// A duplicate, because a program object remembers only one place.
	duplicate, err := p.Clone()
	if err != nil {
		return err
	}
	defer duplicate.Close()
	return duplicate.Pin(path)
}

func sameMap(a, b *ebpf.Map) bool {
	infoA, errA := a.Info()
	infoB, errB := b.Info()
	if errA != nil || errB != nil {
		return false
	}
	idA, okA := infoA.ID()
	idB, okB := infoB.ID()
	return okA && okB && idA == idB
}

// settlePins makes the pins agree with an instance that replaced old.
func (i *Instance) settlePins(old *Instance) {
	if !i.spec.Pin && !old.spec.Pin {
		return
	}
	if !i.spec.Pin {
		for _, f := range i.order {
			for _, a := range f.attached {
				if p, ok := a.attachment.(pinner); ok && a.pinned {
					_ = p.Unpin()
					a.pinned = false
				}
			}
		}
		if err := i.engine.removeHeld(i.spec.Name); err != nil {
			i.engine.log.Warn("could not remove pins", "program", i.spec.Name, "error", err)
		}
		return
	}
	i.pin()
	if err := i.dropStalePins(); err != nil {
		i.engine.log.Warn("could not remove stale pins", "program", i.spec.Name, "error", err)
	}
}

// mapStart returns when the map at a path was pinned.
func (i *Instance) mapStart(name string, lm *loadedMap) time.Time {
	path := filepath.Join(i.engine.pinPath(i.spec.Name), mapPinName(name, lm.layout))
	if info, err := os.Stat(path); err == nil {
		return info.ModTime()
	}
	return time.Time{}
}
