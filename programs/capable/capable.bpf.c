// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Capabilities that workloads use, and that they lack.");

KAON_PARAM(bool, denied_only, false, "Count denials only: cheaper where many checks are granted.");

enum capability {
	CAPABILITY_CHOWN, CAPABILITY_DAC_OVERRIDE, CAPABILITY_DAC_READ_SEARCH, CAPABILITY_FOWNER, CAPABILITY_FSETID,
	CAPABILITY_KILL, CAPABILITY_SETGID, CAPABILITY_SETUID, CAPABILITY_SETPCAP, CAPABILITY_LINUX_IMMUTABLE,
	CAPABILITY_NET_BIND_SERVICE, CAPABILITY_NET_BROADCAST, CAPABILITY_NET_ADMIN, CAPABILITY_NET_RAW, CAPABILITY_IPC_LOCK,
	CAPABILITY_IPC_OWNER, CAPABILITY_SYS_MODULE, CAPABILITY_SYS_RAWIO, CAPABILITY_SYS_CHROOT, CAPABILITY_SYS_PTRACE,
	CAPABILITY_SYS_PACCT, CAPABILITY_SYS_ADMIN, CAPABILITY_SYS_BOOT, CAPABILITY_SYS_NICE, CAPABILITY_SYS_RESOURCE,
	CAPABILITY_SYS_TIME, CAPABILITY_SYS_TTY_CONFIG, CAPABILITY_MKNOD, CAPABILITY_LEASE, CAPABILITY_AUDIT_WRITE,
	CAPABILITY_AUDIT_CONTROL, CAPABILITY_SETFCAP, CAPABILITY_MAC_OVERRIDE, CAPABILITY_MAC_ADMIN, CAPABILITY_SYSLOG,
	CAPABILITY_WAKE_ALARM, CAPABILITY_BLOCK_SUSPEND, CAPABILITY_AUDIT_READ, CAPABILITY_PERFMON, CAPABILITY_BPF,
	CAPABILITY_CHECKPOINT_RESTORE,
};

enum result { RESULT_GRANTED, RESULT_DENIED };

struct key {
	kaon_workload_t workload;
	enum capability capability;
	enum result result;
};

KAON_COUNTER_MAP(capability_checks_total, PERCPU_HASH, struct key, 10000,
	"Times that the kernel checked whether a process has a capability.");

static __always_inline int count(int capability, int result)
{
	struct key key = {};

	if (denied_only && !result)
		return 0;
	if (!kaon_in_scope())
		return 0;
	key.workload = kaon_workload();
	key.capability = capability;
	key.result = result ? RESULT_DENIED : RESULT_GRANTED;
	kaon_increment(&capability_checks_total, &key);
	return 0;
}

SEC("tp_btf/cap_capable") KAON_ALTERNATIVE(check, 1)
int BPF_PROG(check_tracepoint, const struct cred *cred, struct user_namespace *target, const struct user_namespace *owner,
	int capability, int result)
{
	return count(capability, result);
}

SEC("fexit/cap_capable") KAON_ALTERNATIVE(check, 2)
int BPF_PROG(check_trampoline, const struct cred *cred, struct user_namespace *target, int capability, unsigned int options,
	int result)
{
	return count(capability, result);
}
