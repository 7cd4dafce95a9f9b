package engine

import (
	"debug/elf"
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// Maps that libbpf's usdt.bpf.h declares.
const (
	usdtSpecsMap = "__bpf_usdt_specs"
	usdtIPsMap   = "__bpf_usdt_ip_to_spec_id"
)

// usdtLocation is where one probe is set.
type usdtLocation struct {
	offset    uint64
	refCount  uint64
	address   uint64
	arguments string
}

// usdtProbe is one probe of a binary: all of its places.
type usdtProbe struct {
	machine    elf.Machine
	executable bool // it runs at the addresses that it says
	locations  []usdtLocation
}

// parseUSDT splits "PATH:PROVIDER:NAME".
func parseUSDT(text string) (path, provider, name string, err error) {
	parts := strings.Split(text, ":")
	if n := len(parts); n >= 3 {
		path, provider, name = strings.Join(parts[:n-2], ":"), parts[n-2], parts[n-1]
	}
	if path == "" || provider == "" || name == "" {
		return "", "", "", fmt.Errorf("usdt %q is not PATH:PROVIDER:NAME, for instance libc:libc:setjmp", text)
	}
	return path, provider, name, nil
}

// usdtLocations finds all places of the probe that a hook names.
func usdtLocations(hook *program.Hook) (path string, found *usdtProbe, err error) {
	path, provider, name, err := parseUSDT(hook.Target)
	if err != nil {
		return "", nil, err
	}
	if path, err = resolveBinary(path, hook.PID); err != nil {
		return "", nil, err
	}
	b, err := openBinary(path)
	if err != nil {
		return "", nil, err
	}
	defer b.Close()
	notes, err := b.usdtNotes()
	if err != nil {
		return "", nil, err
	}
	found = &usdtProbe{machine: b.file.Machine, executable: b.file.Type == elf.ET_EXEC}
	var known []string
	for _, n := range notes {
		known = append(known, n.provider+":"+n.name)
		if n.provider != provider || n.name != name {
			continue
		}
		offset, ok := b.fileOffset(n.location, elf.PF_X)
		if !ok {
			return "", nil, fmt.Errorf("%s: the probe %s:%s is at %#x, where there is no code", path, provider, name, n.location)
		}
		l := usdtLocation{offset: offset, address: n.location, arguments: n.arguments}
		if n.semaphore != 0 {
			if l.refCount, ok = b.fileOffset(n.semaphore, elf.PF_W); !ok {
				return "", nil, fmt.Errorf("%s: the semaphore of %s:%s is at %#x, where there is no data", path, provider, name, n.semaphore)
			}
		}
		found.locations = append(found.locations, l)
	}
	if len(found.locations) == 0 {
		return "", nil, fmt.Errorf("%w: %s has no probe %s:%s%s", ErrNoTarget, path, provider, name, suggest(provider+":"+name, known))
	}
	return path, found, nil
}

// haveCookies says whether this kernel tells functions which attachment called them.
func haveCookies() bool {
	return features.HaveProgramHelper(ebpf.Kprobe, asm.FnGetAttachCookie) == nil
}

// usdtTargets returns all places of the probe.
func usdtTargets(_ *Engine, hook *program.Hook) ([]target, error) {
	path, probe, err := usdtLocations(hook)
	if err != nil {
		return nil, err
	}
	var targets []target
	for i, l := range probe.locations {
		targets = append(targets, target{Name: fmt.Sprintf("%s+%#x", path, l.offset), ID: uint64(i)})
	}
	return targets, nil
}

func attachUSDT(r *attachRequest) (attachment, error) {
	path, probe, err := usdtLocations(r.hook)
	if err != nil {
		return nil, err
	}
	if r.target.ID >= uint64(len(probe.locations)) {
		return nil, fmt.Errorf("%w: %s changed while it was attached to", ErrNoTarget, path)
	}
	return probe.attach(r, path, int(r.target.ID))
}

// attach attaches to the nth place of the probe in the file that has it.
func (p *usdtProbe) attach(r *attachRequest, path string, n int) (attachment, error) {
	l := p.locations[n]
	specs := r.maps[usdtSpecsMap]
	if specs == nil {
		// The function takes no arguments.
		return setUprobe(r.program, path, l.offset, r.hook.PID, false, l.refCount, 0)
	}
	if size := specs.m.ValueSize(); size != usdtSpecSize {
		return nil, fmt.Errorf("the map %s has values of %d bytes, want %d: it was compiled with another usdt.bpf.h", usdtSpecsMap, size, usdtSpecSize)
	}
	arguments, err := parseUSDTArguments(l.arguments, p.machine)
	if err != nil {
		return nil, fmt.Errorf("arguments of the probe at %s+%#x: %w", path, l.offset, err)
	}
	id, err := r.specs.take(specs.m, encodeUSDT(arguments))
	if err != nil {
		return nil, err
	}
	made, err := p.attachWith(r, path, l, id)
	if err != nil {
		r.specs.giveBack(id)
		return nil, err
	}
	return &usdtAttachment{Link: made, specs: r.specs, id: id}, nil
}

// attachWith attaches a function that finds its arguments by that entry of the map of specs.
func (p *usdtProbe) attachWith(r *attachRequest, path string, l usdtLocation, id uint32) (link.Link, error) {
	if haveCookies() {
		return setUprobe(r.program, path, l.offset, r.hook.PID, false, l.refCount, uint64(id))
	}
	ips := r.maps[usdtIPsMap]
	if ips == nil {
		return nil, fmt.Errorf("%w: arguments of probes need attachment cookies (Linux 5.15)", ErrUnsupported)
	}
	addresses := []uint64{l.address}
	if !p.executable {
		if r.hook.PID == 0 {
			return nil, fmt.Errorf("%w: before Linux 5.15, arguments of probes in libraries and position-independent programs need a pid", ErrUnsupported)
		}
		addresses = mappedAddresses(r.hook.PID, path, l.offset)
		if len(addresses) == 0 {
			return nil, fmt.Errorf("%w: process %d has not mapped %s", ErrNoTarget, r.hook.PID, path)
		}
	}
	for _, address := range addresses {
		if err := ips.m.Put(address, id); err != nil {
			return nil, fmt.Errorf("map %s: %w", usdtIPsMap, err)
		}
	}
	return setUprobe(r.program, path, l.offset, r.hook.PID, false, l.refCount, 0)
}

// usdtAttachment gives its entry of the map of specs back when it is closed.
type usdtAttachment struct {
	link.Link
	specs *usdtSpecs
	id    uint32
}

func (a *usdtAttachment) Close() error {
	err := a.Link.Close()
	a.specs.giveBack(a.id)
	return err
}

// mappedAddresses returns where a process has mapped the code at an offset of a file.
func mappedAddresses(pid int, path string, offset uint64) []uint64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil
	}
	var addresses []uint64
	for _, m := range readMaps(pid) {
		if m.executable && m.inode == st.Ino && offset >= m.offset && offset-m.offset < m.end-m.start {
			addresses = append(addresses, m.start+offset-m.offset)
		}
	}
	return addresses
}

// usdtSpecs hands out the entries of the map __bpf_usdt_specs; places whose arguments are alike share one. Instance.mu guards it.
type usdtSpecs struct {
	// ids of what is in use, by content.
	ids map[string]uint32
	// used says by what an entry is used, and how often.
	used map[uint32]*usdtSpec
	// free are those that were used, the longest unused first: a probe may still run for a moment after it was detached.
	free []uint32
	next uint32
}

type usdtSpec struct {
	content string
	count   int
}

// take returns the entry that holds a spec, until giveBack was called as often.
func (u *usdtSpecs) take(m *ebpf.Map, spec []byte) (uint32, error) {
	if u.ids == nil {
		u.ids, u.used = make(map[string]uint32), make(map[uint32]*usdtSpec)
	}
	if id, ok := u.ids[string(spec)]; ok {
		u.used[id].count++
		return id, nil
	}
	fresh := u.next < m.MaxEntries()
	id := u.next
	switch {
	case fresh:
	case len(u.free) > 0:
		id = u.free[0]
	default:
		return 0, errors.New("too many different probes: define BPF_USDT_MAX_SPEC_CNT above " + fmt.Sprint(m.MaxEntries()))
	}
	if err := m.Put(id, spec); err != nil {
		return 0, fmt.Errorf("map %s: %w", usdtSpecsMap, err)
	}
	if fresh {
		u.next++
	} else {
		u.free = u.free[1:]
	}
	u.ids[string(spec)], u.used[id] = id, &usdtSpec{content: string(spec), count: 1}
	return id, nil
}

// giveBack is for an entry that take returned.
func (u *usdtSpecs) giveBack(id uint32) {
	s := u.used[id]
	if s == nil {
		return
	}
	if s.count--; s.count > 0 {
		return
	}
	delete(u.ids, s.content)
	delete(u.used, id)
	u.free = append(u.free, id)
}
