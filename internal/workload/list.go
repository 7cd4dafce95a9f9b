package workload

import "strings"

// Cgroup is one that exists.
type Cgroup struct {
	ID ID
	// Path below its hierarchy's root.
	Path string
}

// Unified says whether it is a cgroup of v2.
func (c Cgroup) Unified() bool { return c.ID.hierarchy() == 0 }

// Lister tells which cgroups there are to be measured, and where their files lie. Implementations are safe for
// concurrent use.
type Lister interface {
	// Cgroups returns all that are to be measured, in no order and each once.
	Cgroups() []Cgroup
	// Workloads returns those of Cgroups that make up the workloads if numbers are read that contain those of all cgroups
	// below: they don't overlap, and all that is below one belongs to the same workload.
	Workloads() []Cgroup
	// Directory returns where the files of a cgroup are: for one of v1 those of a controller. Empty if that is
	// not mounted.
	Directory(c Cgroup, controller string) string
}

// Cgroups implements Lister.
func (c *Cgroups) Cgroups() []Cgroup {
	return c.table.alive(c.layout.Counts)
}

// Workloads implements Lister.
func (c *Cgroups) Workloads() []Cgroup { return undivided(c.Cgroups()) }

// undivided returns the uppermost cgroups below which all is the same workload.
func undivided(groups []Cgroup) []Cgroup {
	type place struct {
		hierarchy uint16
		path      string
	}
	index := make(map[place]int, len(groups))
	for i, g := range groups {
		index[place{g.ID.hierarchy(), g.Path}] = i
	}
	parent := func(i int) int {
		g := groups[i]
		end := strings.LastIndexByte(g.Path, '/')
		if g.Path == "/" || end < 0 {
			return -1
		}
		path := g.Path[:end]
		if path == "" {
			path = "/"
		}
		if p, ok := index[place{g.ID.hierarchy(), path}]; ok {
			return p
		}
		return -1
	}
	names := make([]Workload, len(groups))
	parents := make([]int, len(groups))
	for i, g := range groups {
		names[i], parents[i] = Name(g.Path), parent(i)
	}
	divided := make([]bool, len(groups))
	for i := range groups {
		p := parents[i]
		if p < 0 || names[p] == names[i] {
			continue
		}
		for ; p >= 0 && !divided[p]; p = parents[p] {
			divided[p] = true
		}
	}
	var all []Cgroup
	for i, g := range groups {
		if p := parents[i]; !divided[i] && (p < 0 || divided[p]) {
			all = append(all, g)
		}
	}
	return all
}

// ProcessesOf returns the file that lists the processes of a cgroup, "" if it can't be seen.
func (c *Cgroups) ProcessesOf(group Cgroup) string {
	h := c.layout.V2
	if !group.Unified() {
		h = c.layout.V1
	}
	if directory := directoryIn(h, group.Path); directory != "" {
		return directory + "/cgroup.procs"
	}
	return ""
}

// Directory implements Lister.
func (c *Cgroups) Directory(group Cgroup, controller string) string {
	h := c.layout.V2
	if !group.Unified() {
		h = Hierarchy{}
		for _, other := range c.layout.Controllers {
			if other.Controller == controller {
				h = other
			}
		}
	}
	return directoryIn(h, group.Path)
}

// directoryIn returns where a path in a hierarchy is mounted, "" if it is not.
func directoryIn(h Hierarchy, path string) string {
	if !h.Present() || !below(path, h.Base) {
		return ""
	}
	if path == "/" {
		return h.Mount
	}
	return h.Mount + path[len(h.Base):]
}
