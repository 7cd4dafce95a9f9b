// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Scheduler latency: how long threads that could run waited for a CPU.");

struct key {
	kaon_workload_t workload;
};

KAON_HISTOGRAM_MAP(runqueue_latency_seconds, HASH, struct key, 4000, ns, 2, -20, 6,
	"Time that a thread waited for a CPU, each time before it ran.") KAON_UNIT("seconds") KAON_LIMIT(4000);

/*
 * By the address of the task (exec of another than the main thread changes numbers): all the time it had
 * waited when it last began to run. The kernel adds it up itself (sched_info, which /proc/PID/schedstat shows), also
 * across CPUs, so one look at each switch is enough and what is observed is the kernel's own figure. Entries that were
 * evicted, and threads older than the Program, lose the time that they waited on another CPU, once.
 *
 * Not task storage: kernels before 6.4 allocate it with kmalloc, which must not be called with a
 * run queue's lock held.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, __u64);
} waited SEC(".maps");

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *previous, struct task_struct *next)
{
	__u64 queued = next->sched_info.last_queued, total, delay, *before;
	struct key key = {};
	__u64 thread = (__u64)next;

	/* The idle thread never waits. */
	if (!next->pid || !queued || !kaon_task_in_scope(next))
		return 0;
	/* What the kernel is about to add. */
	delay = next->se.cfs_rq->rq->clock - queued;
	total = next->sched_info.run_delay + delay;
	before = bpf_map_lookup_elem(&waited, &thread);
	if (!next->sched_info.pcount)
		delay = total; /* it never ran; a predecessor at its address may have */
	else if (before && *before <= total)
		delay = total - *before;
	if (before)
		*before = total;
	else
		bpf_map_update_elem(&waited, &thread, &total, BPF_ANY);
	key.workload = kaon_task_workload(next);
	kaon_observe_ns(&runqueue_latency_seconds, &key, delay);
	return 0;
}
