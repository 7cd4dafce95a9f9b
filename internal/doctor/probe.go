package doctor

import (
	"context"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/workload"
)

// Options of Probe. The zero value is what a user wants.
type Options struct {
	// Cgroup is an existing cgroup v2 directory in which the one to attach to is
	// made (and removed); empty: this process's own.
	Cgroup string
	// IsolatedNetwork says that this process already is in a network namespace
	// of which nobody else makes use: XDP and the like may then be attached to its loopback.
	IsolatedNetwork bool
}

// Probe tries what the kernel and the process's privileges allow. Everything that it
// attaches runs on rare events, on this process or in namespaces and a cgroup made for
// the purpose, is detached at once, and affects nobody. What a cancelled context keeps from being tried is
// unknown in the report.
func Probe(ctx context.Context, options Options) *Report {
	began := time.Now()
	r := &Report{CPUs: runtime.NumCPU(), UID: os.Getuid()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		r.Release, r.Machine = unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:])
	}
	// Only kernels before 5.11 need it; where it is refused, the probes say so.
	raised := rlimit.RemoveMemlock()
	h := newHost("")
	h.memcg = raised == nil && !unlimited()
	// These look at the process's own namespaces, the rest at the scratch thread's.
	kernel, filesystems := h.kernel(), h.filesystems()
	layout, err := workload.Detect()
	types := &hookProbe{ctx: ctx, caps: h.caps}
	var programTypes, mapTypes, helpers []Item
	var wait sync.WaitGroup
	wait.Go(func() { // these need no namespaces, and take as long as the rest
		programTypes, mapTypes, helpers = types.programTypes(), types.mapTypes(), types.helpers()
	})
	onScratchThread(options.IsolatedNetwork, func(s *scratch) {
		h.scratch = s
		p := &hookProbe{ctx: ctx, scratch: s, caps: h.caps, paranoid: h.paranoid(), cgroup: newScratchCgroup(layout, options.Cgroup)}
		r.Sections = []Section{
			{SectionKernel, append(kernel, h.security()...)},
			{SectionCapabilities, h.caps.items(h.memcg)},
			{SectionFilesystems, filesystems},
			{SectionCgroups, cgroups(layout, err)},
			{SectionHooks, p.hooks()},
			{SectionFeatures, p.features()},
		}
		if err := p.cgroup.remove(); err != nil {
			r.Sections[3].Items = append(r.Sections[3].Items, Item{Name: "own cgroup", State: No, Error: describe(err),
				Cost: "the empty cgroup " + p.cgroup.path + " was left behind", Remedy: "rmdir it"})
		}
	})
	wait.Wait()
	r.Sections = append(r.Sections, Section{SectionPrograms, programTypes}, Section{SectionMaps, mapTypes}, Section{SectionHelpers, helpers})
	r.Seconds = time.Since(began).Seconds()
	return r
}

// unlimited reports whether the limit on locked memory is off.
func unlimited() bool {
	var limit unix.Rlimit
	return unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur == unix.RLIM_INFINITY
}
