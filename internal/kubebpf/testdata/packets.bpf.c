// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What programs for kube-bpf look like: legacy map definitions, no types, no helpers of anybody's. */
typedef unsigned char __u8;
typedef unsigned int __u32;
typedef unsigned long long __u64;

#define SEC(name) __attribute__((section(name), used))

struct bpf_map_def {
	__u32 type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps/packets") protocols = {
	.type = 1, /* BPF_MAP_TYPE_HASH */
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = 256,
};

static void *(*map_lookup)(void *map, const void *key) = (void *)1;
static long (*map_update)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
unsigned long long load_byte(void *skb, unsigned long long offset) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long offset) asm("llvm.bpf.load.half");

SEC("socket/count")
int count(void *skb)
{
	__u64 one = 1, *value;
	__u32 protocol;

	if (load_half(skb, 12) != 0x0800)
		return 0;
	protocol = load_byte(skb, 14 + 9);
	value = map_lookup(&protocols, &protocol);
	if (value)
		__sync_fetch_and_add(value, 1);
	else
		map_update(&protocols, &protocol, &one, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
__u32 _version SEC("version") = 0xFFFFFFFE;
