// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("What the agent that is measured asks the kernel for.");

struct key {
	__u32 command;
	KAON_WIDE;
};

KAON_COUNTER(bpf_calls_total, struct key, "Calls of bpf(), by command.");
KAON_COUNTER(kallsyms_opened_total, kaon_none_t, "Times that /proc/kallsyms was opened.");

static const char kallsyms[] = "/proc/kallsyms";

SEC("tracepoint/syscalls/sys_enter_bpf")
int enter_bpf(struct trace_event_raw_sys_enter *ctx)
{
	struct key key = {.command = ctx->args[0]};

	if (kaon_in_scope())
		kaon_increment(&bpf_calls_total, &key);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_openat")
int enter_openat(struct trace_event_raw_sys_enter *ctx)
{
	char path[16] = {};

	if (!kaon_in_scope() || bpf_probe_read_user_str(path, sizeof(path), (void *)ctx->args[1]) != sizeof(kallsyms))
		return 0;
	for (int i = 0; i < sizeof(kallsyms); i++)
		if (path[i] != kallsyms[i])
			return 0;
	kaon_increment(&kallsyms_opened_total, KAON_NONE);
	return 0;
}
