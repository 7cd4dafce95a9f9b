// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

#define SIGNAL_GROUP_EXIT 4

KAON_PROGRAM("Processes that end: exit codes, and the signals that killed them.");

struct key {
	kaon_workload_t workload;
	__u32 code;
	kaon_signal_t signal;
};

struct process {
	__u64 start_time;
	__u64 tgid;
};

KAON_COUNTER(process_exits_total, struct key, "Processes that ended, by exit code, or by the signal that killed them.");

/* Processes that were counted a moment ago. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct process);
	__type(value, __u8);
} ended SEC(".maps");

SEC("tp_btf/sched_process_exit")
int BPF_PROG(process_exit, struct task_struct *task)
{
	struct key key = {};
	struct process process = {};
	__u8 one = 1;
	int status;

	/* The last thread's exit is the process's. */
	if (task->signal->live.counter != 0 || !kaon_task_in_scope(task))
		return 0;
	/* Several threads that end at the same time may all see that none is left. */
	process.start_time = task->group_leader->start_time;
	process.tgid = task->tgid;
	if (bpf_map_update_elem(&ended, &process, &one, BPF_NOEXIST))
		return 0;
	/* What wait() tells. */
	if (task->signal->flags & SIGNAL_GROUP_EXIT)
		status = task->signal->group_exit_code;
	else
		status = task->group_leader->exit_code;
	key.workload = kaon_task_workload(task);
	key.code = status >> 8 & 0xff;
	key.signal = status & 0x7f;
	kaon_increment(&process_exits_total, &key);
	return 0;
}
