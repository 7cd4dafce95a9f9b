// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Hard interrupts of devices: how many of each handler, and how long they kept their CPU.");

#define NAME_SIZE 32

struct key {
	__u32 irq;
	char name[NAME_SIZE];
};

KAON_HISTOGRAM_MAP(hardirq_duration_seconds, HASH, struct key, 2000, ns, 2, -22, 2,
	"Time that an interrupt handler ran.") KAON_UNIT("seconds") KAON_LIMIT(2000);

/* When the handler began that runs on this CPU; 0 if none does. They run with interrupts off. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} began SEC(".maps");

SEC("tp_btf/irq_handler_entry")
int BPF_PROG(irq_handler_entry, int irq, struct irqaction *action)
{
	const __u32 zero = 0;
	__u64 *begin = bpf_map_lookup_elem(&began, &zero);

	if (begin)
		*begin = kaon_now();
	return 0;
}

SEC("tp_btf/irq_handler_exit")
int BPF_PROG(irq_handler_exit, int irq, struct irqaction *action, int result)
{
	const __u32 zero = 0;
	__u64 *begin = bpf_map_lookup_elem(&began, &zero), elapsed;
	struct key key = { .irq = irq };

	if (!begin || !*begin)
		return 0;
	elapsed = kaon_now() - *begin;
	*begin = 0;
	bpf_probe_read_kernel_str(key.name, sizeof(key.name), action->name);
	kaon_observe_ns(&hardirq_duration_seconds, &key, elapsed);
	return 0;
}
