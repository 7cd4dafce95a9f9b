package object

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
)

// sections maps what a section name begins with to a kind of hook, as libbpf
// understands section names. Longer prefixes stand before shorter ones. All say whether
// what follows the prefix must be separated from it by a slash.
var sections = []struct {
	prefix string
	kind   program.HookKind
}{
	{"kprobe.multi", program.KprobeMulti},
	{"kretprobe.multi", program.KretprobeMulti},
	{"kprobe", program.Kprobe},
	{"kretprobe", program.Kretprobe},
	{"ksyscall", program.Ksyscall},
	{"kretsyscall", program.Kretsyscall},
	{"uprobe.multi", program.UprobeMulti},
	{"uretprobe.multi", program.UretprobeMulti},
	{"uprobe", program.Uprobe},
	{"uretprobe", program.Uretprobe},
	{"usdt", program.USDT},
	{"tracepoint", program.Tracepoint},
	{"tp", program.Tracepoint},
	{"raw_tracepoint", program.RawTracepoint},
	{"raw_tp", program.RawTracepoint},
	{"tp_btf", program.TracepointBTF},
	{"fentry", program.Fentry},
	{"fexit", program.Fexit},
	{"fmod_ret", program.FmodRet},
	{"lsm_cgroup", program.LSMCgroup},
	{"lsm", program.LSM},
	{"iter", program.Iterator},
	{"perf_event", program.PerfEvent},
	{"xdp.frags", program.XDP},
	{"xdp", program.XDP},
	{"tcx/ingress", program.TCXIngress},
	{"tcx/egress", program.TCXEgress},
	{"tc/ingress", program.TCXIngress},
	{"tc/egress", program.TCXEgress},
	{"tc", program.TCXIngress},
	{"classifier", program.TCXIngress},
	{"cgroup_skb", program.Cgroup},
	{"cgroup", program.Cgroup},
	{"sockops", program.SockOps},
	{"socket", program.SocketFilter},
	{"sk_lookup", program.SKLookup},
	{"netfilter", program.Netfilter},
	{"syscall", program.Syscall},
}

// xdpModes may follow "xdp/"; what else does is an interface.
var xdpModes = []string{"generic", "native", "offload"}

// hookOf derives the hook from the function's section name.
func hookOf(prog *ebpf.ProgramSpec) (program.Hook, error) {
	section := strings.TrimPrefix(prog.SectionName, "?")
	for _, s := range sections {
		rest, ok := strings.CutPrefix(section, s.prefix)
		if !ok {
			continue
		}
		rest = strings.TrimPrefix(rest, ".s") // sleepable
		if s.kind == program.RawTracepoint {
			rest = strings.TrimPrefix(rest, ".w") // writable
		}
		if rest != "" && rest[0] != '/' {
			continue
		}
		target := strings.TrimPrefix(rest, "/")
		hook := program.Hook{Function: prog.Name, Kind: s.kind, Target: target}
		switch s.kind {
		case program.XDP, program.TCXIngress, program.TCXEgress:
			if s.kind == program.XDP && (target == "devmap" || target == "cpumap") {
				hook.Kind, hook.Target = program.Unattached, "" // maps run them
			} else if target != "" && !(s.kind == program.XDP && slices.Contains(xdpModes, target)) {
				hook.Interfaces, hook.Target = []string{target}, ""
			}
		case program.Cgroup:
			hook.Target = section
		}
		// The question mark is libbpf's for "not loaded unless asked for".
		hook.Optional = strings.HasPrefix(prog.SectionName, "?")
		if needsTarget[s.kind] && target == "" {
			return hook, fmt.Errorf("its section %q does not say where to attach: write SEC(\"%s/...\")", prog.SectionName, s.prefix)
		}
		return hook, nil
	}
	return program.Hook{}, fmt.Errorf("no hook is known for its section %q: `kaon doctor` lists what there is", prog.SectionName)
}

var needsTarget = map[program.HookKind]bool{
	program.Tracepoint: true, program.RawTracepoint: true, program.TracepointBTF: true,
	program.Kprobe: true, program.Kretprobe: true, program.KprobeMulti: true, program.KretprobeMulti: true,
	program.Ksyscall: true, program.Kretsyscall: true, program.Fentry: true, program.Fexit: true, program.FmodRet: true,
	program.Uprobe: true, program.Uretprobe: true, program.UprobeMulti: true, program.UretprobeMulti: true, program.USDT: true,
	program.PerfEvent: true, program.Iterator: true, program.Cgroup: true, program.LSM: true, program.LSMCgroup: true,
}

// loadableBare are those of needsTarget that the kernel loads without knowing the target: for tail calls, for instance.
var loadableBare = map[program.HookKind]bool{
	program.Tracepoint: true, program.RawTracepoint: true, program.Kprobe: true, program.Kretprobe: true,
	program.KprobeMulti: true, program.KretprobeMulti: true, program.Ksyscall: true, program.Kretsyscall: true,
	program.Uprobe: true, program.Uretprobe: true, program.UprobeMulti: true, program.UretprobeMulti: true, program.USDT: true,
	program.PerfEvent: true,
}
