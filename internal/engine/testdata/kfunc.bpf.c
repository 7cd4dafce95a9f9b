// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Calls a function that no kernel has. */
#include "test.h"

extern int kaon_no_such_kfunc(void) __ksym;

SEC("iter/bpf_map")
int lacks_kfunc(void *ctx)
{
	return kaon_no_such_kfunc();
}
