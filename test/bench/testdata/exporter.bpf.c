// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Maps as ebpf_exporter reads them, and the same histograms as arrays of slots. The benchmark fills them itself.
#include "kaon.h"

struct key {
	__u32 first;
	__u32 second;
	char name[16];
};

struct bucket_key {
	__u32 shard;
	__u32 bucket;
};

struct slots {
	__u64 sum;
	__u64 slots[28];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 10000);
	__type(key, struct key);
	__type(value, __u64);
} bench_total SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 28000);
	__type(key, struct bucket_key);
	__type(value, __u64);
} bench_seconds SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1000);
	__type(key, __u32);
	__type(value, struct slots);
} bench_slots SEC(".maps");

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Keeps the maps in use, and does nothing. */
SEC("tracepoint/syscalls/sys_enter_getppid")
int touch(void *ctx)
{
	struct bucket_key bucket = { ~0u, ~0u };
	struct key key = { ~0u, ~0u };
	__u32 shard = ~0u;

	bpf_map_delete_elem(&bench_total, &key);
	bpf_map_delete_elem(&bench_seconds, &bucket);
	bpf_map_delete_elem(&bench_slots, &shard);
	return 0;
}
