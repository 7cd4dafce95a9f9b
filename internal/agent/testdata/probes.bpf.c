// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"
#include "kaon_usdt.h"

KAON_PROGRAM("Counts what a program does, by workload.");

struct key {
	kaon_workload_t workload;
};

KAON_COUNTER(test_work_total, struct key, "Calls of work().");
KAON_COUNTER(test_ticks_total, struct key, "Probes passed.");

SEC("uprobe//bin/app:work")
int work(void *ctx)
{
	struct key key = {.workload = kaon_workload()};

	if (kaon_in_scope())
		kaon_increment(&test_work_total, &key);
	return 0;
}

SEC("usdt//bin/app:kaon:tick")
int BPF_USDT(tick, int first)
{
	struct key key = {.workload = kaon_workload()};

	if (kaon_in_scope())
		kaon_increment(&test_ticks_total, &key);
	return 0;
}
