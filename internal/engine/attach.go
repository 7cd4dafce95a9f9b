package engine

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// An attachment keeps one function attached to one target until it is closed.
// Attachments that can also be updated or pinned implement updater or pinner.
type attachment interface {
	Close() error
}

// updater exchanges the function without a moment in which none or both run.
type updater interface {
	Update(*ebpf.Program) error
}

// pinner keeps an attachment alive in a bpffs.
type pinner interface {
	Pin(path string) error
	Unpin() error
}

// target is one thing to attach a function to.
type target struct {
	// Name is unique among the targets of a hook and stays the same across restarts:
	// "eth0", a path, a CPU's number.
	Name string
	// ID tells apart targets that had the same name one after the other:
	// an interface's index, a cgroup's inode.
	ID uint64
}

func compareTargets(a, b target) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
}

// attachRequest is all that a family's attach function needs.
type attachRequest struct {
	engine     *Engine
	spec       *program.Spec
	hook       *program.Hook
	program    *ebpf.Program
	attachType ebpf.AttachType
	target     target
	// maps of the instance, by name.
	maps map[string]*loadedMap
	// specs of the static probes of user space that the instance attaches to.
	specs *usdtSpecs
}

// family is a way of attaching. One file each.
type family struct {
	// targets lists what a hook names on this machine at this moment; nil: the
	// hook has the one target that its Target says. An error that wraps ErrNoTarget
	// together with patterns means: nothing yet.
	targets func(*Engine, *program.Hook) ([]target, error)
	attach  func(*attachRequest) (attachment, error)
	// places, where targets are binaries, reads one, which may be a container's.
	places func(*program.Hook) ([]place, error)
	// follow says that targets come and go while the function is attached.
	follow bool
	// update says that the kernel exchanges the function of such attachments in place.
	update bool
	// prepare changes a function's declaration before it is loaded.
	prepare func(*Engine, *program.Hook, *ebpf.ProgramSpec) error
}

// families says how each kind of hook is attached. Adding a kind is a file and a line here.
func families() map[program.HookKind]family {
	return map[program.HookKind]family{
		program.Tracepoint:     {attach: attachTracepoint, prepare: prepareTracepoint},
		program.RawTracepoint:  {attach: attachRawTracepoint},
		program.TracepointBTF:  {attach: attachTracing, prepare: prepareTracing},
		program.Fentry:         {attach: attachTracing, prepare: prepareTracing},
		program.Fexit:          {attach: attachTracing, prepare: prepareTracing},
		program.FmodRet:        {attach: attachTracing, prepare: prepareTracing},
		program.LSM:            {attach: attachLSM, prepare: prepareTracing},
		program.Kprobe:         {attach: attachKprobe, prepare: prepareKprobe},
		program.Kretprobe:      {attach: attachKprobe, prepare: prepareKprobe},
		program.Ksyscall:       {attach: attachKsyscall, prepare: prepareKprobe},
		program.Kretsyscall:    {attach: attachKsyscall, prepare: prepareKprobe},
		program.KprobeMulti:    {attach: attachKprobeMulti, targets: kprobeMultiTargets, prepare: prepareKprobeMulti},
		program.KretprobeMulti: {attach: attachKprobeMulti, targets: kprobeMultiTargets, prepare: prepareKprobeMulti},
		program.Uprobe:         {attach: attachUprobe, places: uprobePlaces},
		program.Uretprobe:      {attach: attachUprobe, places: uprobePlaces},
		program.UprobeMulti:    {attach: attachUprobeMulti, targets: uprobeMultiTargets, prepare: prepareUprobeMulti, places: uprobePlaces},
		program.UretprobeMulti: {attach: attachUprobeMulti, targets: uprobeMultiTargets, prepare: prepareUprobeMulti, places: uprobePlaces},
		program.USDT:           {attach: attachUSDT, targets: usdtTargets, places: usdtPlaces},
		program.PerfEvent:      {attach: attachPerfEvent, targets: perfTargets, follow: true},
		program.Iterator:       {attach: attachIterator, prepare: prepareIterator},
		program.XDP:            {attach: attachXDP, targets: interfaceTargets, follow: true, update: true},
		program.TCXIngress:     {attach: attachTCX, prepare: prepareTCX, targets: interfaceTargets, follow: true, update: true},
		program.TCXEgress:      {attach: attachTCX, prepare: prepareTCX, targets: interfaceTargets, follow: true, update: true},
		program.SocketFilter:   {attach: attachSocketFilter, targets: interfaceTargets, follow: true, update: true},
		program.Cgroup:         {attach: attachCgroup, targets: cgroupTargets, follow: true, update: true},
		program.SockOps:        {attach: attachCgroup, targets: cgroupTargets, follow: true, update: true},
		program.LSMCgroup:      {attach: attachCgroup, targets: cgroupTargets, follow: true, prepare: prepareTracing},
		program.SKLookup:       {attach: attachSKLookup, targets: netnsTargets, update: true},
		program.Netfilter:      {attach: attachNetfilter, targets: netfilterTargets},
		program.Syscall:        {},
		program.Unattached:     {},
	}
}

func familyOf(kind program.HookKind) (family, error) {
	all := families()
	f, ok := all[kind]
	if !ok {
		kinds := slices.Sorted(maps.Keys(all))
		return family{}, fmt.Errorf("unknown kind of hook %q, known are %v", kind, kinds)
	}
	return f, nil
}

// findTargets returns the targets of a hook.
func (f *family) findTargets(e *Engine, hook *program.Hook) ([]target, error) {
	if f.targets == nil {
		return []target{{Name: hook.Target}}, nil
	}
	return f.targets(e, hook)
}

// closeAll closes attachments, the latest first.
func closeAll(attached []*attachedTarget) error {
	var errs []error
	for _, a := range slices.Backward(attached) {
		if a.attachment == nil {
			continue
		}
		if err := a.attachment.Close(); err != nil {
			errs = append(errs, fmt.Errorf("detach from %s: %w", a.target.Name, err))
		}
		a.attachment = nil
	}
	return errors.Join(errs...)
}
