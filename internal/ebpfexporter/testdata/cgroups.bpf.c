// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Only cgroups that the configuration names are counted, by path; and the address of a kernel symbol.
#include "test.h"

MAP(wanted, BPF_MAP_TYPE_HASH, u64, 1024);
MAP(triggers_total, BPF_MAP_TYPE_HASH, u64, 1024);
MAP(all_triggers_total, BPF_MAP_TYPE_HASH, u64, 1024);
MAP(symbols_total, BPF_MAP_TYPE_HASH, u64, 16);

const volatile u64 kaddr_vfs_read = 0;

SEC("raw_tp/sys_enter")
int on_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u64 id, symbol = kaddr_vfs_read;

	if (!triggered(ctx))
		return 0;
	id = bpf_get_current_cgroup_id();
	count(&all_triggers_total, &id, 1);
	if (bpf_map_lookup_elem(&wanted, &id))
		count(&triggers_total, &id, 1);
	count(&symbols_total, &symbol, 1);
	return 0;
}
