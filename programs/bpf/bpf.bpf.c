// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Run time, memory and fill of all BPF programs and maps of the machine, read at scrape time.");

#define MAX_CPUS 4096
#define PAGE_SHIFT 12

/* The kernel's enums have aliases and sentinels. */
enum program_type {
	PROGRAM_UNSPEC, PROGRAM_SOCKET_FILTER, PROGRAM_KPROBE, PROGRAM_SCHED_CLS, PROGRAM_SCHED_ACT, PROGRAM_TRACEPOINT,
	PROGRAM_XDP, PROGRAM_PERF_EVENT, PROGRAM_CGROUP_SKB, PROGRAM_CGROUP_SOCK, PROGRAM_LWT_IN, PROGRAM_LWT_OUT,
	PROGRAM_LWT_XMIT, PROGRAM_SOCK_OPS, PROGRAM_SK_SKB, PROGRAM_CGROUP_DEVICE, PROGRAM_SK_MSG, PROGRAM_RAW_TRACEPOINT,
	PROGRAM_CGROUP_SOCK_ADDR, PROGRAM_LWT_SEG6LOCAL, PROGRAM_LIRC_MODE2, PROGRAM_SK_REUSEPORT,
	PROGRAM_FLOW_DISSECTOR, PROGRAM_CGROUP_SYSCTL, PROGRAM_RAW_TRACEPOINT_WRITABLE, PROGRAM_CGROUP_SOCKOPT,
	PROGRAM_TRACING, PROGRAM_STRUCT_OPS, PROGRAM_EXT, PROGRAM_LSM, PROGRAM_SK_LOOKUP, PROGRAM_SYSCALL,
	PROGRAM_NETFILTER,
};

enum map_type {
	MAP_UNSPEC, MAP_HASH, MAP_ARRAY, MAP_PROG_ARRAY, MAP_PERF_EVENT_ARRAY, MAP_PERCPU_HASH, MAP_PERCPU_ARRAY,
	MAP_STACK_TRACE, MAP_CGROUP_ARRAY, MAP_LRU_HASH, MAP_LRU_PERCPU_HASH, MAP_LPM_TRIE, MAP_ARRAY_OF_MAPS,
	MAP_HASH_OF_MAPS, MAP_DEVMAP, MAP_SOCKMAP, MAP_CPUMAP, MAP_XSKMAP, MAP_SOCKHASH, MAP_CGROUP_STORAGE,
	MAP_REUSEPORT_SOCKARRAY, MAP_PERCPU_CGROUP_STORAGE, MAP_QUEUE, MAP_STACK, MAP_SK_STORAGE, MAP_DEVMAP_HASH,
	MAP_STRUCT_OPS, MAP_RINGBUF, MAP_INODE_STORAGE, MAP_TASK_STORAGE, MAP_BLOOM_FILTER, MAP_USER_RINGBUF,
	MAP_CGRP_STORAGE, MAP_ARENA,
};

struct program_key {
	__u32 id;
	enum program_type type;
	char name[16];
};

struct map_key {
	__u32 id;
	enum map_type type;
	char name[16];
};

struct program_numbers {
	__u64 memory KAON_NAME("bpf_program_memory_bytes") KAON_TYPE(gauge) KAON_UNIT("bytes")
		KAON_HELP("Memory of a BPF program's instructions, without their machine code.");
	__u64 machine_code KAON_NAME("bpf_program_jited_bytes") KAON_TYPE(gauge) KAON_UNIT("bytes")
		KAON_HELP("Machine code of a BPF program; 0 if it is interpreted.");
};

struct program_runs {
	__u64 seconds KAON_NAME("bpf_program_run_seconds_total") KAON_TYPE(counter) KAON_UNIT("seconds") KAON_SCALE(1, 1000000000)
		KAON_HELP("Time that a BPF program ran while the kernel's BPF statistics were on.");
	__u64 runs KAON_NAME("bpf_program_runs_total") KAON_TYPE(counter)
		KAON_HELP("Runs of a BPF program while the kernel's BPF statistics were on.");
};

struct map_numbers {
	__u64 max_entries KAON_NAME("bpf_map_max_entries") KAON_TYPE(gauge)
		KAON_HELP("Entries that a BPF map can have; bytes of a ring buffer.");
	__u64 entry_size KAON_NAME("bpf_map_entry_bytes") KAON_TYPE(gauge) KAON_UNIT("bytes")
		KAON_HELP("Size of a BPF map's key and value. Per-CPU maps have a value for each CPU.");
};

KAON_ITERATOR_METRICS(programs, struct program_key, struct program_numbers, each_program);
KAON_ITERATOR_METRICS(runs, struct program_key, struct program_runs, each_program_run);
KAON_ITERATOR_METRICS(maps, struct map_key, struct map_numbers, each_map);
KAON_ITERATOR_GAUGE(entries, struct map_key, each_map_fill, "Entries of a BPF hash map now.") KAON_NAME("bpf_map_entries");

static __always_inline void describe(struct program_key *key, struct bpf_prog *prog)
{
	key->id = prog->aux->id;
	key->type = (enum program_type)prog->type;
	bpf_probe_read_kernel_str(key->name, sizeof(key->name), prog->aux->name);
}

SEC("iter/bpf_prog")
int each_program(struct bpf_iter__bpf_prog *ctx)
{
	struct program_key key = {};
	struct program_numbers numbers = {};
	struct bpf_prog *prog = ctx->prog;

	if (!prog)
		return 0;
	describe(&key, prog);
	numbers.memory = (__u64)prog->pages << PAGE_SHIFT;
	numbers.machine_code = prog->jited_len;
	kaon_emit(ctx->meta->seq, &programs, &key, &numbers);
	return 0;
}

/*
 * Since 5.19. A program's statistics are per CPU, at an address to which the CPU's offset must be added. The
 * kernel gives programs no function for it, so the offsets are found by a value of our own, of which both are known: the
 * address on each CPU, and what it is relative to.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} anchor SEC(".maps");

struct bpf_array___kaon {
	void *pptrs[0];
} KAON_CORE;

/* Its first members, on all kernels. */
struct run_statistics {
	__u64 count, ns;
};

struct bpf_prog___old {
	struct bpf_prog_aux___old *aux;
} KAON_CORE;

struct bpf_prog_aux___old {
	void *stats;	/* before 5.12 */
} KAON_CORE;

static __always_inline __u64 statistics_of(struct bpf_prog *prog)
{
	if (bpf_core_field_exists(struct bpf_prog, stats))
		return (__u64)BPF_CORE_READ(prog, stats);
	return (__u64)BPF_CORE_READ((struct bpf_prog___old *)prog, aux, stats);
}

struct walk {
	__u64 statistics;	/* without a CPU's offset */
	struct program_runs sum;
};

static long add_cpu(__u32 cpu, struct walk *walk)
{
	const __u32 zero = 0;
	volatile __u64 *here = bpf_map_lookup_percpu_elem(&anchor, &zero, cpu);
	struct run_statistics one = {};

	if (!here)
		return 1;
	/* Through memory, a pointer becomes a number. */
	*here = (__u64)here;
	if (bpf_probe_read_kernel(&one, sizeof(one), (void *)(walk->statistics + *here)))
		return 1;
	walk->sum.runs += one.count;
	walk->sum.seconds += one.ns;
	return 0;
}

SEC("iter/bpf_prog") KAON_OPTIONAL
int each_program_run(struct bpf_iter__bpf_prog *ctx)
{
	struct program_key key = {};
	struct walk walk = {};
	struct bpf_prog *prog = ctx->prog;
	const __u32 zero = 0;
	volatile __u64 *here;
	__u64 base = 0;

	if (!prog)
		return 0;
	here = bpf_map_lookup_percpu_elem(&anchor, &zero, 0);
	if (!here)
		return 0;
	*here = (__u64)&anchor;
	if (bpf_probe_read_kernel(&base, sizeof(base), (void *)(*here + bpf_core_field_offset(struct bpf_array___kaon, pptrs))))
		return 0;
	walk.statistics = statistics_of(prog) - base;
	bpf_loop(MAX_CPUS, add_cpu, &walk, 0);
	describe(&key, prog);
	kaon_emit(ctx->meta->seq, &runs, &key, &walk.sum);
	return 0;
}

static __always_inline void describe_map(struct map_key *key, struct bpf_map *map)
{
	key->id = map->id;
	key->type = (enum map_type)map->map_type;
	bpf_probe_read_kernel_str(key->name, sizeof(key->name), map->name);
}

SEC("iter/bpf_map")
int each_map(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;
	struct map_key key = {};
	struct map_numbers numbers = {};

	if (!map)
		return 0;
	describe_map(&key, map);
	numbers.max_entries = map->max_entries;
	numbers.entry_size = (__u64)map->key_size + map->value_size;
	kaon_emit(ctx->meta->seq, &maps, &key, &numbers);
	return 0;
}

extern __s64 bpf_map_sum_elem_count(const struct bpf_map *map) __ksym;

struct bpf_map___kaon {
	__s64 *elem_count;
} KAON_CORE;

/* Since 6.6 the kernel counts the entries of hashes, and of nothing else. */
SEC("iter/bpf_map") KAON_OPTIONAL
int each_map_fill(struct bpf_iter__bpf_map *ctx)
{
	struct bpf_map *map = ctx->map;
	struct map_key key = {};
	__s64 n;

	if (!map || !((struct bpf_map___kaon *)map)->elem_count)
		return 0;
	describe_map(&key, map);
	n = bpf_map_sum_elem_count(map);
	kaon_emit(ctx->meta->seq, &entries, &key, &n);
	return 0;
}
