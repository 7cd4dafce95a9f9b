// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// How the kernel was built.
#include "test.h"

extern int CONFIG_HZ __kconfig;
extern _Bool CONFIG_KAON_NO_SUCH_OPTION __kconfig __weak;

MAP(configured_total, BPF_MAP_TYPE_HASH, u64, 16);

SEC("raw_tp/sys_enter")
int on_call(struct bpf_raw_tracepoint_args *ctx)
{
	u64 hz = CONFIG_HZ;

	if (triggered(ctx))
		count(&configured_total, &hz, CONFIG_KAON_NO_SUCH_OPTION ? 100 : 1);
	return 0;
}
