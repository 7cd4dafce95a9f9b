// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Block device latency, bytes and errors, by device and operation.");

KAON_PARAM(bool, device_only, false, "Measure from when the device got the request, without the time in its queue.");

/* Of REQ_OP_*, those whose numbers never changed. */
enum operation {
	OPERATION_READ = 0,
	OPERATION_WRITE = 1,
	OPERATION_FLUSH = 2,
	OPERATION_DISCARD = 3,
	OPERATION_SECURE_ERASE = 5,
	OPERATION_WRITE_ZEROES = 9,
	OPERATION_OTHER = 255,
};

#define REQUEST_OPERATION 0xff

struct io_key {
	kaon_workload_t workload;
	kaon_device_t device;
	enum operation operation;
};

struct error_key {
	kaon_workload_t workload;
	kaon_device_t device;
	enum operation operation;
	kaon_errno_t errno;
	KAON_PAD(4);
};

KAON_HISTOGRAM_TYPE(io_latency, ns, 2, -20, 6);

struct io {
	__u64 bytes KAON_NAME("blockio_bytes_total") KAON_TYPE(counter) KAON_UNIT("bytes")
		KAON_HELP("Bytes of requests that block devices completed.");
	struct io_latency latency KAON_NAME("blockio_latency_seconds") KAON_TYPE(histogram) KAON_UNIT("seconds")
		KAON_HELP("Time from when a request was queued until the block device completed it.");
};

KAON_METRICS_MAP(blockio, HASH, struct io_key, struct io, 4000);
KAON_COUNTER_MAP(blockio_errors_total, HASH, struct error_key, 4000, "Requests that block devices failed.");

struct begun {
	__u64 time;	/* 0: not in progress */
	__u64 workload;
};

/* By request. The kernel reuses its requests, so entries stay for the next use. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct begun);
} requests SEC(".maps");

struct gendisk___kaon {
	int major;
	int first_minor;
} KAON_CORE;

struct request_queue___kaon {
	struct gendisk___kaon *disk;	/* since 5.15 */
} KAON_CORE;

struct request___kaon {
	struct request_queue___kaon *q;
	struct gendisk___kaon *rq_disk;	/* before 5.17 */
	unsigned int cmd_flags;
	unsigned int __data_len;
} KAON_CORE;

static __always_inline __u32 device_of(struct request___kaon *rq)
{
	struct gendisk___kaon *disk;

	if (bpf_core_field_exists(struct request___kaon, rq_disk))
		disk = rq->rq_disk;
	else
		disk = rq->q->disk;
	return disk ? (__u32)disk->major << 20 | (__u32)disk->first_minor : 0;
}

static __always_inline enum operation operation_of(struct request___kaon *rq)
{
	__u32 op = rq->cmd_flags & REQUEST_OPERATION;

	switch (op) {
	case OPERATION_READ:
	case OPERATION_WRITE:
	case OPERATION_FLUSH:
	case OPERATION_DISCARD:
	case OPERATION_SECURE_ERASE:
	case OPERATION_WRITE_ZEROES:
		return op;
	}
	return OPERATION_OTHER;
}

/* blk_status_t, which newer kernels pass, as an errno; older ones pass that. */
static __always_inline int errno_of(int error)
{
	if (error < 0)
		return -error;
	switch (error) {
	case 1: return 95;	/* EOPNOTSUPP */
	case 2: return 110;	/* ETIMEDOUT */
	case 3: return 28;	/* ENOSPC */
	case 4: return 67;	/* ENOLINK */
	case 5: return 121;	/* EREMOTEIO */
	case 6: return 52;	/* EBADE */
	case 7: return 61;	/* ENODATA */
	case 8: return 84;	/* EILSEQ */
	case 9: return 12;	/* ENOMEM */
	case 12: return 11;	/* EAGAIN */
	case 13: return 16;	/* EBUSY */
	}
	return 5;		/* EIO */
}

static __always_inline int begin(__u64 id, struct begun *begun)
{
	if (!kaon_in_scope()) {
		if (begun)
			begun->time = 0;
		return 0;
	}
	if (begun) {
		begun->time = kaon_now();
		begun->workload = kaon_workload();
	} else {
		struct begun first = {.time = kaon_now(), .workload = kaon_workload()};

		bpf_map_update_elem(&requests, &id, &first, BPF_ANY);
	}
	return 0;
}

static __always_inline int queued(struct request *rq)
{
	__u64 id = (__u64)rq;

	return begin(id, bpf_map_lookup_elem(&requests, &id));
}

/* Without a scheduler requests are issued without having been queued. */
static __always_inline int issued(struct request *rq)
{
	__u64 id = (__u64)rq;
	struct begun *begun = bpf_map_lookup_elem(&requests, &id);

	if (!begun || !begun->time)
		return begin(id, begun);
	if (device_only)
		begun->time = kaon_now();
	return 0;
}

/*
 * Kernels before 5.11, unless that was changed later, pass the queue, too, and first. They are
 * tried first: a kernel that passes only the request refuses them; they would take the
 * others, which then see the queue.
 */
SEC("tp_btf/block_rq_insert") KAON_ALTERNATIVE(queued, 1)
int BPF_PROG(request_queued_old, struct request_queue *queue, struct request *rq)
{
	return queued(rq);
}

SEC("tp_btf/block_rq_insert") KAON_ALTERNATIVE(queued, 2)
int BPF_PROG(request_queued, struct request *rq)
{
	return queued(rq);
}

SEC("tp_btf/block_rq_issue") KAON_ALTERNATIVE(issued, 1)
int BPF_PROG(request_issued_old, struct request_queue *queue, struct request *rq)
{
	return issued(rq);
}

SEC("tp_btf/block_rq_issue") KAON_ALTERNATIVE(issued, 2)
int BPF_PROG(request_issued, struct request *rq)
{
	return issued(rq);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(request_completed, struct request *request, int error, unsigned int bytes)
{
	struct request___kaon *rq = (void *)request;
	__u64 id = (__u64)request;
	struct begun *begun = bpf_map_lookup_elem(&requests, &id);
	struct io_key key = {};
	struct io *io;

	if (!begun || !begun->time)
		return 0;
	key.workload = begun->workload;
	key.device = device_of(rq);
	key.operation = operation_of(rq);
	if (error) {
		struct error_key failed = {
			.workload = key.workload, .device = key.device, .operation = key.operation, .errno = errno_of(error),
		};
		kaon_increment(&blockio_errors_total, &failed);
	}
	io = kaon_entry(&blockio, &key);
	if (io && !error)
		kaon_add_at(&io->bytes, bytes);
	/* A request may complete in parts. */
	if (bytes >= rq->__data_len) {
		if (io)
			kaon_observe_at(&io->latency, kaon_now() - begun->time);
		begun->time = 0;
	}
	return 0;
}
