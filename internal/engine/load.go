package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/kaon-project/kaon/internal/program"
)

// Load brings a Program into the kernel and attaches it. Functions that are
// optional or have alternatives may fail; a required one that fails leaves the Program
// degraded, which its Hooks tell. If no required function works, Load undoes
// everything and returns an error that wraps ErrNothingAttached and holds all reasons.
func (e *Engine) Load(ctx context.Context, spec *program.Spec) (*Instance, error) {
	return e.LoadWithOptions(ctx, spec, LoadOptions{})
}

// LoadOptions of LoadWithOptions. The zero value is usable.
type LoadOptions struct {
	// Containers in which hooks of user space are attached; nil: on the host.
	Containers ContainerSource
}

// LoadWithOptions is Load with a say in where.
func (e *Engine) LoadWithOptions(ctx context.Context, spec *program.Spec, options LoadOptions) (*Instance, error) {
	i, err := e.prepare(spec)
	if err != nil {
		return nil, err
	}
	i.containers = options.Containers
	var keep keeper
	if spec.Pin {
		// Without a place for pins the Program still runs: its hooks say what it lacks.
		if keep, err = i.adopt(); err != nil {
			e.log.Warn("a program's pins can't be used", "program", spec.Name, "error", err)
		}
	}
	if err := i.load(ctx, keep); err != nil {
		return nil, errors.Join(err, i.discard())
	}
	if err := i.dropStalePins(); err != nil {
		return nil, errors.Join(err, i.discard())
	}
	if err := i.attach(ctx); err != nil {
		return nil, errors.Join(err, i.discard())
	}
	for name, lm := range i.maps {
		if lm.kept {
			lm.started = i.mapStart(name, lm)
		}
	}
	i.ready()
	i.pin()
	i.forgetCode()
	e.add(i)
	i.followContainers()
	return i, nil
}

// prepare does all that needs no privileges: it selects functions and maps and sets
// the constants.
func (e *Engine) prepare(spec *program.Spec) (*Instance, error) {
	i := &Instance{
		engine: e, spec: spec, functions: make(map[string]*function), maps: make(map[string]*loadedMap),
		groups: make(map[string][]*function), begun: time.Now(),
	}
	if spec.Collection == nil {
		if len(spec.Hooks) > 0 {
			return nil, errors.New("the spec has hooks but no code")
		}
		i.coll = &ebpf.CollectionSpec{}
		return i, nil
	}
	coll := *spec.Collection
	coll.Types = nil // a copy of them is not cheap, and what is loaded refers to those that it needs
	i.coll = coll.Copy()
	i.lostCounters = lostCounters(i.coll)
	if err := setParams(i.coll, spec.Params); err != nil {
		return nil, err
	}
	if err := setConstants(i.coll, e.options.Constants, spec.Selecting()); err != nil {
		return nil, err
	}
	if err := setSymbols(i.coll, spec.Symbols); err != nil {
		return nil, err
	}
	missing := e.setKernelConfig(i.coll, spec.KernelConfig)
	called := tailCalled(i.coll)
	var names []string
	for n := range spec.Hooks {
		hook := spec.Hooks[n]
		f := &function{hook: hook, index: n, spec: i.coll.Programs[hook.Function], tailCalled: called[hook.Function]}
		if f.spec == nil {
			return nil, fmt.Errorf("hook %s/%s: the object has no function %s", hook.Kind, hook.Target, hook.Function)
		}
		var err error
		if f.family, err = familyOf(hook.Kind); err != nil {
			return nil, fmt.Errorf("function %s: %w", hook.Function, err)
		}
		i.order = append(i.order, f)
		i.functions[hook.Function] = f
		if !spec.Enabled(hook.When, hook.Unless) {
			f.state = Disabled
			continue
		}
		names = append(names, hook.Function)
		if hook.Group != "" {
			i.groups[hook.Group] = append(i.groups[hook.Group], f)
		}
	}
	for _, group := range i.groups {
		slices.SortStableFunc(group, func(a, b *function) int { return a.hook.Rank - b.hook.Rank })
	}
	if err := i.refusePin(); err != nil {
		return nil, err
	}
	for _, f := range i.order {
		if f.state == Disabled {
			continue
		}
		if err := missingConfig(f.spec, missing); err != nil {
			f.fail(fmt.Errorf("%s: %w", f, err))
		}
	}
	needed, err := neededMaps(spec, i.coll, names)
	if err != nil {
		return nil, err
	}
	i.mapNames = mapNames(needed)
	// Maps that hold maps come last: they need those.
	slices.SortStableFunc(i.mapNames, func(a, b string) int {
		return boolInt(storesMaps(i.coll.Maps[a].Type)) - boolInt(storesMaps(i.coll.Maps[b].Type))
	})
	return i, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// A keeper returns a map of a predecessor that may be used instead of a new one of that layout, or nil. Who asks
// owns what it returns.
type keeper func(name string, layout [sha256.Size]byte, declared *ebpf.MapSpec) *ebpf.Map

// load creates the maps and loads the functions, and attaches nothing.
func (i *Instance) load(ctx context.Context, keep keeper) error {
	if err := i.checkMemory(); err != nil {
		return err
	}
	for _, name := range i.mapNames {
		if err := ctx.Err(); err != nil {
			return err
		}
		if keep != nil && !isConstant(name) {
			declared := i.coll.Maps[name].Copy()
			adjustMap(declared)
			layout := layoutDigest(i.coll, name, declared)
			if m := keep(name, layout, declared); m != nil {
				i.maps[name] = &loadedMap{m: m, layout: layout, kept: true}
				continue
			}
		}
		lm, err := i.engine.createMap(i.coll, name, i.maps)
		if err != nil {
			return err
		}
		i.maps[name] = lm
	}
	for n := range i.spec.Readers {
		r := &i.spec.Readers[n]
		if lm := i.maps[r.Name]; lm != nil && r.Kind == program.MapReader && r.Overflow {
			if err := insertOverflow(r.Name, lm); err != nil {
				return err
			}
		}
	}
	if i.runs == nil && len(i.order) > 0 {
		runs, err := newRunCounter(len(i.order))
		if err != nil {
			// Only a figure is lost.
			i.engine.log.Warn("runs are not counted", "program", i.spec.Name, "error", err)
		} else {
			i.runs = runs
		}
	}
	for _, f := range i.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.state == Disabled || f.state == Failed || f.state == Unused || f.prog != nil {
			continue
		}
		if f.hook.Group != "" && !i.isCandidate(f) {
			continue
		}
		i.loadFunction(f)
	}
	// The first of each group that loads is the candidate; further ones are loaded when its turn comes.
	for _, group := range i.groups {
		for _, f := range group {
			if f.prog == nil && f.state != Failed && f.state != Unused {
				i.loadFunction(f)
			}
			if f.state != Failed && f.state != Unused {
				break
			}
		}
	}
	if err := i.verdict(); err != nil {
		return err
	}
	return i.fillProgramArrays()
}

// isCandidate says that no better alternative than f is left.
func (i *Instance) isCandidate(f *function) bool {
	for _, other := range i.groups[f.hook.Group] {
		if other == f {
			return true
		}
		if other.state != Failed && other.state != Unused {
			return false
		}
	}
	return false
}

// loadFunction loads one function, with the prologue that counts its runs where the verifier takes it.
func (i *Instance) loadFunction(f *function) {
	begun := time.Now()
	if f.family.prepare != nil {
		if err := f.family.prepare(i.engine, &f.hook, f.spec); err != nil {
			f.fail(fmt.Errorf("%s: %w", f, err))
			return
		}
	}
	// Associate copies of the instructions' map loads with this instance's maps.
	spec := f.spec.Copy()
	for n := range spec.Instructions {
		ins := &spec.Instructions[n]
		if !ins.IsLoadFromMap() || ins.Reference() == "" {
			continue
		}
		if ins.Reference() == program.SelectedMap && !i.spec.Selecting() {
			// The verifier removes what would use it.
			ins.Src, ins.Constant = asm.R0, 0
			continue
		}
		lm := i.maps[ins.Reference()]
		if lm == nil {
			f.fail(fmt.Errorf("%s: it uses the map %s, which does not exist", f, ins.Reference()))
			return
		}
		if err := ins.AssociateMap(lm.m); err != nil {
			f.fail(fmt.Errorf("%s: use the map %s: %w", f, ins.Reference(), err))
			return
		}
	}
	if err := i.engine.resolveKernelVariables(spec.Instructions); err != nil {
		f.fail(fmt.Errorf("%s: %w", f, err))
		return
	}
	prog, err := i.loadCounted(f, spec)
	if err != nil {
		f.fail(fmt.Errorf("%s: %w", f, i.engine.explainLoad(&f.hook, f.spec.Instructions, err)))
		return
	}
	f.prog = prog
	f.attachType = f.spec.AttachType
	f.state = Loaded
	f.loadDuration = time.Since(begun)
	f.describe()
}

// describe asks the kernel about a loaded function.
func (f *function) describe() {
	if info, err := f.prog.Info(); err == nil {
		f.verified, _ = info.VerifiedInstructions()
		f.programID, _ = info.ID()
		f.memory, _ = info.Memlock()
	}
}

// loadCounted tries the cheapest way to count runs, then the other, then none.
func (i *Instance) loadCounted(f *function, spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	f.counted = false
	if i.runs == nil || !countable(f.hook.Kind) {
		return i.engine.loadProgram(spec)
	}
	plain := spec.Instructions
	insns, ok := i.runs.countRuns(plain, f.index, true)
	if !ok {
		return i.engine.loadProgram(spec)
	}
	spec.Instructions = insns
	counting, err := i.engine.loadProgram(spec)
	if err == nil {
		f.counted = true
		return counting, nil
	}
	var rejected *ebpf.VerifierError
	if !errors.As(err, &rejected) || len(rejected.Log) == 0 {
		// Not the verifier's word: the prologue is not to blame.
		return nil, err
	}
	spec.Instructions = plain
	prog, err := i.engine.loadProgram(spec)
	if err != nil {
		return nil, err
	}
	if spec.Instructions, ok = i.runs.countRuns(plain, f.index, false); ok {
		if counting, err := i.engine.loadProgram(spec); err == nil {
			prog.Close()
			f.counted = true
			return counting, nil
		}
	}
	return prog, nil
}

// loadProgram loads a single function whose maps are associated. It goes through a collection because only
// that takes the shared BTF cache and resolves kernel symbols.
func (e *Engine) loadProgram(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	const name = "function"
	coll, err := ebpf.NewCollectionWithOptions(&ebpf.CollectionSpec{
		Programs: map[string]*ebpf.ProgramSpec{name: spec},
	}, ebpf.CollectionOptions{Cache: e.kernelTypes()})
	if err != nil {
		return nil, err
	}
	return coll.Programs[name], nil
}

// verdict returns an error if no function is left that the Program can live by.
func (i *Instance) verdict() error {
	if len(i.order) == 0 {
		return nil
	}
	required, requiredWorking, working := 0, 0, 0
	var reasons []error
	groups := make(map[string]bool)
	for _, f := range i.order {
		if f.state == Disabled {
			continue
		}
		ok, optional := f.works(), f.hook.Optional
		if f.hook.Group != "" {
			if groups[f.hook.Group] {
				continue
			}
			groups[f.hook.Group] = true
			ok, optional = false, true
			for _, other := range i.groups[f.hook.Group] {
				ok = ok || other.works()
				optional = optional && other.hook.Optional
				if other.err != nil {
					reasons = append(reasons, other.err)
				}
			}
		} else if f.err != nil {
			reasons = append(reasons, f.err)
		}
		if !optional {
			required++
			requiredWorking += boolInt(ok)
		}
		working += boolInt(ok)
	}
	if required > 0 && requiredWorking > 0 || required == 0 && (working > 0 || len(reasons) == 0) {
		return nil
	}
	return fmt.Errorf("program %s: %w: %w", i.spec.Name, ErrNothingAttached, errors.Join(reasons...))
}

// attach attaches what is loaded.
func (i *Instance) attach(ctx context.Context) error {
	groups := make(map[string]bool)
	for _, f := range i.order {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.state == Disabled {
			continue
		}
		if f.hook.Group == "" {
			i.attachFunction(f)
			continue
		}
		if groups[f.hook.Group] {
			continue
		}
		groups[f.hook.Group] = true
		i.attachGroup(f.hook.Group)
	}
	return i.verdict()
}

// attachGroup attaches the best alternative that can be loaded and attached.
func (i *Instance) attachGroup(name string) {
	chosen := false
	for _, f := range i.groups[name] {
		if chosen {
			if f.state != Failed {
				f.state = Unused
			}
			continue
		}
		if f.state == Failed || f.state == Unused {
			continue
		}
		if f.prog == nil {
			i.loadFunction(f)
			if f.state == Failed {
				continue
			}
			if err := i.fillProgramArrays(); err != nil {
				f.fail(err)
				continue
			}
		}
		i.attachFunction(f)
		if f.state != Failed {
			f.chosen = true
			chosen = true
		}
	}
}

// attachFunction attaches one loaded function to all of its targets.
func (i *Instance) attachFunction(f *function) {
	if f.state == Failed || f.state == Disabled || f.state == Attached || f.prog == nil {
		return
	}
	if f.family.attach == nil || f.tailCalled {
		f.state = Loaded
		return
	}
	targets, err := i.targetsOf(f)
	f.waiting = err
	if err != nil && len(targets) == 0 {
		if (f.family.follow || i.inContainers(f)) && errors.Is(err, errNothingYet) {
			f.state, f.err = Waiting, nil
			return
		}
		f.fail(fmt.Errorf("%s: %w", f, err))
		return
	}
	f.attachTargets(i, targets)
	if f.attachedCount() == 0 && i.inContainers(f) {
		f.state = Waiting
		return
	}
	if f.attachedCount() == 0 {
		errs := make([]error, 0, len(f.attached))
		for _, a := range f.attached {
			errs = append(errs, a.err)
		}
		f.attached = nil
		f.fail(errors.Join(errs...))
		return
	}
	f.state = Attached
}

// targetsOf returns the targets of a function at this moment.
func (i *Instance) targetsOf(f *function) ([]target, error) {
	if i.inContainers(f) {
		return f.placeTargets()
	}
	return f.family.findTargets(i.engine, &f.hook)
}

// attachTargets attaches to targets that the function is not attached to yet.
func (f *function) attachTargets(i *Instance, targets []target) {
	for _, t := range targets {
		if a := f.find(t); a != nil && a.attachment != nil {
			continue
		}
		request := &attachRequest{
			engine: i.engine, spec: i.spec, hook: &f.hook, program: f.prog, attachType: f.attachType, target: t, maps: i.maps, specs: &i.usdt,
		}
		var made attachment
		var err error
		if i.inContainers(f) {
			made, err = attachPlaces(request, f)
		} else {
			made, err = f.family.attach(request)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", f.at(t), i.engine.explainAttach(&f.hook, err))
		}
		if a := f.find(t); a != nil {
			a.attachment, a.err = made, err
			if err != nil {
				a.attachment = nil
			}
			continue
		}
		a := &attachedTarget{target: t, err: err}
		if err == nil {
			a.attachment = made
		}
		f.attached = append(f.attached, a)
	}
}
