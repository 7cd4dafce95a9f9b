// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Dirty pages written back, by device and reason, and who was made to wait for that.");

enum reason {
	REASON_BACKGROUND,
	REASON_VMSCAN,
	REASON_SYNC,
	REASON_PERIODIC,
	REASON_LAPTOP_TIMER,
	REASON_FS_FREE_SPACE,
	REASON_FORKER_THREAD,
	REASON_FOREIGN_FLUSH,
	REASON_DONTCACHE,
	REASON_OTHER,
};

struct key {
	kaon_workload_t workload;
	kaon_device_t device;
	enum reason reason;
};

KAON_HISTOGRAM_TYPE(writeback_latency, ns, 2, -20, 6);

struct writeback {
	__u64 pages KAON_NAME("writeback_pages_total") KAON_TYPE(counter)
		KAON_HELP("Dirty pages that flusher threads gave to the device.");
	struct writeback_latency latency KAON_NAME("writeback_latency_seconds") KAON_TYPE(histogram) KAON_UNIT("seconds")
		KAON_HELP("Time of each round of a flusher thread that wrote pages.");
};

struct throttle_key {
	kaon_workload_t workload;
	kaon_device_t device;
	KAON_PAD(4);
};

KAON_METRICS_MAP(writeback, HASH, struct key, struct writeback, 2000);
KAON_HISTOGRAM_MAP(writeback_throttle_seconds, HASH, struct throttle_key, 2000, ns, 2, -20, 6,
	"Time for which a thread that writes was stopped because too many pages are dirty.") KAON_UNIT("seconds") KAON_LIMIT(2000);

struct wb_writeback_work___kaon {
	long nr_pages;
	enum wb_reason reason;
} KAON_CORE;

struct bdi_writeback___kaon {
	struct backing_dev_info *bdi;
	struct cgroup_subsys_state___kaon *memcg_css;	/* with CONFIG_CGROUP_WRITEBACK */
} KAON_CORE;

/* By number of the flusher thread. */
struct round {
	__u64 time;	/* 0: none */
	__s64 pages;	/* that were to be written at its beginning */
};

struct thread {
	__u64 id;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct thread);
	__type(value, struct round);
} rounds SEC(".maps");

enum wb_reason___kaon {
	WB_REASON_LAPTOP_TIMER___kaon,	/* until 7.0: those after it have moved up */
};

static __always_inline enum reason reason_of(__u32 number)
{
	if (!bpf_core_enum_value_exists(enum wb_reason___kaon, WB_REASON_LAPTOP_TIMER___kaon) && number >= REASON_LAPTOP_TIMER)
		number++;
	return number < REASON_OTHER ? number : REASON_OTHER;
}

/* The device that a name like "254:0" means; 0 for others, as "btrfs-1". */
static __always_inline __u32 device_of(const char *name)
{
	__u32 major = 0, number = 0;
	bool colon = false;

#pragma unroll
	for (int i = 0; i < 10; i++) {
		char c = name[i];

		if (c == ':' && !colon) {
			colon = true;
			major = number;
			number = 0;
		} else if (c >= '0' && c <= '9') {
			number = number * 10 + (c - '0');
		} else {
			break;
		}
	}
	return colon ? major << 20 | number : 0;
}

/* Of cgroup v2 with the memory and the io controller, each cgroup has its own; else NULL. */
static __always_inline struct cgroup___kaon *cgroup_of(struct bdi_writeback___kaon *wb)
{
	struct cgroup___kaon *cgroup;

	if (!bpf_core_field_exists(wb->memcg_css))
		return 0;
	cgroup = wb->memcg_css->cgroup;
	return cgroup->root->hierarchy_id ? 0 : cgroup;
}

SEC("tp_btf/writeback_start")
int BPF_PROG(round_begins, struct bdi_writeback___kaon *wb, struct wb_writeback_work___kaon *work)
{
	struct thread thread = {.id = bpf_get_current_pid_tgid()};
	struct round round = {};

	if (kaon_is_limited()) {
		struct cgroup___kaon *cgroup = cgroup_of(wb);

		if (cgroup && !(kaon_scope_id >> 48) ? !kaon_cgroup_in_scope(cgroup) : !kaon_in_scope())
			return 0;
	}
	round.time = kaon_now();
	round.pages = work->nr_pages;
	bpf_map_update_elem(&rounds, &thread, &round, BPF_ANY);
	return 0;
}

SEC("tp_btf/writeback_written")
int BPF_PROG(round_ends, struct bdi_writeback___kaon *wb, struct wb_writeback_work___kaon *work)
{
	struct thread thread = {.id = bpf_get_current_pid_tgid()};
	struct round *round = bpf_map_lookup_elem(&rounds, &thread);
	struct cgroup___kaon *cgroup;
	struct writeback *written;
	struct key key = {};
	char name[12] = {};
	__s64 pages;

	if (!round || !round->time)
		return 0;
	pages = round->pages - work->nr_pages;
	/* Rounds look for old pages all the time; most find none. */
	if (pages > 0) {
		cgroup = cgroup_of(wb);
		key.workload = cgroup ? cgroup->kn->id : kaon_workload();
		bpf_probe_read_kernel_str(name, sizeof(name), wb->bdi->dev_name);
		key.device = device_of(name);
		key.reason = reason_of(work->reason);
		written = kaon_entry(&writeback, &key);
		if (written) {
			kaon_add_at(&written->pages, pages);
			kaon_observe_at(&written->latency, kaon_now() - round->time);
		}
	}
	round->time = 0;
	return 0;
}

struct trace_event_raw_balance_dirty_pages___kaon {
	char bdi[32];
	long pause;	/* ms */
} KAON_CORE;

/* Returns 1: 0 would keep the event from others who listen, as perf. */
SEC("tracepoint/writeback/balance_dirty_pages")
int throttled(struct trace_event_raw_balance_dirty_pages___kaon *ctx)
{
	struct throttle_key key = {};
	char name[12] = {};
	long pause = ctx->pause;

	if (pause <= 0 || !kaon_in_scope())
		return 1;
	key.workload = kaon_workload();
	bpf_core_read_str(name, sizeof(name), &ctx->bdi);
	key.device = device_of(name);
	kaon_observe_ns(&writeback_throttle_seconds, &key, pause * 1000000);
	return 1;
}
