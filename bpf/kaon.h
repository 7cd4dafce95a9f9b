/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * kaon.h: what the author of a Program includes.
 *
 * A Program's object describes itself: the names and types of maps, keys and
 * values become metrics and labels, and the macros here add what types can't
 * say. docs/reference/kaon.h.md explains every one of them, with examples.
 *
 *	#include "kaon.h"
 *
 *	KAON_PROGRAM("Counts system calls.");
 *
 *	struct key {
 *		kaon_workload_t workload;
 *		kaon_syscall_t syscall;
 *		__u32 pad KAON_SKIP;
 *	};
 *
 *	KAON_COUNTER(syscalls_total, struct key, "System calls entered.");
 *
 *	SEC("tp_btf/sys_enter")
 *	int BPF_PROG(enter, struct pt_regs *regs, long number)
 *	{
 *		struct key key = { .workload = kaon_workload(), .syscall = number };
 *		if (kaon_in_scope())
 *			kaon_increment(&syscalls_total, &key);
 *		return 0;
 *	}
 *
 * Works with clang 14 and later, -mcpu=v2 and later, and the verifiers of
 * Linux 5.10 and later. Names that begin with kaon_ and KAON_ are Kaon's.
 */
#ifndef KAON_H
#define KAON_H

#ifndef __VMLINUX_H__
#include "vmlinux.h"
#endif
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>
#include "kaon_tables.h"

/* ---- Types that have a meaning as labels ------------------------------- */

typedef __u64 kaon_workload_t;		/* kaon_workload(): namespace, pod, container, ... */
typedef __u32 kaon_ipv4_t;		/* network order */
typedef struct kaon_ipv6 { __u8 bytes[16]; } kaon_ipv6_t;
typedef struct kaon_ip { __u8 bytes[16]; } kaon_ip_t;	/* IPv6, or IPv4 as ::ffff:a.b.c.d */
typedef __u16 kaon_port_t;		/* host order */
typedef __u16 kaon_port_be_t;		/* network order */
typedef __u32 kaon_device_t;		/* the kernel's dev_t: major << 20 | minor */
typedef __u32 kaon_ifindex_t;
typedef __u32 kaon_syscall_t;		/* number on the machine's own architecture */
typedef __s32 kaon_errno_t;		/* positive or negative */
typedef __u32 kaon_signal_t;
typedef __u32 kaon_uid_t;
typedef __u32 kaon_gid_t;
typedef __u64 kaon_ksym_t;		/* an address in the kernel's text */
typedef char kaon_comm_t[16];
typedef __u8 kaon_mac_t[6];
typedef __u8 kaon_protocol_t;		/* of IP: 6 is tcp */
typedef __u16 kaon_ethertype_t;		/* host order */
typedef __u32 kaon_cpu_t;
typedef __u32 kaon_pid_t;
typedef __u64 kaon_hex_t;
typedef __u32 kaon_netns_t;		/* inode of the namespace */

/* The key of a metric without labels: KAON_COUNTER(name, kaon_none_t, "help"),
 * kaon_increment(&name, KAON_NONE). */
typedef __u32 kaon_none_t;
#define KAON_NONE (&(kaon_none_t){0})

static __always_inline kaon_ip_t kaon_ip_from_ipv4(__be32 address)
{
	kaon_ip_t ip = { .bytes = { [10] = 0xff, [11] = 0xff } };

	__builtin_memcpy(&ip.bytes[12], &address, sizeof(address));
	return ip;
}

/* address: 16 bytes, which the function may read directly. */
static __always_inline kaon_ip_t kaon_ip_from_ipv6(const void *address)
{
	kaon_ip_t ip;

	__builtin_memcpy(ip.bytes, address, sizeof(ip.bytes));
	return ip;
}

/* ---- Tags --------------------------------------------------------------- */

#define KAON_STR_(...) #__VA_ARGS__
#define KAON_STR(...) KAON_STR_(__VA_ARGS__)
#define KAON_TAG(text) __attribute__((btf_decl_tag("kaon:" text)))

/* On members of a key. */
#define KAON_LABEL(name) KAON_TAG("label=" name)	/* another name than the member's */
#define KAON_SKIP KAON_TAG("skip")			/* no label: padding */
#define KAON_DECODER(name) KAON_TAG("decoder=" name)	/* as the typedef kaon_NAME_t would */
#define KAON_KERNEL_ENUM KAON_DECODER("kernel_enum")	/* named by the running kernel's enum of the same name */
#define KAON_OMIT_ZERO KAON_TAG("omitzero")		/* no label where all bytes are zero */
/* Most keys must not be shorter than 8 bytes: a member that makes them so, and one that fills a hole. Both must be zero. */
#define KAON_WIDE __u32 kaon_wide KAON_SKIP
#define KAON_PASTE_(a, b) a##b
#define KAON_PASTE(a, b) KAON_PASTE_(a, b)
#define KAON_PAD(n) __u8 KAON_PASTE(kaon_pad_, __LINE__)[n] KAON_SKIP

/* On members of a struct value (KAON_METRICS), and after any metric's macro. */
#define KAON_TYPE(type) KAON_TAG("type=" #type)		/* counter, gauge, ..., unknown */
#define KAON_HELP(text) KAON_TAG("help=" text)
#define KAON_NAME(name) KAON_TAG("name=" name)		/* of the family */
#define KAON_UNIT(name) KAON_TAG("unit=" name)		/* "seconds", "bytes", ... */
#define KAON_SCALE(num, den) KAON_TAG("scale=" KAON_STR(num) "/" KAON_STR(den)) /* raw * num / den is in the unit */
#define KAON_LIMIT(series) KAON_TAG("limit=" KAON_STR(series))
#define KAON_QUANTILE(q) KAON_TAG("quantile=" #q)	/* on a member of a summary's value */
#define KAON_CPU KAON_TAG("cpu")			/* keep the values of CPUs apart, by a label */

/* On functions and metrics: exists only if the param is not zero, is zero. */
#define KAON_WHEN(param) KAON_TAG("when=" #param)
#define KAON_UNLESS(param) KAON_TAG("unless=" #param)

/* On functions: of a group, only the first by rank that the kernel can load and
 * attach is used; an optional function may fail to. */
#define KAON_ALTERNATIVE(group, rank) KAON_TAG("alternative=" #group "," KAON_STR(rank))
#define KAON_OPTIONAL KAON_TAG("optional")

/* Once per object: its license, and a sentence that says what the Program
 * tells. KAON_NAME may follow as a second argument. */
#define KAON_PROGRAM(help, ...) \
	char kaon_license[] KAON_TAG("program=" help) __VA_ARGS__ SEC("license") = "Dual BSD/GPL"

/* ---- Params: constants that the user may set before loading ------------- */

#define KAON_PARAM(type, name, value, help) \
	const volatile type name KAON_TAG("param") KAON_TAG("help=" help) = value
/* In nanoseconds, set as "10ms". */
#define KAON_PARAM_DURATION(name, ns, help) \
	const volatile __u64 name KAON_TAG("param") KAON_TAG("unit=ns") KAON_TAG("help=" help) = ns
/* In bytes, set as "64KiB". */
#define KAON_PARAM_SIZE(name, bytes, help) \
	const volatile __u64 name KAON_TAG("param") KAON_TAG("unit=bytes") KAON_TAG("help=" help) = bytes
/* Of at most size - 1 characters. */
#define KAON_PARAM_STRING(name, size, text, help) \
	const volatile char name[size] KAON_TAG("param") KAON_TAG("help=" help) = text

/* ---- Set by the loader --------------------------------------------------- */

/* Which cgroup is a task's workload. 0: of v2. 1: of the v1 hierarchy of
 * kaon_cgroup_subsys. 2: of v2 unless the task is in its root, else of v1. */
const volatile __u32 kaon_cgroup_mode = 0;
/* An index in css_set.subsys of the running kernel. */
const volatile __u32 kaon_cgroup_subsys = 0;
/* The cgroup that is measured with all below it, and its depth. 0: everything. */
const volatile __u64 kaon_scope_id = 0;
const volatile __u32 kaon_scope_level = 0;
/* Not 0: of that, only the workloads whose ids are in the map kaon_selected. */
const volatile __u32 kaon_selecting = 0;

/* Events that found neither an entry nor an overflow entry in their map. */
__u64 kaon_lost SEC(".data.kaon") = 0;

/* ---- Maps ---------------------------------------------------------------- */

#define KAON_ENTRIES 10000

/*
 * Kinds of maps:
 *   HASH              shared by all CPUs (the default)
 *   HASH_NO_PREALLOC  memory on demand; before Linux 6.1 not in functions that trace
 *   PERCPU_HASH       a value per CPU: for keys that all CPUs hit all the time
 *   LRU_HASH, LRU_PERCPU_HASH
 *                     evict the least recently used key silently: for gauges
 *                     and infos, never for counters or histograms
 *   ARRAY, PERCPU_ARRAY, MMAP_ARRAY
 *                     the key is an index (4 bytes) below the number of entries.
 *                     MMAP_ARRAY is read without any system call
 *   SINGLE, PERCPU_SINGLE
 *                     one value; the key is kaon_none_t
 *   PLAIN_HASH, PLAIN_HASH_NO_PREALLOC, PLAIN_PERCPU_HASH
 *                     without an overflow entry
 * The first three get one more entry than is asked for. It has the key that is all ones,
 * the loader makes it, and what finds no room is counted there: as the series
 * overflow="true". Sums stay true. Gauges, infos and statesets can't be summed: for
 * them the macros use the plain forms, and what finds no room is counted in kaon_lost.
 */
#define KAON_KIND_type_HASH BPF_MAP_TYPE_HASH
#define KAON_KIND_type_PLAIN_HASH BPF_MAP_TYPE_HASH
#define KAON_KIND_type_HASH_NO_PREALLOC BPF_MAP_TYPE_HASH
#define KAON_KIND_type_PLAIN_HASH_NO_PREALLOC BPF_MAP_TYPE_HASH
#define KAON_KIND_type_PERCPU_HASH BPF_MAP_TYPE_PERCPU_HASH
#define KAON_KIND_type_PLAIN_PERCPU_HASH BPF_MAP_TYPE_PERCPU_HASH
#define KAON_KIND_type_LRU_HASH BPF_MAP_TYPE_LRU_HASH
#define KAON_KIND_type_LRU_PERCPU_HASH BPF_MAP_TYPE_LRU_PERCPU_HASH
#define KAON_KIND_type_ARRAY BPF_MAP_TYPE_ARRAY
#define KAON_KIND_type_PERCPU_ARRAY BPF_MAP_TYPE_PERCPU_ARRAY
#define KAON_KIND_type_MMAP_ARRAY BPF_MAP_TYPE_ARRAY
#define KAON_KIND_type_SINGLE BPF_MAP_TYPE_ARRAY
#define KAON_KIND_type_PERCPU_SINGLE BPF_MAP_TYPE_PERCPU_ARRAY

#define KAON_KIND_flags_HASH 0
#define KAON_KIND_flags_PLAIN_HASH 0
#define KAON_KIND_flags_HASH_NO_PREALLOC BPF_F_NO_PREALLOC
#define KAON_KIND_flags_PLAIN_HASH_NO_PREALLOC BPF_F_NO_PREALLOC
#define KAON_KIND_flags_PERCPU_HASH 0
#define KAON_KIND_flags_PLAIN_PERCPU_HASH 0
#define KAON_KIND_flags_LRU_HASH 0
#define KAON_KIND_flags_LRU_PERCPU_HASH 0
#define KAON_KIND_flags_ARRAY 0
#define KAON_KIND_flags_PERCPU_ARRAY 0
#define KAON_KIND_flags_MMAP_ARRAY BPF_F_MMAPABLE
#define KAON_KIND_flags_SINGLE 0
#define KAON_KIND_flags_PERCPU_SINGLE 0

#define KAON_KIND_entries_HASH(n) ((n) + 1)
#define KAON_KIND_entries_PLAIN_HASH(n) (n)
#define KAON_KIND_entries_HASH_NO_PREALLOC(n) ((n) + 1)
#define KAON_KIND_entries_PLAIN_HASH_NO_PREALLOC(n) (n)
#define KAON_KIND_entries_PERCPU_HASH(n) ((n) + 1)
#define KAON_KIND_entries_PLAIN_PERCPU_HASH(n) (n)
#define KAON_KIND_entries_LRU_HASH(n) (n)
#define KAON_KIND_entries_LRU_PERCPU_HASH(n) (n)
#define KAON_KIND_entries_ARRAY(n) (n)
#define KAON_KIND_entries_PERCPU_ARRAY(n) (n)
#define KAON_KIND_entries_MMAP_ARRAY(n) (n)
#define KAON_KIND_entries_SINGLE(n) 1
#define KAON_KIND_entries_PERCPU_SINGLE(n) 1

#define KAON_KIND_key_HASH(K) KAON_ASSERT_WIDE(K)
#define KAON_KIND_key_PLAIN_HASH(K) KAON_ASSERT_ANY(K)
#define KAON_KIND_key_HASH_NO_PREALLOC(K) KAON_ASSERT_WIDE(K)
#define KAON_KIND_key_PLAIN_HASH_NO_PREALLOC(K) KAON_ASSERT_ANY(K)
#define KAON_KIND_key_PERCPU_HASH(K) KAON_ASSERT_WIDE(K)
#define KAON_KIND_key_PLAIN_PERCPU_HASH(K) KAON_ASSERT_ANY(K)
#define KAON_KIND_key_LRU_HASH(K) KAON_ASSERT_ANY(K)
#define KAON_KIND_key_LRU_PERCPU_HASH(K) KAON_ASSERT_ANY(K)
#define KAON_KIND_key_ARRAY(K) KAON_ASSERT_INDEX(K)
#define KAON_KIND_key_PERCPU_ARRAY(K) KAON_ASSERT_INDEX(K)
#define KAON_KIND_key_MMAP_ARRAY(K) KAON_ASSERT_INDEX(K)
#define KAON_KIND_key_SINGLE(K) KAON_ASSERT_INDEX(K)
#define KAON_KIND_key_PERCPU_SINGLE(K) KAON_ASSERT_INDEX(K)

#define KAON_KIND_tags_HASH KAON_TAG("overflow")
#define KAON_KIND_tags_PLAIN_HASH
#define KAON_KIND_tags_HASH_NO_PREALLOC KAON_TAG("overflow")
#define KAON_KIND_tags_PLAIN_HASH_NO_PREALLOC
#define KAON_KIND_tags_PERCPU_HASH KAON_TAG("overflow")
#define KAON_KIND_tags_PLAIN_PERCPU_HASH
#define KAON_KIND_tags_LRU_HASH
#define KAON_KIND_tags_LRU_PERCPU_HASH
#define KAON_KIND_tags_ARRAY
#define KAON_KIND_tags_PERCPU_ARRAY
#define KAON_KIND_tags_MMAP_ARRAY
#define KAON_KIND_tags_SINGLE
#define KAON_KIND_tags_PERCPU_SINGLE

/* A short key may well be all ones (the uid -1, the protocol 255), which is the
 * overflow entry's. KAON_WIDE makes that impossible: it is always zero. */
#define KAON_ASSERT_WIDE(K) _Static_assert(sizeof(K) >= 8, \
	"the key is shorter than 8 bytes and could be all ones, the key of the overflow entry: add the member KAON_WIDE to its struct")
#define KAON_ASSERT_ANY(K) _Static_assert(sizeof(K) >= 1, "the key is empty: use kaon_none_t")
#define KAON_ASSERT_INDEX(K) _Static_assert(sizeof(K) == 4, "the key of an array must have 4 bytes")

/* The kind that a key calls for: SINGLE for kaon_none_t, else HASH. */
#define KAON_NONE_kaon_none_t ~, SINGLE
#define KAON_SECOND_(a, b, ...) b
#define KAON_SECOND(...) KAON_SECOND_(__VA_ARGS__)
#define KAON_KIND_FOR(K) KAON_SECOND(KAON_NONE_##K, HASH, ~)

/* The kind for what can't be summed. */
#define KAON_PLAIN_HASH PLAIN_HASH
#define KAON_PLAIN_HASH_NO_PREALLOC PLAIN_HASH_NO_PREALLOC
#define KAON_PLAIN_PERCPU_HASH PLAIN_PERCPU_HASH
#define KAON_PLAIN_PLAIN_HASH PLAIN_HASH
#define KAON_PLAIN_PLAIN_HASH_NO_PREALLOC PLAIN_HASH_NO_PREALLOC
#define KAON_PLAIN_PLAIN_PERCPU_HASH PLAIN_PERCPU_HASH
#define KAON_PLAIN_LRU_HASH LRU_HASH
#define KAON_PLAIN_LRU_PERCPU_HASH LRU_PERCPU_HASH
#define KAON_PLAIN_ARRAY ARRAY
#define KAON_PLAIN_PERCPU_ARRAY PERCPU_ARRAY
#define KAON_PLAIN_MMAP_ARRAY MMAP_ARRAY
#define KAON_PLAIN_SINGLE SINGLE
#define KAON_PLAIN_PERCPU_SINGLE PERCPU_SINGLE
#define KAON_PLAIN(kind) KAON_PASTE(KAON_PLAIN_, kind)

/* The general form. Tags follow: KAON_TYPE(counter) KAON_HELP("..."). */
#define KAON_METRIC_MAP(name, kind, K, V, entries, ...) \
	KAON_METRIC_MAP_(name, kind, K, V, entries, __VA_ARGS__)
#define KAON_METRIC_MAP_(name, kind, K, V, entries, ...) \
	KAON_KIND_key_##kind(K); \
	struct { \
		__uint(type, KAON_KIND_type_##kind); \
		__uint(map_flags, KAON_KIND_flags_##kind); \
		__uint(max_entries, KAON_KIND_entries_##kind(entries)); \
		__type(key, K); \
		__type(value, V); \
	} name KAON_KIND_tags_##kind __VA_ARGS__ SEC(".maps")

/* ---- Metrics ------------------------------------------------------------- */

#define KAON_COUNTER(name, K, help) KAON_COUNTER_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, help)
#define KAON_COUNTER_MAP(name, kind, K, entries, help) \
	KAON_METRIC_MAP(name, kind, K, __u64, entries, KAON_TYPE(counter) KAON_HELP(help))

#define KAON_GAUGE(name, K, help) KAON_GAUGE_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, help)
#define KAON_GAUGE_MAP(name, kind, K, entries, help) \
	KAON_METRIC_MAP(name, KAON_PLAIN(kind), K, __s64, entries, KAON_TYPE(gauge) KAON_HELP(help))

/* Several metrics in one map: the members of the struct V carry KAON_TYPE and KAON_HELP.
 * Each is called NAME_MEMBER. */
#define KAON_METRICS(name, K, V) KAON_METRICS_MAP(name, KAON_KIND_FOR(K), K, V, KAON_ENTRIES)
#define KAON_METRICS_MAP(name, kind, K, V, entries) \
	KAON_METRIC_MAP(name, kind, K, V, entries, KAON_HELP(""))

/* Always 1: all that it tells is in the key's members. */
#define KAON_INFO(name, K, help) KAON_INFO_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, help)
#define KAON_INFO_MAP(name, kind, K, entries, help) \
	KAON_METRIC_MAP(name, KAON_PLAIN(kind), K, __u64, entries, KAON_TYPE(info) KAON_HELP(help))

/* One of the values of an enum. */
#define KAON_STATESET(name, K, E, help) KAON_STATESET_MAP(name, KAON_KIND_FOR(K), K, E, KAON_ENTRIES, help)
#define KAON_STATESET_MAP(name, kind, K, E, entries, help) \
	KAON_METRIC_MAP(name, KAON_PLAIN(kind), K, E, entries, KAON_TYPE(stateset) KAON_HELP(help))

struct kaon_summary {
	__u64 count, sum;
} KAON_TAG("summary");

/* Count and sum. */
#define KAON_SUMMARY(name, K, help) KAON_SUMMARY_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, help)
#define KAON_SUMMARY_MAP(name, kind, K, entries, help) \
	KAON_METRIC_MAP(name, kind, K, struct kaon_summary, entries, KAON_TYPE(summary) KAON_HELP(help))

/*
 * Histograms. Slots are native buckets of the schema (2^schema per doubling)
 * between 2^low and 2^high of the unit, one below and one above. unit is `one`
 * (numbers as they are) or `ns` (nanoseconds in, seconds out).
 * The default for times is schema 2 from 2^-20 s (1 us) to 2^6 s: 856 bytes per series.
 */
#define KAON_HISTOGRAM(name, K, help) KAON_HISTOGRAM_OF(name, K, ns, 2, -20, 6, help)
#define KAON_HISTOGRAM_OF(name, K, unit, schema, low, high, help) \
	KAON_HISTOGRAM_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, unit, schema, low, high, help)
#define KAON_HISTOGRAM_MAP(name, kind, K, entries, unit, schema, low, high, help) \
	KAON_HISTOGRAM_TYPE(kaon_histogram_##name, unit, schema, low, high); \
	KAON_METRIC_MAP(name, kind, K, struct kaon_histogram_##name, entries, KAON_TYPE(histogram) KAON_HELP(help))

/* What is in a certain state now, by size or age: kaon_observe and kaon_unobserve. */
#define KAON_GAUGE_HISTOGRAM(name, K, unit, schema, low, high, help) \
	KAON_GAUGE_HISTOGRAM_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, unit, schema, low, high, help)
#define KAON_GAUGE_HISTOGRAM_MAP(name, kind, K, entries, unit, schema, low, high, help) \
	KAON_HISTOGRAM_TYPE(kaon_histogram_##name, unit, schema, low, high); \
	KAON_METRIC_MAP(name, kind, K, struct kaon_histogram_##name, entries, KAON_TYPE(gaugehistogram) KAON_HELP(help))

/* A histogram that keeps the latest exemplar of each series, with the members
 * of the struct L as its labels. */
#define KAON_HISTOGRAM_EXEMPLARS(name, K, L, help) \
	KAON_HISTOGRAM_EXEMPLARS_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, L, ns, 2, -20, 6, help)
#define KAON_HISTOGRAM_EXEMPLARS_MAP(name, kind, K, entries, L, unit, schema, low, high, help) \
	KAON_HISTOGRAM_TYPE_(kaon_histogram_##name, unit, schema, low, high, \
		struct { __u64 value; __u64 timestamp; L labels; } exemplar;); \
	KAON_METRIC_MAP(name, kind, K, struct kaon_histogram_##name, entries, KAON_TYPE(histogram) KAON_HELP(help))

/* Explicit upper bounds: up to 63 ascending plain numbers below 2^63, in raw units. Observe
 * with kaon_observe_bounds. */
#define KAON_HISTOGRAM_BOUNDS(name, K, help, ...) \
	KAON_HISTOGRAM_BOUNDS_MAP(name, KAON_KIND_FOR(K), K, KAON_ENTRIES, help, __VA_ARGS__)
#define KAON_HISTOGRAM_BOUNDS_MAP(name, kind, K, entries, help, ...) \
	_Static_assert(KAON_BOUNDS(__VA_ARGS__) <= 63, "at most 63 bounds"); \
	static const __u64 kaon_bounds_##name[64] = \
		{ __VA_ARGS__, [KAON_BOUNDS(__VA_ARGS__) ... 63] = KAON_MAX_BOUND }; \
	struct kaon_histogram_##name { \
		__u64 sum, slots[KAON_BOUNDS(__VA_ARGS__) + 1]; \
	} KAON_TAG("bounds=" KAON_STR(__VA_ARGS__)); \
	KAON_METRIC_MAP(name, kind, K, struct kaon_histogram_##name, entries, KAON_TYPE(histogram) KAON_HELP(help))
#define KAON_BOUNDS(...) (sizeof((__u64[]){ __VA_ARGS__ }) / sizeof(__u64))
#define KAON_MAX_BOUND 0x7fffffffffffffffULL

/* Defines `struct tag`, a histogram that can be a member of a struct value
 * (KAON_METRICS); kaon_observe_at counts in it. */
#define KAON_HISTOGRAM_TYPE(tag, unit, schema, low, high) KAON_HISTOGRAM_TYPE_(tag, unit, schema, low, high, )
#define KAON_HISTOGRAM_TYPE_(tag, unit, schema, low, high, ...) \
	_Static_assert((schema) >= 0 && (schema) <= 5, "the schema must be 0 to 5"); \
	_Static_assert(-64 <= (low) && (low) < (high) && (high) <= 64, "low and high must be -64 <= low < high <= 64"); \
	struct tag { \
		__u64 sum, slots[KAON_SLOTS(schema, low, high)]; \
		__VA_ARGS__ \
		/* Takes no room: its type tells the macros where to count. */ \
		__u8 kaon_shape[0][KAON_SHAPE(KAON_UNIT_##unit, schema, low, high)]; \
	} KAON_TAG("histogram=" #unit "," KAON_STR(schema) "," KAON_STR(low) "," KAON_STR(high))

#define KAON_UNIT_one 0
#define KAON_UNIT_ns 1
#define KAON_SLOTS(schema, low, high) ((((high) - (low)) << (schema)) + 2)
#define KAON_SHAPE(unit, schema, low, high) \
	(1 + (unit) + 2 * (schema) + 16 * ((low) + 64) + 16 * 256 * ((high) + 64))
#define KAON_SHAPE_OF(histogram) ((long)sizeof((histogram)->kaon_shape[0]) - 1)
#define KAON_UNIT_OF(histogram) (KAON_SHAPE_OF(histogram) % 2)
#define KAON_SCHEMA_OF(histogram) (KAON_SHAPE_OF(histogram) / 2 % 8)
#define KAON_LOW_OF(histogram) (KAON_SHAPE_OF(histogram) / 16 % 256 - 64)
#define KAON_HIGH_OF(histogram) (KAON_SHAPE_OF(histogram) / 16 / 256 - 64)

/* ---- Find or create ------------------------------------------------------ */

/* Hides from the compiler what it knows of x, so that bounds are kept where
 * the verifier looks for them. */
#define kaon_opaque(x) asm volatile("" : "+r"(x))

#define KAON_EEXIST 17
#define KAON_MAX_KEY 256
static const __u8 kaon_ones[KAON_MAX_KEY] = { [0 ... KAON_MAX_KEY - 1] = 0xff };
static const __u64 kaon_zeros[128];

#define KAON_TYPE_OF(map) (sizeof(*(map)->type) / sizeof(int))
#define KAON_IS_ARRAY(map) (KAON_TYPE_OF(map) == BPF_MAP_TYPE_ARRAY || KAON_TYPE_OF(map) == BPF_MAP_TYPE_PERCPU_ARRAY)
#define KAON_HAS_OVERFLOW(map) (KAON_TYPE_OF(map) == BPF_MAP_TYPE_HASH || KAON_TYPE_OF(map) == BPF_MAP_TYPE_PERCPU_HASH)
#define KAON_CHECK_KEY(map, keyp) \
	_Static_assert(__builtin_types_compatible_p(typeof(*(map)->key), typeof(*(keyp))), \
		"the key does not have the type of the map's keys")

/*
 * kaon_entry(&map, &key): a pointer to the key's value, which is zero at first;
 * to the overflow entry's if the map is full; NULL (counted in kaon_lost) if
 * there is none. Change what it points to with kaon_add_at and kaon_observe_at only.
 */
#define kaon_entry(map, keyp) ({ \
	KAON_CHECK_KEY(map, keyp); \
	_Static_assert(sizeof(*(map)->key) <= KAON_MAX_KEY, "the key is longer than 256 bytes"); \
	static const typeof(*(map)->value) _zero = {0}; \
	typeof(&*(keyp)) _k = (keyp); \
	typeof((map)->value) _p = bpf_map_lookup_elem(map, _k); \
	if (!_p) { \
		if (!KAON_IS_ARRAY(map)) { \
			/* An int: on old kernels the upper half of the result is not the sign's. */ \
			int _e = bpf_map_update_elem(map, _k, \
				sizeof(_zero) <= sizeof(kaon_zeros) ? (const void *)kaon_zeros : (const void *)&_zero, BPF_NOEXIST); \
			if (!_e || _e == -KAON_EEXIST) /* another CPU was first */ \
				_p = bpf_map_lookup_elem(map, _k); \
			if (!_p && KAON_HAS_OVERFLOW(map)) \
				_p = bpf_map_lookup_elem(map, kaon_ones); \
		} \
		if (!_p) \
			__sync_fetch_and_add(&kaon_lost, 1); \
	} \
	_p; })

/* ---- Change -------------------------------------------------------------- */

#define kaon_add_at(number, n) ({ \
	_Static_assert(sizeof(*(number)) == 8, "atomic numbers have 64 bits"); \
	(void)__sync_fetch_and_add(number, n); })

/* Counters and gauges; n may be negative for gauges. */
#define kaon_add(map, keyp, n) ({ \
	_Static_assert(sizeof(*(map)->value) == 8, "the value is not a number of 64 bits: use kaon_entry and kaon_add_at"); \
	typeof((map)->value) _v = kaon_entry(map, keyp); \
	if (_v) \
		kaon_add_at(_v, n); })
#define kaon_increment(map, keyp) kaon_add(map, keyp, 1)
#define kaon_decrement(map, keyp) kaon_add(map, keyp, -1)

/* Gauges and statesets. */
#define kaon_set(map, keyp, n) ({ \
	typeof((map)->value) _v = kaon_entry(map, keyp); \
	if (_v) \
		*(volatile typeof(*_v) *)_v = (n); })

/* Infos: the key is there from now on. */
#define kaon_info(map, keyp) kaon_set(map, keyp, 1)

/* Forgets a series. Not for counters, histograms and summaries. */
#define kaon_forget(map, keyp) ({ KAON_CHECK_KEY(map, keyp); (void)bpf_map_delete_elem(map, keyp); })

/* Summaries. */
#define kaon_summarize(map, keyp, n) ({ \
	__u64 _n = (n); \
	typeof((map)->value) _v = kaon_entry(map, keyp); \
	if (_v) { \
		kaon_add_at(&_v->count, 1); \
		kaon_add_at(&_v->sum, _n); \
	} })

/* floor(log2 v) without branches; 0 for 0. */
static __always_inline __u64 kaon_log2(__u64 v)
{
	v |= v >> 1;
	v |= v >> 2;
	v |= v >> 4;
	v |= v >> 8;
	v |= v >> 16;
	v |= v >> 32;
	return kaon_debruijn[((v - (v >> 1)) * KAON_DEBRUIJN) >> 58];
}

/*
 * The slot of v, exactly: the thresholds of schema 5 repeat in every octave, in any
 * unit; v moved to [2^63, 2^64) selects one of 64 cells, which holds at most one
 * of them. Lower schemas are rounded up from schema 5. No branches before the end: they multiply
 * the verifier's work where a program loops. All but v must be constant.
 */
static __always_inline __u64 kaon_slot(__u64 v, long unit, long schema, long low, long high)
{
	const __u64 bottom = (64 + low) << schema, last = KAON_SLOTS(schema, low, high) - 1;
	__u64 exponent, m, i;
	const struct kaon_cell *cell;

	kaon_opaque(v);
	exponent = kaon_log2(v);
	m = v << (63 - (exponent & 63));
	cell = unit ? &kaon_cells_ns[(m >> 57) & 63] : &kaon_cells_one[(m >> 57) & 63];
	/* m and limit are in [2^63, 2^64): the difference has the top bit if m > limit. */
	i = (exponent << 5) + cell->base + ((cell->limit - m) >> 63);
	i += 64 * 32 - (unit ? KAON_P_ns : KAON_P_one) + (1 << (5 - schema)) - 1;
	i >>= 5 - schema;
	/* Zero is below everything; nanoseconds are far below any sensible range. */
	if (!unit || low < -29)
		i &= -((v | -v) >> 63);
	i = i > bottom ? i - bottom : 0;
	kaon_opaque(i);
	if (i > last)
		i = last;
	return i;
}

/* One step of a bisection: step, if the bound that it would skip last is below v, else 0. */
static __always_inline __u64 kaon_bisect(__u64 v, const __u64 *bounds, __u64 i, __u64 step)
{
	i += step - 1;
	/* The compiler knows that i is small and would leave out the mask; old verifiers need it. */
	kaon_opaque(i);
	return ((bounds[i & 63] - v) >> 63) * step;
}

/* The first of 64 bounds (padded with KAON_MAX_BOUND) that is not below v; n if none of the n is. */
static __always_inline __u64 kaon_bounds_slot(__u64 v, const __u64 *bounds, __u64 n)
{
	__u64 i = 0;

	kaon_opaque(v);
	v = (v | -(v >> 63)) & KAON_MAX_BOUND; /* at most the padding */
	if (n > 31)
		i += kaon_bisect(v, bounds, i, 32);
	if (n > 15)
		i += kaon_bisect(v, bounds, i, 16);
	if (n > 7)
		i += kaon_bisect(v, bounds, i, 8);
	if (n > 3)
		i += kaon_bisect(v, bounds, i, 4);
	if (n > 1)
		i += kaon_bisect(v, bounds, i, 2);
	i += kaon_bisect(v, bounds, i, 1);
	kaon_opaque(i);
	if (i > n)
		i = n;
	return i;
}

#define kaon_slot_of(histogram, v) kaon_slot(v, KAON_UNIT_OF(histogram), KAON_SCHEMA_OF(histogram), \
	KAON_LOW_OF(histogram), KAON_HIGH_OF(histogram))

/* Counts v in a histogram that a pointer leads to. */
#define kaon_observe_at(histogram, v) ({ \
	__u64 _o = (v); \
	__u64 _s = kaon_slot_of(histogram, _o); \
	kaon_add_at(&(histogram)->sum, _o); \
	kaon_add_at(&(histogram)->slots[_s], 1); })
#define kaon_unobserve_at(histogram, v) ({ \
	__u64 _o = (v); \
	__u64 _s = kaon_slot_of(histogram, _o); \
	kaon_add_at(&(histogram)->sum, -_o); \
	kaon_add_at(&(histogram)->slots[_s], -1); })

#define KAON_CHECK_UNIT(map, unit) \
	_Static_assert(KAON_UNIT_OF((map)->value) == (unit), \
		"kaon_observe_ns is for histograms in ns (KAON_HISTOGRAM), kaon_observe for those in one")

#define kaon_observe_(map, keyp, n) ({ \
	__u64 _n = (n); \
	typeof((map)->value) _h = kaon_entry(map, keyp); \
	if (_h) \
		kaon_observe_at(_h, _n); })
#define kaon_unobserve_(map, keyp, n) ({ \
	__u64 _n = (n); \
	typeof((map)->value) _h = kaon_entry(map, keyp); \
	if (_h) \
		kaon_unobserve_at(_h, _n); })

/* Histograms in one. */
#define kaon_observe(map, keyp, n) ({ KAON_CHECK_UNIT(map, KAON_UNIT_one); kaon_observe_(map, keyp, n); })
/* Histograms in ns: nanoseconds. */
#define kaon_observe_ns(map, keyp, ns) ({ KAON_CHECK_UNIT(map, KAON_UNIT_ns); kaon_observe_(map, keyp, ns); })
/* Gauge histograms: takes back what was observed. */
#define kaon_unobserve(map, keyp, n) ({ KAON_CHECK_UNIT(map, KAON_UNIT_one); kaon_unobserve_(map, keyp, n); })
#define kaon_unobserve_ns(map, keyp, ns) ({ KAON_CHECK_UNIT(map, KAON_UNIT_ns); kaon_unobserve_(map, keyp, ns); })

/* Histograms with explicit bounds. Takes the map's name, without &. */
#define kaon_observe_bounds(name, keyp, n) ({ \
	__u64 _n = (n); \
	typeof((&name)->value) _h = kaon_entry(&name, keyp); \
	if (_h) { \
		__u64 _s = kaon_bounds_slot(_n, kaon_bounds_##name, sizeof(_h->slots) / 8 - 1); \
		kaon_add_at(&_h->sum, _n); \
		kaon_add_at(&_h->slots[_s], 1); \
	} })

/* At most one exemplar per second and series: rarely two CPUs store one at the
 * same moment (then the members of both may mix), and it costs little. */
#define KAON_EXEMPLAR_NS 1000000000ULL
#define kaon_observe_exemplar_(map, keyp, n, labelsp) ({ \
	__u64 _n = (n); \
	typeof((map)->value) _h = kaon_entry(map, keyp); \
	if (_h) { \
		__u64 _now = bpf_ktime_get_boot_ns(); \
		kaon_observe_at(_h, _n); \
		if (_now - _h->exemplar.timestamp >= KAON_EXEMPLAR_NS) { \
			*(volatile __u64 *)&_h->exemplar.timestamp = 0; /* none while it changes */ \
			_h->exemplar.value = _n; \
			_h->exemplar.labels = *(labelsp); \
			asm volatile("" ::: "memory"); \
			*(volatile __u64 *)&_h->exemplar.timestamp = _now; \
		} \
	} })
#define kaon_observe_exemplar(map, keyp, n, labelsp) \
	({ KAON_CHECK_UNIT(map, KAON_UNIT_one); kaon_observe_exemplar_(map, keyp, n, labelsp); })
#define kaon_observe_ns_exemplar(map, keyp, ns, labelsp) \
	({ KAON_CHECK_UNIT(map, KAON_UNIT_ns); kaon_observe_exemplar_(map, keyp, ns, labelsp); })

/* ---- Times --------------------------------------------------------------- */

static __always_inline __u64 kaon_now(void)
{
	return bpf_ktime_get_ns();
}

/* When something began, by a key: kaon_start at its beginning, kaon_elapsed at
 * its end. Ends that never come are evicted when `entries` others have begun. */
#define KAON_STARTS(name, K, entries) \
	struct { \
		__uint(type, BPF_MAP_TYPE_LRU_HASH); \
		__uint(max_entries, entries); \
		__type(key, K); \
		__type(value, __u64); \
	} name SEC(".maps")
#define kaon_start(map, keyp) ({ \
	KAON_CHECK_KEY(map, keyp); \
	__u64 _t = kaon_now(); \
	(void)bpf_map_update_elem(map, keyp, &_t, BPF_ANY); })
/* Nanoseconds since kaon_start of this key, at least 1; 0 if there was none. */
#define kaon_elapsed(map, keyp) ({ \
	KAON_CHECK_KEY(map, keyp); \
	__u64 _t = 0, *_begin = bpf_map_lookup_elem(map, keyp); \
	if (_begin) { \
		_t = kaon_now() - *_begin; \
		_t |= !_t; \
		bpf_map_delete_elem(map, keyp); \
	} \
	_t; })

/* ---- Iterators as readers ------------------------------------------------ */

/* The records that an iterator (SEC("iter/...") function) emits at every scrape. The map
 * declares their types only and is never created. */
#define KAON_ITERATOR_GAUGE(name, K, function, help) \
	KAON_ITERATOR_METRIC(name, K, __s64, function, KAON_TYPE(gauge) KAON_HELP(help))
#define KAON_ITERATOR_COUNTER(name, K, function, help) \
	KAON_ITERATOR_METRIC(name, K, __u64, function, KAON_TYPE(counter) KAON_HELP(help))
#define KAON_ITERATOR_INFO(name, K, function, help) \
	KAON_ITERATOR_METRIC(name, K, __u64, function, KAON_TYPE(info) KAON_HELP(help))
/* V: a struct whose members carry KAON_TYPE and KAON_HELP. */
#define KAON_ITERATOR_METRICS(name, K, V, function) \
	KAON_ITERATOR_METRIC(name, K, V, function, )
#define KAON_ITERATOR_METRIC(name, K, V, function, tags) \
	struct { \
		__uint(type, BPF_MAP_TYPE_HASH); \
		__uint(max_entries, 1); \
		__type(key, K); \
		__type(value, V); \
	} name KAON_TAG("iterator=" #function) tags SEC(".maps")

/* Emits one record: kaon_emit(ctx->meta->seq, &map, &key, &value). Records of the same key
 * are summed. An iterator may run twice for one object: no other side effects.
 * All records of one object together must be shorter than 32 KiB. */
#define kaon_emit(seq, map, keyp, valuep) ({ \
	KAON_CHECK_KEY(map, keyp); \
	_Static_assert(__builtin_types_compatible_p(typeof(*(map)->value), typeof(*(valuep))), \
		"the value does not have the type of the map's values"); \
	struct { \
		typeof(*(map)->key) key; \
		typeof(*(map)->value) value; \
	} __attribute__((packed)) _record; \
	__builtin_memcpy(&_record.key, keyp, sizeof(_record.key)); \
	__builtin_memcpy(&_record.value, valuep, sizeof(_record.value)); \
	(void)bpf_seq_write(seq, &_record, sizeof(_record)); })

/* ---- Streams ------------------------------------------------------------- */

/* A ring buffer of records of type R. bytes: a power of two, at least 4096. What finds no room is
 * counted in kaon_lost_NAME. */
#define KAON_STREAM(name, R, bytes, help) \
	_Static_assert((bytes) >= 4096 && ((bytes) & ((bytes) - 1)) == 0, \
		"the size of a stream must be a power of two, at least 4096"); \
	__u64 kaon_lost_##name SEC(".data.kaon") = 0; \
	struct { \
		__uint(type, BPF_MAP_TYPE_RINGBUF); \
		__uint(max_entries, bytes); \
		__type(value, R); \
	} name KAON_TAG("stream") KAON_HELP(help) SEC(".maps")

/* A record to be filled in (it holds garbage: set every member) and passed to
 * kaon_submit or kaon_discard; NULL if there is no room. Takes the stream's name,
 * without &. */
#define kaon_reserve(name) ({ \
	typeof((&name)->value) _r = bpf_ringbuf_reserve(&name, sizeof(*_r), 0); \
	if (!_r) \
		__sync_fetch_and_add(&kaon_lost_##name, 1); \
	_r; })
#define kaon_submit(record) bpf_ringbuf_submit(record, 0)
#define kaon_discard(record) bpf_ringbuf_discard(record, 0)

#include "kaon_workload.h"
#include "kaon_socket.h"

#endif /* KAON_H */
