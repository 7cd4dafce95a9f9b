// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Functions whose sections do not say what to attach to, beside such that do. One of those is called by a good one.
#include "test.h"

MAP(seen_total, BPF_MAP_TYPE_ARRAY, u32, 1);

SEC("kprobe")
int not_aimed(void *ctx)
{
	u32 zero = 0;

	count(&seen_total, &zero, 100);
	return 0;
}

SEC("fentry")
int not_known(void *ctx)
{
	return 0;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(u32));
	__array(values, int(void *));
} jumps SEC(".maps") = {.values = {(void *)&not_aimed}};

SEC("usdt/testdata/target:kaon:tick")
int on_probe(void *ctx)
{
	bpf_tail_call(ctx, &jumps, 0);
	return 0;
}

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 zero = 0;

	if (triggered(ctx))
		count(&seen_total, &zero, 1);
	return 0;
}
