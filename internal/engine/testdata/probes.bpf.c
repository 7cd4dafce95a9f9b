// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "test.h"

COUNTER(by_kprobe);
COUNTER(by_kretprobe);
COUNTER(by_ksyscall);
COUNTER(by_kprobe_multi);
COUNTER(by_fentry);
COUNTER(by_fexit);
COUNTER(by_lsm);
COUNTER(by_uprobe);
COUNTER(by_uretprobe);
COUNTER(by_uprobe_multi);
COUNTER(by_perf_event);

SEC("kprobe/__x64_sys_getppid")
int on_kprobe(void *ctx)
{
	if (observed())
		count(&by_kprobe);
	return 0;
}

SEC("kretprobe/__x64_sys_getppid")
int on_kretprobe(void *ctx)
{
	if (observed())
		count(&by_kretprobe);
	return 0;
}

SEC("ksyscall/getppid")
int on_ksyscall(void *ctx)
{
	if (observed())
		count(&by_ksyscall);
	return 0;
}

SEC("kprobe.multi/__x64_sys_getpp*")
int on_kprobe_multi(void *ctx)
{
	if (observed())
		count(&by_kprobe_multi);
	return 0;
}

SEC("fentry/__x64_sys_getpgid")
int on_fentry(void *ctx)
{
	if (observed())
		count(&by_fentry);
	return 0;
}

SEC("fexit/__x64_sys_getpgid")
int on_fexit(void *ctx)
{
	if (observed())
		count(&by_fexit);
	return 0;
}

SEC("lsm/file_open")
int on_lsm(void *ctx)
{
	if (observed())
		count(&by_lsm);
	return 0;
}

SEC("uprobe")
int on_uprobe(void *ctx)
{
	count(&by_uprobe);
	return 0;
}

SEC("uretprobe")
int on_uretprobe(void *ctx)
{
	count(&by_uretprobe);
	return 0;
}

SEC("uprobe.multi/x")
int on_uprobe_multi(void *ctx)
{
	count(&by_uprobe_multi);
	return 0;
}

SEC("perf_event")
int on_perf_event(void *ctx)
{
	if (observed())
		count(&by_perf_event);
	return 0;
}
