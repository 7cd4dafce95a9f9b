// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A system call's function and a probe in one object: each asks for another variable of the kernel's configuration.
#define __TARGET_ARCH_x86
/* What bpf_tracing.h needs, by the names that the kernel has. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
} __attribute__((preserve_access_index));
#define __VMLINUX_H__
#define bool _Bool
#include "test.h"
#include <bpf/usdt.bpf.h>

MAP(calls_total, BPF_MAP_TYPE_HASH, u64, 16);

SEC("usdt/testdata/target:kaon:tick")
int BPF_USDT(on_probe, long first, long second, long third)
{
	u64 key = third;

	count(&calls_total, &key, 1);
	return 0;
}

SEC("ksyscall/getpgid")
int BPF_KSYSCALL(on_getpgid, u32 number)
{
	u64 key = number & 0xff;

	if ((number & ~0xff) == (MAGIC & ~0xff))
		count(&calls_total, &key, 1);
	return 0;
}
