// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What a run costs: XDP programs, because those can be run many times by one call.
#include "kaon.h"

KAON_PROGRAM("Measures costs.");

struct key {
	kaon_workload_t workload;
};

KAON_COUNTER(counter_total, struct key, "Counter.");
KAON_COUNTER(single_total, kaon_none_t, "Counter without labels.");
KAON_HISTOGRAM(schema2_seconds, struct key, "Histogram.");
KAON_HISTOGRAM_OF(schema3_seconds, struct key, ns, 3, -20, 6, "Histogram.");
KAON_HISTOGRAM_OF(sizes, struct key, one, 2, 0, 32, "Histogram.");
KAON_HISTOGRAM_BOUNDS(bounded, struct key, "Histogram.", 1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000, 512000);

__u64 seed SEC(".data.seed");

// A value of 16 octaves, log-uniform: what mispredicts branches.
static __always_inline __u64 value(void)
{
	__u64 s = seed * 6364136223846793005ULL + 1442695040888963407ULL;

	seed = s;
	return (1024 + (s >> 54)) << ((s >> 50) & 15);
}

#define __maybe_unused __attribute__((unused))
#define COST(name, what) \
	SEC("xdp") int name(struct xdp_md *ctx) \
	{ \
		struct key key __maybe_unused = { .workload = 42 }; \
		__u64 v = value(); \
		kaon_opaque(v); \
		what; \
		return v ? XDP_PASS : XDP_DROP; \
	}

COST(empty, asm volatile("" : : "r"(&key) : "memory"))
COST(bare, __u64 *p = bpf_map_lookup_elem(&counter_total, &key); if (p) __sync_fetch_and_add(p, 1))
COST(increment, kaon_increment(&counter_total, &key))
COST(single, kaon_increment(&single_total, KAON_NONE))
COST(observe2, kaon_observe_ns(&schema2_seconds, &key, v))
COST(observe3, kaon_observe_ns(&schema3_seconds, &key, v))
COST(observe_one, kaon_observe(&sizes, &key, v))
COST(observe_bounds, kaon_observe_bounds(bounded, &key, v))
COST(slot, __u64 s = kaon_slot_of((struct kaon_histogram_schema2_seconds *)0, v); kaon_opaque(s))
COST(clock, __u64 t = kaon_now(); kaon_opaque(t))
