// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "test.h"

COUNTER(calls);
COUNTER(tails);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 5);
	__type(key, __u64);
	__type(value, __u64);
} per_cpu SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u32);
	__type(value, __u64);
} elements SEC(".maps");

int tail(void *ctx);
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, int(void *));
} programs SEC(".maps") = {
	.values = { [1] = (void *)&tail },
};

struct inner {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
};
struct inner inner_one SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__uint(key_size, 4);
	__array(values, struct inner);
} outer SEC(".maps") = {
	.values = { [1] = (void *)&inner_one },
};

const volatile __u64 position = 0;
const volatile __u32 kaon_cgroup_mode = 0;
const volatile __u64 kaon_scope_id = 0;
__u64 mode_seen = 0;

SEC("raw_tp/sys_enter")
int tail(void *ctx)
{
	if (observed())
		count(&tails);
	return 0;
}

SEC("raw_tp/sys_enter")
int caller(struct bpf_raw_tracepoint_args *ctx)
{
	if (!observed() || (ctx->args[1] != 110 && ctx->args[1] != 173))
		return 0;
	count(&calls);
	mode_seen = kaon_cgroup_mode + kaon_scope_id;
	__u32 one = 1;
	void *inside = bpf_map_lookup_elem(&outer, &one);
	if (inside)
		count(inside);
	__u64 key = 1, *value = bpf_map_lookup_elem(&per_cpu, &key);
	if (!value)
		bpf_map_update_elem(&per_cpu, &key, &key, BPF_NOEXIST);
	bpf_tail_call(ctx, &programs, 1);
	return 0;
}

/* Reads beyond the map's value: every verifier refuses it. */
SEC("raw_tp/sys_enter")
int refused(void *ctx)
{
	__u32 zero = 0;
	__u64 *value = bpf_map_lookup_elem(&calls, &zero);
	if (!value)
		return 0;
	return value[position];
}

/* Nothing but what calls it: for measuring. */
SEC("raw_tp/sys_enter")
int empty(void *ctx)
{
	return 0;
}

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
} __attribute__((preserve_access_index));
struct bpf_iter__bpf_map_elem {
	struct bpf_iter_meta *meta;
	void *map, *key, *value;
} __attribute__((preserve_access_index));

SEC("iter/bpf_map_elem:elements")
int dump_elements(struct bpf_iter__bpf_map_elem *ctx)
{
	__u32 *key = ctx->key;
	__u64 *value = ctx->value;
	if (!key || !value)
		return 0;
	struct { __u64 key, value; } record = { .key = *key, .value = *value };
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

SEC("xdp")
int empty_xdp(struct xdp_md *ctx)
{
	return XDP_PASS;
}

struct task_struct {
	int no_such_field;
} __attribute__((preserve_access_index));

SEC("tp_btf/sched_process_exit")
int missing_field(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	return task->no_such_field;
}
