// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Spans with and without parents.
#include "test.h"

struct span {
	u64 trace_id_hi;
	u64 trace_id_lo;
	u64 parent;
	u64 id;
	u64 start;
	u64 duration;
	char text[6];
	u16 number;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} trigger_spans SEC(".maps");

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 n = triggered(ctx) & 0xff;
	struct span *span;

	if (!n)
		return 0;
	span = bpf_ringbuf_reserve(&trigger_spans, sizeof(*span), 0);
	if (!span)
		return 0;
	span->trace_id_hi = 0x1122334455667788;
	span->trace_id_lo = n == 3 ? 0 : 1;
	if (n == 3)
		span->trace_id_hi = 0;
	span->parent = n == 2 ? 0x0100000000000000 : 0;
	span->id = n == 1 ? 0x0100000000000000 : 0;
	span->start = bpf_ktime_get_ns();
	span->duration = 1000 * n;
	__builtin_memcpy(span->text, "a\xff", 3);
	span->number = n;
	bpf_ringbuf_submit(span, 0);
	return 0;
}
