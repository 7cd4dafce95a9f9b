// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"
#include "kaon_syscall.h"

KAON_PROGRAM("How long fsync and its like take, and what they fail with, by filesystem.");

enum operation {
	OPERATION_NONE,
	OPERATION_FSYNC,
	OPERATION_FDATASYNC,
	OPERATION_SYNC_FILE_RANGE,
	OPERATION_MSYNC,
	OPERATION_SYNCFS,
	OPERATION_SYNC,
};

struct sync_key {
	kaon_workload_t workload;
	enum operation operation;
	char filesystem[16];
	KAON_PAD(4);
};

struct error_key {
	kaon_workload_t workload;
	enum operation operation;
	char filesystem[16];
	kaon_errno_t errno;
};

KAON_HISTOGRAM_MAP(fsync_latency_seconds, HASH, struct sync_key, 4000, ns, 2, -20, 6,
	"Time that a thread waited in fsync, fdatasync and the like.") KAON_UNIT("seconds") KAON_LIMIT(4000);
KAON_COUNTER_MAP(fsync_errors_total, HASH, struct error_key, 4000, "Calls of fsync, fdatasync and the like that failed.") KAON_LIMIT(4000);

struct thread {
	__u64 id;
};

KAON_STARTS(starts, struct thread, 8192);

static __always_inline int begin(void)
{
	struct thread thread = {.id = bpf_get_current_pid_tgid()};

	if (kaon_in_scope())
		kaon_start(&starts, &thread);
	return 0;
}

static __always_inline int end(enum operation operation, struct pt_regs *regs, long result)
{
	struct thread thread = {.id = bpf_get_current_pid_tgid()};
	struct sync_key key = {};
	__u64 elapsed = kaon_elapsed(&starts, &thread);

	if (!elapsed)
		return 0;
	key.workload = kaon_workload();
	key.operation = operation;
	/* The others have no file, or only an address. */
	if (operation != OPERATION_MSYNC && operation != OPERATION_SYNC)
		kaon_filesystem_probe(key.filesystem, kaon_file(kaon_syscall_argument(regs, 0)));
	kaon_observe_ns(&fsync_latency_seconds, &key, elapsed);
	if (result < 0) {
		struct error_key failed = {.workload = key.workload, .operation = operation, .errno = -result};

		__builtin_memcpy(failed.filesystem, key.filesystem, sizeof(failed.filesystem));
		kaon_increment(&fsync_errors_total, &failed);
	}
	return 0;
}

static __always_inline enum operation operation_of(struct pt_regs *regs)
{
	long number = kaon_syscall_number(regs);

	if (number == KAON_SYSCALL(74, 82))
		return OPERATION_FSYNC;
	if (number == KAON_SYSCALL(75, 83))
		return OPERATION_FDATASYNC;
	if (number == KAON_SYSCALL(277, 84))
		return OPERATION_SYNC_FILE_RANGE;
	if (number == KAON_SYSCALL(26, 227))
		return OPERATION_MSYNC;
	if (number == KAON_SYSCALL(306, 267))
		return OPERATION_SYNCFS;
	if (number == KAON_SYSCALL(162, 81))
		return OPERATION_SYNC;
	return OPERATION_NONE;
}

/*
 * Trampolines on the calls themselves: nothing else of the machine becomes slower. With those of fsync, all
 * others exist, too, but on the other architecture.
 */
#define CALL(name, operation) \
	SEC("fentry/__x64_sys_" #name) KAON_ALTERNATIVE(name##_begin, 1) KAON_OPTIONAL \
	int BPF_PROG(name##_begin) { return begin(); } \
	SEC("fexit/__x64_sys_" #name) KAON_ALTERNATIVE(name##_end, 1) KAON_OPTIONAL \
	int BPF_PROG(name##_end, struct pt_regs *regs, long result) { return end(operation, regs, result); } \
	SEC("fentry/__arm64_sys_" #name) KAON_ALTERNATIVE(name##_begin, 2) KAON_OPTIONAL \
	int BPF_PROG(name##_begin_arm64) { return begin(); } \
	SEC("fexit/__arm64_sys_" #name) KAON_ALTERNATIVE(name##_end, 2) KAON_OPTIONAL \
	int BPF_PROG(name##_end_arm64, struct pt_regs *regs, long result) { return end(operation, regs, result); }

CALL(fsync, OPERATION_FSYNC)
CALL(fdatasync, OPERATION_FDATASYNC)
CALL(sync_file_range, OPERATION_SYNC_FILE_RANGE)
CALL(msync, OPERATION_MSYNC)
CALL(syncfs, OPERATION_SYNCFS)

struct pt_regs___x86 {
	long ax;
} KAON_CORE;

struct pt_regs___arm64 {
	__u64 regs[31];
} KAON_CORE;

/* Some kernels' BTF has this function twice (Debian's 6.1): then there can't be a trampoline. */
SEC("ksyscall/msync") KAON_ALTERNATIVE(msync_begin, 3) KAON_OPTIONAL
int msync_begin_kprobe(struct pt_regs *regs)
{
	return begin();
}

SEC("kretsyscall/msync") KAON_ALTERNATIVE(msync_end, 3) KAON_OPTIONAL
int msync_end_kprobe(struct pt_regs *regs)
{
	if (kaon_is_x86())
		return end(OPERATION_MSYNC, 0, ((struct pt_regs___x86 *)regs)->ax);
	return end(OPERATION_MSYNC, 0, ((struct pt_regs___arm64 *)regs)->regs[0]);
}

SEC("fentry/ksys_sync") KAON_OPTIONAL
int BPF_PROG(sync_begin)
{
	return begin();
}

SEC("fexit/ksys_sync") KAON_OPTIONAL
int BPF_PROG(sync_end)
{
	return end(OPERATION_SYNC, 0, 0);
}

/* Where the kernel refuses those: all calls, in which the six are looked for. */
SEC("tp_btf/sys_enter") KAON_ALTERNATIVE(fsync_begin, 3)
int BPF_PROG(call_begins, struct pt_regs *regs)
{
	return operation_of(regs) ? begin() : 0;
}

SEC("tp_btf/sys_exit") KAON_ALTERNATIVE(fsync_end, 3)
int BPF_PROG(call_ends, struct pt_regs *regs, long result)
{
	enum operation operation = operation_of(regs);

	return operation ? end(operation, regs, result) : 0;
}
