// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Computes the slot of a value in every way there is.
#include "kaon.h"

KAON_PROGRAM("Computes slots.");

#define BATCH 64

struct slots {
	// Wide ranges: the index itself. By schema.
	__u64 one[6], ns[6];
	// Bounded ranges, zero apart from one, and the default of KAON_HISTOGRAM.
	__u64 one_0_20, one_minus1_8, ns_default, ns_seconds, bounds_3, bounds_1, bounds_63;
};

__u64 values[BATCH] SEC(".data.values");
struct slots results[BATCH] SEC(".data.results");

KAON_HISTOGRAM_TYPE(latency, ns, 2, -20, 6);
KAON_HISTOGRAM_TYPE(seconds, ns, 3, 0, 10);

static const __u64 bounds3[64] = { 1, 10, 1000, [3 ... 63] = KAON_MAX_BOUND };
static const __u64 bounds1[64] = { 5, [1 ... 63] = KAON_MAX_BOUND };
#define EIGHT(n) (n), (n) + 3, (n) + 5, (n) + 11, (n) + 12, (n) + 13, (n) + 50, (n) + 99
static const __u64 bounds63[64] = { EIGHT(0), EIGHT(100), EIGHT(200), EIGHT(300), EIGHT(1000), EIGHT(1ULL << 20),
	EIGHT(1ULL << 40), (1ULL << 60), (1ULL << 60) + 1, (1ULL << 61), (1ULL << 61) + 7, (1ULL << 62),
	(1ULL << 62) + 1, KAON_MAX_BOUND - 1, [63] = KAON_MAX_BOUND };

#define SCHEMA(n) \
	r->one[n] = kaon_slot(v, KAON_UNIT_one, n, -1, 64); \
	r->ns[n] = kaon_slot(v, KAON_UNIT_ns, n, -31, 35);

SEC("raw_tp/sys_enter")
int slots(void *ctx)
{
	struct latency *latency = 0;
	struct seconds *seconds = 0;

	for (int i = 0; i < BATCH; i++) {
		struct slots *r = &results[i];
		__u64 v = values[i];
		SCHEMA(0) SCHEMA(1) SCHEMA(2) SCHEMA(3) SCHEMA(4) SCHEMA(5)
		r->one_0_20 = kaon_slot(v, KAON_UNIT_one, 1, 0, 20);
		r->one_minus1_8 = kaon_slot(v, KAON_UNIT_one, 0, -1, 8);
		r->ns_default = kaon_slot_of(latency, v);
		r->ns_seconds = kaon_slot_of(seconds, v);
		r->bounds_3 = kaon_bounds_slot(v, bounds3, 3);
		r->bounds_1 = kaon_bounds_slot(v, bounds1, 1);
		r->bounds_63 = kaon_bounds_slot(v, bounds63, 63);
	}
	return 0;
}
