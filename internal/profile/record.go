package profile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/workload"
)

// Bounds of a profile, in memory.
const (
	maxSamples    = 500_000
	maxStackBytes = 256 << 20
)

// interval is how often the kernel's maps are emptied. They hold 8,192 counts and 5,120 stacks.
const interval = 200 * time.Millisecond

// Options say what to record.
type Options struct {
	// Map returns one of the Program's maps by name, nil if it has none such.
	Map func(name string) *ebpf.Map
	// Lost returns how many samples the Program could not store so far. nil: unknown.
	Lost func() (uint64, error)
	// Workloads names cgroups; nil: nobody does.
	Workloads workload.Resolver
	// Symbol names the kernel's functions; nil: nobody does.
	Symbol func(address uint64) string
	// Proc is where procfs is mounted; empty: /proc.
	Proc string
}

const setMap = "stack_set"

// set is one of the two sets of maps that samples go to by turns.
type set struct{ stacks, spare, counts string }

func sets() [2]set {
	return [2]set{{"stacks_a", "spare_stacks_a", "stack_counts_a"}, {"stacks_b", "spare_stacks_b", "stack_counts_b"}}
}

func mapNames() []string {
	names := []string{setMap}
	for _, s := range sets() {
		names = append(names, s.stacks, s.spare, s.counts)
	}
	return names
}

// What the Program writes: as in programs/profile/profile.bpf.c.
const (
	depth    = 127
	spareBit = 0x100000
)

type stackKey struct {
	Workload, Memory uint64
	Process          uint32
	Kernel, User     int32
	Mode             uint32
	Thread, Name     [16]byte
}

type stackCount struct{ Samples, Nanoseconds uint64 }

// stackID is the number of a stack in recorder.stacks; negative: an error number.
type stackID int32

// sampleKey is a stackKey whose stacks are the recorder's.
type sampleKey struct {
	workload     uint64
	space        space
	kernel, user stackID
	thread, name [16]byte
}

// recorder keeps what it took out of the kernel's maps.
type recorder struct {
	options   Options
	maps      map[string]*ebpf.Map
	processes *processes
	events    *events // nil: can't be had

	stacks     [][]uint64
	stackIDs   map[string]stackID
	stackBytes int
	samples    map[sampleKey]stackCount
	losses     Losses
	workloads  map[uint64]workload.Workload

	keys   []stackKey
	counts []stackCount
}

// Record samples until the context ends, and returns what was seen. The Program must run with Param set. Naming functions takes
// some time after that, at most half a minute.
func Record(ctx context.Context, options Options) (_ *Profile, err error) {
	if options.Proc == "" {
		options.Proc = "/proc"
	}
	r := &recorder{
		options: options, maps: map[string]*ebpf.Map{}, processes: newProcesses(options.Proc),
		stackIDs: map[string]stackID{}, samples: map[sampleKey]stackCount{}, workloads: map[uint64]workload.Workload{},
	}
	defer r.processes.close()
	// Without it processes that end soon have no names: they are counted.
	if r.events, err = openEvents(); err == nil {
		defer r.events.close()
	}
	for _, name := range mapNames() {
		if r.maps[name] = options.Map(name); r.maps[name] == nil {
			return nil, fmt.Errorf("%w: it has no map %s (is the param %s set?)", ErrNoStacks, name, Param)
		}
	}
	lostBefore, err := r.lost()
	if err != nil {
		return nil, err
	}
	begun := time.Now()
	if err := r.sample(ctx); err != nil {
		return nil, err
	}
	p := &Profile{Begun: begun, Duration: time.Since(begun)}
	lostAfter, err := r.lost()
	if err != nil {
		return nil, err
	}
	r.losses.Samples += lostAfter - lostBefore
	r.name(context.WithoutCancel(ctx), p)
	return p, nil
}

func (r *recorder) lost() (uint64, error) {
	if r.options.Lost == nil {
		return 0, nil
	}
	return r.options.Lost()
}

// sample lets samples go to the two sets by turns, and takes them out of the one that has its pause.
func (r *recorder) sample(ctx context.Context) error {
	active := 0
	// What a recorder before this one left is not ours.
	for n := range 2 {
		if err := r.empty(n, false); err != nil {
			return err
		}
	}
	if err := r.use(active + 1); err != nil {
		return err
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			err := r.use(0)
			return errors.Join(err, r.empty(active, true))
		case <-ticker.C:
			before := active
			active = 1 - active
			if err := r.use(active + 1); err != nil {
				return err
			}
			if err := r.empty(before, true); err != nil {
				return errors.Join(err, r.use(0))
			}
		}
	}
}

// use says where samples go from now on, and waits until none is on its way to where they went before.
func (r *recorder) use(number int) error {
	if err := r.maps[setMap].Put(uint32(0), uint32(number)); err != nil {
		return fmt.Errorf("switch where samples go: %w", err)
	}
	// The kernel waits until every CPU has left what runs there now; not if nohz_full is on.
	const membarrierGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// empty takes everything out of a set.
func (r *recorder) empty(number int, keep bool) error {
	s := sets()[number]
	counts := r.maps[s.counts]
	if r.keys == nil {
		r.keys, r.counts = make([]stackKey, counts.MaxEntries()), make([]stackCount, counts.MaxEntries())
	}
	var cursor ebpf.MapBatchCursor
	n, err := counts.BatchLookup(&cursor, r.keys, r.counts, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read %s: %w", s.counts, err)
	}
	if n > 0 {
		if _, err := counts.BatchDelete(r.keys[:n], nil); err != nil {
			return fmt.Errorf("empty %s: %w", s.counts, err)
		}
	}
	if keep {
		r.follow()
		r.take(s, n)
	}
	for _, name := range []string{s.stacks, s.spare} {
		if err := clearStacks(r.maps[name]); err != nil {
			return fmt.Errorf("empty %s: %w", name, err)
		}
	}
	return nil
}

// follow takes up what processes did until now.
func (r *recorder) follow() {
	r.processes.lives.turn()
	if r.events == nil {
		return
	}
	for _, record := range r.events.read() {
		r.processes.lives.apply(&record)
	}
}

// take adds the first n of keys and counts to what was seen.
func (r *recorder) take(s set, n int) {
	now := time.Now()
	here := map[int32]stackID{}
	stack := func(id int32) stackID {
		if id < 0 {
			return stackID(id)
		}
		if known, ok := here[id]; ok {
			return known
		}
		here[id] = r.intern(s, id)
		return here[id]
	}
	for i := range n {
		k := &r.keys[i]
		key := sampleKey{workload: k.Workload, space: space{k.Process, k.Memory}, thread: k.Thread, name: k.Name}
		key.kernel, key.user = stack(k.Kernel), stack(k.User)
		total, ok := r.samples[key]
		if !ok && len(r.samples) >= maxSamples {
			r.losses.Samples += r.counts[i].Samples
			continue
		}
		total.Samples += r.counts[i].Samples
		total.Nanoseconds += r.counts[i].Nanoseconds
		r.samples[key] = total
		r.resolve(k.Workload)
		if k.Memory != 0 && key.user >= 0 {
			r.processes.see(key.space, text(k.Name[:]), r.stacks[key.user], now)
		}
	}
}

// resolve remembers a workload's name as soon as it has one.
func (r *recorder) resolve(id uint64) {
	if w, ok := r.workloads[id]; ok && !w.Pending || r.options.Workloads == nil {
		return
	}
	if w, state := r.options.Workloads.Resolve(workload.ID(id)); state != workload.Unresolved && w != (workload.Workload{}) {
		r.workloads[id] = w
	}
}

// intern reads a stack out of the kernel.
func (r *recorder) intern(s set, id int32) stackID {
	m := r.maps[s.stacks]
	if id&spareBit != 0 {
		m, id = r.maps[s.spare], id&^spareBit
	}
	var raw [depth * 8]byte
	if err := m.Lookup(uint32(id), &raw); err != nil {
		return -stackID(unix.ENOENT)
	}
	end := len(raw)
	for end > 0 && bytes.Equal(raw[end-8:end], make([]byte, 8)) {
		end -= 8
	}
	if known, ok := r.stackIDs[string(raw[:end])]; ok {
		return known
	}
	if r.stackBytes += 2 * end; r.stackBytes > maxStackBytes {
		return -stackID(unix.ENOMEM)
	}
	stack := make([]uint64, end/8)
	for i := range stack {
		for j := range 8 {
			stack[i] |= uint64(raw[8*i+j]) << (8 * j)
		}
	}
	new := stackID(len(r.stacks))
	r.stacks = append(r.stacks, stack)
	r.stackIDs[string(raw[:end])] = new
	return new
}

// clearStacks deletes all stacks of a map.
func clearStacks(m *ebpf.Map) error {
	var key, next uint32
	err := m.NextKey(nil, &key)
	for err == nil {
		end := m.NextKey(key, &next)
		if err = m.Delete(key); errors.Is(err, ebpf.ErrKeyNotExist) {
			err = nil
		}
		if err == nil {
			key, err = next, end
		}
	}
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
