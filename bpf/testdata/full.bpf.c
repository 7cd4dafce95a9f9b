// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Small maps, to be filled; and keys that are made by two CPUs at once.
#include "kaon.h"

KAON_PROGRAM("Fills maps.");

struct key {
	kaon_workload_t workload;
};

KAON_COUNTER_MAP(counts_total, HASH, struct key, 64, "Counts.");
KAON_COUNTER_MAP(percpu_total, PERCPU_HASH, struct key, 64, "Counts.");
KAON_COUNTER_MAP(demand_total, HASH_NO_PREALLOC, struct key, 64, "Counts.");
KAON_HISTOGRAM_MAP(times_seconds, HASH, struct key, 64, ns, 2, -20, 6, "Times.");

SEC("raw_tp/sys_enter")
int BPF_PROG(fill, __u64 id, __u64 v)
{
	struct key key = { .workload = id };

	kaon_add(&counts_total, &key, v);
	kaon_add(&percpu_total, &key, v);
	kaon_observe_ns(&times_seconds, &key, v);
	return 0;
}

__u64 next SEC(".data.next");

// Before 6.1 the kernel warns of memory on demand in functions that trace.
SEC("xdp")
int fill_demand(struct xdp_md *ctx)
{
	struct key key = { .workload = ++next };

	kaon_add(&demand_total, &key, next);
	return XDP_PASS;
}

KAON_COUNTER_MAP(raced_total, HASH, struct key, 300000, "Keys that two CPUs make at once.");
KAON_COUNTER_MAP(naive_total, HASH, struct key, 300000, "The same with the usual idiom.");

#define KEYS 512
__u64 go SEC(".data.go");

// Two CPUs go through the same new keys at the same time.
SEC("raw_tp/sys_enter")
int BPF_PROG(race, __u64 base)
{
	for (int i = 0; i < KEYS; i++) {
		struct key key = { .workload = base + i };
		kaon_increment(&raced_total, &key);
	}
	return 0;
}

SEC("raw_tp/sys_enter")
int BPF_PROG(race_naive, __u64 base)
{
	for (int i = 0; i < KEYS; i++) {
		struct key key = { .workload = base + i };
		__u64 one = 1, *value = bpf_map_lookup_elem(&naive_total, &key);
		if (value)
			__sync_fetch_and_add(value, 1);
		else
			bpf_map_update_elem(&naive_total, &key, &one, BPF_ANY);
	}
	return 0;
}
