package doctor

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// state turns a probe's answer into an item.
func (p *hookProbe) state(name string, err error, cost, remedy string, capabilities ...Capability) Item {
	item := Item{Name: name, State: Yes}
	if err == nil {
		return item
	}
	item.State, item.Error, item.Cost, item.Remedy = No, describe(err), cost, remedy
	if lacking := p.caps.lacking(capabilities); len(lacking) > 0 {
		item.Remedy = needs(lacking)
	}
	return item
}

func (p *hookProbe) programTypes() []Item {
	var items []Item
	for _, t := range []struct {
		typ  ebpf.ProgramType
		caps []Capability
	}{
		{ebpf.SocketFilter, []Capability{BPF}}, {ebpf.Kprobe, []Capability{BPF, Perfmon}},
		{ebpf.TracePoint, []Capability{BPF, Perfmon}}, {ebpf.RawTracepoint, []Capability{BPF, Perfmon}},
		{ebpf.PerfEvent, []Capability{BPF, Perfmon}}, {ebpf.Tracing, []Capability{BPF, Perfmon}},
		{ebpf.LSM, []Capability{BPF, Perfmon}}, {ebpf.Extension, []Capability{BPF, Perfmon}},
		{ebpf.StructOps, []Capability{BPF, Perfmon}},
		{ebpf.SchedCLS, []Capability{BPF, NetAdmin}}, {ebpf.XDP, []Capability{BPF, NetAdmin}},
		{ebpf.CGroupSKB, []Capability{BPF}}, {ebpf.CGroupSock, []Capability{BPF, NetAdmin}},
		{ebpf.CGroupSockAddr, []Capability{BPF, NetAdmin}}, {ebpf.CGroupSockopt, []Capability{BPF, NetAdmin}},
		{ebpf.CGroupSysctl, []Capability{BPF, NetAdmin}}, {ebpf.CGroupDevice, []Capability{BPF, NetAdmin}},
		{ebpf.SockOps, []Capability{BPF, NetAdmin}}, {ebpf.SkLookup, []Capability{BPF, NetAdmin}},
		{ebpf.Netfilter, []Capability{BPF, NetAdmin}}, {ebpf.Syscall, []Capability{BPF}},
	} {
		name := t.typ.String()
		if t.typ == ebpf.Tracing {
			name += " (fentry)"
		}
		items = append(items, p.state(name, features.HaveProgramType(t.typ),
			"hooks that need it fail, see hooks", "see hooks", t.caps...))
	}
	return items
}

func (p *hookProbe) mapTypes() []Item {
	var items []Item
	for _, t := range []struct {
		typ  ebpf.MapType
		cost string
	}{
		{ebpf.Hash, "no metric with labels"}, {ebpf.Array, "no metric without labels"},
		{ebpf.PerCPUHash, "per-CPU metrics fail"}, {ebpf.PerCPUArray, "per-CPU metrics fail"},
		{ebpf.LRUHash, "programs that remember starts (latencies) fail"}, {ebpf.LRUCPUHash, "per-CPU caches fail"},
		{ebpf.RingBuf, "no streams of events"}, {ebpf.PerfEventArray, "no streams from other tools' objects"},
		{ebpf.StackTrace, "no stack traces"}, {ebpf.LPMTrie, "no filters by address range"},
		{ebpf.HashOfMaps, "policies that follow workloads fail"}, {ebpf.ArrayOfMaps, "policies that follow workloads fail"},
		{ebpf.ProgramArray, "programs with tail calls fail"}, {ebpf.CGroupArray, "programs that ask whether a task is below a cgroup fail"},
		{ebpf.Queue, "programs that use queues fail"}, {ebpf.Stack, "programs that use stacks fail"},
		{ebpf.SkStorage, "packets handled in softirq have no workload on cgroup v1"},
		{ebpf.TaskStorage, "programs that keep state per task use a hash map instead or fail"},
		{ebpf.InodeStorage, "programs that keep state per file fail"},
		{ebpf.CGroupStorage, "programs that keep counters per attached cgroup fail"},
		{ebpf.CgroupStorage, "programs that keep counters per cgroup use a hash map instead or fail"},
		{ebpf.BloomFilter, "programs that use bloom filters fail"}, {ebpf.UserRingbuf, "programs that are fed by user space fail"},
		{ebpf.Arena, "programs that use arenas fail"},
	} {
		name := t.typ.String()
		if t.typ == ebpf.CGroupStorage {
			name += " (deprecated)"
		}
		items = append(items, p.state(name, features.HaveMapType(t.typ), t.cost, "run a newer kernel, or choose another map type", BPF))
	}
	return items
}

func (p *hookProbe) helpers() []Item {
	var items []Item
	for _, t := range []struct {
		name   string
		typ    ebpf.ProgramType
		helper asm.BuiltinFunc
		cost   string
	}{
		{"bpf_get_current_task_btf", ebpf.RawTracepoint, asm.FnGetCurrentTaskBtf, "finding an event's workload costs about 150 ns more"},
		{"bpf_get_attach_cookie", ebpf.Kprobe, asm.FnGetAttachCookie, "USDT probes with several locations can't tell them apart"},
		{"bpf_ktime_get_boot_ns", ebpf.RawTracepoint, asm.FnKtimeGetBootNs, "exemplars have no timestamps"},
		{"bpf_ringbuf_output", ebpf.RawTracepoint, asm.FnRingbufOutput, "no streams of events"},
		{"bpf_send_signal", ebpf.RawTracepoint, asm.FnSendSignal, "policies can't kill"},
		{"bpf_override_return", ebpf.Kprobe, asm.FnOverrideReturn, "faults and policies can't replace a function's result (CONFIG_BPF_KPROBE_OVERRIDE)"},
		{"bpf_loop", ebpf.RawTracepoint, asm.FnLoop, "programs with long loops fail"},
		{"bpf_skb_cgroup_id", ebpf.SchedCLS, asm.FnSkbCgroupId, "packets at tcx have no workload"},
	} {
		caps := []Capability{BPF, Perfmon}
		if t.typ == ebpf.SchedCLS {
			caps = []Capability{BPF, NetAdmin}
		}
		items = append(items, p.state(t.name, features.HaveProgramHelper(t.typ, t.helper), t.cost, "run a kernel that has it", caps...))
	}
	return items
}

func (p *hookProbe) features() []Item {
	return []Item{
		p.state("batch look-up, hash", tryBatch(ebpf.Hash), "scrapes take one system call per key: about ten times the CPU", "run a kernel that has it (5.6)", BPF),
		p.state("batch look-up, LRU hash", tryBatch(ebpf.LRUHash), "scrapes of LRU maps take one system call per key", "run a kernel that has it (5.6)", BPF),
		p.state("batch look-up, per-CPU hash", tryBatch(ebpf.PerCPUHash), "scrapes of per-CPU maps take one system call per key", "run a kernel that has it (5.6)", BPF),
		p.state("batch look-up, array", tryBatch(ebpf.Array), "scrapes of arrays take one system call per element", "run a kernel that has it (5.6), or use mmapable arrays", BPF),
		p.state("batch look-up, per-CPU array", tryBatch(ebpf.PerCPUArray), "scrapes of per-CPU arrays take one system call per element", "run a kernel that has it (5.13)", BPF),
		p.state("mmapable arrays", tryMmap(ebpf.Array), "dense metrics and run counts are read by system calls", "run a kernel that has it (5.5)", BPF),
		p.state("ring buffer", tryMmap(ebpf.RingBuf), "no streams of events", "run a kernel that has it (5.8)", BPF),
		p.state("bounded loops", features.HaveBoundedLoops(), "programs with loops fail", "run a kernel that has it (5.3)", BPF),
		p.state("large programs", features.HaveLargeInstructions(), "programs above 4,096 instructions fail", "run as root or with CAP_BPF", BPF),
		p.state("iterators over maps' elements", tryElementIterator(), "functions at iter/bpf_map_elem fail", "run a kernel that allows it (5.8; some refuse it)", BPF, Perfmon),
		p.state("BPF_ENABLE_STATS", tryStats(), "kaon top and kaon_program_run_seconds have no run times", "run as root", SysAdmin),
		p.state("list of BPF objects", tryList(), "the bpf program and kaon top see Kaon's own programs only", "run as root", SysAdmin),
		p.state("hardware perf events", p.tryHardware(), "profiles by CPU cycles or cache misses fail; those by CPU clock work", "run on hardware, or let the hypervisor pass its counters on", Perfmon),
		p.pinning(),
	}
}

func tryBatch(typ ebpf.MapType) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "kaon_doctor", Type: typ, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	if err != nil {
		return err
	}
	defer m.Close()
	cpus := 1
	if typ == ebpf.PerCPUHash || typ == ebpf.PerCPUArray {
		if cpus, err = ebpf.PossibleCPU(); err != nil {
			return err
		}
	}
	var cursor ebpf.MapBatchCursor
	_, err = m.BatchLookup(&cursor, make([]uint32, 8), make([]uint64, 8*cpus), nil)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil // the end of the map
	}
	return err
}

// tryMmap maps an array, or a ring buffer's consumer page.
func tryMmap(typ ebpf.MapType) error {
	spec := &ebpf.MapSpec{Name: "kaon_doctor", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE}
	size := unix.Getpagesize()
	if typ == ebpf.RingBuf {
		spec = &ebpf.MapSpec{Name: "kaon_doctor", Type: typ, MaxEntries: uint32(size)}
	}
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return err
	}
	defer m.Close()
	memory, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	return unix.Munmap(memory)
}

func tryElementIterator() error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "kaon_doctor", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "bpf_map_elem",
		License: "Dual BSD/GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return err
	}
	return program.Close()
}

func tryStats() error {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return err
	}
	return stats.Close()
}

func tryList() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "kaon_doctor", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return err
	}
	defer m.Close() // so that there is one to find
	_, err = ebpf.MapGetNextID(0)
	return err
}

func (p *hookProbe) tryHardware() error {
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_HARDWARE, Config: unix.PERF_COUNT_HW_CPU_CYCLES, Bits: unix.PerfBitDisabled,
		Size: unix.PERF_ATTR_SIZE_VER0}
	fd, err := unix.PerfEventOpen(attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// pinning tries to pin a map in the private bpffs.
func (p *hookProbe) pinning() Item {
	item := Item{Name: "pinning", State: Unknown, Error: "no private bpffs to try it in",
		Cost:   "unknown whether counters can survive a restart of the agent",
		Remedy: "look at bpffs under filesystems"}
	if p.scratch.bpffs == "" {
		return item
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "kaon_doctor", Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err == nil {
		defer m.Close()
		if err = m.Pin(p.scratch.bpffs + "/map"); err == nil {
			err = m.Unpin()
		}
	}
	return p.state(item.Name, err, "Programs with pin: true lose their counters with the agent", "run as root, with a bpffs at /sys/fs/bpf", BPF)
}
