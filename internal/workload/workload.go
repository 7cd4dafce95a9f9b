// Package workload tells who did it: it names the cgroups that eBPF programs
// see by number. On Kubernetes a workload is a container of a pod, elsewhere a container, else a systemd
// unit, else a cgroup path.
package workload

// ID is a cgroup's id as programs report it: the kernfs id in the lower 48
// bits, the hierarchy's number (0 for cgroup v2) in the upper 16.
type ID uint64

// Workload names one cgroup. Empty fields are unknown or do not apply.
type Workload struct {
	Namespace, Pod, Container string
	// PodUID is the Kubernetes pod's, as read from the cgroup's path. It is no
	// label: namespace and pod are looked up by it.
	PodUID string
	// Runtime is the container's: "docker", "containerd", "cri-o", "podman", ...
	Runtime string
	// Unit is the systemd unit, if the cgroup belongs to one and is no container's.
	Unit string
	// Cgroup is the path below the hierarchy's root, if it is neither.
	Cgroup string
	// Extra labels of the pod.
	Extra Extra
	// Pending: better names are expected within seconds, so it is too early to show these.
	Pending bool
	// Unselected: the Program is not meant for it.
	Unselected bool
}

// State says what is known of an ID.
type State uint8

// States.
const (
	// Unresolved: not known (yet); ask again at the next scrape.
	Unresolved State = iota
	// Alive: the cgroup exists.
	Alive
	// Gone: the cgroup was removed; its name is kept as a tombstone for a while.
	Gone
	// Outside: not below the agent's cgroup root: not to be measured.
	Outside
)

// Resolver names workloads. Implementations are safe for concurrent use and do
// not block on anything but a lock: they are asked for each new key of a scrape.
type Resolver interface {
	Resolve(ID) (Workload, State)
}

// Labels are the label names of a workload, in the order in which Values returns them.
var Labels = [...]string{"namespace", "pod", "container", "runtime", "unit", "cgroup"}

// Values returns the label values, parallel to Labels.
func (w Workload) Values() [len(Labels)]string {
	return [...]string{w.Namespace, w.Pod, w.Container, w.Runtime, w.Unit, w.Cgroup}
}
