// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "test.h"

COUNTER(by_tracepoint);
COUNTER(by_raw_tp);
COUNTER(by_tp_btf);

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 17);
	__type(key, __u64);
	__type(value, __u64);
} by_hash SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 5000);
} events SEC(".maps");

struct record { __u32 pid; };

/* Only declares the records of dump_tasks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} tasks SEC(".maps");

__u64 kaon_lost SEC(".data.kaon");
__u64 seen = 0;
const volatile _Bool wanted = 1;
const volatile __u64 threshold = 7;
const volatile char word[8] = "abc";
const volatile int signed_one = -1;
const volatile __u32 kaon_cgroup_mode = 0;
const volatile __u64 kaon_scope_id = 0;

SEC("tracepoint/syscalls/sys_enter_getppid")
int on_tracepoint(void *ctx)
{
	if (!observed())
		return 0;
	count(&by_tracepoint);
	__sync_fetch_and_add(&kaon_lost, threshold);
	return 0;
}

SEC("raw_tp/sys_enter")
int on_raw_tp(struct bpf_raw_tracepoint_args *ctx)
{
	/* getppid: 110 on x86-64, 173 on arm64 */
	if (!observed() || (ctx->args[1] != 110 && ctx->args[1] != 173))
		return 0;
	count(&by_raw_tp);
	__sync_fetch_and_add(&seen, 1);
	__u64 key = 1, one = 1;
	bpf_map_update_elem(&by_hash, &key, &one, BPF_ANY);
	__u32 *e = bpf_ringbuf_reserve(&events, sizeof(__u32), 0);
	if (e) {
		*e = kaon_cgroup_mode + (__u32)kaon_scope_id;
		bpf_ringbuf_submit(e, 0);
	}
	return word[0] == 'x' && signed_one;
}

SEC("tp_btf/sys_enter")
int on_tp_btf(__u64 *ctx)
{
	if (!observed() || (ctx[1] != 110 && ctx[1] != 173) || !wanted)
		return 0;
	count(&by_tp_btf);
	return 0;
}

struct seq_file;
struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id;
	__u64 seq_num;
} __attribute__((preserve_access_index));
struct task_struct {
	int tgid;
} __attribute__((preserve_access_index));
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
} __attribute__((preserve_access_index));

SEC("iter/task")
int dump_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	if (!task || (__u32)task->tgid != test_tgid)
		return 0;
	struct { __u32 key, pad; __u64 value; } record = { .key = task->tgid, .value = 1 };
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}
