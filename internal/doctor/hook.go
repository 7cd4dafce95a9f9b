package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// The things to attach to: rarely or never run, on every kernel, tried in this order.
var (
	rareTracepoints = []string{"sched_process_hang", "xdp_exception", "cgroup_remount", "task_rename"}
	rareEvents      = []string{"sched/sched_process_hang", "xdp/xdp_exception", "cgroup/cgroup_remount", "task/task_rename"}
)

// Kernel functions. The first two exist to be probed by tests.
const (
	traceFunction  = "bpf_fentry_test1"
	modifyFunction = "bpf_modify_return_test"
	// securityFunction is only loaded for, never attached to.
	securityFunction = "security_file_mprotect"
)

// hookProbe tries hooks on a scratch thread.
type hookProbe struct {
	ctx     context.Context
	scratch *scratch
	caps    capabilitySets
	cgroup  *scratchCgroup
	pins    int
	// paranoid is the sysctl kernel.perf_event_paranoid.
	paranoid int
}

// attempt is what trying one hook yields: what is attached, or nil if it was only loaded.
type attempt struct {
	attached io.Closer
	// note says how it was done where that is not obvious.
	note string
}

var (
	// errNotTried marks what could not be tried, as opposed to what was refused.
	errNotTried = errors.New("not tried")
	// errLoad marks what was refused before there was anything to attach.
	errLoad = errors.New("load")
)

func minimal(typ ebpf.ProgramType, attach ebpf.AttachType, to string, result int32) (*ebpf.Program, error) {
	spec := &ebpf.ProgramSpec{Name: "kaon_doctor", Type: typ, AttachType: attach, AttachTo: to, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, result), asm.Return()}}
	if typ == ebpf.Syscall {
		spec.Flags = unix.BPF_F_SLEEPABLE
	}
	return ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogDisabled: true})
}

// hooks probes every kind.
func (p *hookProbe) hooks() []Item {
	var items []Item
	states := map[program.HookKind]Item{}
	for _, r := range Requirements() {
		var item Item
		switch r.Kind {
		case program.Ksyscall, program.Kretsyscall: // kprobes at the system calls' functions
			item = states[map[program.HookKind]program.HookKind{
				program.Ksyscall: program.Kprobe, program.Kretsyscall: program.Kretprobe}[r.Kind]]
			item.Name = string(r.Kind)
			if item.State != Yes {
				item.Cost, item.Remedy = r.Cost, r.Remedy
				p.capabilityRemedy(&item, r)
			}
		case program.USDT:
			item = p.usdt(r, states[program.Uprobe])
		case program.Cgroup:
			item = p.hook(r, string(r.Kind), func() (attempt, error) { return p.attachCgroup(cgroupHooks[0]) })
		default:
			item = p.hook(r, string(r.Kind), func() (attempt, error) { return p.attach(r.Kind) })
		}
		states[r.Kind] = item
		items = append(items, item)
		if r.Kind != program.Cgroup {
			continue
		}
		for _, c := range cgroupHooks {
			items = append(items, p.hook(r, c.section, func() (attempt, error) { return p.attachCgroup(c) }))
		}
	}
	return items
}

// hook runs one attempt and says in words what came out.
func (p *hookProbe) hook(r Requirement, name string, try func() (attempt, error)) Item {
	item := Item{Name: name}
	if err := p.ctx.Err(); err != nil {
		item.State, item.Error = Unknown, "not tried: "+err.Error()
		return item
	}
	a, err := try()
	switch {
	case err == nil:
		item.State, item.Value = Yes, a.note
		if a.attached != nil {
			p.linkAndPin(&item, a.attached)
			if err := a.attached.Close(); err != nil {
				item.Error = "detach: " + describe(err)
			}
		}
		return item
	case errors.Is(err, errNotTried):
		item.State = Unknown
	default:
		item.State = No
	}
	item.Error = describe(err)
	item.Cost, item.Remedy = r.Cost, r.Remedy
	p.capabilityRemedy(&item, r)
	return item
}

// capabilityRemedy replaces the advice about the kernel where the lack of a capability explains the refusal.
func (p *hookProbe) capabilityRemedy(item *Item, r Requirement) {
	if lacking := p.caps.lacking(r.Capabilities); len(lacking) > 0 {
		item.State = No
		item.Remedy = needs(lacking)
		return
	}
	// Some distributions' kernels (Debian's) have a level above 2, at which CAP_PERFMON does not count.
	if strings.Contains(item.Error, "perf_event_open") && p.paranoid > 2 && !p.caps.has(SysAdmin) {
		item.Remedy = fmt.Sprintf("this kernel.perf_event_paranoid=%d demands CAP_SYS_ADMIN: sysctl kernel.perf_event_paranoid=2, or run as root", p.paranoid)
	}
}

// linkAndPin finds out whether an attachment is a bpf_link, and pins it in the private bpffs for a moment.
func (p *hookProbe) linkAndPin(item *Item, attached io.Closer) {
	if perf, ok := attached.(*perfEvent); ok {
		if perf.link == nil {
			item.Link, item.Pin = No, No
			return
		}
		attached = perf.link
	}
	l, ok := attached.(interface {
		Pin(string) error
		Unpin() error
	})
	if !ok {
		item.Link, item.Pin = No, No
		return
	}
	item.Link, item.Pin = Yes, Unknown
	if p.scratch.bpffs == "" {
		return
	}
	p.pins++
	path := filepath.Join(p.scratch.bpffs, fmt.Sprintf("link%d", p.pins))
	if err := l.Pin(path); err != nil {
		item.Pin = No
		if errors.Is(err, link.ErrNotSupported) || errors.Is(err, ebpf.ErrNotSupported) {
			item.Link = No
		}
		return
	}
	item.Pin = Yes
	_ = l.Unpin()
}

func (p *hookProbe) attach(kind program.HookKind) (attempt, error) {
	switch kind {
	case program.Tracepoint:
		return p.tracepoint()
	case program.RawTracepoint:
		return withProgram(ebpf.RawTracepoint, 0, "", 0, func(prog *ebpf.Program) (io.Closer, error) {
			return firstOf(rareTracepoints, func(name string) (io.Closer, error) {
				return link.AttachRawTracepoint(link.RawTracepointOptions{Name: name, Program: prog})
			})
		})
	case program.TracepointBTF:
		return first(rareTracepoints, func(name string) (attempt, error) {
			return tracing(ebpf.AttachTraceRawTp, name)
		})
	case program.Kprobe, program.Kretprobe:
		return withProgram(ebpf.Kprobe, 0, "", 0, func(prog *ebpf.Program) (io.Closer, error) {
			return attachProbe("kprobe", traceFunction, 0, kind == program.Kretprobe, -1, 0, prog)
		})
	case program.KprobeMulti, program.KretprobeMulti:
		return withProgram(ebpf.Kprobe, ebpf.AttachTraceKprobeMulti, "", 0, func(prog *ebpf.Program) (io.Closer, error) {
			options := link.KprobeMultiOptions{Symbols: []string{traceFunction}}
			if kind == program.KprobeMulti {
				return link.KprobeMulti(prog, options)
			}
			return link.KretprobeMulti(prog, options)
		})
	case program.Fentry:
		return tracing(ebpf.AttachTraceFEntry, traceFunction)
	case program.Fexit:
		return tracing(ebpf.AttachTraceFExit, traceFunction)
	case program.FmodRet:
		a, err := tracing(ebpf.AttachModifyReturn, modifyFunction)
		if err == nil || errors.Is(err, unix.EPERM) {
			return a, err
		}
		// Without error injection (CONFIG_FUNCTION_ERROR_INJECTION) older kernels grant the security hooks only.
		if _, security := withProgram(ebpf.Tracing, ebpf.AttachModifyReturn, securityFunction, 0, nil); security == nil {
			return attempt{note: "loads, for security_* functions only; not attached"}, nil
		}
		return a, err
	case program.Uprobe, program.Uretprobe, program.UprobeMulti, program.UretprobeMulti:
		return p.uprobe(kind)
	case program.PerfEvent:
		return withProgram(ebpf.PerfEvent, 0, "", 0, func(prog *ebpf.Program) (io.Closer, error) {
			attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK,
				Sample: 1e9, Bits: unix.PerfBitDisabled}
			return attachPerf(attr, 0, -1, prog) // this thread alone
		})
	case program.Iterator:
		return withProgram(ebpf.Tracing, ebpf.AttachTraceIter, "task", 0, func(prog *ebpf.Program) (io.Closer, error) {
			return link.AttachIter(link.IterOptions{Program: prog})
		})
	case program.LSM:
		a, err := withProgram(ebpf.LSM, ebpf.AttachLSMMac, "file_mprotect", 0, nil)
		a.note = "loads; not attached, so as not to affect others"
		return a, err
	case program.LSMCgroup:
		a, err := withProgram(ebpf.LSM, ebpf.AttachLSMCgroup, "socket_bind", 1, nil)
		a.note = "loads; not attached"
		return a, err
	case program.SockOps:
		return p.attachCgroup(cgroupHook{"sockops", ebpf.SockOps, ebpf.AttachCGroupSockOps, 1})
	case program.SocketFilter:
		return withProgram(ebpf.SocketFilter, 0, "", 0, attachSocketFilter)
	case program.Syscall:
		return withProgram(ebpf.Syscall, 0, "", 0, nil)
	case program.XDP, program.TCXIngress, program.TCXEgress, program.SKLookup, program.Netfilter:
		return p.network(kind)
	}
	return attempt{}, fmt.Errorf("%w: no probe for this kind of hook", errNotTried)
}

// withProgram loads a two-instruction program and attaches it; attach may be nil.
func withProgram(typ ebpf.ProgramType, at ebpf.AttachType, to string, result int32, attach func(*ebpf.Program) (io.Closer, error)) (attempt, error) {
	prog, err := minimal(typ, at, to, result)
	if err != nil {
		return attempt{}, fmt.Errorf("%w: %w", errLoad, err)
	}
	defer prog.Close() // an attachment keeps its program
	if attach == nil {
		return attempt{}, nil
	}
	attached, err := attach(prog)
	if err != nil {
		return attempt{}, fmt.Errorf("attach: %w", err)
	}
	return attempt{attached: attached}, nil
}

func tracing(at ebpf.AttachType, to string) (attempt, error) {
	return withProgram(ebpf.Tracing, at, to, 0, func(prog *ebpf.Program) (io.Closer, error) {
		return link.AttachTracing(link.TracingOptions{Program: prog, AttachType: at})
	})
}

// first tries names until one exists.
func first(names []string, try func(string) (attempt, error)) (a attempt, err error) {
	for _, name := range names {
		if a, err = try(name); err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ebpf.ErrNotSupported) {
			return a, err
		}
	}
	return a, err
}

func firstOf(names []string, try func(string) (io.Closer, error)) (io.Closer, error) {
	a, err := first(names, func(name string) (attempt, error) {
		c, err := try(name)
		return attempt{attached: c}, err
	})
	return a.attached, err
}

func (p *hookProbe) tracepoint() (attempt, error) {
	return withProgram(ebpf.TracePoint, 0, "", 0, func(prog *ebpf.Program) (io.Closer, error) {
		if p.scratch.tracefs == "" {
			return nil, errors.New("tracefs is not mounted")
		}
		return firstOf(rareEvents, func(event string) (io.Closer, error) {
			return attachTracepoint(p.scratch.tracefs, filepath.Dir(event), filepath.Base(event), prog)
		})
	})
}

func (p *hookProbe) uprobe(kind program.HookKind) (attempt, error) {
	file, err := probeFile()
	if err != nil {
		return attempt{}, err
	}
	defer file.Close()
	path := fmt.Sprintf("/proc/self/fd/%d", file.Fd())
	ret := kind == program.Uretprobe || kind == program.UretprobeMulti
	switch kind {
	case program.UprobeMulti, program.UretprobeMulti:
		return withProgram(ebpf.Kprobe, ebpf.AttachTraceUprobeMulti, "", 0, func(prog *ebpf.Program) (io.Closer, error) {
			executable, err := link.OpenExecutable(path)
			if err != nil {
				return nil, err
			}
			options := &link.UprobeMultiOptions{Addresses: []uint64{64}}
			if ret {
				return executable.UretprobeMulti(nil, prog, options)
			}
			return executable.UprobeMulti(nil, prog, options)
		})
	}
	return withProgram(ebpf.Kprobe, 0, "", 0, func(prog *ebpf.Program) (io.Closer, error) {
		return attachProbe("uprobe", path, 64, ret, -1, 0, prog)
	})
}

// usdt concludes from uprobe: static probes are uprobes, with a counter in the program's memory that switches them on.
func (p *hookProbe) usdt(r Requirement, uprobe Item) Item {
	item := uprobe
	item.Name = string(r.Kind)
	if item.State != Yes {
		item.Cost, item.Remedy = r.Cost, r.Remedy
		p.capabilityRemedy(&item, r)
	} else if _, err := os.Stat("/sys/bus/event_source/devices/uprobe/format/ref_ctr_offset"); err != nil {
		item.Value = "without reference counters: probes that are switched on by a semaphore stay silent"
	}
	return item
}

func attachSocketFilter(prog *ebpf.Program) (io.Closer, error) {
	// Protocol 0: the socket receives nothing, on no interface.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, prog.FD()); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packet socket"), nil
}

// network tries the hooks of a network namespace in the scratch one.
func (p *hookProbe) network(kind program.HookKind) (attempt, error) {
	types := map[program.HookKind]struct {
		typ    ebpf.ProgramType
		attach ebpf.AttachType
		result int32
	}{
		program.XDP:        {ebpf.XDP, ebpf.AttachXDP, 2},
		program.TCXIngress: {ebpf.SchedCLS, ebpf.AttachTCXIngress, -1}, // TCX_NEXT
		program.TCXEgress:  {ebpf.SchedCLS, ebpf.AttachTCXEgress, -1},
		program.SKLookup:   {ebpf.SkLookup, ebpf.AttachSkLookup, 1},
		program.Netfilter:  {ebpf.Netfilter, ebpf.AttachNetfilter, 1},
	}
	t := types[kind]
	if !p.scratch.network {
		a, err := withProgram(t.typ, t.attach, "", t.result, nil)
		a.note = "loads; not attached: a network namespace to try it in needs CAP_SYS_ADMIN"
		return a, err
	}
	a, err := withProgram(t.typ, t.attach, "", t.result, func(prog *ebpf.Program) (io.Closer, error) {
		switch kind {
		case program.XDP:
			return link.AttachXDP(link.XDPOptions{Program: prog, Interface: p.scratch.loopback, Flags: link.XDPGenericMode})
		case program.SKLookup:
			namespace, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return nil, err
			}
			defer namespace.Close()
			return link.AttachNetNs(int(namespace.Fd()), prog)
		case program.Netfilter:
			return link.AttachNetfilter(link.NetfilterOptions{Program: prog, ProtocolFamily: link.NetfilterProtoIPv4,
				Hook: link.NetfilterInetLocalOut, Priority: -128})
		}
		return link.AttachTCX(link.TCXOptions{Program: prog, Interface: p.scratch.loopback, Attach: t.attach})
	})
	if err != nil && !errors.Is(err, errLoad) && (kind == program.TCXIngress || kind == program.TCXEgress) {
		if clsact := tryClsact(p.scratch.loopback); clsact == nil {
			return attempt{note: "no tcx (" + describe(err) + "), but clsact, which Kaon then uses"}, nil
		}
	}
	return a, err
}

// cgroupHook is one attach type of a cgroup, named as its section.
type cgroupHook struct {
	section string
	typ     ebpf.ProgramType
	attach  ebpf.AttachType
	result  int32
}

// cgroupHooks are tried on an own, empty cgroup; all results let everything pass.
var cgroupHooks = []cgroupHook{
	{"cgroup_skb/ingress", ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, 1},
	{"cgroup_skb/egress", ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress, 1},
	{"cgroup/sock_create", ebpf.CGroupSock, ebpf.AttachCGroupInetSockCreate, 1},
	{"cgroup/sock_release", ebpf.CGroupSock, ebpf.AttachCgroupInetSockRelease, 1},
	{"cgroup/bind4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Bind, 1},
	{"cgroup/bind6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Bind, 1},
	{"cgroup/post_bind4", ebpf.CGroupSock, ebpf.AttachCGroupInet4PostBind, 1},
	{"cgroup/post_bind6", ebpf.CGroupSock, ebpf.AttachCGroupInet6PostBind, 1},
	{"cgroup/connect4", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet4Connect, 1},
	{"cgroup/connect6", ebpf.CGroupSockAddr, ebpf.AttachCGroupInet6Connect, 1},
	{"cgroup/connect_unix", ebpf.CGroupSockAddr, ebpf.AttachCgroupUnixConnect, 1},
	{"cgroup/sendmsg4", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Sendmsg, 1},
	{"cgroup/sendmsg6", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Sendmsg, 1},
	{"cgroup/recvmsg4", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP4Recvmsg, 1},
	{"cgroup/recvmsg6", ebpf.CGroupSockAddr, ebpf.AttachCGroupUDP6Recvmsg, 1},
	{"cgroup/getsockopt", ebpf.CGroupSockopt, ebpf.AttachCGroupGetsockopt, 1},
	{"cgroup/setsockopt", ebpf.CGroupSockopt, ebpf.AttachCGroupSetsockopt, 1},
	{"cgroup/sysctl", ebpf.CGroupSysctl, ebpf.AttachCGroupSysctl, 1},
	{"cgroup/dev", ebpf.CGroupDevice, ebpf.AttachCGroupDevice, 1},
}

func (p *hookProbe) attachCgroup(c cgroupHook) (attempt, error) {
	if p.cgroup.err != nil && !p.cgroup.mounted {
		return attempt{}, p.cgroup.err
	}
	if p.cgroup.path == "" {
		a, err := withProgram(c.typ, c.attach, "", c.result, nil)
		a.note = "loads; not attached: no cgroup of its own to try it on (" + describe(p.cgroup.err) + ")"
		return a, err
	}
	return withProgram(c.typ, c.attach, "", c.result, func(prog *ebpf.Program) (io.Closer, error) {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: p.cgroup.path, Attach: c.attach, Program: prog})
		return l, err
	})
}
