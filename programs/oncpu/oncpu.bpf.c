// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Where threads spend their time: on a CPU, or off it and why; and their context switches.");

/* Why a thread is not on a CPU. */
enum wait {
	WAIT_RUNQUEUE = 1,
	WAIT_PREEMPTED,
	WAIT_IO,
	WAIT_SLEEPING,
	WAIT_BLOCKED,
	WAIT_IDLE,
	WAIT_STOPPED,
	WAIT_OTHER,
};

#define ON_CPU 0

struct key {
	kaon_workload_t workload;
};

struct usage {
	__u64 seconds KAON_NAME("oncpu_seconds_total") KAON_TYPE(counter) KAON_UNIT("seconds") KAON_SCALE(1, 1000000000)
		KAON_HELP("Time that threads ran on a CPU.");
	__u64 voluntary KAON_NAME("context_switches_voluntary_total") KAON_TYPE(counter)
		KAON_HELP("Times that a thread gave its CPU up because it had to wait for something.");
	__u64 involuntary KAON_NAME("context_switches_involuntary_total") KAON_TYPE(counter)
		KAON_HELP("Times that a CPU was taken from a thread that could have gone on.");
};

struct off_key {
	kaon_workload_t workload;
	enum wait reason;
	KAON_PAD(4);
};

KAON_METRICS_MAP(oncpu, HASH, struct key, struct usage, 4000) KAON_LIMIT(4000);
KAON_COUNTER_MAP(offcpu_seconds_total, HASH, struct off_key, 10000,
	"Time that threads did not run, by what they waited for, counted when they run again.")
	KAON_UNIT("seconds") KAON_SCALE(1, 1000000000) KAON_LIMIT(10000);

/*
 * What has been counted of a thread. The kernel adds up itself how long a thread ran, how long it
 * waited for a CPU and how often it was switched (/proc/PID/schedstat, /proc/PID/status). So what is counted
 * are the kernel's own figures, and a switch that was not seen is made good at the next one.
 */
struct thread {
	__u64 ran, waited;
	__u64 seen;	/* when it last left or got a CPU */
	__u32 reason;	/* enum wait, or ON_CPU */
	__u32 voluntary, involuntary;	/* switches, modulo 2^32 */
	__u32 unused;
};

/*
 * By the address of the task: exec of another than the main thread changes numbers.
 * Not task storage: kernels before 6.4 allocate it with kmalloc, which must not be called with a
 * run queue's lock held.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct thread);
} threads SEC(".maps");

/* Bits of task_struct.__state, the same on all kernels since 4.14. */
#define INTERRUPTIBLE 0x01
#define UNINTERRUPTIBLE 0x02
#define STOPPED 0x04
#define TRACED 0x08
#define DEAD 0x80
#define NOLOAD 0x400

static __always_inline __u32 reason_of(struct task_struct *task, bool preempt, __u32 state)
{
	if (preempt || !state)
		return WAIT_PREEMPTED;
	if (BPF_CORE_READ_BITFIELD(task, in_iowait))
		return WAIT_IO;
	if (state & INTERRUPTIBLE)
		return WAIT_SLEEPING;
	/* Kernel threads that wait for work, which the load does not count. */
	if (state & UNINTERRUPTIBLE)
		return state & NOLOAD ? WAIT_IDLE : WAIT_BLOCKED;
	if (state & (STOPPED | TRACED))
		return WAIT_STOPPED;
	return WAIT_OTHER;
}

static __always_inline void add_off(__u64 workload, __u32 reason, __u64 ns)
{
	struct off_key key = { .workload = workload, .reason = reason };

	kaon_add(&offcpu_seconds_total, &key, ns);
}

/* Counts what lies between leaving a CPU and getting one again. */
static __always_inline void add_absence(__u64 workload, struct thread *thread, __u64 waited, __u64 until)
{
	__u64 wait = waited > thread->waited ? waited - thread->waited : 0;
	__u64 gone = until > thread->seen ? until - thread->seen : 0;

	if (wait)
		add_off(workload, thread->reason == WAIT_PREEMPTED ? WAIT_PREEMPTED : WAIT_RUNQUEUE, wait);
	if (thread->reason != WAIT_PREEMPTED && gone > wait)
		add_off(workload, thread->reason, gone - wait);
}

static __always_inline void leave(struct task_struct *task, __u64 clock, bool preempt, __u32 state)
{
	__u64 address = (__u64)task, total = task->se.sum_exec_runtime, ran = 0, waited = task->sched_info.run_delay;
	__u32 reason = reason_of(task, preempt, state), voluntary = task->nvcsw, involuntary = task->nivcsw;
	__u32 more_voluntary = 0, more_involuntary = 0;
	struct key key = { .workload = kaon_task_workload(task) };
	struct thread *thread;
	struct usage *usage;

	thread = bpf_map_lookup_elem(&threads, &address);
	/* Less than before: another was at this address. */
	if (thread && total >= thread->ran && voluntary >= thread->voluntary && involuntary >= thread->involuntary) {
		ran = total - thread->ran;
		/* That it came back was not seen. */
		if (thread->reason != ON_CPU)
			add_absence(key.workload, thread, waited, clock - ran);
		more_voluntary = voluntary - thread->voluntary;
		more_involuntary = involuntary - thread->involuntary;
	} else if (task->sched_info.pcount == 1) {
		/* It is new, and its beginning was not seen. */
		ran = total;
		more_voluntary = voluntary;
		more_involuntary = involuntary;
		add_off(key.workload, WAIT_RUNQUEUE, waited);
	}
	usage = kaon_entry(&oncpu, &key);
	if (usage) {
		kaon_add_at(&usage->seconds, ran);
		if (more_voluntary)
			kaon_add_at(&usage->voluntary, more_voluntary);
		if (more_involuntary)
			kaon_add_at(&usage->involuntary, more_involuntary);
	}
	if (state & DEAD) {
		if (thread)
			bpf_map_delete_elem(&threads, &address);
	} else if (thread) {
		thread->ran = total;
		thread->waited = waited;
		thread->seen = clock;
		thread->reason = reason;
		thread->voluntary = voluntary;
		thread->involuntary = involuntary;
	} else {
		struct thread new = { .ran = total, .waited = waited, .seen = clock, .reason = reason,
			.voluntary = voluntary, .involuntary = involuntary };

		bpf_map_update_elem(&threads, &address, &new, BPF_ANY);
	}
}

static __always_inline void arrive(struct task_struct *task, __u64 clock)
{
	__u64 address = (__u64)task, total = task->se.sum_exec_runtime, workload = kaon_task_workload(task);
	__u64 queued = task->sched_info.last_queued, waited = task->sched_info.run_delay;
	struct thread *thread;

	/* What the kernel is about to add. */
	if (queued && clock > queued)
		waited += clock - queued;
	thread = bpf_map_lookup_elem(&threads, &address);
	if (!thread || !task->sched_info.pcount || total < thread->ran) {
		struct thread new = { .ran = total, .waited = waited, .seen = clock,
			.voluntary = task->nvcsw, .involuntary = task->nivcsw };

		if (!task->sched_info.pcount && waited)
			add_off(workload, WAIT_RUNQUEUE, waited);
		bpf_map_update_elem(&threads, &address, &new, BPF_ANY);
		return;
	}
	if (thread->reason == ON_CPU) {
		/* It left without being seen. */
		struct key key = { .workload = workload };
		struct usage *usage = kaon_entry(&oncpu, &key);

		if (usage)
			kaon_add_at(&usage->seconds, total - thread->ran);
		thread->seen += total - thread->ran;
		thread->reason = WAIT_OTHER;
	}
	add_absence(workload, thread, waited, clock);
	thread->ran = total;
	thread->waited = waited;
	thread->seen = clock;
	thread->reason = ON_CPU;
}

static __always_inline int switched(bool preempt, struct task_struct *previous, struct task_struct *next, __u32 state)
{
	/* The run queue's clock, which has just been set. */
	__u64 clock = next->se.cfs_rq->rq->clock;

	if (previous->pid && kaon_task_in_scope(previous))
		leave(previous, clock, preempt, state);
	if (next->pid && kaon_task_in_scope(next))
		arrive(next, clock);
	return 0;
}

/* Since 5.18 the state is an argument. */
SEC("tp_btf/sched_switch") KAON_ALTERNATIVE(sched_switch, 1)
int BPF_PROG(sched_switch, bool preempt, struct task_struct *previous, struct task_struct *next, unsigned int state)
{
	return switched(preempt, previous, next, state);
}

struct task_struct___new {
	unsigned int __state;
} KAON_CORE;

struct task_struct___old {
	volatile long int state;
} KAON_CORE;

SEC("tp_btf/sched_switch") KAON_ALTERNATIVE(sched_switch, 2)
int BPF_PROG(sched_switch_without_state, bool preempt, struct task_struct *previous, struct task_struct *next)
{
	__u32 state;

	if (bpf_core_field_exists(struct task_struct___new, __state))
		state = ((struct task_struct___new *)previous)->__state;
	else
		state = ((struct task_struct___old *)previous)->state;
	/* It may have been woken already: what it waited for is not known any more. */
	if (!state && !previous->on_rq)
		state = ~(INTERRUPTIBLE | UNINTERRUPTIBLE | STOPPED | TRACED | DEAD);
	return switched(preempt, previous, next, state);
}

/* Threads that stay on a CPU are counted once a second. Interrupts are off while threads are switched. */
SEC("perf_event/config=cpu_clock,period=1000000000") KAON_OPTIONAL
int each_second(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 address = (__u64)task, total = BPF_CORE_READ(task, se.sum_exec_runtime);
	struct key key = {};
	struct thread *thread;
	struct usage *usage;

	if (!BPF_CORE_READ(task, pid) || !kaon_in_scope())
		return 0;
	thread = bpf_map_lookup_elem(&threads, &address);
	if (!thread) {
		struct thread new = { .ran = total, .waited = BPF_CORE_READ(task, sched_info.run_delay),
			.seen = BPF_CORE_READ(task, se.cfs_rq, rq, clock),
			.voluntary = BPF_CORE_READ(task, nvcsw), .involuntary = BPF_CORE_READ(task, nivcsw) };

		bpf_map_update_elem(&threads, &address, &new, BPF_ANY);
		return 0;
	}
	if (thread->reason != ON_CPU || total <= thread->ran)
		return 0;
	key.workload = kaon_workload();
	usage = kaon_entry(&oncpu, &key);
	if (usage) {
		kaon_add_at(&usage->seconds, total - thread->ran);
		thread->seen += total - thread->ran;
		thread->ran = total;
	}
	return 0;
}
