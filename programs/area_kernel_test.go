package programs_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

func kernelArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"syscalls": {"syscalls_total": program.Counter, "syscall_errors_total": program.Counter, "syscall_duration_seconds": program.Histogram},
			"timers":   {"timer_expirations_total": program.Counter, "timer_latency_seconds": program.Histogram},
			"bpf": {"bpf_program_memory_bytes": program.Gauge, "bpf_program_jited_bytes": program.Gauge,
				"bpf_program_run_seconds_total": program.Counter, "bpf_program_runs_total": program.Counter,
				"bpf_map_max_entries": program.Gauge, "bpf_map_entry_bytes": program.Gauge, "bpf_map_entries": program.Gauge},
		},
		helpers: map[string]func(){"syscalls": makeSyscalls, "alarms": setTimers},
		costs: []cost{
			{program: "syscalls", event: "system call", cause: callKernel,
				bpftrace: `tracepoint:raw_syscalls:sys_enter { @[cgroup, args->id] = count(); }`},
			{program: "syscalls", params: []string{"errors_only=true"}, event: "system call", cause: callKernel},
			{program: "syscalls", params: []string{"latency=true"}, event: "system call", cause: callKernel},
			{program: "bpf", event: "scrape"},
			{program: "timers", event: "timer", cause: sleepShortly,
				bpftrace: `tracepoint:timer:hrtimer_expire_entry { @h[args->function] = count(); }
					tracepoint:timer:timer_expire_entry { @w[args->function] = count(); }`},
		},
	}
}

func callKernel(b *testing.B) {
	for range b.N {
		unix.Syscall(unix.SYS_GETPRIORITY, 0, 0, 0)
	}
}

// sleepShortly lets b.N high-resolution timers expire.
func sleepShortly(b *testing.B) {
	for range b.N {
		wait := unix.NsecToTimespec(1)
		_ = unix.Nanosleep(&wait, nil)
	}
}
