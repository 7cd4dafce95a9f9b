// Package engine loads Programs into the kernel: it sets their params, creates their
// maps, attaches their functions, replaces them without losing what they counted,
// and pins them. It knows neither labels nor outputs.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Errors that callers may want to tell apart.
var (
	// ErrClosed is returned by methods of an Instance after Close.
	ErrClosed = errors.New("instance is closed")
	// ErrNothingAttached means that no function of a Program could be attached.
	ErrNothingAttached = errors.New("nothing could be attached")
	// ErrNoTarget means that what a hook names does not exist on this machine.
	ErrNoTarget = errors.New("no such target")
	// ErrTooLarge means that a Program's maps would take more memory than there is.
	ErrTooLarge = errors.New("too much memory")
	// ErrPinsInUse means that another agent runs the Program whose pins these are.
	ErrPinsInUse = errors.New("the pins are in use by another agent")
	// ErrUnsupported means that this kernel can't do what was asked.
	ErrUnsupported = errors.New("not supported by this kernel")
)

// DefaultPinDir is where Programs with Spec.Pin keep their maps and links.
const DefaultPinDir = "/sys/fs/bpf/kaon"

// DefaultMapMemoryLimit is how many bytes the maps of one Program may take.
const DefaultMapMemoryLimit = 1 << 30

// Options of an Engine. The zero value is usable.
type Options struct {
	// Logger; nil discards.
	Logger *slog.Logger
	// CgroupMount is where cgroup v2 is mounted; empty: found in
	// /proc/self/mountinfo. Hook.Cgroups are below it.
	CgroupMount string
	// CgroupRoot is the cgroup v2 directory that hooks without Cgroups attach
	// to; empty: CgroupMount.
	CgroupRoot string
	// Types is shared with whoever else reads the kernel's BTF; nil: a cache of the engine's own.
	Types *btf.Cache
	// PinDir is a directory in a bpffs; empty: DefaultPinDir.
	PinDir string
	// Stats switches the kernel's statistics of BPF programs on for as long as the
	// engine lives. That costs every BPF program of the machine about 70 ns per run.
	Stats bool
	// Constants are set in every object that declares them.
	Constants Constants
	// Interfaces lists the network interfaces; nil: net.Interfaces.
	Interfaces func() ([]net.Interface, error)
	// MapMemoryLimit is how many bytes the maps of one Program may take when they are
	// created; 0: DefaultMapMemoryLimit, or half of the memory that is available then if that is less.
	MapMemoryLimit uint64
	// MountFilesystems lets the engine mount tracefs or bpffs where a Program needs one
	// and none is mounted.
	MountFilesystems bool
}

// Constants are the values of the loader-set constants of kaon.h.
type Constants struct {
	// CgroupMode is 0 for cgroup v2, 1 for v1 of CgroupSubsys, 2 for v2 unless the
	// task is in v2's root, then v1.
	CgroupMode uint32
	// CgroupSubsys is the index in the running kernel's css_set.subsys.
	CgroupSubsys uint32
	// ScopeID is the cgroup that is measured, with its hierarchy in the upper
	// 16 bits, and ScopeLevel its depth. 0: everything.
	ScopeID    uint64
	ScopeLevel uint32
}

// An Engine loads Programs. Its methods are safe for concurrent use.
type Engine struct {
	options Options
	log     *slog.Logger
	stats   io.Closer
	// memlock is why the limit on locked memory could not be raised; only kernels before 5.11 care.
	memlock error
	// cpusFile lists the online CPUs.
	cpusFile string
	// configFiles are where the kernel's configuration may be.
	configFiles []string

	mu        sync.Mutex
	types     *btf.Cache
	instances []*Instance
}

// New returns an Engine. It raises the limit on locked memory where the kernel
// still has one, and removes the traffic filters that an agent which crashed left behind.
func New(options Options) (*Engine, error) {
	e := &Engine{options: options, log: options.Logger, types: options.Types, cpusFile: onlineCPUsFile, configFiles: kernelConfigFiles()}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.options.Types = nil // or ForgetTypes could not free them
	if e.types == nil {
		e.types = btf.NewCache()
	}
	if e.options.PinDir == "" {
		e.options.PinDir = DefaultPinDir
	}
	if e.options.Interfaces == nil {
		e.options.Interfaces = net.Interfaces
	}
	e.memlock = rlimit.RemoveMemlock()
	if options.Stats {
		stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
		if err != nil {
			// Statistics are an extra: their lack must not stop anything.
			e.log.Warn("the kernel refuses BPF statistics (they need CAP_SYS_ADMIN): run times stay unknown", "error", err)
		} else {
			e.stats = stats
		}
	}
	if swept, err := e.sweepClsact(); err != nil {
		e.log.Warn("could not look for traffic filters of agents that are gone", "error", err)
	} else if swept > 0 {
		e.log.Info("removed traffic filters of agents that are gone", "filters", swept)
	}
	return e, nil
}

// ForgetTypes frees the kernel's types, about 5 MB, once everything is loaded. They are read again when needed.
func (e *Engine) ForgetTypes() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.types = btf.NewCache()
}

func (e *Engine) kernelTypes() *btf.Cache {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.types
}

// Close stops the kernel's statistics. Instances stay as they are.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stats == nil {
		return nil
	}
	err := e.stats.Close()
	e.stats = nil
	return err
}

// Rescan attaches what appeared since the last scan (network interfaces, cgroups,
// CPUs that match a hook) and detaches from what is gone. It costs nothing
// when no loaded Program has such hooks.
func (e *Engine) Rescan() error {
	e.mu.Lock()
	instances := slices.Clone(e.instances)
	e.mu.Unlock()
	var errs []error
	for _, i := range instances {
		if err := i.rescan(); err != nil {
			errs = append(errs, fmt.Errorf("program %s: %w", i.spec.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Watch calls Rescan at each interval until the context ends.
func (e *Engine) Watch(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := e.Rescan(); err != nil {
				e.log.Warn("could not follow changed targets", "error", err)
			}
		}
	}
}

func (e *Engine) add(i *Instance) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.instances = append(e.instances, i)
}

func (e *Engine) remove(i *Instance) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.instances = slices.DeleteFunc(e.instances, func(other *Instance) bool { return other == i })
}

// mount mounts a filesystem at dir unless one of that type (by its magic) is there.
func (e *Engine) mount(filesystem, dir string, magic int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil && st.Type == magic {
		return nil
	}
	if !e.options.MountFilesystems {
		return fmt.Errorf("%s is not mounted at %s: mount -t %s %s %s", filesystem, dir, filesystem, filesystem, dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the mount point %s: %w", dir, err)
	}
	if err := unix.Mount(filesystem, dir, filesystem, 0, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", filesystem, dir, err)
	}
	return nil
}

// tracefs returns where tracefs is mounted.
func (e *Engine) tracefs() (string, error) {
	const dir = "/sys/kernel/tracing"
	var st unix.Statfs_t
	const debug = "/sys/kernel/debug/tracing"
	mounted := func(dir string) bool { return unix.Statfs(dir, &st) == nil && st.Type == unix.TRACEFS_MAGIC }
	if mounted(debug) && !mounted(dir) {
		return debug, nil
	}
	return dir, e.mount("tracefs", dir, unix.TRACEFS_MAGIC)
}

// pinPath returns the directory of a Program's pins.
func (e *Engine) pinPath(name string) string {
	return filepath.Join(e.options.PinDir, name)
}
