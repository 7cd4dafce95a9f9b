// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Everything that an object can say of itself.", KAON_NAME("every-thing"));

enum direction { DIRECTION_READ = 0, DIRECTION_WRITE = 1, DIRECTION_OTHER = -1 };

struct inner {
	__u16 port;
	kaon_ip_t address;
};

struct key {
	kaon_workload_t workload;
	char name[16];
	enum direction direction;
	kaon_device_t device;
	struct inner peer;
	__u8 flags : 3;
	__s8 level : 5;
	bool ok;
	__be32 mark;
	__u32 renamed KAON_LABEL("other");
	__u32 address KAON_DECODER("ipv4");
	__u8 hidden[3] KAON_SKIP;
};

KAON_PARAM(bool, detailed, false, "More metrics.");
KAON_PARAM(enum direction, only, DIRECTION_WRITE, "Which direction.");
KAON_PARAM(__s32, offset, -5, "A signed number.");
KAON_PARAM_DURATION(minimum, 10000000, "Ignore what is shorter.");
KAON_PARAM_SIZE(smallest, 4096, "Ignore what is smaller.");
KAON_PARAM_STRING(prefix, 16, "abc", "Begins with this.");

KAON_COUNTER(events, struct key, "Events.") ;
KAON_METRIC_MAP(depth, HASH, struct key, __s32, 100, KAON_TYPE(gauge) KAON_HELP("Depth.") KAON_LIMIT(50) KAON_WHEN(detailed));
KAON_HISTOGRAM(duration_seconds, struct key, "Durations.");
KAON_HISTOGRAM_OF(size_bytes, struct key, one, 1, -1, 30, "Sizes.");
KAON_HISTOGRAM_BOUNDS(steps, kaon_none_t, "Steps.", 1, 5, 0x10, 100);
KAON_SUMMARY(batch, struct key, "Batches.");
KAON_STATESET(mode, struct key, enum direction, "Mode.");
KAON_INFO(build, struct key, "Build.");

struct exemplar_labels {
	kaon_pid_t pid;
	char trace[8];
};
KAON_HISTOGRAM_EXEMPLARS(request_seconds, kaon_none_t, struct exemplar_labels, "Requests.");

KAON_HISTOGRAM_TYPE(io_latency, ns, 2, -20, 6);
struct several {
	__u64 reads KAON_TYPE(counter) KAON_HELP("Reads.");
	__u64 busy KAON_TYPE(counter) KAON_HELP("Busy time.") KAON_NAME("io_busy_seconds") KAON_UNIT("seconds") KAON_SCALE(1, 1000000000);
	struct io_latency latency KAON_TYPE(histogram) KAON_HELP("Latency.") KAON_NAME("io_latency_seconds");
	__u64 internal;
};
KAON_METRICS(io, struct key, struct several);

struct task_key {
	kaon_workload_t workload;
	__u32 state KAON_OMIT_ZERO;
	enum skb_drop_reason reason KAON_KERNEL_ENUM;
	KAON_PAD(4);
};
KAON_ITERATOR_GAUGE(tasks, struct task_key, dump_tasks, "Tasks.");

struct record {
	kaon_workload_t workload;
	kaon_comm_t comm;
};
KAON_STREAM(records, struct record, 65536, "Records.");

/* Not a metric: no tags. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16);
	__type(key, struct key);
	__type(value, struct several);
} untagged SEC(".maps");

SEC("iter/task")
int dump_tasks(struct bpf_iter__task *ctx)
{
	struct task_key key = {};
	__s64 one = 1;

	if (!ctx->task)
		return 0;
	key.workload = kaon_task_workload(ctx->task);
	kaon_emit(ctx->meta->seq, &tasks, &key, &one);
	return 0;
}

SEC("tp_btf/sched_switch") KAON_ALTERNATIVE(switch, 1)
int first(void *ctx)
{
	struct key key = {};
	struct several *v;

	key.workload = kaon_workload();
	if (offset || only || minimum || smallest || prefix[0])
		kaon_increment(&events, &key);
	kaon_observe_ns(&duration_seconds, &key, 5);
	kaon_observe(&size_bytes, &key, 5);
	kaon_observe_bounds(steps, KAON_NONE, 5);
	kaon_set(&mode, &key, DIRECTION_READ);
	kaon_info(&build, &key);
	v = kaon_entry(&io, &key);
	if (v)
		kaon_add_at(&v->reads, 1);
	v = bpf_map_lookup_elem(&untagged, &key);
	return v ? v->internal : 0;
}

SEC("raw_tp/sched_switch") KAON_ALTERNATIVE(switch, 2) KAON_OPTIONAL KAON_UNLESS(detailed)
int second(void *ctx)
{
	struct exemplar_labels labels = {.pid = 1};
	struct record *r = kaon_reserve(records);

	kaon_observe_ns_exemplar(&request_seconds, KAON_NONE, 5, &labels);
	if (r) {
		__builtin_memset(r, 0, sizeof(*r));
		kaon_submit(r);
	}
	return 0;
}

SEC("xdp")
int third(struct xdp_md *ctx)
{
	return XDP_PASS;
}
