package kube

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/kaon-project/kaon/internal/program"
)

// observers are the kinds of hooks whose functions can't change what happens.
var observers = []program.HookKind{
	program.Tracepoint, program.RawTracepoint, program.TracepointBTF, program.Kprobe, program.Kretprobe, program.KprobeMulti, program.KretprobeMulti,
	program.Ksyscall, program.Kretsyscall, program.Fentry, program.Fexit, program.Uprobe, program.Uretprobe, program.UprobeMulti, program.UretprobeMulti,
	program.USDT, program.PerfEvent, program.Iterator, program.SocketFilter, program.Unattached,
}

// permissible are those that can be permitted.
var permissible = []program.HookKind{
	program.FmodRet, program.XDP, program.TCXIngress, program.TCXEgress, program.Cgroup, program.LSM, program.LSMCgroup, program.SockOps,
	program.SKLookup, program.Netfilter, program.Syscall,
}

// actors are helpers by which also an observer's function could change what happens.
var actors = map[asm.BuiltinFunc]string{
	asm.FnProbeWriteUser: "probe_write_user", asm.FnOverrideReturn: "override_return",
	asm.FnSendSignal: "send_signal", asm.FnSendSignalThread: "send_signal_thread",
}

// CheckPermissions refuses names of what can't be permitted.
func CheckPermissions(allow []string) error {
	var known []string
	for _, k := range permissible {
		known = append(known, string(k))
	}
	for _, name := range actors {
		known = append(known, name)
	}
	slices.Sort(known)
	var errs []error
	for _, name := range allow {
		if !slices.Contains(known, name) {
			errs = append(errs, &program.Problem{Where: "allow " + name, What: "there is no such permission", Fix: "there are " + strings.Join(known, ", ")})
		}
	}
	return errors.Join(errs...)
}

// permit refuses a spec with code that can act, unless allow names what it does.
func permit(spec *program.Spec, allow []string) error {
	var errs []error
	fix := func(name string) string {
		return fmt.Sprintf("remove it, or permit it with `--allow %s` on the agent", name)
	}
	for _, h := range spec.Hooks {
		if !slices.Contains(observers, h.Kind) && !slices.Contains(allow, string(h.Kind)) {
			errs = append(errs, &program.Problem{Where: "function " + h.Function, What: fmt.Sprintf("a %s hook can act, and resources may only observe", h.Kind), Fix: fix(string(h.Kind))})
		}
	}
	for _, name := range functions(spec.Collection) {
		if spec.Collection.Programs[name].Type == ebpf.RawTracepointWritable {
			errs = append(errs, &program.Problem{Where: "function " + name, What: "a writable raw tracepoint can act, and resources may only observe", Fix: "use raw_tp or tp_btf"})
		}
		seen := map[asm.BuiltinFunc]bool{}
		for _, ins := range spec.Collection.Programs[name].Instructions {
			if !ins.IsBuiltinCall() {
				continue
			}
			f := asm.BuiltinFunc(ins.Constant)
			if helper := actors[f]; helper != "" && !seen[f] && !slices.Contains(allow, helper) {
				seen[f] = true
				errs = append(errs, &program.Problem{Where: "function " + name, What: fmt.Sprintf("it calls %s, which acts, and resources may only observe", helper), Fix: fix(helper)})
			}
		}
	}
	return errors.Join(errs...)
}

func functions(c *ebpf.CollectionSpec) []string {
	if c == nil {
		return nil
	}
	names := make([]string, 0, len(c.Programs))
	for name := range c.Programs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
