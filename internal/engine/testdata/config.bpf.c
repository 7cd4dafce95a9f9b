// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What libbpf's loader tells about the kernel. */
#include "test.h"

extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool LINUX_HAS_SYSCALL_WRAPPER __kconfig;
extern int LINUX_KAON_KNOWS_NOT __kconfig __weak;
extern int CONFIG_KAON_NUMBER __kconfig;
extern unsigned long CONFIG_KAON_ADDRESS __kconfig;
extern _Bool CONFIG_KAON_YES __kconfig;
extern enum libbpf_tristate CONFIG_KAON_MODULE __kconfig;
extern char CONFIG_KAON_LETTER __kconfig;
extern char CONFIG_KAON_TEXT[5] __kconfig;
extern int CONFIG_KAON_LACKING __kconfig __weak;
extern int CONFIG_KAON_ABSENT __kconfig;
extern _Bool CONFIG_KAON_TOO_LARGE __kconfig;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 16);
	__type(key, __u32);
	__type(value, __u64);
} values SEC(".maps");

static __always_inline void put(__u32 index, __u64 value)
{
	bpf_map_update_elem(&values, &index, &value, BPF_ANY);
}

/* Functions that are called have loads of their own. */
static __attribute__((noinline)) int lacking(void)
{
	return CONFIG_KAON_LACKING ? 1 : 77;
}

SEC("raw_tp/sys_enter")
int abilities(void *ctx)
{
	if (!observed())
		return 0;
	put(0, LINUX_KERNEL_VERSION);
	put(1, LINUX_HAS_SYSCALL_WRAPPER);
	put(2, LINUX_KAON_KNOWS_NOT + 1);
	return 0;
}

SEC("raw_tp/sys_enter")
int options(void *ctx)
{
	if (!observed())
		return 0;
	put(3, CONFIG_KAON_NUMBER);
	put(4, CONFIG_KAON_ADDRESS);
	put(5, CONFIG_KAON_YES);
	put(6, CONFIG_KAON_MODULE);
	put(7, CONFIG_KAON_LETTER);
	put(8, CONFIG_KAON_TEXT[0]);
	put(9, CONFIG_KAON_TEXT[3]);
	put(10, CONFIG_KAON_TEXT[4] + 1);
	put(11, lacking());
	return 0;
}

SEC("raw_tp/sys_enter")
int absent(void *ctx)
{
	return CONFIG_KAON_ABSENT;
}

SEC("raw_tp/sys_enter")
int too_large(void *ctx)
{
	return CONFIG_KAON_TOO_LARGE;
}
