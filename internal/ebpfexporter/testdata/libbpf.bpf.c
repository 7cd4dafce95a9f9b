// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// What libbpf loads as its headers declare it: weak maps, maps without types, hidden functions, variables of the kernel and
// of its configuration.
#define __TARGET_ARCH_x86
/* What bpf_tracing.h needs, by the names that the kernel has. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#define __VMLINUX_H__
#define bool _Bool
#include "test.h"
#include <linux/version.h>
#include <bpf/usdt.bpf.h>

extern int LINUX_KERNEL_VERSION __kconfig;
extern bool LINUX_HAS_SYSCALL_WRAPPER __kconfig;
extern const int kaon_no_such_variable __ksym __weak;
extern const void kaon_no_such_symbol __ksym __weak;

MAP(probes_total, BPF_MAP_TYPE_HASH, u64, 16) __weak;

/* Nothing says what its key and value are. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__uint(key_size, sizeof(u32));
	__uint(value_size, sizeof(u64));
} sized_total SEC(".maps");

SEC("usdt/testdata/target:kaon:tick")
int BPF_USDT(on_probe, long first, long second, long third)
{
	u64 key = third;
	u32 one = 1;

	if (&kaon_no_such_variable || &kaon_no_such_symbol)
		key = 0;
	if (LINUX_KERNEL_VERSION < KERNEL_VERSION(5, 4, 0) || !LINUX_HAS_SYSCALL_WRAPPER)
		key = 1;
	count(&probes_total, &key, 1);
	count(&sized_total, &one, 2);
	return 0;
}
