// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#define __TARGET_ARCH_x86
/* What bpf_tracing.h needs, by the names that the kernel has. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#define __VMLINUX_H__
#define bool _Bool
#include "test.h"
#include <bpf/usdt.bpf.h>

COUNTER(calls);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} arguments SEC(".maps");

SEC("usdt/target:kaon:tick")
int BPF_USDT(on_probe, long first, long second, long third)
{
	__u32 i = 0;
	__u64 v = first;
	count(&calls);
	bpf_map_update_elem(&arguments, &i, &v, BPF_ANY);
	i = 1; v = second;
	bpf_map_update_elem(&arguments, &i, &v, BPF_ANY);
	i = 2; v = third;
	bpf_map_update_elem(&arguments, &i, &v, BPF_ANY);
	i = 3; v = bpf_usdt_arg_cnt(ctx);
	bpf_map_update_elem(&arguments, &i, &v, BPF_ANY);
	return 0;
}
