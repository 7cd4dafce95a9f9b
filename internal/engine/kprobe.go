package engine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"

	"github.com/kaon-project/kaon/internal/program"
)

// maxKprobes bounds how many single probes stand in for one multi-probe on kernels that have none.
const maxKprobes = 256

// prepareKprobe makes tracefs available, where the library finds kprobes of old kernels.
func prepareKprobe(e *Engine, _ *program.Hook, _ *ebpf.ProgramSpec) error {
	if _, err := os.Stat("/sys/bus/event_source/devices/kprobe"); err == nil {
		return nil
	}
	if _, err := e.tracefs(); err != nil {
		return err
	}
	if dir, _ := e.tracefs(); dir != "" {
		if _, err := os.Stat(filepath.Join(dir, "kprobe_events")); err != nil {
			return fmt.Errorf("%w: this kernel has no kprobes (CONFIG_KPROBES): add a tracepoint, tp_btf or raw_tp alternative", ErrUnsupported)
		}
	}
	return nil
}

func attachKprobe(r *attachRequest) (attachment, error) {
	symbol, offset, err := splitOffset(r.hook.Target)
	if err != nil {
		return nil, err
	}
	if r.hook.Kind == program.Kretprobe {
		if offset != 0 {
			return nil, fmt.Errorf("kretprobe/%s: a return probe takes no offset", r.hook.Target)
		}
		return r.engine.kprobe(symbol, 0, r.program, true)
	}
	return r.engine.kprobe(symbol, offset, r.program, false)
}

func (e *Engine) kprobe(symbol string, offset uint64, prog *ebpf.Program, ret bool) (attachment, error) {
	attach := link.Kprobe
	if ret {
		attach = link.Kretprobe
	}
	l, err := attach(symbol, prog, &link.KprobeOptions{Offset: offset, TraceFSPrefix: "kaon"})
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: this kernel has no function %s that a kprobe can be set on%s: %w", ErrNoTarget, symbol, suggestFunction(symbol, ""), err)
	}
	return l, err
}

// splitOffset splits "SYMBOL+OFFSET".
func splitOffset(text string) (string, uint64, error) {
	symbol, tail, ok := strings.Cut(text, "+")
	if symbol == "" {
		return "", 0, fmt.Errorf("%q names no function", text)
	}
	if !ok {
		return symbol, 0, nil
	}
	offset, err := strconv.ParseUint(strings.TrimSpace(tail), 0, 64)
	if err != nil {
		return "", 0, fmt.Errorf("%q: the offset %q is not a number", text, tail)
	}
	return symbol, offset, nil
}

// attachKsyscall attaches to the kernel's function behind a system call, whose name depends on the architecture.
func attachKsyscall(r *attachRequest) (attachment, error) {
	names, err := syscallSymbols(r.hook.Target)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range names {
		l, err := r.engine.kprobe(name, 0, r.program, r.hook.Kind == program.Kretsyscall)
		if err == nil {
			return l, nil
		}
		errs = append(errs, err)
		if !errors.Is(err, ErrNoTarget) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// syscallSymbols returns the kernel functions that may implement a system call, likeliest first.
func syscallSymbols(name string) ([]string, error) {
	for _, c := range []byte(name) {
		if c != '_' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return nil, fmt.Errorf("%q is not a system call's name", name)
		}
	}
	if name == "" {
		return nil, errors.New("ksyscall names no system call")
	}
	plain := []string{"__se_sys_" + name, "sys_" + name}
	switch runtime.GOARCH {
	case "amd64":
		return append([]string{"__x64_sys_" + name}, plain...), nil
	case "arm64":
		return append([]string{"__arm64_sys_" + name}, plain...), nil
	}
	return plain, nil
}

// prepareKprobeMulti declares a plain kprobe where the kernel has no multi-probes.
func prepareKprobeMulti(e *Engine, hook *program.Hook, function *ebpf.ProgramSpec) error {
	if features.HaveBPFLinkKprobeMulti() == nil {
		return nil
	}
	function.AttachType = ebpf.AttachNone
	return prepareKprobe(e, hook, function)
}

// kprobeMultiTargets returns one target where the kernel attaches to many functions at once, else one for each.
func kprobeMultiTargets(e *Engine, hook *program.Hook) ([]target, error) {
	if features.HaveBPFLinkKprobeMulti() == nil {
		return []target{{Name: hook.Target}}, nil
	}
	symbols, err := e.kernelFunctions(hook.Target)
	if err != nil {
		return nil, err
	}
	if len(symbols) > maxKprobes {
		return nil, fmt.Errorf("%w: %s matches %d functions, and this kernel has no multi-probes; at most %d single ones are set", ErrUnsupported, hook.Target, len(symbols), maxKprobes)
	}
	targets := make([]target, 0, len(symbols))
	for _, s := range symbols {
		targets = append(targets, target{Name: s})
	}
	return targets, nil
}

func attachKprobeMulti(r *attachRequest) (attachment, error) {
	ret := r.hook.Kind == program.KretprobeMulti
	if features.HaveBPFLinkKprobeMulti() != nil {
		return r.engine.kprobe(r.target.Name, 0, r.program, ret)
	}
	symbols, err := r.engine.kernelFunctions(r.hook.Target)
	if err != nil {
		return nil, err
	}
	attach := link.KprobeMulti
	if ret {
		attach = link.KretprobeMulti
	}
	return attach(r.program, link.KprobeMultiOptions{Symbols: symbols})
}

// kernelFunctions returns the functions of the kernel that match a comma-separated list of patterns.
func (e *Engine) kernelFunctions(list string) ([]string, error) {
	patterns := program.SplitList(list)
	if len(patterns) == 0 {
		return nil, errors.New("the hook names no kernel function")
	}
	if !slices.ContainsFunc(patterns, isPattern) {
		return patterns, nil
	}
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	// What can be probed is listed in tracefs; the symbol table also lists what can't.
	var files []string
	if dir, err := e.tracefs(); err == nil {
		files = append(files, filepath.Join(dir, "available_filter_functions"))
	}
	files = append(files, "/proc/kallsyms")
	var found []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		scanner := bufio.NewScanner(f)
		for scanner.Scan() {
			symbol, ok := functionName(scanner.Text())
			if !ok {
				continue
			}
			for _, p := range patterns {
				if match, _ := path.Match(p, symbol); match {
					found = append(found, symbol)
					break
				}
			}
		}
		f.Close()
		if len(found) > 0 {
			break
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%w: no kernel function matches %s", ErrNoTarget, list)
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// functionName reads a line of available_filter_functions ("name [module]") or
// kallsyms ("address type name [module]").
func functionName(line string) (string, bool) {
	fields := strings.Fields(line)
	switch {
	case len(fields) >= 3 && len(fields[1]) == 1:
		return fields[2], fields[1] == "t" || fields[1] == "T"
	case len(fields) >= 1:
		return fields[0], true
	}
	return "", false
}

func isPattern(s string) bool { return strings.ContainsAny(s, "*?[") }
