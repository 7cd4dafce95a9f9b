// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Sends a record for each call of one system call.");

KAON_PARAM(__u64, number, 0, "The system call.");

struct record {
	kaon_workload_t workload;
	kaon_comm_t comm;
	__u32 size;
	__u32 pad KAON_SKIP;
};

KAON_STREAM(calls, struct record, 65536, "Calls.");

SEC("raw_tp/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct record *r;

	if (id != number || !kaon_in_scope())
		return 0;
	r = kaon_reserve(calls);
	if (!r)
		return 0;
	r->workload = kaon_workload();
	bpf_get_current_comm(r->comm, sizeof(r->comm));
	r->size = 3;
	r->pad = 0;
	kaon_submit(r);
	return 0;
}
