package programs_test

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

func securityArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"filelessexec": {"fileless_executions_total": program.Counter},
			"setuid":       {"setuid_calls_total": program.Counter, "setuid_executions_total": program.Counter},
			"ptrace":       {"ptrace_calls_total": program.Counter},
			"bpfuse":       {"bpf_calls_total": program.Counter, "bpf_program_loads_total": program.Counter},
		},
		helpers: map[string]func(){
			"fileless": runFileless,
			"setuid":   changeIdentity,
			"ptrace":   traceProcess,
			"bpfuse":   callBPF,
		},
		costs: []cost{
			{program: "filelessexec", event: "program start", cause: startProcesses},
			{program: "setuid", event: "call", cause: func(b *testing.B) {
				const same = ^uintptr(0)
				for range b.N {
					unix.Syscall(unix.SYS_SETRESUID, same, same, same)
				}
			}, bpftrace: `tracepoint:syscalls:sys_enter_setresuid { @u[tid] = uid; } tracepoint:syscalls:sys_exit_setresuid { @[cgroup, @u[tid], args->ret] = count(); delete(@u[tid]); }`},
			{program: "ptrace", event: "call", cause: func(b *testing.B) {
				for range b.N {
					unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1<<30, 0, 0, 0, 0)
				}
			}, bpftrace: `tracepoint:syscalls:sys_enter_ptrace { @r[tid] = args->request; } tracepoint:syscalls:sys_exit_ptrace { @[cgroup, @r[tid], args->ret] = count(); delete(@r[tid]); }`},
			{program: "bpfuse", event: "call", cause: func(b *testing.B) {
				var fd uint32 = 1 << 20
				for range b.N {
					unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_FREEZE, uintptr(unsafe.Pointer(&fd)), unsafe.Sizeof(fd))
				}
			}, bpftrace: `tracepoint:syscalls:sys_enter_bpf { @c[tid] = args->cmd; } tracepoint:syscalls:sys_exit_bpf { @[cgroup, @c[tid], args->ret] = count(); delete(@c[tid]); }`},
		},
	}
}

func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
