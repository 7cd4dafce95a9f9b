package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host reads what the machine says of itself.
type host struct {
	// root stands before every path; empty but in tests.
	root    string
	caps    capabilitySets
	scratch *scratch
	// memcg says that the kernel counts maps in memory cgroups, not against the limit on locked memory.
	memcg bool
}

func newHost(root string) *host {
	h := &host{root: root, scratch: &scratch{}}
	h.caps = parseCapabilities(h.read("/proc/self/status"))
	return h
}

func (h *host) path(p string) string { return filepath.Join("/", h.root, p) }

// read returns a file's text without surrounding space, "" if it can't be read.
func (h *host) read(path string) string {
	text, _ := os.ReadFile(h.path(path))
	return strings.TrimSpace(string(text))
}

func (h *host) kernel() []Item {
	return []Item{h.btf(), h.unprivileged(), h.jit(), h.stats(), h.memlock(), h.perfParanoid(), h.symbols()}
}

// security lists what securityfs tells, which may be mounted only on the scratch thread.
func (h *host) security() []Item {
	return []Item{h.lockdown(), h.bpfLSM()}
}

func (h *host) securityfs() string {
	if h.scratch.securityfs != "" {
		return h.scratch.securityfs
	}
	return "/sys/kernel/security"
}

func (h *host) bpfLSM() Item {
	item := Item{Name: "BPF LSM active", State: Yes}
	list := h.read(h.securityfs() + "/lsm")
	switch {
	case list == "":
		item.State, item.Error = Unknown, "securityfs is not mounted or not readable"
		item.Cost = "it can't be told whether lsm programs would ever run"
		item.Remedy = "mount -t securityfs securityfs /sys/kernel/security, and look for bpf in lsm there"
	case slices.Contains(strings.Split(list, ","), "bpf"):
		item.Value = list
	default:
		item.State, item.Value = No, list
		item.Cost = "lsm programs load and attach but never run: policies that deny before the act have no effect"
		item.Remedy = "boot with lsm=" + list + ",bpf"
	}
	return item
}

func (h *host) btf() Item {
	item := Item{Name: "BTF", State: Yes}
	info, err := os.Stat(h.path("/sys/kernel/btf/vmlinux"))
	if err != nil {
		item.State, item.Error = No, describe(err)
		item.Cost = "no tp_btf, fentry, iter and lsm; programs that read kernel structures (CO-RE) fail, which most built-in ones do"
		item.Remedy = "run a kernel with CONFIG_DEBUG_INFO_BTF (every current distribution's is)"
		return item
	}
	if f, err := os.Open(h.path("/sys/kernel/btf/vmlinux")); err != nil {
		item.State, item.Error = No, describe(err)
		item.Cost, item.Remedy = "programs that read kernel structures (CO-RE) fail", "make /sys/kernel/btf/vmlinux readable"
		return item
	} else {
		_ = f.Close()
	}
	item.Value = fmt.Sprintf("/sys/kernel/btf/vmlinux, %.1f MB", float64(info.Size())/1e6)
	return item
}

// lockdown reads "none [integrity] confidentiality". Yes means that nothing is locked.
func (h *host) lockdown() Item {
	item := Item{Name: "not locked down", State: Unknown}
	dir := h.securityfs()
	text := h.read(dir + "/lockdown")
	if text == "" {
		if entries, err := os.ReadDir(h.path(dir)); err == nil && len(entries) > 0 {
			item.State, item.Value = Yes, "this kernel has no lockdown"
			return item
		}
		item.Error = "securityfs is not mounted or not readable"
		item.Cost = "it can't be told why a hook is refused"
		item.Remedy = "mount -t securityfs securityfs /sys/kernel/security, and look at lockdown there"
		return item
	}
	_, mode, _ := strings.Cut(text, "[")
	mode, _, _ = strings.Cut(mode, "]")
	item.Value = mode
	switch mode {
	case "none":
		item.State = Yes
	case "integrity":
		item.State = No
		item.Cost = "bpf_probe_write_user, error injection and writes to user memory are refused; some kernels also refuse kprobes and BTF trampolines (fentry, lsm): see hooks"
		item.Remedy = "boot without lockdown= and with Secure Boot off, if you need those"
	default:
		item.State = No
		item.Cost = "kernel memory can't be read by tracing programs: most of them fail or see zeros"
		item.Remedy = "boot with lockdown=integrity or none"
	}
	return item
}

func (h *host) unprivileged() Item {
	text := h.read("/proc/sys/kernel/unprivileged_bpf_disabled")
	values := map[string]string{"0": "0: everybody may load some programs", "1": "1: only with CAP_BPF, until the next boot", "2": "2: only with CAP_BPF"}
	item := Item{Name: "unprivileged BPF disabled", State: Yes, Value: values[text]}
	switch text {
	case "0":
		item.State = No
		item.Cost = "nothing for Kaon; users without privileges can load BPF programs, which is a risk of its own"
		item.Remedy = "sysctl kernel.unprivileged_bpf_disabled=2"
	case "":
		item.State = Unknown
	}
	return item
}

func (h *host) jit() Item {
	item := Item{Name: "JIT", State: Yes}
	switch text := h.read("/proc/sys/net/core/bpf_jit_enable"); text {
	case "0":
		item.State, item.Value = No, "0: off"
		item.Cost = "BPF programs are interpreted: each run costs several times as much"
		item.Remedy = "sysctl net.core.bpf_jit_enable=1"
	case "":
		// The file is root's, and absent where the JIT can't be switched off.
		item.State, item.Value = Unknown, "net.core.bpf_jit_enable can't be read"
	default:
		item.Value = text + ": on"
	}
	return item
}

func (h *host) stats() Item {
	item := Item{Name: "BPF statistics", State: Yes, Value: "off until somebody looks"}
	if h.read("/proc/sys/kernel/bpf_stats_enabled") == "1" {
		item.State, item.Value = No, "on for everybody"
		item.Cost = "each run of each BPF program of this machine costs about 70 ns more"
		item.Remedy = "sysctl kernel.bpf_stats_enabled=0; kaon top switches it on for itself while it looks"
	}
	return item
}

func (h *host) memlock() Item {
	item := Item{Name: "locked memory", State: Yes}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		item.State, item.Error = Unknown, describe(err)
		return item
	}
	if h.memcg {
		item.Value = "no limit: this kernel counts maps in memory cgroups"
		return item
	}
	if limit.Cur == unix.RLIM_INFINITY {
		item.Value = "unlimited"
		return item
	}
	item.State, item.Value = No, fmt.Sprintf("at most %d KiB for all maps together", limit.Cur>>10)
	item.Cost, item.Remedy = "Programs with large maps fail to load with EPERM", "raise it: ulimit -l unlimited, LimitMEMLOCK=infinity, or CAP_SYS_RESOURCE"
	return item
}

// paranoid is the sysctl kernel.perf_event_paranoid, 0 if there is none.
func (h *host) paranoid() int {
	n, _ := strconv.Atoi(h.read("/proc/sys/kernel/perf_event_paranoid"))
	return n
}

func (h *host) perfParanoid() Item {
	item := Item{Name: "perf events", State: Yes, Value: "kernel.perf_event_paranoid=" + h.read("/proc/sys/kernel/perf_event_paranoid")}
	if n, err := strconv.Atoi(h.read("/proc/sys/kernel/perf_event_paranoid")); err != nil {
		item.State, item.Value = No, ""
		item.Error = "this kernel has no perf events"
		item.Cost = "no tracepoints by name, kprobes, uprobes and profiles: only raw_tp, tp_btf and the like"
		item.Remedy = "run a kernel with CONFIG_PERF_EVENTS"
	} else if n > 0 && len(h.caps.lacking([]Capability{Perfmon})) > 0 {
		item.State = No
		item.Cost, item.Remedy = "no perf events of the whole machine", needs([]string{Perfmon.String()})
	} else if n > 2 && !h.caps.has(SysAdmin) {
		item.State = No
		item.Cost = "at this level no perf events without CAP_SYS_ADMIN: no tracepoints by name, kprobes, uprobes and profiles"
		item.Remedy = "sysctl kernel.perf_event_paranoid=2, or run as root"
	}
	return item
}

// symbols finds out whether kallsyms has addresses.
func (h *host) symbols() Item {
	item := Item{Name: "kernel symbols", State: Yes, Value: "/proc/kallsyms shows addresses"}
	f, err := os.Open(h.path("/proc/kallsyms"))
	if err == nil {
		defer f.Close()
		// All addresses are shown or none; the very first symbol may really be at 0.
		b := make([]byte, 64<<10)
		n, _ := f.Read(b)
		for line := range strings.Lines(string(b[:n])) {
			address, _, _ := strings.Cut(line, " ")
			if strings.Trim(address, "0") != "" {
				return item
			}
		}
	}
	item.State, item.Value = No, ""
	item.Error = "/proc/kallsyms hides addresses (kernel.kptr_restrict=" + h.read("/proc/sys/kernel/kptr_restrict") + ")"
	item.Cost = "labels with kernel functions (ksym) are numbers"
	item.Remedy = "run as root or with CAP_SYSLOG, with kernel.kptr_restrict at most 1"
	return item
}

func (h *host) filesystems() []Item {
	tracefs := Item{Name: "tracefs", State: Yes}
	dir := "/sys/kernel/tracing"
	if !mounted(dir, unix.TRACEFS_MAGIC) && mounted("/sys/kernel/debug/tracing", unix.TRACEFS_MAGIC) {
		dir = "/sys/kernel/debug/tracing"
	}
	tracefs.Value = dir
	const noEvents = "no tracepoints by name (SEC(\"tracepoint/...\")); raw_tp and tp_btf work without it"
	if !mounted(dir, unix.TRACEFS_MAGIC) {
		tracefs.State, tracefs.Value, tracefs.Error = No, "", "not mounted"
		tracefs.Cost = noEvents
		tracefs.Remedy = "mount -t tracefs tracefs /sys/kernel/tracing; kaon up and kaon run do so themselves where they may"
	} else if _, err := os.ReadDir(dir + "/events"); err != nil {
		tracefs.State, tracefs.Error, tracefs.Cost = No, describe(err), noEvents
		tracefs.Remedy = "run as root or with CAP_DAC_READ_SEARCH, or mount tracefs with gid=GROUP,mode=750"
	}

	bpffs := Item{Name: "bpffs", State: Yes, Value: "/sys/fs/bpf"}
	const noPins = "Programs with pin: true can't keep their counters across a restart of the agent"
	if !mounted("/sys/fs/bpf", unix.BPF_FS_MAGIC) {
		bpffs.State, bpffs.Value, bpffs.Error, bpffs.Cost = No, "", "not mounted", noPins
		bpffs.Remedy = "mount -t bpf bpf /sys/fs/bpf; kaon up does so itself where it may"
	} else if err := unix.Access("/sys/fs/bpf", unix.W_OK); err != nil {
		bpffs.State, bpffs.Error, bpffs.Cost = No, describe(err), noPins
		bpffs.Remedy = "run as root, or mount a bpffs of your own with uid= and gid="
	}
	return []Item{tracefs, bpffs}
}
