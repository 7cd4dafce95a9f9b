package workload

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// Errors of Detect. They are wrapped with what was looked at.
var (
	// ErrNoCgroups: no cgroup hierarchy that tells workloads apart is mounted here.
	ErrNoCgroups = errors.New("no cgroup hierarchy is mounted")
	// ErrScope: the cgroup root that was asked for can't be used.
	ErrScope = errors.New("unusable cgroup root")
)

// Mode says in which hierarchy a program finds a task's workload. The numbers
// are those of kaon.h's kaon_cgroup_mode.
type Mode uint32

const (
	// ModeV2: in cgroup v2.
	ModeV2 Mode = 0
	// ModeV1: in the v1 hierarchy of Layout.V1.
	ModeV1 Mode = 1
	// ModeHybrid: in v2, but in v1 if the task is in v2's root.
	ModeHybrid Mode = 2
)

func (m Mode) String() string {
	switch m {
	case ModeV2:
		return "v2"
	case ModeV1:
		return "v1"
	case ModeHybrid:
		return "hybrid"
	}
	return "mode " + strconv.Itoa(int(m))
}

// Hierarchy is one mounted tree of cgroups. It is absent if Mount is empty.
type Hierarchy struct {
	// Number is the kernel's, as in /proc/self/cgroup: 0 for v2.
	Number uint16
	// Controller is the v1 controller by which the hierarchy was chosen, in /proc/cgroups' spelling.
	Controller string
	// Mount is the directory where it is mounted.
	Mount string
	// Base is the path in the hierarchy of what Mount shows: "" for the
	// root. It is a guess, also "", if the mount was made in a cgroup
	// namespace; then Whole is false.
	Base string
	// Whole says that Mount shows all of the hierarchy.
	Whole bool
}

// Present says whether the hierarchy is mounted.
func (h Hierarchy) Present() bool { return h.Mount != "" }

// ID returns the workload id of a cgroup of this hierarchy, given the number that
// the kernel calls its id. On 64-bit kernels (>= 5.5) that is the directory's inode.
func (h Hierarchy) ID(inode uint64) ID {
	if h.Number == 0 {
		return ID(inode)
	}
	return ID(inode&(1<<hierarchyShift-1) | uint64(h.Number)<<hierarchyShift)
}

const hierarchyShift = 48

// Layout says how this machine's cgroups are mounted, and where programs
// shall look for a task's workload.
type Layout struct {
	Mode   Mode
	V2, V1 Hierarchy
	// Controllers are the v1 hierarchies that are mounted, one for each controller: sorted by its name.
	Controllers []Hierarchy
	// Subsystem is the index of V1.Controller in the running kernel's
	// css_set.subsys; 0 in ModeV2.
	Subsystem uint32
	// Scope is what shall be measured; the zero Scope is the whole machine.
	Scope Scope
}

// Scope is the cgroup below which workloads are measured.
type Scope struct {
	// Path below the root of the hierarchy whose number is in ID. "" for everything.
	Path string
	ID   ID
	// Level is the depth of the cgroup, as in the kernel's cgroup->level: 1 below the root.
	Level uint32
}

// Counts tells whether programs may report a cgroup as a workload: by its hierarchy.
func (l Layout) Counts(id ID) bool {
	v2 := id.hierarchy() == 0
	return l.Mode == ModeHybrid || v2 == (l.Mode == ModeV2)
}

// Constants returns the values of the constants by which programs (kaon.h)
// learn the layout, by variable name.
func (l Layout) Constants() map[string]any {
	return map[string]any{
		"kaon_cgroup_mode":   uint32(l.Mode),
		"kaon_cgroup_subsys": l.Subsystem,
		"kaon_scope_id":      uint64(l.Scope.ID),
		"kaon_scope_level":   l.Scope.Level,
	}
}

// String describes the layout in words.
func (l Layout) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cgroup %s", l.Mode)
	if l.V2.Present() {
		fmt.Fprintf(&b, ", v2 at %s", l.V2.Mount)
	}
	if l.V1.Present() {
		fmt.Fprintf(&b, ", v1 %s at %s", l.V1.Controller, l.V1.Mount)
	}
	if l.Scope.ID != 0 {
		fmt.Fprintf(&b, ", only %s", l.Scope.Path)
	}
	return b.String()
}

// DetectOptions says where to look. The zero value is this process's own view.
type DetectOptions struct {
	// Proc is where procfs is mounted. Empty: /proc.
	Proc string
	// Root limits what is used to mounts at or below this directory: for a host's
	// /sys/fs/cgroup that is mounted elsewhere. Without it, mounts that show
	// a whole hierarchy are preferred wherever they are.
	Root string
	// CgroupRoot is the path of the cgroup to be measured: absolute, below one of
	// the mounts, or relative to the root of a hierarchy, v2 if it is there.
	// Empty: everything.
	//
	// It also decides the mode, because only one hierarchy can be compared
	// with it: ModeV2 for a cgroup of v2, ModeV1 (of that controller) for one of v1.
	CgroupRoot string
	// Types are the running kernel's, if they have been loaded. Nil: they are
	// loaded where needed (v1 and hybrid).
	Types *btf.Spec
}

// Detect finds this machine's layout.
func Detect() (Layout, error) { return DetectWithOptions(DetectOptions{}) }

// DetectWithOptions finds a machine's layout.
func DetectWithOptions(o DetectOptions) (Layout, error) {
	if o.Proc == "" {
		o.Proc = "/proc"
	}
	mounts, err := readMounts(filepath.Join(o.Proc, "self/mountinfo"), o.Root)
	if err != nil {
		return Layout{}, fmt.Errorf("detect cgroup layout: %w", err)
	}
	hierarchies, err := readHierarchies(filepath.Join(o.Proc, "self/cgroup"))
	if err != nil {
		return Layout{}, fmt.Errorf("detect cgroup layout: %w", err)
	}
	v1 := joinV1(mounts, hierarchies)
	var l Layout
	if m, ok := bestMount(mounts, func(m mount) bool { return m.v2 }); ok {
		l.V2 = m.hierarchy()
	}
	l.V1, l.Controllers = chooseV1(v1, l.V2.Present()), v1
	switch {
	case !l.V2.Present() && !l.V1.Present():
		where := o.Root
		if where == "" {
			where = "/sys/fs/cgroup"
		}
		return Layout{}, fmt.Errorf("detect cgroup layout: %w: mount it, for instance: mount -t cgroup2 none %s", ErrNoCgroups, where)
	case !l.V1.Present():
		l.Mode = ModeV2
	case !l.V2.Present():
		l.Mode = ModeV1
	case exists(filepath.Join(l.V2.Mount, "init.scope")):
		// systemd's own hybrid layout: it keeps every process in a v2 group,
		// but runtimes put containers into v1, so v2 would tell their daemon.
		l.Mode = ModeV1
	default:
		l.Mode = ModeHybrid
	}
	if o.CgroupRoot != "" {
		if err := l.setScope(o.CgroupRoot, v1); err != nil {
			return Layout{}, err
		}
	}
	if l.Mode != ModeV2 {
		l.Subsystem, err = subsystemIndex(l.V1.Controller, o.Types, filepath.Join(o.Proc, "cgroups"))
		if err != nil {
			return Layout{}, fmt.Errorf("detect cgroup layout: %w", err)
		}
	}
	return l, nil
}

// identifying are the v1 controllers in which runtimes and systemd put every
// workload, best first.
var identifying = [...]string{"pids", "memory", "cpu", "cpuacct", "devices", "freezer", "blkio", "cpuset"}

// chooseV1 returns the hierarchy in which v1 workloads are told apart. Beside v2 only main controllers
// count: others (net_cls, freezer) are mounted by single tools on machines that are otherwise v2.
func chooseV1(v1 []Hierarchy, besideV2 bool) Hierarchy {
	candidates := identifying[:]
	if besideV2 {
		candidates = identifying[:3]
	}
	for _, controller := range candidates {
		for _, h := range v1 {
			if h.Controller == controller {
				return h
			}
		}
	}
	return Hierarchy{}
}

// joinV1 returns one Hierarchy for each mounted v1 controller.
func joinV1(mounts []mount, numbers map[string]uint16) []Hierarchy {
	var all []Hierarchy
	for controller, number := range numbers {
		m, ok := bestMount(mounts, func(m mount) bool {
			if m.v2 {
				return false
			}
			for _, o := range m.options {
				if o == controller {
					return true
				}
			}
			return false
		})
		if ok {
			h := m.hierarchy()
			h.Number, h.Controller = number, controller
			all = append(all, h)
		}
	}
	slices.SortFunc(all, func(a, b Hierarchy) int { return strings.Compare(a.Controller, b.Controller) })
	return all
}

// mount is one cgroup file system in mountinfo.
type mount struct {
	point   string
	root    string
	options []string
	v2      bool
	whole   bool
}

func (m mount) hierarchy() Hierarchy {
	h := Hierarchy{Mount: m.point, Whole: m.whole}
	if !m.whole && m.root != "/" && !strings.HasPrefix(m.root, "/..") {
		h.Base = m.root
	}
	return h
}

// bestMount returns the first mount that shows a whole hierarchy, else the first.
func bestMount(mounts []mount, want func(mount) bool) (best mount, ok bool) {
	for _, m := range mounts {
		if want(m) && (!ok || m.whole && !best.whole) {
			best, ok = m, true
		}
	}
	return best, ok
}

// readMounts lists the cgroup mounts that are visible at or below root.
func readMounts(path, root string) ([]mount, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var mounts []mount
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		m, ok := parseMount(lines.Text())
		if !ok || !below(m.point, root) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(m.point, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			continue
		}
		m.whole = isWhole(m, st.Ino)
		mounts = append(mounts, m)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return mounts, nil
}

// isWhole says whether a mount shows its hierarchy's root, which is always number 1
// (kernfs_create_root). mountinfo can't tell, because what it says is relative to the
// reader's cgroup namespace.
func isWhole(m mount, inode uint64) bool {
	var fs unix.Statfs_t
	if unix.Statfs(m.point, &fs) != nil {
		return false
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC && fs.Type != unix.CGROUP_SUPER_MAGIC {
		return m.root == "/" // A copy of a tree, in which inodes mean nothing.
	}
	return inode == 1
}

// parseMount parses a line of mountinfo (proc_pid_mountinfo(5)) and accepts cgroups.
func parseMount(line string) (mount, bool) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return mount{}, false
	}
	fields, special := strings.Fields(before), strings.Fields(after)
	if len(fields) < 6 || len(special) < 1 || special[0] != "cgroup" && special[0] != "cgroup2" {
		return mount{}, false
	}
	m := mount{root: unescapeOctal(fields[3]), point: unescapeOctal(fields[4]), v2: special[0] == "cgroup2"}
	if len(special) > 2 {
		m.options = strings.Split(special[2], ",")
	}
	return m, true
}

// unescapeOctal undoes mountinfo's \040 and the like.
func unescapeOctal(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b = append(b, byte(v))
				i += 3
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// readHierarchies returns the numbers of the v1 hierarchies by controller, from
// /proc/self/cgroup ("8:pids:/"). Named hierarchies have no controller.
func readHierarchies(path string) (map[string]uint16, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	numbers := map[string]uint16{}
	for line := range strings.Lines(string(data)) {
		number, rest, _ := strings.Cut(line, ":")
		controllers, _, ok := strings.Cut(rest, ":")
		n, err := strconv.ParseUint(number, 10, 16)
		if !ok || err != nil || n == 0 {
			continue
		}
		for controller := range strings.SplitSeq(controllers, ",") {
			if controller != "" && !strings.HasPrefix(controller, "name=") {
				numbers[controller] = uint16(n)
			}
		}
	}
	return numbers, nil
}

// subsystemIndex returns a controller's place in css_set.subsys, which depends
// on the kernel's configuration: from its types, else from the order of /proc/cgroups, which is the
// same (but newer kernels leave out controllers that v1 does not have).
func subsystemIndex(controller string, types *btf.Spec, cgroups string) (uint32, error) {
	var err error
	if types == nil {
		types, err = btf.LoadKernelSpec()
	}
	if err == nil {
		var index uint32
		if index, err = subsystemIndexBTF(controller, types); err == nil {
			return index, nil
		}
	}
	data, fileErr := os.ReadFile(cgroups)
	if fileErr != nil {
		return 0, fmt.Errorf("find index of cgroup controller %s: %w", controller, errors.Join(err, fileErr))
	}
	var index uint32
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		if name, _, _ := strings.Cut(line, "\t"); name == controller {
			return index, nil
		}
		index++
	}
	return 0, fmt.Errorf("find index of cgroup controller %s: neither in kernel types nor in %s: %w", controller, cgroups, err)
}

func subsystemIndexBTF(controller string, types *btf.Spec) (uint32, error) {
	var enum *btf.Enum
	if err := types.TypeByName("cgroup_subsys_id", &enum); err != nil {
		return 0, fmt.Errorf("find cgroup_subsys_id: %w", err)
	}
	if controller == "blkio" {
		controller = "io" // Its name in the kernel since v2.
	}
	for _, v := range enum.Values {
		if v.Name == controller+"_cgrp_id" {
			return uint32(v.Value), nil
		}
	}
	return 0, fmt.Errorf("cgroup_subsys_id has no %s_cgrp_id", controller)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// below says whether path is root or below it. An empty root is everything.
func below(path, root string) bool {
	root = strings.TrimRight(root, "/")
	return strings.HasPrefix(path, root) && (len(path) == len(root) || path[len(root)] == '/')
}
