// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Deliberately bad, though every tag is understood: names, maps, sizes, hooks.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TAG(text) __attribute__((btf_decl_tag("kaon:" text)))

enum direction { DIRECTION_IN, DIRECTION_OUT };

struct key {
	__u64 address;
	enum direction direction;
	__u16 port;
	__u8 protocol;
	__u8 pad TAG("skip");
};

/* Counts, but evicts; no help; a unit that is not in the name. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1000);
	__type(key, struct key);
	__type(value, __u64);
} traffic TAG("type=counter") TAG("unit=bytes") SEC(".maps");

/* Smaller than its limit, no overflow entry, milliseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, __u64);
} wait_milliseconds TAG("type=counter") TAG("help=Waited.") TAG("limit=5000") SEC(".maps");

/* Larger than kernels allow. */
struct big { __u8 bytes[4096]; };
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 4000000);
	__type(key, __u64);
	__type(value, struct big);
} scratch SEC(".maps");

/* Can't be read. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 64);
	__type(value, __u64);
} queue SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64);
} running TAG("type=gauge") TAG("help=Running.") SEC(".maps");

SEC("fentry/vfs_raed")
int enter(void *ctx)
{
	struct key key = {};
	bpf_map_lookup_elem(&traffic, &key);
	bpf_map_lookup_elem(&wait_milliseconds, &key);
	bpf_map_lookup_elem(&scratch, &key);
	bpf_map_pop_elem(&queue, &key);
	return 0;
}

SEC("tracepoint/sched_switch")
int no_group(void *ctx)
{
	return 0;
}

char object_license[] SEC("license") = "Dual BSD/GPL";
