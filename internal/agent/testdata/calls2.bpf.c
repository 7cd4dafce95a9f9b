// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("The same with another help, to be reloaded to.");

KAON_PARAM(__u64, number, 0, "The system call.");

struct key {
	kaon_comm_t comm;
};

KAON_COUNTER(test_calls_total, struct key, "Calls, counted.");

SEC("raw_tp/sys_enter")
int BPF_PROG(enter, struct pt_regs *regs, long id)
{
	struct key key = {};

	if (id != number || !kaon_in_scope())
		return 0;
	bpf_get_current_comm(key.comm, sizeof(key.comm));
	kaon_increment(&test_calls_total, &key);
	return 0;
}
