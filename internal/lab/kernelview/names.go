package kernelview

import (
	"path/filepath"
	"sync"

	"github.com/kaon-project/kaon/internal/lab/cgroup"
	"github.com/kaon-project/kaon/internal/workload"
)

// names calls the lab's cgroups what they are for: cgroup="lab", cgroup="inject-cpu". It implements workload.Resolver and
// workload.Lister for them alone. A cgroup that is gone keeps its name, so that what was injected stays counted.
type names struct {
	tree *cgroup.Tree
	// path is the tree's in the hierarchy.
	path string

	mu   sync.Mutex
	byID map[workload.ID]string
}

// Resolve implements workload.Resolver.
func (n *names) Resolve(id workload.ID) (workload.Workload, workload.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := n.byID[id]
	if !ok {
		n.list()
		if name, ok = n.byID[id]; !ok {
			return workload.Workload{}, workload.Outside
		}
	}
	return workload.Workload{Cgroup: name}, workload.Alive
}

// list learns what there is. It needs the lock.
func (n *names) list() []cgroup.Leaf {
	leaves, err := n.tree.Leaves()
	if err != nil {
		return nil // the lab ends
	}
	for _, leaf := range leaves {
		n.byID[workload.ID(leaf.Inode)] = leaf.Name
	}
	return leaves
}

// Cgroups implements workload.Lister.
func (n *names) Cgroups() []workload.Cgroup {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []workload.Cgroup
	for _, leaf := range n.list() {
		all = append(all, workload.Cgroup{ID: workload.ID(leaf.Inode), Path: n.path + "/" + filepath.Base(leaf.Dir)})
	}
	return all
}

// Workloads implements workload.Lister.
func (n *names) Workloads() []workload.Cgroup { return n.Cgroups() }

// Directory implements workload.Lister. The lab has no cgroups of v1.
func (n *names) Directory(c workload.Cgroup, _ string) string {
	if !c.Unified() {
		return ""
	}
	return filepath.Join(n.tree.Dir(), filepath.Base(c.Path))
}
