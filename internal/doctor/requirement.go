package doctor

import (
	"github.com/kaon-project/kaon/internal/program"
)

// Requirement says what a kind of hook needs.
type Requirement struct {
	Kind program.HookKind
	// Capabilities that loading and attaching need, where unprivileged BPF is
	// disabled (as it is by default). CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON.
	Capabilities []Capability
	// Since is the first kernel that has it, for information: nothing is
	// decided by it. Kaon needs 5.10 anyway.
	Since string
	// Also is what it needs besides capabilities.
	Also string
	// Cost is what the user loses without it.
	Cost string
	// Remedy is what to do about a kernel that lacks or refuses it.
	Remedy string
}

// Requirements lists every kind of hook, in the order of the documentation.
func Requirements() []Requirement {
	tracing := []Capability{BPF, Perfmon}
	network := []Capability{BPF, NetAdmin}
	// The perf event of a uprobe asks for it by name; CAP_PERFMON is no substitute.
	userProbes := []Capability{SysAdmin}
	const (
		noKprobes  = "functions of the kernel can't be probed where no tracepoint is near"
		kprobes    = "run a kernel with CONFIG_KPROBES and CONFIG_KPROBE_EVENTS, or add a tp_btf or tracepoint alternative"
		noTramp    = "programs with this hook fail unless they have an alternative; Kaon uses the next of the group"
		trampoline = "add a tp_btf or kprobe alternative (KAON_ALTERNATIVE); to enable it: boot a kernel with " +
			"CONFIG_DEBUG_INFO_BTF, CONFIG_FUNCTION_TRACER and BTF trampolines that no lockdown or hypervisor refuses"
		noUser = "functions of user programs and libraries can't be observed"
		uprobe = "run a kernel with CONFIG_UPROBE_EVENTS, or use uprobe.multi"
	)
	return []Requirement{
		{program.Tracepoint, tracing, "4.7", "tracefs, readable (root's, or CAP_DAC_READ_SEARCH)",
			"programs on stable tracepoints fail, syscall tracepoints with their arguments by name among them", "mount tracefs (mount -t tracefs tracefs /sys/kernel/tracing) and be allowed to read it, or use raw_tp or tp_btf, which don't need it"},
		{program.RawTracepoint, tracing, "4.17", "", "most built-in programs fail", "run a kernel with CONFIG_BPF_EVENTS"},
		{program.TracepointBTF, tracing, "5.5", "kernel BTF", "most built-in programs fall back to raw_tp or fail", "run a kernel with CONFIG_DEBUG_INFO_BTF"},
		{program.Kprobe, tracing, "4.1", "CONFIG_KPROBE_EVENTS", noKprobes, kprobes},
		{program.Kretprobe, tracing, "4.1", "CONFIG_KPROBE_EVENTS", noKprobes, kprobes},
		{program.KprobeMulti, tracing, "5.18", "CONFIG_FPROBE", "one program on many functions is attached one by one (slower start), or not at all without kprobes", "run a kernel with CONFIG_FPROBE, or use kprobe and kretprobe"},
		{program.KretprobeMulti, tracing, "5.18", "CONFIG_FPROBE", "one program on many functions is attached one by one (slower start), or not at all without kprobes", "run a kernel with CONFIG_FPROBE, or use kprobe and kretprobe"},
		{program.Ksyscall, tracing, "4.1", "CONFIG_KPROBE_EVENTS", "system calls can't be probed by function", "use tracepoint/syscalls, or raw_tp/sys_enter and sys_exit; or " + kprobes},
		{program.Kretsyscall, tracing, "4.1", "CONFIG_KPROBE_EVENTS", "system calls can't be probed by function", "use tracepoint/syscalls, or raw_tp/sys_enter and sys_exit; or " + kprobes},
		{program.Fentry, tracing, "5.5", "kernel BTF, BTF trampolines", noTramp, trampoline},
		{program.Fexit, tracing, "5.5", "kernel BTF, BTF trampolines", noTramp, trampoline},
		{program.FmodRet, tracing, "5.7", "kernel BTF, BTF trampolines", "faults and policies that replace a function's result fail", trampoline},
		{program.Uprobe, userProbes, "4.3", "CONFIG_UPROBE_EVENTS; uprobe.multi does with CAP_BPF and CAP_PERFMON", noUser, uprobe},
		{program.Uretprobe, userProbes, "4.3", "CONFIG_UPROBE_EVENTS; uretprobe.multi does with CAP_BPF and CAP_PERFMON", noUser, uprobe},
		{program.UprobeMulti, tracing, "6.6", "CONFIG_UPROBES", "many user functions are attached one by one (slower start)", "nothing where uprobe and uretprobe work; otherwise a kernel from 6.6"},
		{program.UretprobeMulti, tracing, "6.6", "CONFIG_UPROBES", "many user functions are attached one by one (slower start)", "nothing where uprobe and uretprobe work; otherwise a kernel from 6.6"},
		{program.USDT, userProbes, "4.20", "CONFIG_UPROBE_EVENTS", "static probes of user programs (databases, language runtimes) can't be observed", uprobe},
		{program.PerfEvent, tracing, "4.9", "CONFIG_PERF_EVENTS", "sampling profiles fail", "run a kernel with CONFIG_PERF_EVENTS and without a seccomp filter on perf_event_open"},
		{program.Iterator, tracing, "5.8", "kernel BTF", "metrics that are read from the kernel's own lists at scrape time (tasks, sockets) fail", "run a kernel with CONFIG_DEBUG_INFO_BTF"},
		{program.XDP, network, "5.9", "", "packets can't be counted before the network stack", "use tcx; or run a kernel with CONFIG_XDP_SOCKETS or CONFIG_NET and BPF"},
		{program.TCXIngress, network, "6.6", "before 6.6: clsact (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)", "packets can't be counted per interface", "use cgroup_skb or xdp; or run a kernel from 6.6 or one with clsact"},
		{program.TCXEgress, network, "6.6", "before 6.6: clsact (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF)", "packets can't be counted per interface", "use cgroup_skb; or run a kernel from 6.6 or one with clsact"},
		{program.Cgroup, network, "4.10", "cgroup v2 mounted, CONFIG_CGROUP_BPF", "traffic can't be counted per cgroup", "mount cgroup v2, run a kernel with CONFIG_CGROUP_BPF"},
		{program.LSM, tracing, "5.7", "kernel BTF, BTF trampolines, CONFIG_BPF_LSM, bpf in lsm=", "policies that deny before the act fail; those that kill afterwards don't", "boot without what refuses BTF trampolines (lockdown, some hypervisors), and with bpf in lsm="},
		{program.LSMCgroup, tracing, "6.0", "as lsm, and cgroup v2", "policies that deny per cgroup fail", "boot without what refuses BTF trampolines (lockdown, some hypervisors), and with bpf in lsm="},
		{program.SockOps, network, "4.13", "cgroup v2 mounted, CONFIG_CGROUP_BPF", "TCP events per cgroup (round trip times, retransmissions) can't be counted", "use tp_btf on tcp tracepoints"},
		{program.SocketFilter, []Capability{BPF, NetRaw}, "3.19", "CONFIG_PACKET", "packets can't be counted with packet sockets", "use tcx"},
		{program.SKLookup, []Capability{BPF}, "5.9", "", "socket look-ups can't be observed", "run a kernel with CONFIG_BPF_SYSCALL and CONFIG_INET from 5.9"},
		{program.Netfilter, network, "6.4", "CONFIG_NETFILTER_BPF_LINK", "netfilter hooks can't be observed", "use tcx or cgroup_skb"},
		{program.Syscall, []Capability{BPF}, "5.14", "", "programs that Kaon itself runs are not available", "run a kernel from 5.14"},
	}
}
