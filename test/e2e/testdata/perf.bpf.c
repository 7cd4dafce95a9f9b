// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Samples of a clock on each CPU.");

KAON_COUNTER(test_samples_total, kaon_none_t, "Samples.");

SEC("perf_event/type=software,config=cpu_clock,frequency=20")
int sample(void *ctx)
{
	kaon_increment(&test_samples_total, KAON_NONE);
	return 0;
}
