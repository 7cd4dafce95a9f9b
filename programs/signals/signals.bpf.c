// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Signals by name, receiver, sender and what became of them.");

KAON_PARAM(bool, child_exits, false, "Count SIGCHLD, too, which every process that ends sends to its parent.");

#define SIGCHLD 17

/* siginfo pointers that are none: a signal from a process, from the kernel. */
#define SEND_SIG_NOINFO 0
#define SEND_SIG_PRIV 1

/* Codes of signals that a process sends: all others come from the kernel. */
#define SI_USER 0
#define SI_QUEUE -1
#define SI_TKILL -6

enum origin { ORIGIN_KERNEL, ORIGIN_PROCESS };

/* As the kernel's tracepoint has them. */
enum result { RESULT_DELIVERED, RESULT_IGNORED, RESULT_ALREADY_PENDING, RESULT_OVERFLOW_FAIL, RESULT_LOSE_INFO };

struct key {
	kaon_workload_t workload;
	kaon_workload_t sender KAON_OMIT_ZERO;
	kaon_signal_t signal;
	enum origin origin;
	enum result result;
	KAON_PAD(4);
};

KAON_COUNTER_MAP(signals_total, HASH, struct key, 5000,
	"Signals, by receiver and, if a process sent them, by sender.") KAON_LIMIT(5000);

static __always_inline enum origin origin_of(struct kernel_siginfo *info)
{
	__u64 address = (__u64)info;
	int code;

	if (address <= SEND_SIG_PRIV)
		return address == SEND_SIG_NOINFO ? ORIGIN_PROCESS : ORIGIN_KERNEL;
	code = BPF_CORE_READ(info, si_code);
	return code == SI_USER || code == SI_QUEUE || code == SI_TKILL ? ORIGIN_PROCESS : ORIGIN_KERNEL;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(signal_generate, int signal, struct kernel_siginfo *info, struct task_struct *receiver, int group, int result)
{
	struct key key = {};

	if ((signal == SIGCHLD && !child_exits) || !kaon_task_in_scope(receiver))
		return 0;
	key.origin = origin_of(info);
	if (key.origin == ORIGIN_PROCESS)
		key.sender = kaon_workload();
	key.workload = kaon_task_workload(receiver);
	key.signal = signal;
	key.result = result;
	kaon_increment(&signals_total, &key);
	return 0;
}
