// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Counters in every type of map. The test writes them; the function only makes it a program.
#include "test.h"

struct padded { u8 operation; u64 id; u16 port; u8 address[4]; };
struct named { char name[16]; u32 code; };
struct wire { u8 host[16]; char domain[32]; };
struct numbers { u8 one; u8 pad; u16 two; u32 four; u64 eight; };
struct cell { u32 cell; };
struct pci { u32 vendor; u32 device; u8 class; u8 pad; u16 subclass; };

MAP(in_hash_total, BPF_MAP_TYPE_HASH, struct padded, 16);
MAP(in_lru_total, BPF_MAP_TYPE_LRU_HASH, struct named, 64);
MAP(in_array_total, BPF_MAP_TYPE_ARRAY, u32, 4);
MAP(alone, BPF_MAP_TYPE_ARRAY, u32, 2);
MAP(per_cpu_total, BPF_MAP_TYPE_PERCPU_HASH, struct cell, 16);
MAP(by_cpu_total, BPF_MAP_TYPE_PERCPU_HASH, struct cell, 16);
MAP(by_cpu_array_total, BPF_MAP_TYPE_PERCPU_ARRAY, u32, 1);
MAP(per_cpu_lru_total, BPF_MAP_TYPE_LRU_PERCPU_HASH, struct cell, 64);
MAP(merged_total, BPF_MAP_TYPE_HASH, struct named, 16);
MAP(wires_total, BPF_MAP_TYPE_HASH, struct wire, 16);
MAP(numbers_total, BPF_MAP_TYPE_HASH, struct numbers, 16);
MAP(errors_total, BPF_MAP_TYPE_HASH, struct numbers, 16);

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct padded padded = { .operation = 1, .id = 7 };
	u32 first = 0;

	if (!triggered(ctx))
		return 0;
	count(&in_hash_total, &padded, 1);
	count(&alone, &first, 1);
	return 0;
}
