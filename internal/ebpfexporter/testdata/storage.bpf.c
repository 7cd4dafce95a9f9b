// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The same with cgroup storage (Linux 6.2 and later).
#include "test.h"

struct cgroup { int dummy; } __attribute__((preserve_access_index));
struct css_set { struct cgroup *dfl_cgrp; } __attribute__((preserve_access_index));
struct task_struct { struct css_set *cgroups; } __attribute__((preserve_access_index));

struct {
	__uint(type, 32); /* BPF_MAP_TYPE_CGRP_STORAGE */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, u64);
} wanted SEC(".maps");

MAP(stored_triggers_total, BPF_MAP_TYPE_ARRAY, u32, 1);

SEC("tp_btf/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task;
	u32 zero = 0;

	if (!triggered(ctx))
		return 0;
	task = bpf_get_current_task_btf();
	if (bpf_cgrp_storage_get(&wanted, task->cgroups->dfl_cgrp, 0, 0))
		count(&stored_triggers_total, &zero, 1);
	return 0;
}
