// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("What the kernel sees of the accelerator: its kicks, and its memory.");

KAON_PARAM(bool, memory, true, "Read the memory of the lab's processes.");
KAON_PARAM(__u32, page_size, 4096, "Bytes of a page.");

KAON_COUNTER(accelerator_kernel_kicks_total, kaon_none_t, "Calls of the kick function, counted by the kernel.");

/* The loader says where the function begins in the executable. */
SEC("uprobe//proc/self/exe:0x0")
int kick(struct pt_regs *ctx)
{
	kaon_increment(&accelerator_kernel_kicks_total, KAON_NONE);
	return 0;
}

struct key {
	kaon_workload_t workload;
};

KAON_ITERATOR_METRIC(accelerator_kernel_resident_memory_bytes, struct key, __s64, read_memory, KAON_TYPE(gauge) KAON_UNIT("bytes")
	KAON_HELP("Resident memory of the lab's processes, as the kernel counts pages.") KAON_WHEN(memory));

/* Which pages are counted: enum of linux/mm_types_task.h. */
#define FILE_PAGES 0
#define ANONYMOUS_PAGES 1
#define SHARED_PAGES 3

/* Since 6.2 each kind is a counter with a part for each CPU that is not added yet: some hundred KiB. */
struct percpu_counter___lab {
	__s64 count;
} KAON_CORE;

struct mm_struct___new {
	struct percpu_counter___lab rss_stat[4];
} KAON_CORE;

struct mm_rss_stat___old {
	struct {
		long counter;
	} count[4];
} KAON_CORE;

struct mm_struct___old {
	struct mm_rss_stat___old rss_stat;
} KAON_CORE;

static __always_inline __s64 pages_of(struct mm_struct *mm)
{
	struct mm_struct___new *new = (void *)mm;
	struct mm_struct___old *old = (void *)mm;

	if (bpf_core_type_exists(struct mm_rss_stat___old))
		return BPF_CORE_READ(old, rss_stat.count[FILE_PAGES].counter) +
			BPF_CORE_READ(old, rss_stat.count[ANONYMOUS_PAGES].counter) +
			BPF_CORE_READ(old, rss_stat.count[SHARED_PAGES].counter);
	return BPF_CORE_READ(new, rss_stat[FILE_PAGES].count) + BPF_CORE_READ(new, rss_stat[ANONYMOUS_PAGES].count) +
		BPF_CORE_READ(new, rss_stat[SHARED_PAGES].count);
}

SEC("iter/task") KAON_OPTIONAL KAON_WHEN(memory)
int read_memory(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct key key = {};
	struct mm_struct *mm;
	__s64 bytes;

	/* Threads share their process's memory. */
	if (!task || task->pid != task->tgid || !kaon_task_in_scope(task))
		return 0;
	mm = task->mm;
	if (!mm)
		return 0;
	key.workload = kaon_task_workload(task);
	bytes = pages_of(mm) * page_size;
	if (bytes > 0)
		kaon_emit(ctx->meta->seq, &accelerator_kernel_resident_memory_bytes, &key, &bytes);
	return 0;
}
