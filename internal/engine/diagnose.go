package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// A Rejection is the verifier's refusal, cut to the lines that matter. It
// unwraps to *ebpf.VerifierError, which has the whole log.
type Rejection struct {
	// Source is the C line that the verifier was looking at, with file and
	// number where this kernel tells them; empty if unknown.
	Source string
	// Lines are the last instructions it looked at and its complaint, at most a few.
	Lines []string
	cause error
}

func (r *Rejection) Error() string {
	var b strings.Builder
	b.WriteString("the verifier refuses it")
	if r.Source != "" {
		fmt.Fprintf(&b, " at `%s`", r.Source)
	}
	for n, line := range r.Lines {
		if n == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString(" | ")
		}
		b.WriteString(line)
	}
	return b.String()
}

func (r *Rejection) Unwrap() error { return r.cause }

// newRejection cuts a verifier log.
func newRejection(log []string, cause error) *Rejection {
	r := &Rejection{cause: cause}
	log, reason := cutVerifierReport(log)
	end := len(log)
	for end > 0 && isVerifierSummary(log[end-1]) {
		end--
	}
	for n := end - 1; n >= 0; n-- {
		line := strings.TrimSpace(log[n])
		if strings.HasPrefix(line, ";") && strings.Contains(line, "poisoned by CO-RE") {
			// The library's remark in place of the C line.
			continue
		}
		if strings.HasPrefix(line, ";") {
			r.Source = strings.TrimSpace(strings.TrimLeft(line, "; "))
			break
		}
		if line != "" && len(r.Lines) < 3 {
			r.Lines = append(r.Lines, line)
		}
	}
	slices.Reverse(r.Lines)
	if reason != "" {
		r.Lines = append(r.Lines, reason)
	}
	return r
}

// cutVerifierReport returns the log without the report that Linux 7.3 and later write behind it, and the reason in that report.
func cutVerifierReport(log []string) (rest []string, reason string) {
	begin := slices.IndexFunc(log, func(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "Verification failed:") })
	if begin < 0 {
		return log, ""
	}
	var lines []string
	in := false
	for _, line := range log[begin:] {
		line = strings.TrimSpace(line)
		if in && line == "" {
			break
		}
		if in {
			lines = append(lines, line)
		}
		in = in || line == "Reason:"
	}
	return log[:begin], strings.Join(lines, " ")
}

// poisonedSource returns the C line of the instruction that the verifier stumbled over, where the library
// had replaced an instruction that it could not relocate, and with it the line in the log.
func poisonedSource(insns asm.Instructions, log []string) string {
	for n := len(log) - 1; n >= 0; n-- {
		number, _, ok := strings.Cut(strings.TrimSpace(log[n]), ": (")
		offset, err := strconv.ParseUint(number, 10, 32)
		if !ok || err != nil {
			continue
		}
		iter := insns.Iterate()
		source := ""
		for iter.Next() && uint64(iter.Offset) <= offset {
			// Instructions without a line of their own belong to the line before.
			if s := iter.Ins.Source(); s != nil {
				source = strings.TrimSpace(s.String())
			}
		}
		return source
	}
	return ""
}

// isVerifierSummary says that a line is one of the statistics at the end of a log.
func isVerifierSummary(line string) bool {
	line = strings.TrimSpace(line)
	for _, prefix := range []string{"processed ", "verification time ", "stack depth ", "max_states_per_insn", "insns ", "mark_read"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return line == ""
}

// explainLoad adds cause and remedy to an error of loading a function with these instructions.
func (e *Engine) explainLoad(hook *program.Hook, insns asm.Instructions, err error) error {
	var rejected *ebpf.VerifierError
	log := 0
	if errors.As(err, &rejected) && slices.ContainsFunc(rejected.Log, func(line string) bool { return !isVerifierSummary(line) }) {
		log = len(rejected.Log)
	}
	switch {
	case errors.Is(err, unix.EPERM) && log == 0:
		if missing := missingCapability(hook.Kind); missing != "" {
			// The library's own words blame the limit on locked memory.
			return fmt.Errorf("this process lacks %s: run as root or grant it: %w", missing, unix.EPERM)
		}
		if e.memlock != nil {
			return fmt.Errorf("the limit on locked memory could not be raised (%w): raise ulimit -l: %w", e.memlock, unix.EPERM)
		}
		if usesTrampoline(hook.Kind) {
			return fmt.Errorf("this kernel refuses BPF trampolines (lockdown, or built without CONFIG_BPF_LSM, CONFIG_FUNCTION_TRACER or CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS): add a tp_btf, raw_tp or kprobe alternative: %w: %w", ErrUnsupported, unix.EPERM)
		}
		if hook.Kind == program.Iterator {
			over, _, _ := strings.Cut(hook.Target, ":")
			return fmt.Errorf("this kernel or its lockdown refuses iterators over %s: add an alternative: %w: %w", over, ErrUnsupported, unix.EPERM)
		}
		return fmt.Errorf("this kernel or its lockdown refuses the function: %w", unix.EPERM)
	case log > 0 && strings.Contains(rejected.Cause.Error(), "CO-RE"):
		r := newRejection(rejected.Log, err)
		r.Lines = nil
		if source := poisonedSource(insns, rejected.Log); source != "" {
			r.Source = source
		}
		return fmt.Errorf("it uses a type or field that this kernel does not have: guard it by bpf_core_field_exists or add an alternative: %w", r)
	case log > 0:
		return newRejection(rejected.Log, err)
	case missingKfunc(err) != "":
		return fmt.Errorf("%w: it calls %s, which this kernel does not offer to programs: make the function optional or add an alternative", ErrUnsupported, missingKfunc(err))
	case errors.Is(err, btf.ErrNotFound), errors.Is(err, os.ErrNotExist), errors.Is(err, ebpf.ErrNotSupported) && hasBTFTarget(hook.Kind):
		if _, statErr := os.Stat("/sys/kernel/btf/vmlinux"); statErr != nil {
			return fmt.Errorf("%w: this kernel has no BTF (CONFIG_DEBUG_INFO_BTF): use tracepoint, kprobe or raw_tp without CO-RE: %w", ErrUnsupported, err)
		}
		switch hook.Kind {
		case program.TracepointBTF:
			return fmt.Errorf("%w: this kernel has no tracepoint %s%s", ErrNoTarget, hook.Target, e.suggestTracepoint(hook.Target))
		case program.Fentry, program.Fexit, program.FmodRet:
			suggestion := ""
			if !hook.Optional { // of others it is expected, and reading all symbols takes 100 ms
				suggestion = suggestFunction(hook.Target, "")
			}
			return fmt.Errorf("%w: this kernel has no function %s that can be traced (inlined, renamed or removed)%s: add a tracepoint or kprobe alternative", ErrNoTarget, hook.Target, suggestion)
		case program.LSM, program.LSMCgroup:
			return fmt.Errorf("%w: this kernel has no LSM hook %s%s", ErrNoTarget, hook.Target, suggestFunction(hook.Target, "bpf_lsm_"))
		case program.Iterator:
			return fmt.Errorf("%w: this kernel has no iterator %s%s", ErrNoTarget, hook.Target, suggest(hook.Target, iterators[:]))
		}
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, errno524):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EINVAL) && usesTrampoline(hook.Kind):
		return fmt.Errorf("this kernel knows no %s functions, or not this one: add a tp_btf, raw_tp or kprobe alternative: %w: %w", hook.Kind, ErrUnsupported, err)
	case errors.Is(err, unix.EINVAL) && log == 0:
		return fmt.Errorf("this kernel does not know functions of the type %s, or not for this hook: %w", hook.Kind, err)
	}
	return err
}

// missingKfunc returns the kernel function whose absence is the error; empty: another error. The
// library only says it in words.
func missingKfunc(err error) string {
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return ""
	}
	_, rest, _ := strings.Cut(err.Error(), "kfunc \"")
	name, _, ok := strings.Cut(rest, "\"")
	if !ok {
		return ""
	}
	return name
}

// explainAttach adds cause and remedy to an error of attaching a function.
func (e *Engine) explainAttach(hook *program.Hook, err error) error {
	switch {
	case errors.Is(err, ErrNoTarget), errors.Is(err, ErrUnsupported):
		return err
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		if missing := missingCapability(hook.Kind); missing != "" {
			return fmt.Errorf("this process lacks %s: run as root or grant it: %w", missing, err)
		}
		return fmt.Errorf("the kernel refuses it (lockdown, a security module, or perf_event_paranoid): %w", err)
	case errors.Is(err, errno524) && usesTrampoline(hook.Kind):
		return fmt.Errorf("this kernel has no BPF trampolines on this architecture: add a tp_btf, raw_tp or kprobe alternative: %w: %w", ErrUnsupported, err)
	case errors.Is(err, ebpf.ErrNotSupported), errors.Is(err, errno524):
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// errno524 is the kernel's internal ENOTSUPP, which escapes to user space.
const errno524 = unix.Errno(524)

func usesTrampoline(kind program.HookKind) bool {
	switch kind {
	case program.Fentry, program.Fexit, program.FmodRet, program.LSM, program.LSMCgroup:
		return true
	}
	return false
}

// missingCapability returns the capabilities that a hook needs and this process
// does not have, in words; empty if it has them.
func missingCapability(kind program.HookKind) string {
	effective, ok := effectiveCapabilities()
	if !ok || effective&(1<<unix.CAP_SYS_ADMIN) != 0 && !needsNetAdmin(kind) {
		return ""
	}
	admin := effective&(1<<unix.CAP_SYS_ADMIN) != 0
	var missing []string
	if !admin && effective&(1<<unix.CAP_BPF) == 0 {
		missing = append(missing, "CAP_BPF")
	}
	if !admin && needsPerfmon(kind) && effective&(1<<unix.CAP_PERFMON) == 0 {
		missing = append(missing, "CAP_PERFMON")
	}
	if needsNetAdmin(kind) && effective&(1<<unix.CAP_NET_ADMIN) == 0 && !admin {
		missing = append(missing, "CAP_NET_ADMIN")
	}
	return strings.Join(missing, " and ")
}

func needsNetAdmin(kind program.HookKind) bool {
	switch kind {
	case program.XDP, program.TCXIngress, program.TCXEgress, program.Cgroup, program.SockOps,
		program.SKLookup, program.Netfilter, program.LSMCgroup:
		return true
	}
	return false
}

func needsPerfmon(kind program.HookKind) bool {
	return !needsNetAdmin(kind) && kind != program.SocketFilter && kind != program.Syscall
}

func effectiveCapabilities() (uint64, bool) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, false
	}
	return uint64(data[0].Effective) | uint64(data[1].Effective)<<32, true
}

// suggestTracepoint names a tracepoint that is spelt like the one asked for. Suggestions come from files: going
// through all of the kernel's BTF would keep it in memory.
func (e *Engine) suggestTracepoint(name string) string {
	dir, err := e.tracefs()
	if err != nil {
		return ""
	}
	f, err := os.Open(filepath.Join(dir, "available_events"))
	if err != nil {
		return ""
	}
	defer f.Close()
	var names []string
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		if _, event, ok := strings.Cut(scanner.Text(), ":"); ok {
			names = append(names, event)
		}
	}
	return suggest(name, names)
}

// suggestFunction names a kernel function with a prefix that is spelt like the one asked for.
func suggestFunction(name, prefix string) string {
	f, err := os.Open("/proc/kallsyms")
	if err != nil || name == "" {
		return ""
	}
	defer f.Close()
	var names []string
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		symbol, ok := functionName(scanner.Text())
		if !ok {
			continue
		}
		// Comparing all would take long: people mistype the end.
		candidate, ok := strings.CutPrefix(symbol, prefix)
		if ok && candidate != name && candidate != "" && candidate[0] == name[0] {
			names = append(names, candidate)
		}
	}
	return suggest(name, names)
}

// iterators are what kernels can iterate over; which ones depends on version and configuration.
var iterators = [...]string{
	"task", "task_file", "task_vma", "bpf_map", "bpf_map_elem", "bpf_prog", "bpf_link", "bpf_sk_storage_map",
	"tcp", "udp", "unix", "netlink", "ipv6_route", "sockmap", "cgroup", "ksym", "kmem_cache", "dmabuf",
}

// hasBTFTarget says that a function's target is looked up in the kernel's BTF when it is loaded.
func hasBTFTarget(kind program.HookKind) bool {
	return usesTrampoline(kind) || kind == program.TracepointBTF || kind == program.Iterator
}

// suggest returns a hint that names what is nearest to a name that does not
// exist, or nothing if none is near.
func suggest(name string, known []string) string {
	best, distance := "", suggestionDistance(name)
	for _, k := range known {
		if d := editDistance(name, k, distance); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// suggestionDistance is below which edit distance a name is suggested; names whose lengths differ by as much are not.
func suggestionDistance(name string) int { return len(name)/3 + 2 }

// editDistance is Levenshtein's, or limit if it is not below that.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal + boolInt(a[i] != b[j])
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return min(row[len(b)], limit)
}

func nativeUint64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
