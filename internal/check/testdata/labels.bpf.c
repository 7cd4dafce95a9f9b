// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Deliberately bad, and refused by the object source: tags and types.
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TAG(text) __attribute__((btf_decl_tag("kaon:" text)))

struct key {
	__u64 le;
	union {
		__u32 a;
		__u32 b;
	} both;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__type(key, struct key);
	__type(value, __u64);
} with_union TAG("type=counter") TAG("help=A union.") SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__type(key, __u64);
	__type(value, __u64);
} misspelt TAG("tpye=counter") SEC(".maps");

SEC("kprobes/vfs_read")
int wrong_section(void *ctx)
{
	__u64 key = 0;
	bpf_map_lookup_elem(&with_union, &key);
	bpf_map_lookup_elem(&misspelt, &key);
	return 0;
}

char object_license[] SEC("license") = "Dual BSD/GPL";
