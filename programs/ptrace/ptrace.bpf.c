// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Who traces and changes other processes: ptrace, process_vm_readv and process_vm_writev.");

enum operation {
	OPERATION_TRACEME, OPERATION_ATTACH, OPERATION_SEIZE, OPERATION_PEEK, OPERATION_POKE, OPERATION_SET_REGISTERS,
	OPERATION_DETACH, OPERATION_PROCESS_VM_READV, OPERATION_PROCESS_VM_WRITEV, OPERATION_OTHER,
};

struct key {
	kaon_workload_t workload;
	kaon_workload_t target KAON_OMIT_ZERO;
	enum operation operation;
	kaon_errno_t errno;
};

KAON_COUNTER_MAP(ptrace_calls_total, HASH, struct key, 5000,
	"System calls that trace, read or change another process, by caller and, where known, by target.") KAON_LIMIT(5000);

/* What a thread asked for, until its call returns. */
struct call {
	__u64 target;
	__u64 operation;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct call);
} begun SEC(".maps");

static __always_inline enum operation operation_of(__u64 request)
{
	switch (request) {
	case 0:
		return OPERATION_TRACEME;
	case 1: /* text */
	case 2: /* data */
	case 3: /* user area */
		return OPERATION_PEEK;
	case 4:
	case 5:
		return OPERATION_POKE;
	case 6:      /* user area: x86 */
	case 13:     /* x86 */
	case 15:     /* floating point, x86 */
	case 0x4205: /* a set of registers */
		return OPERATION_SET_REGISTERS;
	case 16:
		return OPERATION_ATTACH;
	case 17:
		return OPERATION_DETACH;
	case 0x4206:
		return OPERATION_SEIZE;
	default:
		return OPERATION_OTHER;
	}
}

static __always_inline int begin(enum operation operation)
{
	struct call call = {.operation = operation};
	__u64 thread = bpf_get_current_pid_tgid();

	if (kaon_in_scope())
		bpf_map_update_elem(&begun, &thread, &call, BPF_ANY);
	return 0;
}

/* The kernel lists those that a thread traces, the newest first. */
static __always_inline kaon_workload_t newest_tracee(void)
{
	struct task_struct *tracer = (struct task_struct *)bpf_get_current_task();
	struct list_head *first = BPF_CORE_READ(tracer, ptraced.next);

	if (!first || (void *)first == (void *)tracer + bpf_core_field_offset(struct task_struct, ptraced))
		return 0;
	return kaon_task_workload_probe((void *)first - bpf_core_field_offset(struct task_struct, ptrace_entry));
}

static __always_inline int finish(long result)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&begun, &thread);
	struct key key = {};

	if (!call)
		return 0;
	key.workload = kaon_workload();
	key.operation = call->operation;
	if (result < 0) {
		key.errno = result;
	} else {
		key.target = call->target;
		if (key.operation == OPERATION_ATTACH || key.operation == OPERATION_SEIZE)
			key.target = newest_tracee();
	}
	kaon_increment(&ptrace_calls_total, &key);
	bpf_map_delete_elem(&begun, &thread);
	return 0;
}

/* What x86 passes to system calls. Objects are for all architectures: elsewhere tracepoints are used. */
struct pt_regs___x86 {
	long unsigned int di;
} KAON_CORE;

/* Trampolines cost other system calls nothing. Tracepoints, where those can't be had, do. operation is an expression of the
 * first argument, request. */
#define COUNT(name, operation) \
	SEC("fentry/__x64_sys_" #name) KAON_ALTERNATIVE(name##_enter, 1) \
	int BPF_PROG(name##_trampoline_enter, struct pt_regs *regs) \
	{ \
		__u64 request = ((struct pt_regs___x86 *)regs)->di; \
		(void)request; \
		return begin(operation); \
	} \
	SEC("fexit/__x64_sys_" #name) KAON_ALTERNATIVE(name##_exit, 1) \
	int BPF_PROG(name##_trampoline_exit, struct pt_regs *regs, long result) \
	{ \
		return finish(result); \
	} \
	SEC("tracepoint/syscalls/sys_enter_" #name) KAON_ALTERNATIVE(name##_enter, 2) \
	int name##_enter(struct trace_event_raw_sys_enter *ctx) \
	{ \
		__u64 request = ctx->args[0]; \
		(void)request; \
		return begin(operation); \
	} \
	SEC("tracepoint/syscalls/sys_exit_" #name) KAON_ALTERNATIVE(name##_exit, 2) \
	int name##_exit(struct trace_event_raw_sys_exit *ctx) \
	{ \
		return finish(ctx->ret); \
	}

COUNT(ptrace, operation_of(request))
COUNT(process_vm_readv, OPERATION_PROCESS_VM_READV)
COUNT(process_vm_writev, OPERATION_PROCESS_VM_WRITEV)

/* The kernel asks whether one process may access another: here, on behalf of one of the calls above. */
static __always_inline struct call *call_of_thread(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&begun, &thread);
}

SEC("fentry/security_ptrace_access_check") KAON_ALTERNATIVE(target, 1) KAON_OPTIONAL
int BPF_PROG(access_trampoline, struct task_struct *target)
{
	struct call *call = call_of_thread();

	if (call)
		call->target = kaon_task_workload(target);
	return 0;
}

SEC("kprobe/security_ptrace_access_check") KAON_ALTERNATIVE(target, 2) KAON_OPTIONAL
int BPF_KPROBE(access_kprobe, struct task_struct *target)
{
	struct call *call = call_of_thread();

	if (call)
		call->target = kaon_task_workload_probe(target);
	return 0;
}
