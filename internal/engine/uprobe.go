package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// uprobeTarget is what the target of a uprobe says: "PATH:SYMBOL", "PATH:SYMBOL+OFFSET" or "PATH:0xOFFSET".
type uprobeTarget struct {
	path string
	// symbol may be a pattern; empty: offset is that in the file.
	symbol string
	offset uint64
}

func parseUprobe(text string) (uprobeTarget, error) {
	colon := strings.LastIndexByte(text, ':')
	if colon <= 0 || colon == len(text)-1 {
		return uprobeTarget{}, fmt.Errorf("uprobe %q is not PATH:SYMBOL, for instance /bin/bash:readline or libc:malloc", text)
	}
	u := uprobeTarget{path: text[:colon]}
	where := text[colon+1:]
	if n, err := strconv.ParseUint(where, 0, 64); err == nil {
		u.offset = n
		return u, nil
	}
	// A '+' may be part of a symbol's name; an offset is a number at the end.
	if plus := strings.LastIndexByte(where, '+'); plus > 0 {
		if n, err := strconv.ParseUint(where[plus+1:], 0, 64); err == nil {
			u.symbol, u.offset = where[:plus], n
			return u, nil
		}
	}
	u.symbol = where
	return u, nil
}

// locate returns the file and the offsets in it that a uprobe is set at, by symbol.
func locateUprobe(hook *program.Hook) (path string, offsets map[string]uint64, err error) {
	u, err := parseUprobe(hook.Target)
	if err != nil {
		return "", nil, err
	}
	if path, err = resolveBinary(u.path, hook.PID); err != nil {
		return "", nil, err
	}
	if u.symbol == "" {
		return path, map[string]uint64{fmt.Sprintf("%#x", u.offset): u.offset}, nil
	}
	b, err := openBinary(path)
	if err != nil {
		return "", nil, err
	}
	defer b.Close()
	offsets, near, err := b.functions(u.symbol)
	if err != nil {
		return "", nil, err
	}
	if len(offsets) == 0 {
		return "", nil, fmt.Errorf("%w: %s has no function %s%s", ErrNoTarget, path, u.symbol, near)
	}
	for name := range offsets {
		offsets[name] += u.offset
	}
	return path, offsets, nil
}

func attachUprobe(r *attachRequest) (attachment, error) {
	path, offsets, err := locateUprobe(r.hook)
	if err != nil {
		return nil, err
	}
	if len(offsets) > 1 {
		return nil, fmt.Errorf("%s matches %d functions: use uprobe.multi", r.hook.Target, len(offsets))
	}
	for _, offset := range offsets {
		return setUprobe(r.program, path, offset, r.hook.PID, r.hook.Kind == program.Uretprobe, 0, 0)
	}
	return nil, ErrNoTarget
}

func setUprobe(prog *ebpf.Program, path string, offset uint64, pid int, ret bool, refCounter, cookie uint64) (link.Link, error) {
	if offset == 0 {
		return nil, noCodeAtZero(path)
	}
	executable, err := link.OpenExecutable(path)
	if err != nil {
		return nil, err
	}
	attach := executable.Uprobe
	if ret {
		attach = executable.Uretprobe
	}
	return attach("", prog, &link.UprobeOptions{
		Address: offset, PID: pid, RefCtrOffset: refCounter, Cookie: cookie, TraceFSPrefix: "kaon",
	})
}

// noCodeAtZero is for offsets that the library takes for none: it would read all symbols, without a limit.
func noCodeAtZero(path string) error {
	return fmt.Errorf("%s has its ELF header at the offset 0, and no code", path)
}

// prepareUprobeMulti declares a plain uprobe where the kernel has no multi-probes.
func prepareUprobeMulti(_ *Engine, _ *program.Hook, function *ebpf.ProgramSpec) error {
	if features.HaveBPFLinkUprobeMulti() != nil {
		function.AttachType = ebpf.AttachNone
	}
	return nil
}

// uprobeMultiTargets returns one target where the kernel attaches to many functions at once, else one for each.
func uprobeMultiTargets(_ *Engine, hook *program.Hook) ([]target, error) {
	if features.HaveBPFLinkUprobeMulti() == nil {
		return []target{{Name: hook.Target}}, nil
	}
	_, offsets, err := locateUprobe(hook)
	if err != nil {
		return nil, err
	}
	var targets []target
	for _, name := range slices.Sorted(maps.Keys(offsets)) {
		targets = append(targets, target{Name: name, ID: offsets[name]})
	}
	return targets, nil
}

func attachUprobeMulti(r *attachRequest) (attachment, error) {
	path, offsets, err := locateUprobe(r.hook)
	if err != nil {
		return nil, err
	}
	ret := r.hook.Kind == program.UretprobeMulti
	if features.HaveBPFLinkUprobeMulti() != nil {
		return setUprobe(r.program, path, r.target.ID, r.hook.PID, ret, 0, 0)
	}
	return setUprobes(r.program, path, sortedOffsets(offsets), r.hook.PID, ret)
}

// sortedOffsets returns each offset once.
func sortedOffsets(offsets map[string]uint64) []uint64 {
	return slices.Compact(slices.Sorted(maps.Values(offsets)))
}

// setUprobes attaches to all at once.
func setUprobes(prog *ebpf.Program, path string, addresses []uint64, pid int, ret bool) (attachment, error) {
	if len(addresses) > 0 && addresses[0] == 0 {
		return nil, noCodeAtZero(path)
	}
	executable, err := link.OpenExecutable(path)
	if err != nil {
		return nil, err
	}
	attach := executable.UprobeMulti
	if ret {
		attach = executable.UretprobeMulti
	}
	l, err := attach(nil, prog, &link.UprobeMultiOptions{Addresses: addresses, PID: uint32(pid)})
	if errors.Is(err, link.ErrNoSymbol) {
		return nil, fmt.Errorf("%w: %w", ErrNoTarget, err)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}
