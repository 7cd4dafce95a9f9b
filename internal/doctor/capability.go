package doctor

import (
	"strconv"
	"strings"
)

// Capability is a Linux capability, by its bit.
type Capability int

// The capabilities that matter to Kaon.
const (
	DACReadSearch Capability = 2
	NetAdmin      Capability = 12
	NetRaw        Capability = 13
	SysPtrace     Capability = 19
	SysAdmin      Capability = 21
	SysResource   Capability = 24
	Syslog        Capability = 34
	Perfmon       Capability = 38
	BPF           Capability = 39
)

var capabilityTexts = []struct {
	capability Capability
	name       string
	cost       string
}{
	{BPF, "CAP_BPF", "nothing works: no map and no program can be created"},
	{Perfmon, "CAP_PERFMON", "no tracing: tracepoints, probes, iterators and perf events can't be loaded; kernel pointers can't be read"},
	{NetAdmin, "CAP_NET_ADMIN", "no XDP, tcx, cgroup, sockops, sk_lookup and netfilter programs"},
	{NetRaw, "CAP_NET_RAW", "no socket filters on interfaces"},
	{SysAdmin, "CAP_SYS_ADMIN", "no run times of programs (kaon top), no list of the machine's BPF objects, no mounting of tracefs and bpffs, no pinning in a bpffs of root's"},
	{SysResource, "CAP_SYS_RESOURCE", "the limit on locked memory bounds all maps together"},
	{DACReadSearch, "CAP_DAC_READ_SEARCH", "no tracepoints by name unless tracefs is readable otherwise (it is root's); other users' files can't be probed"},
	{Syslog, "CAP_SYSLOG", "no names of kernel functions (ksym labels) where kptr_restrict is 1"},
	{SysPtrace, "CAP_SYS_PTRACE", "other users' processes can't be resolved to files, so USDT and library probes of them, and all probes in containers, fail"},
}

func (c Capability) String() string {
	for _, t := range capabilityTexts {
		if t.capability == c {
			return t.name
		}
	}
	return "capability " + strconv.Itoa(int(c))
}

// capabilitySets are the masks of /proc/PID/status.
type capabilitySets struct{ effective, permitted, inheritable, ambient, bounding uint64 }

func parseCapabilities(status string) capabilitySets {
	var sets capabilitySets
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		if err != nil {
			continue
		}
		switch name {
		case "CapEff":
			sets.effective = mask
		case "CapPrm":
			sets.permitted = mask
		case "CapInh":
			sets.inheritable = mask
		case "CapAmb":
			sets.ambient = mask
		case "CapBnd":
			sets.bounding = mask
		}
	}
	return sets
}

func (s capabilitySets) has(c Capability) bool { return s.effective&(1<<c) != 0 }

// lacking returns those of want that are not effective. CAP_SYS_ADMIN stands for
// CAP_BPF, CAP_PERFMON; only it itself is no substitute for CAP_NET_ADMIN.
func (s capabilitySets) lacking(want []Capability) []string {
	var names []string
	for _, c := range want {
		if s.has(c) || (c == BPF || c == Perfmon || c == Syslog) && s.has(SysAdmin) {
			continue
		}
		names = append(names, c.String())
	}
	return names
}

// items lists the capabilities. memcg says that the limit on locked memory does not matter.
func (s capabilitySets) items(memcg bool) []Item {
	items := make([]Item, 0, len(capabilityTexts))
	for _, t := range capabilityTexts {
		item := Item{Name: t.name, State: No}
		var in []string
		for _, set := range []struct {
			name string
			mask uint64
		}{{"effective", s.effective}, {"permitted", s.permitted}, {"ambient", s.ambient}, {"bounding", s.bounding}} {
			if set.mask&(1<<t.capability) != 0 {
				in = append(in, set.name)
			}
		}
		item.Value = strings.Join(in, ", ")
		switch {
		case s.has(t.capability):
			item.State = Yes
		case len(s.lacking([]Capability{t.capability})) == 0:
			item.State, item.Value = Yes, "through CAP_SYS_ADMIN"
		case t.capability == SysResource && memcg:
			item.State, item.Value = Yes, "absent, but not needed: this kernel counts maps in memory cgroups"
		default:
			item.Cost = t.cost
			switch {
			case s.permitted&(1<<t.capability) != 0:
				item.Remedy = "it is permitted but not effective: raise it before starting Kaon"
			case s.bounding&(1<<t.capability) == 0:
				item.Remedy = "it is not even in the bounding set: the container or service that started this process must grant it"
			default:
				item.Remedy = "run as root, or with it as an ambient capability (systemd: AmbientCapabilities=" + t.name + ")"
			}
			if item.Value == "" {
				item.Value = "in no set"
			}
		}
		items = append(items, item)
	}
	return items
}
