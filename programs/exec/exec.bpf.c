// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Programs that are started, and those that could not be.");

KAON_PARAM(bool, errors, false, "Count programs that could not be started, by error.");

struct start_key {
	kaon_workload_t workload;
};

struct error_key {
	kaon_workload_t workload;
	kaon_errno_t errno;
	KAON_PAD(4);
};

KAON_COUNTER(process_starts_total, struct start_key, "Programs that were executed.");
KAON_COUNTER_MAP(process_start_errors_total, HASH, struct error_key, 4000,
	"Programs that could not be executed, by error.") KAON_LIMIT(4000) KAON_WHEN(errors);

SEC("tp_btf/sched_process_exec")
int BPF_PROG(process_exec, struct task_struct *task)
{
	struct start_key key = {.workload = kaon_task_workload(task)};

	if (kaon_task_in_scope(task))
		kaon_increment(&process_starts_total, &key);
	return 0;
}

static __always_inline int count_error(long result)
{
	struct error_key key = {};

	if (result >= 0 || !kaon_in_scope())
		return 0;
	key.workload = kaon_workload();
	key.errno = result;
	kaon_increment(&process_start_errors_total, &key);
	return 0;
}

/* Trampolines cost other system calls nothing. Tracepoints, where those can't be had, do. */
#define COUNT_ERRORS(call) \
	SEC("fexit/__x64_sys_" #call) KAON_ALTERNATIVE(call, 1) KAON_WHEN(errors) \
	int BPF_PROG(call##_trampoline, struct pt_regs *regs, long result) \
	{ \
		return count_error(result); \
	} \
	SEC("tracepoint/syscalls/sys_exit_" #call) KAON_ALTERNATIVE(call, 2) KAON_WHEN(errors) \
	int call##_exit(struct trace_event_raw_sys_exit *ctx) \
	{ \
		return count_error(ctx->ret); \
	}

COUNT_ERRORS(execve)
COUNT_ERRORS(execveat)
