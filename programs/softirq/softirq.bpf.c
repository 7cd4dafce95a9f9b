// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Soft interrupts: how many of each vector, and how long they kept their CPU.");

/* The kernel's own numbers, which are the same on all versions. */
enum vector {
	VECTOR_HI,
	VECTOR_TIMER,
	VECTOR_NET_TX,
	VECTOR_NET_RX,
	VECTOR_BLOCK,
	VECTOR_IRQ_POLL,
	VECTOR_TASKLET,
	VECTOR_SCHED,
	VECTOR_HRTIMER,
	VECTOR_RCU,
};

#define VECTORS 10

struct key {
	enum vector vector;
};

KAON_HISTOGRAM_MAP(softirq_duration_seconds, PERCPU_ARRAY, struct key, VECTORS, ns, 2, -22, 2,
	"Time that a soft interrupt's handler ran, interruptions included.") KAON_UNIT("seconds");

/* When the handler began that runs on this CPU; 0 if none does. They don't nest. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} began SEC(".maps");

SEC("tp_btf/softirq_entry")
int BPF_PROG(softirq_entry, unsigned int vector)
{
	const __u32 zero = 0;
	__u64 *begin = bpf_map_lookup_elem(&began, &zero);

	if (begin)
		*begin = kaon_now();
	return 0;
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(softirq_exit, unsigned int vector)
{
	const __u32 zero = 0;
	__u64 *begin = bpf_map_lookup_elem(&began, &zero);
	struct key key = { .vector = vector };

	if (!begin || !*begin)
		return 0;
	kaon_observe_ns(&softirq_duration_seconds, &key, kaon_now() - *begin);
	*begin = 0;
	return 0;
}
