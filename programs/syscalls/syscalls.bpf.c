// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("System calls, their errors and, on request, their latency.");

KAON_PARAM(bool, errors_only, false, "Count errors only, not all calls: cheaper, because most calls succeed.");
KAON_PARAM(bool, latency, false, "Measure how long each call takes.");

#define MAX_ERRNO 4095

/* What programs never see: the kernel restarts the call or turns it into EINTR. */
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516

struct call {
	kaon_workload_t workload;
	kaon_syscall_t syscall;
	KAON_PAD(4);
};

struct failed_call {
	kaon_workload_t workload;
	kaon_syscall_t syscall;
	kaon_errno_t errno;
};

KAON_COUNTER_MAP(syscalls_total, PERCPU_HASH, struct call, 20000,
	"System calls that returned.") KAON_LIMIT(20000) KAON_UNLESS(errors_only);
KAON_COUNTER_MAP(syscall_errors_total, PERCPU_HASH, struct failed_call, 20000,
	"System calls that returned an error.") KAON_LIMIT(20000);
KAON_HISTOGRAM_MAP(syscall_duration_seconds, HASH_NO_PREALLOC, struct call, 5000, ns, 2, -22, 6,
	"Time from a system call's entry to its return.") KAON_WHEN(latency) KAON_UNIT("seconds");

/* By thread: when its system call began, 0 outside. Entries stay for the thread's next call. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} begun SEC(".maps");

struct pt_regs___x86 {
	long unsigned int orig_ax;
	long unsigned int cs;
} KAON_CORE;

struct pt_regs___arm64 {
	__s32 syscallno;
	__u64 pstate;
} KAON_CORE;

#define USER32_CS 0x23
#define PSR_MODE32_BIT 0x10

/* The number of the call that returns; -1 if it has none on this architecture's table. */
static __always_inline long syscall_number(struct pt_regs *regs)
{
	if (bpf_core_field_exists(struct pt_regs___x86, orig_ax)) {
		struct pt_regs___x86 *x86 = (void *)regs;

		return (x86->cs & 0xffff) == USER32_CS ? -1 : (long)x86->orig_ax;
	}
	if (bpf_core_field_exists(struct pt_regs___arm64, syscallno)) {
		struct pt_regs___arm64 *arm64 = (void *)regs;

		return arm64->pstate & PSR_MODE32_BIT ? -1 : arm64->syscallno;
	}
	return -1;
}

SEC("tp_btf/sys_enter") KAON_WHEN(latency)
int BPF_PROG(syscall_enter)
{
	__u64 thread = bpf_get_current_pid_tgid(), now, *begin;

	if (!kaon_in_scope())
		return 0;
	now = kaon_now();
	begin = bpf_map_lookup_elem(&begun, &thread);
	if (begin)
		*begin = now;
	else
		bpf_map_update_elem(&begun, &thread, &now, BPF_ANY);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(syscall_exit, struct pt_regs *regs, long result)
{
	bool failed = (__u64)result >= (__u64)-MAX_ERRNO;
	struct call call = {};
	long number;

	if (errors_only && !failed)
		return 0;
	if (!kaon_in_scope())
		return 0;
	number = syscall_number(regs);
	if (number < 0)
		return 0;
	call.workload = kaon_workload();
	call.syscall = number;
	if (!errors_only)
		kaon_increment(&syscalls_total, &call);
	if (failed && (result > -ERESTARTSYS || result < -ERESTART_RESTARTBLOCK)) {
		struct failed_call failed_call = {
			.workload = call.workload, .syscall = number, .errno = -result,
		};
		kaon_increment(&syscall_errors_total, &failed_call);
	}
	return 0;
}

/* Apart from the above so that its maps exist only if they are used. */
SEC("tp_btf/sys_exit") KAON_WHEN(latency)
int BPF_PROG(syscall_return, struct pt_regs *regs)
{
	__u64 thread = bpf_get_current_pid_tgid(), *begin;
	struct call call = {};
	long number;

	begin = bpf_map_lookup_elem(&begun, &thread);
	if (!begin || !*begin)
		return 0;
	number = syscall_number(regs);
	if (number >= 0) {
		call.workload = kaon_workload();
		call.syscall = number;
		kaon_observe_ns(&syscall_duration_seconds, &call, kaon_now() - *begin);
	}
	*begin = 0;
	return 0;
}
