// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Attaches to what does not exist.");

KAON_COUNTER(broken_total, kaon_none_t, "Nothing.");

SEC("tp_btf/no_such_tracepoint")
int absent(void *ctx)
{
	kaon_increment(&broken_total, KAON_NONE);
	return 0;
}
