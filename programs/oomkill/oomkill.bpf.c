// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Out-of-memory kills, by the workload of the victim, and whose memory was short.");

#define SIGKILL 9
#define SEND_SIG_PRIV 1

/* Whose limit: unknown where the kernel's function can't be hooked. */
enum limit { LIMIT_UNKNOWN, LIMIT_CGROUP, LIMIT_MACHINE };

struct key {
	kaon_workload_t workload;
	enum limit limit;
	KAON_PAD(4);
};

KAON_COUNTER_MAP(oom_kills_total, HASH, struct key, 2000, "Processes that the out-of-memory killer killed.") KAON_LIMIT(2000);

/* By the thread that kills: its victim, from the signal to the mark. */
struct victim {
	__u64 workload;
	__u32 pid;
	__u32 in_scope;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, struct victim);
} victims SEC(".maps");

/* By the same thread: whose memory is short. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u64);
	__type(value, enum limit);
} limits SEC(".maps");

static __always_inline int note_limit(struct oom_control *control)
{
	__u64 thread = bpf_get_current_pid_tgid();
	enum limit limit = BPF_CORE_READ(control, memcg) ? LIMIT_CGROUP : LIMIT_MACHINE;

	bpf_map_update_elem(&limits, &thread, &limit, BPF_ANY);
	return 0;
}

SEC("fentry/oom_kill_process") KAON_ALTERNATIVE(limit, 1) KAON_OPTIONAL
int BPF_PROG(oom_trampoline, struct oom_control *control)
{
	return note_limit(control);
}

SEC("kprobe/oom_kill_process") KAON_ALTERNATIVE(limit, 2) KAON_OPTIONAL
int BPF_KPROBE(oom_kprobe, struct oom_control *control)
{
	return note_limit(control);
}

/* The kernel kills a victim first, then marks it. It also marks processes that were dying anyway. */
SEC("tp_btf/signal_generate")
int BPF_PROG(oom_signal, int signal, struct kernel_siginfo *info, struct task_struct *task)
{
	struct victim victim = {};
	__u64 thread;

	if (signal != SIGKILL || (__u64)info != SEND_SIG_PRIV)
		return 0;
	thread = bpf_get_current_pid_tgid();
	victim.workload = kaon_task_workload(task);
	victim.pid = task->pid;
	victim.in_scope = kaon_task_in_scope(task);
	bpf_map_update_elem(&victims, &thread, &victim, BPF_ANY);
	return 0;
}

/* Newer kernels pass the task, older ones its number. */
struct trace_event_raw_mark_victim___new {
	long unsigned int total_vm;
} KAON_CORE;

SEC("tp_btf/mark_victim")
int oom_mark(__u64 *ctx)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct victim *victim = bpf_map_lookup_elem(&victims, &thread);
	struct key key = {};
	enum limit *limit;
	__u32 pid;

	if (!victim)
		return 0;
	if (bpf_core_type_exists(struct trace_event_raw_mark_victim___new) &&
	    bpf_core_field_exists(struct trace_event_raw_mark_victim___new, total_vm))
		pid = ((struct task_struct *)ctx[0])->pid;
	else
		pid = ctx[0];
	if (victim->pid != pid)
		return 0;
	key.workload = victim->workload;
	limit = bpf_map_lookup_elem(&limits, &thread);
	if (limit)
		key.limit = *limit;
	if (victim->in_scope)
		kaon_increment(&oom_kills_total, &key);
	bpf_map_delete_elem(&victims, &thread);
	return 0;
}
