// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Threads and processes by state, read at scrape time.");

enum task_state {
	TASK_STATE_RUNNING,
	TASK_STATE_SLEEPING,
	TASK_STATE_BLOCKED,
	TASK_STATE_IDLE,
	TASK_STATE_STOPPED,
	TASK_STATE_TRACED,
	TASK_STATE_PARKED,
	TASK_STATE_ZOMBIE,
	TASK_STATE_DEAD,
	TASK_STATE_OTHER,
};

/* Bits of task_struct.__state and .exit_state, the same on all kernels since 4.14. */
#define INTERRUPTIBLE 0x01
#define UNINTERRUPTIBLE 0x02
#define STOPPED 0x04
#define TRACED 0x08
#define EXIT_DEAD_BIT 0x10
#define EXIT_ZOMBIE_BIT 0x20
#define PARKED 0x40
#define NOLOAD 0x400

struct key {
	kaon_workload_t workload;
	enum task_state state;
	KAON_PAD(4);
};

struct number {
	__s64 threads KAON_NAME("tasks") KAON_TYPE(gauge) KAON_HELP("Threads, by state.");
	__s64 processes KAON_NAME("processes") KAON_TYPE(gauge) KAON_HELP("Processes, by the state of their main thread.");
};

KAON_ITERATOR_METRICS(tasks, struct key, struct number, count_tasks);

/* Since 5.14 the state has 32 bits and another name. */
struct task_struct___new {
	unsigned int __state;
} KAON_CORE;

struct task_struct___old {
	volatile long int state;
} KAON_CORE;

static __always_inline enum task_state state_of(struct task_struct *task)
{
	__u32 state;

	if (task->exit_state & EXIT_ZOMBIE_BIT)
		return TASK_STATE_ZOMBIE;
	if (task->exit_state & EXIT_DEAD_BIT)
		return TASK_STATE_DEAD;
	if (bpf_core_field_exists(struct task_struct___new, __state))
		state = ((struct task_struct___new *)task)->__state;
	else
		state = ((struct task_struct___old *)task)->state;
	if (!state)
		return TASK_STATE_RUNNING;
	if (state & INTERRUPTIBLE)
		return TASK_STATE_SLEEPING;
	/* Kernel threads that wait for work, which the load does not count. */
	if (state & UNINTERRUPTIBLE)
		return state & NOLOAD ? TASK_STATE_IDLE : TASK_STATE_BLOCKED;
	if (state & STOPPED)
		return TASK_STATE_STOPPED;
	if (state & TRACED)
		return TASK_STATE_TRACED;
	if (state & PARKED)
		return TASK_STATE_PARKED;
	return TASK_STATE_OTHER;
}

SEC("iter/task")
int count_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct key key = {};
	struct number number = {.threads = 1};

	if (!task || !kaon_task_in_scope(task))
		return 0;
	key.workload = kaon_task_workload(task);
	key.state = state_of(task);
	number.processes = task->pid == task->tgid;
	kaon_emit(ctx->meta->seq, &tasks, &key, &number);
	return 0;
}
