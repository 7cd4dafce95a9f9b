// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("CPU time by workload, in user space and in the kernel, from samples; with -o folded or pprof also where it is spent.");

KAON_PARAM(bool, stacks, false, "Collect stacks, for a recorder: kaon run sets this for -o folded and -o pprof.");

enum mode {
	MODE_USER,
	MODE_KERNEL,
};

struct key {
	kaon_workload_t workload;
	enum mode mode;
	KAON_PAD(4);
};

struct usage {
	__u64 samples_total KAON_TYPE(counter) KAON_HELP("Samples of CPUs that were not idle.");
	__u64 sampled_seconds_total KAON_TYPE(counter) KAON_UNIT("seconds") KAON_SCALE(1, 1000000000)
		KAON_HELP("Estimated CPU time: samples times the time between two.");
};

KAON_METRICS_MAP(cpu, HASH, struct key, struct usage, 4000) KAON_LIMIT(4000);

/* What a sample interrupted. Registers are read where the running kernel has them. */
struct pt_regs___x86 {
	long unsigned int cs;
} KAON_CORE;
struct bpf_perf_event_data___x86 {
	struct pt_regs___x86 regs;
	__u64 sample_period;
} KAON_CORE;

struct user_pt_regs___arm64 {
	__u64 pstate;
} KAON_CORE;
struct bpf_perf_event_data___arm64 {
	struct user_pt_regs___arm64 regs;
	__u64 sample_period;
} KAON_CORE;

#define X86_PRIVILEGE 3		/* of the code segment: 3 is user space */
#define ARM64_MODE 0xf		/* of the processor state: 0 is user space */

/* The verifier wants registers to be read at constant offsets, which the compiler must not merge into one. */
static __always_inline enum mode mode_of(void *ctx)
{
	__u64 value;

	if (bpf_core_field_exists(struct bpf_perf_event_data___x86, regs.cs)) {
		value = ((struct bpf_perf_event_data___x86 *)ctx)->regs.cs;
		asm volatile("" : "+r"(value) : "i"(1));
		return (value & X86_PRIVILEGE) == X86_PRIVILEGE ? MODE_USER : MODE_KERNEL;
	}
	value = ((struct bpf_perf_event_data___arm64 *)ctx)->regs.pstate;
	asm volatile("" : "+r"(value) : "i"(2));
	return value & ARM64_MODE ? MODE_KERNEL : MODE_USER;
}

static __always_inline __u64 period_of(void *ctx)
{
	struct bpf_perf_event_data___x86 *any = ctx;

	return any->sample_period;
}

static __always_inline bool wanted(void)
{
	/* The idle threads are process 0. */
	return (__u32)bpf_get_current_pid_tgid() && kaon_in_scope();
}

static __always_inline void count(kaon_workload_t workload, enum mode mode, __u64 period)
{
	struct key key = { .workload = workload, .mode = mode };
	struct usage *usage = kaon_entry(&cpu, &key);

	if (usage) {
		kaon_add_at(&usage->samples_total, 1);
		kaon_add_at(&usage->sampled_seconds_total, period);
	}
}

SEC("perf_event/type=software,config=cpu_clock,frequency=99") KAON_UNLESS(stacks)
int sample(void *ctx)
{
	if (wanted())
		count(kaon_workload(), mode_of(ctx), period_of(ctx));
	return 0;
}

/*
 * Stacks. There are two sets of maps: while samples go to one, user space empties the other, several times
 * a second. So they are small however long it takes, and what was seen is named while it still runs.
 */
#define DEPTH 127	/* kernel.perf_event_max_stack */
#define STACKS 4096
#define SPARE_STACKS 1024
#define COUNTS 8192

/* In the numbers of stacks: it is in the spare map. */
#define SPARE 0x100000

#define EFAULT 14

/* Where samples go: 0 nowhere, 1 to set a, 2 to set b. Written by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stack_set SEC(".maps");

struct stack_key {
	__u64 workload;
	__u64 memory;	/* tells address spaces apart; 0: a thread of the kernel */
	__u32 process;
	/* Stacks by number; negative: an error number. -EFAULT: there is none. */
	__s32 kernel;
	__s32 user;
	__u32 mode;
	char thread_name[16];
	char process_name[16];
};

struct stack_count {
	__u64 samples, nanoseconds;
};

struct trace {
	__u64 addresses[DEPTH];
};

#define STACK_MAP(name, entries) \
	struct { \
		__uint(type, BPF_MAP_TYPE_STACK_TRACE); \
		__uint(max_entries, entries); \
		__type(key, __u32); \
		__type(value, struct trace); \
	} name SEC(".maps")
#define COUNT_MAP(name) \
	struct { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, COUNTS); \
		__type(key, struct stack_key); \
		__type(value, struct stack_count); \
	} name SEC(".maps")

STACK_MAP(stacks_a, STACKS);
STACK_MAP(stacks_b, STACKS);
STACK_MAP(spare_stacks_a, SPARE_STACKS);
STACK_MAP(spare_stacks_b, SPARE_STACKS);
COUNT_MAP(stack_counts_a);
COUNT_MAP(stack_counts_b);

/* The kernel keeps one stack for each hash: another one with the same finds its place in a second map. */
#define STACK_OF(ctx, set, flags) ({ \
	int _id = bpf_get_stackid(ctx, &stacks_##set, flags); \
	if (_id < 0 && _id != -EFAULT) { \
		_id = bpf_get_stackid(ctx, &spare_stacks_##set, flags); \
		if (_id >= 0) \
			_id |= SPARE; \
	} \
	_id; })

#define RECORD(ctx, set, key, period) ({ \
	struct stack_count *_count; \
	if ((key)->mode == MODE_KERNEL) \
		(key)->kernel = STACK_OF(ctx, set, 0); \
	if ((key)->memory) \
		(key)->user = STACK_OF(ctx, set, BPF_F_USER_STACK); \
	_count = kaon_entry(&stack_counts_##set, key); \
	if (_count) { \
		kaon_add_at(&_count->samples, 1); \
		kaon_add_at(&_count->nanoseconds, period); \
	} })

SEC("perf_event/type=software,config=cpu_clock,frequency=99") KAON_WHEN(stacks)
int sample_stacks(void *ctx)
{
	struct stack_key key = { .kernel = -EFAULT, .user = -EFAULT };
	__u64 period = period_of(ctx);
	struct task_struct *task;
	__u32 zero = 0, *set;

	if (!wanted())
		return 0;
	key.workload = kaon_workload();
	key.mode = mode_of(ctx);
	count(key.workload, key.mode, period);
	set = bpf_map_lookup_elem(&stack_set, &zero);
	if (!set || !*set)
		return 0;
	task = (struct task_struct *)bpf_get_current_task();
	key.memory = (__u64)BPF_CORE_READ(task, mm);
	key.process = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(key.thread_name, sizeof(key.thread_name));
	BPF_CORE_READ_STR_INTO(&key.process_name, task, group_leader, comm);
	if (*set == 1)
		RECORD(ctx, a, &key, period);
	else
		RECORD(ctx, b, &key, period);
	return 0;
}
