// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

#define PF_KTHREAD 0x00200000

KAON_PROGRAM("Memory stalls: threads that had to free or move memory themselves before they got some.");

enum cause {
	CAUSE_MACHINE, /* too little is free */
	CAUSE_LIMIT, /* a cgroup's limit */
	CAUSE_COMPACTION, /* too little is free in one piece */
};

struct key {
	kaon_workload_t workload;
	enum cause cause;
	KAON_PAD(4);
};

KAON_HISTOGRAM_MAP(memory_stall_seconds, HASH, struct key, 2000, ns, 2, -20, 6,
	"Time that a thread spent on freeing or moving memory before it got some.") KAON_UNIT("seconds") KAON_LIMIT(2000);
KAON_COUNTER_MAP(memory_stall_reclaimed_pages_total, HASH, struct key, 2000,
	"Pages that were freed by threads that needed memory.") KAON_LIMIT(2000);

struct stall {
	__u32 thread;
	enum cause cause;
};

KAON_STARTS(stalls, struct stall, 4096);

static __always_inline int begin(enum cause cause)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct stall stall = {.thread = bpf_get_current_pid_tgid(), .cause = cause};

	/* Nobody waits for what kernel threads do in advance. */
	if (kaon_in_scope() && !(BPF_CORE_READ(task, flags) & PF_KTHREAD))
		kaon_start(&stalls, &stall);
	return 0;
}

static __always_inline int end(enum cause cause, __u64 pages)
{
	struct stall stall = {.thread = bpf_get_current_pid_tgid(), .cause = cause};
	struct key key = {.cause = cause};
	__u64 ns = kaon_elapsed(&stalls, &stall);

	if (!ns)
		return 0;
	key.workload = kaon_workload();
	kaon_observe_ns(&memory_stall_seconds, &key, ns);
	if (cause != CAUSE_COMPACTION)
		kaon_add(&memory_stall_reclaimed_pages_total, &key, pages);
	return 0;
}

SEC("tp_btf/mm_vmscan_direct_reclaim_begin")
int BPF_PROG(direct_begin)
{
	return begin(CAUSE_MACHINE);
}

SEC("tp_btf/mm_vmscan_direct_reclaim_end")
int BPF_PROG(direct_end, unsigned long pages)
{
	return end(CAUSE_MACHINE, pages);
}

/* Optional: there may be no CONFIG_MEMCG. */
SEC("tp_btf/mm_vmscan_memcg_reclaim_begin") KAON_OPTIONAL
int BPF_PROG(limit_begin)
{
	return begin(CAUSE_LIMIT);
}

SEC("tp_btf/mm_vmscan_memcg_reclaim_end") KAON_OPTIONAL
int BPF_PROG(limit_end, unsigned long pages)
{
	return end(CAUSE_LIMIT, pages);
}

/* Optional: there may be no CONFIG_COMPACTION. */
SEC("tp_btf/mm_compaction_begin") KAON_OPTIONAL
int BPF_PROG(compaction_begin)
{
	return begin(CAUSE_COMPACTION);
}

SEC("tp_btf/mm_compaction_end") KAON_OPTIONAL
int BPF_PROG(compaction_end)
{
	return end(CAUSE_COMPACTION, 0);
}
