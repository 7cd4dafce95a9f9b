package programs_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

func processArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"exec":    {"process_starts_total": program.Counter, "process_start_errors_total": program.Counter},
			"exit":    {"process_exits_total": program.Counter},
			"signals": {"signals_total": program.Counter},
			"oomkill": {"oom_kills_total": program.Counter},
			"tasks":   {"tasks": program.Gauge, "processes": program.Gauge},
			"capable": {"capability_checks_total": program.Counter},
			"mounts":  {"mount_calls_total": program.Counter},
			"modules": {"module_loads_total": program.Counter, "module_unloads_total": program.Counter,
				"module_requests_total": program.Counter},
		},
		helpers: map[string]func(){
			"exit":      exitAsTold,
			"reexec":    execFromThread,
			"noexec":    failToExec,
			"signals":   receiveSignals,
			"ready":     sayReady,
			"kill":      killTarget,
			"oom":       useTooMuchMemory,
			"oomvictim": offerToDie,
			"capable":   useCapability,
			"mounts":    changeMounts,
			"modprobe":  askForModule,
			"reload":    reloadModule,
		},
		costs: []cost{
			{program: "exec", event: "program start", cause: startProcesses,
				bpftrace: `tracepoint:sched:sched_process_exec { @[cgroup] = count(); }`},
			{program: "exec", params: []string{"errors=true"}, event: "failed start", cause: func(b *testing.B) {
				path := []byte("/kaon-absent\x00")
				for range b.N {
					unix.Syscall(unix.SYS_EXECVE, addressOf(path), 0, 0)
				}
			}, bpftrace: `tracepoint:syscalls:sys_exit_execve /args->ret < 0/ { @[cgroup, args->ret] = count(); }`},
			{program: "exit", event: "process", cause: startProcesses,
				bpftrace: `tracepoint:sched:sched_process_exit { @[cgroup] = count(); }`},
			{program: "signals", event: "signal", cause: sendSignals,
				bpftrace: `tracepoint:signal:signal_generate { @[cgroup, args->sig, args->result] = count(); }`},
			{program: "oomkill", event: "signal", cause: sendSignals},
			{program: "tasks", event: "scrape"},
			{program: "capable", event: "check", cause: func(b *testing.B) {
				for range b.N {
					_ = unix.Chroot("/")
				}
			}, bpftrace: `tracepoint:capability:cap_capable { @[cgroup, args->cap, args->ret] = count(); }`},
			{program: "mounts", event: "call", cause: func(b *testing.B) {
				path := []byte("/kaon-absent\x00")
				for range b.N {
					unix.Syscall6(unix.SYS_MOUNT, addressOf(path), addressOf(path), 0, 0, 0, 0)
				}
			}, bpftrace: `tracepoint:syscalls:sys_enter_mount { @f[tid] = args->flags; } tracepoint:syscalls:sys_exit_mount { @[cgroup, @f[tid], args->ret] = count(); delete(@f[tid]); }`},
			{program: "modules", event: "request", prepare: func(b *testing.B) {
				if _, err := os.Stat("/proc/modules"); err != nil {
					b.Skip("needs a kernel with loadable modules")
				}
			}, cause: func(b *testing.B) {
				dir := filepath.Clean(b.TempDir())
				for range b.N {
					_ = unix.Mount("none", dir, "kaon-no-such", 0, "")
				}
			}},
		},
	}
}

func startProcesses(b *testing.B) {
	group := newCgroup(b)
	b.ResetTimer()
	for range b.N {
		group.start(b, "exit", "EXIT_CODE=0").wait()
	}
}

// sendSignals sends a signal that does nothing to this process.
func sendSignals(b *testing.B) {
	for range b.N {
		_ = unix.Kill(os.Getpid(), unix.SIGWINCH)
	}
}
