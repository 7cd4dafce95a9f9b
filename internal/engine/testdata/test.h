/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The few kernel types that the engine's test objects need, so that no vmlinux.h is. */
#ifndef KAON_ENGINE_TEST_H
#define KAON_ENGINE_TEST_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Only this process is observed; 0: nobody. */
const volatile __u32 test_tgid = 0;

static __always_inline int observed(void)
{
	return test_tgid && bpf_get_current_pid_tgid() >> 32 == test_tgid;
}

#define COUNTER(name) \
	struct { \
		__uint(type, BPF_MAP_TYPE_ARRAY); \
		__uint(max_entries, 1); \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__type(key, __u32); \
		__type(value, __u64); \
	} name SEC(".maps")

static __always_inline void count(void *map)
{
	__u32 zero = 0;
	__u64 *value = bpf_map_lookup_elem(map, &zero);
	if (value)
		__sync_fetch_and_add(value, 1);
}

#endif
