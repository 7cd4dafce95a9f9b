// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// One map of every kind and type; the arguments of the tracepoint are what is observed.
#include "kaon.h"

KAON_PROGRAM("Holds one of everything.", KAON_NAME("everything"));

struct key {
	kaon_workload_t workload;
	kaon_uid_t uid;
	KAON_WIDE;
};

struct small {
	kaon_uid_t uid;
	KAON_WIDE;
};

enum phase { PHASE_IDLE, PHASE_BUSY };

struct labels {
	kaon_pid_t pid;
	__u32 number;
};

KAON_HISTOGRAM_TYPE(latency, ns, 3, -20, 6);
struct both {
	__u64 reads KAON_TYPE(counter) KAON_HELP("Reads.");
	struct latency latency_seconds KAON_TYPE(histogram) KAON_HELP("Read latency.");
};

KAON_COUNTER(plain_total, struct key, "A counter.");
KAON_COUNTER(small_total, struct small, "A counter with a short key.") KAON_LIMIT(50);
KAON_COUNTER(none_total, kaon_none_t, "A counter without labels.");
KAON_COUNTER_MAP(percpu_none_total, PERCPU_SINGLE, kaon_none_t, 1, "A counter without labels, by CPU.");
KAON_COUNTER_MAP(percpu_total, PERCPU_HASH, struct key, 100, "A counter.") KAON_CPU;
KAON_COUNTER_MAP(array_total, ARRAY, kaon_cpu_t, 64, "A counter by CPU.");
KAON_COUNTER_MAP(mmap_total, MMAP_ARRAY, kaon_cpu_t, 64, "A counter by CPU.");
KAON_GAUGE(level, struct key, "A gauge.");
KAON_GAUGE_MAP(lru_level, LRU_HASH, struct key, 1000, "A gauge.");
KAON_HISTOGRAM(duration_seconds, struct key, "A histogram of times.");
KAON_HISTOGRAM_OF(size_bytes, struct key, one, 1, 0, 20, "A histogram of sizes.") KAON_UNIT("bytes");
KAON_HISTOGRAM_OF(fine_seconds, kaon_none_t, ns, 5, -20, 6, "A histogram with large values.");
KAON_HISTOGRAM_MAP(percpu_seconds, PERCPU_HASH, struct key, 100, ns, 2, -20, 6, "A histogram per CPU.");
KAON_HISTOGRAM_BOUNDS(bounded, struct key, "A histogram with explicit bounds.", 1, 10, 1000);
KAON_HISTOGRAM_EXEMPLARS(traced_seconds, struct key, struct labels, "A histogram with exemplars.");
KAON_GAUGE_HISTOGRAM(queue, struct key, one, 0, 0, 10, "Lengths of queues.");
KAON_SUMMARY(work_seconds, struct key, "Work.") KAON_SCALE(1, 1000000000);
KAON_INFO(build_info, struct key, "A build.");
KAON_STATESET(phase, struct key, enum phase, "A phase.");
KAON_METRICS(file, struct key, struct both);
KAON_STARTS(starts, struct key, 1000);

KAON_PARAM(bool, enabled, true, "Whether anything is counted.");
KAON_PARAM_DURATION(minimum, 10000000, "Shorter times are left out.");
KAON_PARAM_SIZE(chunk, 65536, "Bytes at once.");
KAON_PARAM_STRING(filter, 16, "init", "A name.");
KAON_PARAM(enum phase, first_phase, PHASE_BUSY, "A phase.");

struct record {
	__u64 value;
	kaon_comm_t comm;
};
KAON_STREAM(events, struct record, 4096, "Values, one by one.");

__u64 elapsed, unknown;

SEC("raw_tp/sys_enter") KAON_ALTERNATIVE(observe, 2) KAON_OPTIONAL KAON_WHEN(enabled)
int BPF_PROG(observe, __u64 uid, __u64 v)
{
	struct key key = { .workload = 7, .uid = uid };
	struct small small = { .uid = uid };
	kaon_cpu_t index = uid & 63;

	kaon_add(&plain_total, &key, v);
	kaon_increment(&small_total, &small);
	kaon_increment(&none_total, KAON_NONE);
	kaon_increment(&percpu_none_total, KAON_NONE);
	kaon_increment(&percpu_total, &key);
	kaon_add(&array_total, &index, v);
	kaon_add(&mmap_total, &index, v);
	kaon_set(&level, &key, -(__s64)v);
	kaon_add(&lru_level, &key, v);
	kaon_decrement(&lru_level, &key);
	return 0;
}

SEC("raw_tp/sys_enter") KAON_ALTERNATIVE(observe, 1)
int BPF_PROG(distribute, __u64 uid, __u64 v)
{
	struct key key = { .workload = 7, .uid = uid };
	struct labels labels = { .pid = 42, .number = v };

	kaon_observe_ns(&duration_seconds, &key, v);
	kaon_observe(&size_bytes, &key, v);
	kaon_observe_ns(&fine_seconds, KAON_NONE, v);
	kaon_observe_ns(&percpu_seconds, &key, v);
	kaon_observe_bounds(bounded, &key, v);
	kaon_observe_ns_exemplar(&traced_seconds, &key, v, &labels);
	kaon_observe(&queue, &key, v);
	kaon_observe(&queue, &key, v + 1);
	kaon_unobserve(&queue, &key, v);
	kaon_summarize(&work_seconds, &key, v);
	return 0;
}

SEC("raw_tp/sys_enter") KAON_UNLESS(enabled)
int BPF_PROG(describe, __u64 uid, __u64 v)
{
	struct key key = { .workload = 7, .uid = uid };
	struct key other = { .workload = 8, .uid = uid };

	kaon_info(&build_info, &key);
	kaon_info(&build_info, &other);
	kaon_forget(&build_info, &other);
	kaon_set(&phase, &key, first_phase);
	struct both *both = kaon_entry(&file, &key);
	if (both) {
		kaon_add_at(&both->reads, 3);
		kaon_observe_at(&both->latency_seconds, v);
	}
	kaon_start(&starts, &key);
	elapsed = kaon_elapsed(&starts, &key);
	unknown = kaon_elapsed(&starts, &key);
	return 0;
}

SEC("raw_tp/sys_enter")
int BPF_PROG(emit, __u64 uid, __u64 v)
{
	struct record *record = kaon_reserve(events);
	if (!record)
		return 0;
	record->value = v;
	__builtin_memset(record->comm, 0, sizeof(record->comm));
	bpf_get_current_comm(record->comm, sizeof(record->comm));
	if (uid)
		kaon_submit(record);
	else
		kaon_discard(record);
	return 0;
}

// An iterator over the elements of plain_total: a record is 16 bytes of key and 8 of value.
KAON_ITERATOR_GAUGE(copied, struct key, copy, "What plain_total holds.");

SEC("iter/bpf_map_elem")
int copy(struct bpf_iter__bpf_map_elem *ctx)
{
	struct key key = {};
	__s64 value = 0;
	__u64 *p = ctx->value;
	struct key *k = ctx->key;

	if (!k || !p)
		return 0;
	key.workload = k->workload;
	key.uid = k->uid;
	value = *p;
	kaon_emit(ctx->meta->seq, &copied, &key, &value);
	return 0;
}
