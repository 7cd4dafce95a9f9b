// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// A map of as many series as a benchmark likes, which it fills itself.
#include "kaon.h"

KAON_PROGRAM("Series to be scraped.");

struct key {
	__u32 first;
	__u32 second;
	char name[16];
};

KAON_COUNTER_MAP(bench_total, HASH, struct key, 100000, "A counter with 24 bytes of key.") KAON_LIMIT(100000);

/* Keeps the map in use; getppid is what hardly anybody calls. */
SEC("tracepoint/syscalls/sys_enter_getppid")
int touch(void *ctx)
{
	struct key key = {.name = "touched"};

	if (kaon_in_scope())
		kaon_increment(&bench_total, &key);
	return 0;
}
