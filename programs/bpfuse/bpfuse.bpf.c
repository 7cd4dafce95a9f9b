// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Who uses the bpf system call: commands, programs that are loaded, errors.");

#define PROG_LOAD 5

enum command {
	COMMAND_MAP_CREATE, COMMAND_MAP_LOOKUP_ELEM, COMMAND_MAP_UPDATE_ELEM, COMMAND_MAP_DELETE_ELEM, COMMAND_MAP_GET_NEXT_KEY,
	COMMAND_PROG_LOAD, COMMAND_OBJ_PIN, COMMAND_OBJ_GET, COMMAND_PROG_ATTACH, COMMAND_PROG_DETACH, COMMAND_PROG_TEST_RUN,
	COMMAND_PROG_GET_NEXT_ID, COMMAND_MAP_GET_NEXT_ID, COMMAND_PROG_GET_FD_BY_ID, COMMAND_MAP_GET_FD_BY_ID,
	COMMAND_OBJ_GET_INFO_BY_FD, COMMAND_PROG_QUERY, COMMAND_RAW_TRACEPOINT_OPEN, COMMAND_BTF_LOAD, COMMAND_BTF_GET_FD_BY_ID,
	COMMAND_TASK_FD_QUERY, COMMAND_MAP_LOOKUP_AND_DELETE_ELEM, COMMAND_MAP_FREEZE, COMMAND_BTF_GET_NEXT_ID,
	COMMAND_MAP_LOOKUP_BATCH, COMMAND_MAP_LOOKUP_AND_DELETE_BATCH, COMMAND_MAP_UPDATE_BATCH, COMMAND_MAP_DELETE_BATCH,
	COMMAND_LINK_CREATE, COMMAND_LINK_UPDATE, COMMAND_LINK_GET_FD_BY_ID, COMMAND_LINK_GET_NEXT_ID, COMMAND_ENABLE_STATS,
	COMMAND_ITER_CREATE, COMMAND_LINK_DETACH, COMMAND_PROG_BIND_MAP, COMMAND_TOKEN_CREATE, COMMAND_PROG_STREAM_READ_BY_FD,
	COMMAND_PROG_ASSOC_STRUCT_OPS, COMMAND_OTHER = 63,
};

enum program_type {
	PROGRAM_UNSPEC, PROGRAM_SOCKET_FILTER, PROGRAM_KPROBE, PROGRAM_SCHED_CLS, PROGRAM_SCHED_ACT, PROGRAM_TRACEPOINT,
	PROGRAM_XDP, PROGRAM_PERF_EVENT, PROGRAM_CGROUP_SKB, PROGRAM_CGROUP_SOCK, PROGRAM_LWT_IN, PROGRAM_LWT_OUT,
	PROGRAM_LWT_XMIT, PROGRAM_SOCK_OPS, PROGRAM_SK_SKB, PROGRAM_CGROUP_DEVICE, PROGRAM_SK_MSG, PROGRAM_RAW_TRACEPOINT,
	PROGRAM_CGROUP_SOCK_ADDR, PROGRAM_LWT_SEG6LOCAL, PROGRAM_LIRC_MODE2, PROGRAM_SK_REUSEPORT,
	PROGRAM_FLOW_DISSECTOR, PROGRAM_CGROUP_SYSCTL, PROGRAM_RAW_TRACEPOINT_WRITABLE, PROGRAM_CGROUP_SOCKOPT,
	PROGRAM_TRACING, PROGRAM_STRUCT_OPS, PROGRAM_EXT, PROGRAM_LSM, PROGRAM_SK_LOOKUP, PROGRAM_SYSCALL,
	PROGRAM_NETFILTER, PROGRAM_OTHER = 63,
};

struct call_key {
	kaon_workload_t workload;
	enum command command;
	kaon_errno_t errno;
};

struct load_key {
	kaon_workload_t workload;
	enum program_type type;
	kaon_errno_t errno;
};

KAON_COUNTER_MAP(bpf_calls_total, HASH, struct call_key, 5000, "Calls of bpf().") KAON_LIMIT(5000);
KAON_COUNTER_MAP(bpf_program_loads_total, HASH, struct load_key, 2000, "BPF programs that were to be loaded.") KAON_LIMIT(2000);

/* Users can pass any number. */
static __always_inline __u32 min(__u32 number, __u32 other)
{
	return number < other ? number : other;
}

/* What a thread asked for, until its call returns. */
struct call {
	__u32 command;
	__u32 type;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct call);
} begun SEC(".maps");

/* What x86 passes to system calls. Objects are for all architectures: elsewhere tracepoints are used. */
struct pt_regs___x86 {
	long unsigned int di, si;
} KAON_CORE;

static __always_inline int begin(__u32 command, const void *attributes)
{
	struct call call = {.command = command};
	__u64 thread = bpf_get_current_pid_tgid();

	if (!kaon_in_scope())
		return 0;
	/* The type is the first member of what is passed. */
	if (command == PROG_LOAD)
		bpf_probe_read_user(&call.type, sizeof(call.type), attributes);
	bpf_map_update_elem(&begun, &thread, &call, BPF_ANY);
	return 0;
}

static __always_inline int finish(long result)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&begun, &thread);
	struct call_key key = {};

	if (!call)
		return 0;
	key.workload = kaon_workload();
	key.command = min(call->command, COMMAND_OTHER);
	if (result < 0)
		key.errno = result;
	kaon_increment(&bpf_calls_total, &key);
	if (call->command == PROG_LOAD) {
		struct load_key load_key = {.workload = key.workload, .type = min(call->type, PROGRAM_OTHER), .errno = key.errno};

		kaon_increment(&bpf_program_loads_total, &load_key);
	}
	bpf_map_delete_elem(&begun, &thread);
	return 0;
}

/* Trampolines cost other system calls nothing. Tracepoints, where those can't be had, do. */
SEC("fentry/__x64_sys_bpf") KAON_ALTERNATIVE(enter, 1)
int BPF_PROG(bpf_trampoline_enter, struct pt_regs *regs)
{
	struct pt_regs___x86 *x86 = (void *)regs;

	return begin(x86->di, (const void *)x86->si);
}

SEC("fexit/__x64_sys_bpf") KAON_ALTERNATIVE(exit, 1)
int BPF_PROG(bpf_trampoline_exit, struct pt_regs *regs, long result)
{
	return finish(result);
}

SEC("tracepoint/syscalls/sys_enter_bpf") KAON_ALTERNATIVE(enter, 2)
int bpf_enter(struct trace_event_raw_sys_enter *ctx)
{
	return begin(ctx->args[0], (const void *)ctx->args[1]);
}

SEC("tracepoint/syscalls/sys_exit_bpf") KAON_ALTERNATIVE(exit, 2)
int bpf_exit(struct trace_event_raw_sys_exit *ctx)
{
	return finish(ctx->ret);
}
