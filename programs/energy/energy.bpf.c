// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Energy and CO2 by workload, estimated from CPU time; and what the processors' meters say.");

KAON_PARAM(__u32, busy_milliwatts, 3500, "Power of a busy CPU (a hardware thread), with its share of the machine, in mW.");
KAON_PARAM(__u32, idle_milliwatts, 740, "Power of an idle CPU, with its share of the machine, in mW. 0: idle time is not counted.");
KAON_PARAM(__u32, grams_per_kwh, 480, "CO2 that making one kWh of the machine's electricity emits, in g.");

struct key {
	kaon_workload_t workload;
};

/* Micro and nano: 64 bits of either last for centuries. */
struct energy {
	__u64 joules KAON_NAME("energy_joules_total") KAON_TYPE(counter) KAON_UNIT("joules") KAON_SCALE(1, 1000000)
		KAON_HELP("Estimate: energy that the CPU time of a workload took.");
	__u64 grams KAON_NAME("energy_co2_grams_total") KAON_TYPE(counter) KAON_UNIT("grams") KAON_SCALE(1, 1000000000)
		KAON_HELP("Estimate: CO2 that was emitted for the energy of a workload.");
};

struct idle_energy {
	__u64 joules KAON_NAME("energy_idle_joules_total") KAON_TYPE(counter) KAON_UNIT("joules") KAON_SCALE(1, 1000000)
		KAON_HELP("Estimate: energy that idle CPUs took.");
	__u64 grams KAON_NAME("energy_idle_co2_grams_total") KAON_TYPE(counter) KAON_UNIT("grams") KAON_SCALE(1, 1000000000)
		KAON_HELP("Estimate: CO2 that was emitted for the energy of idle CPUs.");
};

KAON_METRICS_MAP(energy, HASH, struct key, struct energy, 4000) KAON_LIMIT(4000);
KAON_METRICS(idle_energy, kaon_none_t, struct idle_energy) KAON_WHEN(idle_milliwatts);

/* What is too little to be counted yet, so that nothing is lost however short the times are. */
struct rest {
	__u32 picojoules;	/* below a microjoule */
	__u32 co2;		/* below a nanogram, in 3600ths */
};

/*
 * By the address of the task: its time on a CPU that has been counted, of that which the kernel adds up itself
 * (/proc/PID/schedstat). So a switch that was not seen is made good at the next one.
 */
struct thread {
	__u64 ran;
	struct rest rest;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 32768);
	__type(key, __u64);
	__type(value, struct thread);
} threads SEC(".maps");

struct idle {
	__u64 since;	/* 0: the CPU is busy, or it is not known */
	__u64 ticked;	/* ns since then that have been counted */
	__u64 tick;	/* when they were, by another clock */
	struct rest rest;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct idle);
} idle_cpu SEC(".maps");

#define PICOJOULES 1000000
#define DEAD 0x80

/* ns * mW are picojoules. Split, so that years of ns don't overflow. */
static __always_inline __u64 microjoules(__u64 ns, __u32 milliwatts, struct rest *rest)
{
	__u64 picojoules = ns % PICOJOULES * milliwatts + rest->picojoules;

	rest->picojoules = picojoules % PICOJOULES;
	return ns / PICOJOULES * milliwatts + picojoules / PICOJOULES;
}

/* One kWh is 3.6 * 10^12 microjoules, so that microjoules * g/kWh / 3600 are nanograms. */
static __always_inline __u64 nanograms(__u64 microjoules, struct rest *rest)
{
	__u64 co2 = microjoules * grams_per_kwh + rest->co2;

	rest->co2 = co2 % 3600;
	return co2 / 3600;
}

/* Halves: so it is rounded instead of cut in the end. */
#define NEW_THREAD { .rest = { .picojoules = PICOJOULES / 2, .co2 = 3600 / 2 } }

/* When the Program began, by the run queues' clocks. */
static volatile __u64 began;

/* Counts what a thread has run up to now: total in its life, and since it last got a CPU, which was at arrived. */
static __always_inline void count(__u64 address, __u64 workload, __u64 total, __u64 clock, __u64 arrived, bool dead)
{
	struct thread *known = bpf_map_lookup_elem(&threads, &address), thread = NEW_THREAD;
	struct key key = { .workload = workload };
	struct energy *energy_of;
	__u64 ran, used, co2;

	if (known && known->ran <= total) {
		thread = *known;
		ran = total - thread.ran;
	} else {
		/* Not seen before, or another was at its address. */
		if (!began)
			began = clock;
		if (arrived < began)
			arrived = began;
		ran = clock > arrived ? clock - arrived : 0;
		if (ran > total)
			ran = total;
	}
	used = microjoules(ran, busy_milliwatts, &thread.rest);
	co2 = nanograms(used, &thread.rest);
	energy_of = kaon_entry(&energy, &key);
	if (energy_of) {
		kaon_add_at(&energy_of->joules, used);
		kaon_add_at(&energy_of->grams, co2);
	}
	thread.ran = total;
	if (dead)
		bpf_map_delete_elem(&threads, &address);
	else if (known)
		*known = thread;
	else
		bpf_map_update_elem(&threads, &address, &thread, BPF_ANY);
}

static __always_inline void count_idle(struct idle *idle, __u64 ns)
{
	__u64 used = microjoules(ns, idle_milliwatts, &idle->rest), co2 = nanograms(used, &idle->rest);
	struct idle_energy *all = kaon_entry(&idle_energy, KAON_NONE);

	if (all) {
		kaon_add_at(&all->joules, used);
		kaon_add_at(&all->grams, co2);
	}
}

static __always_inline struct idle *this_idle_cpu(void)
{
	const __u32 zero = 0;

	return bpf_map_lookup_elem(&idle_cpu, &zero);
}

static __always_inline int switched(struct task_struct *previous, struct task_struct *next, __u32 state)
{
	/* The run queue's clock, which has just been set. */
	__u64 clock = next->se.cfs_rq->rq->clock;
	struct idle *idle;

	if (previous->pid && kaon_task_in_scope(previous))
		count((__u64)previous, kaon_task_workload(previous), previous->se.sum_exec_runtime, clock,
			previous->sched_info.last_arrival, state & DEAD);
	if (next->pid && !next->sched_info.pcount && kaon_task_in_scope(next)) {
		struct thread new = NEW_THREAD;
		__u64 address = (__u64)next;

		bpf_map_update_elem(&threads, &address, &new, BPF_ANY);
	}
	if (!idle_milliwatts || (previous->pid && next->pid))
		return 0;
	idle = this_idle_cpu();
	if (!idle)
		return 0;
	if (!next->pid) {
		idle->since = clock;
		idle->ticked = idle->tick = 0;
	} else {
		if (idle->since && clock > idle->since + idle->ticked)
			count_idle(idle, clock - idle->since - idle->ticked);
		idle->since = 0;
	}
	return 0;
}

struct task_struct___new {
	unsigned int __state;
} KAON_CORE;

struct task_struct___old {
	volatile long int state;
} KAON_CORE;

/* TASK_DEAD, which only the last switch of a thread has, does not change any more. */
SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *previous, struct task_struct *next)
{
	if (bpf_core_field_exists(struct task_struct___new, __state))
		return switched(previous, next, ((struct task_struct___new *)previous)->__state);
	return switched(previous, next, ((struct task_struct___old *)previous)->state);
}

/* Threads that stay on a CPU, and CPUs that stay idle, are counted once a second. Interrupts are off while threads are switched. */
SEC("perf_event/config=cpu_clock,period=1000000000") KAON_OPTIONAL
int each_second(struct bpf_perf_event_data *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (BPF_CORE_READ(task, pid)) {
		if (kaon_in_scope())
			count((__u64)task, kaon_workload(), BPF_CORE_READ(task, se.sum_exec_runtime),
				BPF_CORE_READ(task, se.cfs_rq, rq, clock), BPF_CORE_READ(task, sched_info.last_arrival), false);
		return 0;
	}
	if (idle_milliwatts) {
		struct idle *idle = this_idle_cpu();
		__u64 now = kaon_now();

		if (!idle || !idle->since)
			return 0;
		if (idle->tick) {
			count_idle(idle, now - idle->tick);
			idle->ticked += now - idle->tick;
		}
		idle->tick = now;
	}
	return 0;
}
