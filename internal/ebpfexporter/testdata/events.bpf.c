// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Records that are counted by their labels in user space.
#include "test.h"

struct record {
	u8 number;
	u32 length;
	char text[8];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u32));
} events_total SEC(".maps");

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 n = triggered(ctx);
	struct record record = { .text = "abc" };

	if (!n)
		return 0;
	record.number = n;
	record.length = n & 1;
	bpf_perf_event_output(ctx, &events_total, BPF_F_CURRENT_CPU, &record, sizeof(record));
	return 0;
}
