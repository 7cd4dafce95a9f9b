// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Histograms whose buckets are keys. The test writes them; the function only makes it a program.
#include "test.h"

struct by_device { u32 device; u8 operation; u64 bucket; };
struct small { u8 kind; u8 bucket; };
struct signed_bucket { u32 shard; int bucket; };

MAP(latency_seconds, BPF_MAP_TYPE_HASH, struct by_device, 1024);
MAP(backlog, BPF_MAP_TYPE_ARRAY, u32, 8);
MAP(depth, BPF_MAP_TYPE_PERCPU_ARRAY, u32, 8);
MAP(offset_ratio, BPF_MAP_TYPE_HASH, struct signed_bucket, 64);
MAP(fixed_bytes, BPF_MAP_TYPE_PERCPU_HASH, struct small, 64);

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 key = 2;
	u32 n = triggered(ctx);

	if (n)
		count(&backlog, &key, 1);
	return 0;
}
