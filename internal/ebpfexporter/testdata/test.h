/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Maps and a trigger for test configurations. Nobody but a test calls getpgid with these numbers. */
#ifndef KAON_EBPF_EXPORTER_TEST_H
#define KAON_EBPF_EXPORTER_TEST_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define MAP(name, map_type, key_type, entries) \
	struct { \
		__uint(type, map_type); \
		__uint(max_entries, entries); \
		__type(key, key_type); \
		__type(value, u64); \
	} name SEC(".maps")

#define MAGIC 0x6b616f6e

/* Only the register that holds a system call's first argument. */
struct pt_regs___x86 { unsigned long di; } __attribute__((preserve_access_index));
struct pt_regs___arm64 { u64 regs[31]; } __attribute__((preserve_access_index));

/* The first argument of getpgid if it is called with MAGIC or above, up to 255; else 0. */
static __always_inline u32 triggered(struct bpf_raw_tracepoint_args *ctx)
{
	u64 argument = 0;

	if (bpf_core_field_exists(((struct pt_regs___x86 *)0)->di)) {
		if (ctx->args[1] == 121)
			argument = BPF_CORE_READ((struct pt_regs___x86 *)ctx->args[0], di);
	} else if (ctx->args[1] == 155) {
		argument = BPF_CORE_READ((struct pt_regs___arm64 *)ctx->args[0], regs[0]);
	}
	return (argument & ~0xffULL) == (MAGIC & ~0xffULL) ? (u32)argument : 0;
}

static __always_inline void count(void *map, const void *key, u64 n)
{
	u64 zero = 0, *value = bpf_map_lookup_elem(map, key);

	if (!value) {
		bpf_map_update_elem(map, key, &zero, BPF_NOEXIST);
		value = bpf_map_lookup_elem(map, key);
	}
	if (value)
		__sync_fetch_and_add(value, n);
}

#endif
