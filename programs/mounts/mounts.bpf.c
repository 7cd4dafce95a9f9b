// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Mounts and unmounts, by operation, type of filesystem and error.");

#define MS_REMOUNT 0x20
#define MS_BIND 0x1000
#define MS_MOVE 0x2000
#define MS_PROPAGATION 0x1e0000 /* unbindable, private, slave, shared */

enum operation {
	OPERATION_MOUNT, OPERATION_REMOUNT, OPERATION_BIND, OPERATION_PROPAGATION, OPERATION_MOVE, OPERATION_UMOUNT,
	OPERATION_PIVOT_ROOT, OPERATION_FSOPEN, OPERATION_FSMOUNT, OPERATION_MOVE_MOUNT, OPERATION_MOUNT_SETATTR,
};

struct key {
	kaon_workload_t workload;
	enum operation operation;
	kaon_errno_t errno;
	char filesystem[16];
};

KAON_COUNTER_MAP(mount_calls_total, HASH, struct key, 5000, "System calls that mount, unmount or change mounts.") KAON_LIMIT(5000);

/* What a thread asked for, until its call returns. */
struct call {
	const char *type;
	__u64 operation;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct call);
} begun SEC(".maps");

static __always_inline int begin(enum operation operation, const char *type)
{
	struct call call = {.type = type, .operation = operation};
	__u64 thread = bpf_get_current_pid_tgid();

	if (kaon_in_scope())
		bpf_map_update_elem(&begun, &thread, &call, BPF_ANY);
	return 0;
}

/* What the kernel makes of a mount's flags, in its order. */
static __always_inline enum operation operation_of(__u64 flags)
{
	if (flags & MS_REMOUNT)
		return OPERATION_REMOUNT;
	if (flags & MS_BIND)
		return OPERATION_BIND;
	if (flags & MS_PROPAGATION)
		return OPERATION_PROPAGATION;
	if (flags & MS_MOVE)
		return OPERATION_MOVE;
	return OPERATION_MOUNT;
}

static __always_inline int count(enum operation operation, const char *type, long result)
{
	struct key key = {.operation = operation};

	key.workload = kaon_workload();
	if (result < 0)
		key.errno = result;
	/* What was not mounted may be called anything. */
	else if (type)
		bpf_probe_read_user_str(key.filesystem, sizeof(key.filesystem), type);
	kaon_increment(&mount_calls_total, &key);
	return 0;
}

static __always_inline int finish(long result)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&begun, &thread);

	if (!call)
		return 0;
	count(call->operation, call->type, result);
	bpf_map_delete_elem(&begun, &thread);
	return 0;
}

/* What x86 passes to system calls. Objects are for all architectures: elsewhere tracepoints are used. */
struct pt_regs___x86 {
	long unsigned int di, dx, r10;
} KAON_CORE;

static __always_inline int begin_mount(__u64 flags, const char *type)
{
	enum operation operation = operation_of(flags);

	return begin(operation, operation == OPERATION_MOUNT ? type : NULL);
}

/* Trampolines cost other system calls nothing. Tracepoints, where those can't be had, do. */
SEC("fentry/__x64_sys_mount") KAON_ALTERNATIVE(mount_enter, 1)
int BPF_PROG(mount_trampoline_enter, struct pt_regs *regs)
{
	struct pt_regs___x86 *x86 = (void *)regs;

	return begin_mount(x86->r10, (const char *)x86->dx);
}

SEC("fexit/__x64_sys_mount") KAON_ALTERNATIVE(mount_exit, 1)
int BPF_PROG(mount_trampoline_exit, struct pt_regs *regs, long result)
{
	return finish(result);
}

SEC("tracepoint/syscalls/sys_enter_mount") KAON_ALTERNATIVE(mount_enter, 2)
int mount_enter(struct trace_event_raw_sys_enter *ctx)
{
	return begin_mount(ctx->args[3], (const char *)ctx->args[2]);
}

SEC("tracepoint/syscalls/sys_exit_mount") KAON_ALTERNATIVE(mount_exit, 2)
int mount_exit(struct trace_event_raw_sys_exit *ctx)
{
	return finish(ctx->ret);
}

SEC("fentry/__x64_sys_fsopen") KAON_ALTERNATIVE(fsopen_enter, 1)
int BPF_PROG(fsopen_trampoline_enter, struct pt_regs *regs)
{
	struct pt_regs___x86 *x86 = (void *)regs;

	return begin(OPERATION_FSOPEN, (const char *)x86->di);
}

SEC("fexit/__x64_sys_fsopen") KAON_ALTERNATIVE(fsopen_exit, 1)
int BPF_PROG(fsopen_trampoline_exit, struct pt_regs *regs, long result)
{
	return finish(result);
}

SEC("tracepoint/syscalls/sys_enter_fsopen") KAON_ALTERNATIVE(fsopen_enter, 2)
int fsopen_enter(struct trace_event_raw_sys_enter *ctx)
{
	return begin(OPERATION_FSOPEN, (const char *)ctx->args[0]);
}

SEC("tracepoint/syscalls/sys_exit_fsopen") KAON_ALTERNATIVE(fsopen_exit, 2)
int fsopen_exit(struct trace_event_raw_sys_exit *ctx)
{
	return finish(ctx->ret);
}

#define COUNT_EXIT(call, operation, ...) \
	SEC("fexit/__x64_sys_" #call) KAON_ALTERNATIVE(call, 1) __VA_ARGS__ \
	int BPF_PROG(call##_trampoline, struct pt_regs *regs, long result) \
	{ \
		return kaon_in_scope() ? count(operation, NULL, result) : 0; \
	} \
	SEC("tracepoint/syscalls/sys_exit_" #call) KAON_ALTERNATIVE(call, 2) __VA_ARGS__ \
	int call##_exit(struct trace_event_raw_sys_exit *ctx) \
	{ \
		return kaon_in_scope() ? count(operation, NULL, ctx->ret) : 0; \
	}

COUNT_EXIT(umount, OPERATION_UMOUNT)
COUNT_EXIT(pivot_root, OPERATION_PIVOT_ROOT)
COUNT_EXIT(fsmount, OPERATION_FSMOUNT)
COUNT_EXIT(move_mount, OPERATION_MOVE_MOUNT)
/* Since 5.12. */
COUNT_EXIT(mount_setattr, OPERATION_MOUNT_SETATTR, KAON_OPTIONAL)
