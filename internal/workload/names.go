package workload

import "strings"

// Name says what a cgroup's path below its hierarchy's root tells: the
// container with its runtime and pod, else the systemd unit, else the path itself.
//
// What is inside a container or a unit belongs to it: all cgroups below a container's
// have the same Workload. Of containers inside containers the outermost counts, because it
// is what this machine's administrator knows, unless there is a Kubernetes pod: then the outermost
// pod's, so that the nodes of a cluster made of containers work.
//
// The bytes of the result are those of the path, which its maker chose: they
// may be anything but '/' and NUL.
func Name(path string) Workload {
	if pod, rest, ok := cutPod(path); ok {
		w := Workload{PodUID: pod.uid, Container: pod.container, Runtime: pod.runtime}
		if w.Container == "" {
			w.Container, w.Runtime = findContainer(rest)
		}
		if w.Container == "" {
			w.Unit = findUnit(rest)
		}
		if w.Container == "" && w.Unit == "" {
			w.Cgroup = path
		}
		return w
	}
	if container, runtime := findContainer(path); container != "" {
		return Workload{Container: container, Runtime: runtime}
	}
	if unit := findUnit(path); unit != "" {
		return Workload{Unit: unit}
	}
	return Workload{Cgroup: path}
}

// nextComponent cuts the first component off a path.
func nextComponent(path string) (component, rest string) {
	for path != "" && path[0] == '/' {
		path = path[1:]
	}
	if i := strings.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, ""
}

type pod struct {
	uid string
	// Set if the same component also names a container.
	container, runtime string
}

// cutPod finds the outermost pod in a path and what follows it. The kubelet names pods
// kubepods/burstable/podUID with its cgroupfs driver and
// kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUID.slice, with
// underscores in the UID, with its systemd driver. Where kubelet and runtime disagree
// about the driver, runc makes one component of slice, runtime and id, with colons.
func cutPod(path string) (pod, string, bool) {
	const slice = ".slice"
	below := false
	for rest := path; rest != ""; {
		var c string
		c, rest = nextComponent(rest)
		if uid, ok := strings.CutPrefix(c, "pod"); ok && below && isPodUID(uid) {
			return pod{uid: strings.ReplaceAll(uid, "_", "-")}, rest, true
		}
		i := strings.Index(c, "kubepods")
		if i < 0 || (i > 0 && c[i-1] != '-') {
			continue
		}
		below = true
		name, after, ok := strings.Cut(c, slice)
		if !ok {
			continue
		}
		j := strings.LastIndex(name, "-pod")
		if j < i || !isPodUID(name[j+len("-pod"):]) {
			continue
		}
		p := pod{uid: strings.ReplaceAll(name[j+len("-pod"):], "_", "-")}
		if after == "" {
			return p, rest, true
		}
		if runtime, id, ok := strings.Cut(strings.TrimPrefix(after, ":"), ":"); ok && isContainerID(id) {
			p.container, p.runtime = id, runtimeName(runtime)
			return p, rest, true
		}
	}
	return pod{}, "", false
}

// isPodUID accepts UUIDs and, for static pods, the MD5 sum of their configuration.
func isPodUID(s string) bool {
	switch len(s) {
	case 32:
		return isHex(s)
	case 36:
		for i := range len(s) {
			dash := s[i] == '-' || s[i] == '_'
			if dash != (i == 8 || i == 13 || i == 18 || i == 23) || !dash && !isHexDigit(s[i]) {
				return false
			}
		}
		return true
	}
	return false
}

func isHexDigit(c byte) bool { return c-'0' < 10 || c-'a' < 6 }

func isHex(s string) bool {
	for i := range len(s) {
		if !isHexDigit(s[i]) {
			return false
		}
	}
	return s != ""
}

const containerIDLength = 64

func isContainerID(s string) bool { return len(s) == containerIDLength && isHex(s) }

// findContainer returns the outermost container of a path.
func findContainer(path string) (container, runtime string) {
	parent := ""
	for path != "" {
		var c string
		c, path = nextComponent(path)
		if container, runtime = containerOf(parent, c); container != "" {
			return container, runtime
		}
		parent = c
	}
	return "", ""
}

// containerOf says which container a directory c in parent is.
func containerOf(parent, c string) (container, runtime string) {
	name := strings.TrimSuffix(c, ".scope")
	if len(name) >= containerIDLength {
		id := name[len(name)-containerIDLength:]
		prefix := name[:len(name)-containerIDLength]
		if isHex(id) {
			switch {
			case prefix == "":
				return id, runtimeOfParent(parent)
			case strings.HasSuffix(prefix, "conmon-"):
				// The monitor of a container is not in it.
				return "", ""
			case strings.HasSuffix(prefix, "_pod_"):
				// Podman's pods are only directories for containers.
				return "", ""
			case strings.IndexByte("-_:", prefix[len(prefix)-1]) >= 0:
				return id, runtimeName(prefix[:len(prefix)-1])
			}
		}
	}
	switch {
	case parent == "lxc" || parent == "lxc.payload":
		return c, "lxc"
	case strings.HasPrefix(c, "lxc.payload."):
		return c[len("lxc.payload."):], "lxc"
	case strings.HasPrefix(c, "systemd-nspawn@") && strings.HasSuffix(c, ".service"):
		return unescape(c[len("systemd-nspawn@") : len(c)-len(".service")]), "systemd-nspawn"
	case strings.HasPrefix(c, "machine-") && strings.HasSuffix(c, ".scope"):
		machine := unescape(name[len("machine-"):])
		if strings.HasPrefix(machine, "qemu-") || strings.HasPrefix(machine, "lxc-") {
			return machine, "libvirt"
		}
		return machine, "systemd-nspawn"
	case strings.HasSuffix(c, ".libvirt-qemu"), strings.HasSuffix(c, ".libvirt-lxc"):
		return c[:strings.LastIndexByte(c, '.')], "libvirt"
	}
	return "", ""
}

// runtimeName returns what a runtime is called by its users, given the prefix it
// gives its cgroups. Unknown prefixes are returned as they are.
func runtimeName(prefix string) string {
	switch prefix {
	case "docker":
		return "docker"
	case "cri-containerd", "nerdctl", "containerd":
		return "containerd"
	case "crio":
		return "cri-o"
	case "libpod", "libpod-payload":
		return "podman"
	case "kata":
		return "kata"
	}
	return prefix
}

// runtimeOfParent tells the runtime of a container whose directory has only an
// id as its name. Below a pod's directory nothing tells it.
func runtimeOfParent(parent string) string {
	switch parent {
	case "docker", "moby":
		return "docker"
	case "k8s.io":
		return "containerd"
	case "libpod_parent":
		return "podman"
	}
	return ""
}

// findUnit follows systemd's own rule: the unit is the first component that is not a slice. Below a user's
// manager (user@UID.service) it is the user's unit, found likewise.
func findUnit(path string) string {
	unit, rest := firstUnit(path)
	if strings.HasPrefix(unit, "user@") && strings.HasSuffix(unit, ".service") {
		// The manager's own processes are in its init.scope.
		if inner, _ := firstUnit(rest); inner != "" && inner != "init.scope" {
			return inner
		}
	}
	return unit
}

// firstUnit returns the first component that names a unit other than a slice, and what
// follows it. Components that are nothing of systemd's are passed over: they are
// what an agent in a container has above its units.
func firstUnit(path string) (unit, rest string) {
	for path != "" {
		var c string
		c, path = nextComponent(path)
		// systemd puts a '_' before names that would look like one of the kernel's files.
		if c = strings.TrimPrefix(c, "_"); isUnit(c) {
			return c, path
		}
	}
	return "", ""
}

func isUnit(c string) bool {
	i := strings.LastIndexByte(c, '.')
	if i <= 0 {
		return false
	}
	switch c[i:] {
	case ".service", ".scope", ".socket", ".mount", ".swap":
		return true
	}
	return false
}

// unescape undoes systemd's escaping of names, in which \xNN stands for a byte. What can't be
// part of a name ('/' and NUL) or is not well-formed stays as it is.
func unescape(s string) string {
	if !strings.Contains(s, `\x`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && s[i+1] == 'x' && isHexDigit(s[i+2]) && isHexDigit(s[i+3]) {
			if v := hexValue(s[i+2])<<4 | hexValue(s[i+3]); v != 0 && v != '/' {
				b = append(b, v)
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func hexValue(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}
