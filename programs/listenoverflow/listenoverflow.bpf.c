// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("TCP listeners: connections that wait to be accepted, the queue's limit, and what was dropped, read at scrape time.");

struct key {
	kaon_workload_t workload;
	kaon_port_t port;
	KAON_PAD(6);
};

struct queue {
	__s64 length KAON_NAME("tcp_listen_queue_length") KAON_TYPE(gauge) KAON_HELP("Connections that were made and wait to be accepted.");
	__s64 limit KAON_NAME("tcp_listen_queue_limit") KAON_TYPE(gauge) KAON_HELP("Connections that may wait: the backlog of listen().");
	__u64 drops KAON_NAME("tcp_listen_drops_total") KAON_TYPE(counter)
		KAON_HELP("Requests for a connection that listeners dropped, mostly because their queue was full.");
};

KAON_ITERATOR_METRICS(listeners, struct key, struct queue, walk_files);

/* At which file of which reading a listener was met: several processes may have it. */
struct meeting {
	__u64 session, file;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct meeting);
} met SEC(".maps");

#define FILE_TYPE 0170000
#define FILE_SOCKET 0140000
#define SOCKFS 0x534f434b
#define PROTOCOL_TCP 6
#define PROTOCOL_MPTCP 262

static __always_inline bool first_meeting(__u64 socket, struct bpf_iter_meta *meta)
{
	struct meeting now = { .session = meta->session_id, .file = meta->seq_num }, *last;

	last = bpf_map_lookup_elem(&met, &socket);
	/* The kernel may show the same file twice, if there was no room for what was told of it. */
	if (last && last->session == now.session && last->file != now.file)
		return false;
	bpf_map_update_elem(&met, &socket, &now, BPF_ANY);
	return true;
}

SEC("iter/task_file")
int walk_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct queue queue = {};
	struct key key = {};
	struct sock *sk;
	__u32 protocol;

	if (!task || !file || (file->f_inode->i_mode & FILE_TYPE) != FILE_SOCKET || file->f_inode->i_sb->s_magic != SOCKFS)
		return 0;
	if (!kaon_task_in_scope(task))
		return 0;
	sk = BPF_CORE_READ((struct socket *)file->private_data, sk);
	/* Other families use the same number for other states. */
	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_state) != BPF_TCP_LISTEN)
		return 0;
	protocol = BPF_CORE_READ(sk, sk_protocol);
	/* What listens is a TCP socket inside. */
	if (protocol == PROTOCOL_MPTCP && bpf_core_field_exists(struct mptcp_sock, first))
		sk = BPF_CORE_READ((struct mptcp_sock *)sk, first);
	else if (protocol != PROTOCOL_TCP)
		return 0;
	if (!sk || !first_meeting((__u64)sk, ctx->meta))
		return 0;
	key.workload = kaon_task_workload(task);
	key.port = BPF_CORE_READ(sk, __sk_common.skc_num);
	queue.length = BPF_CORE_READ(sk, sk_ack_backlog);
	queue.limit = BPF_CORE_READ(sk, sk_max_ack_backlog);
	queue.drops = (__u32)BPF_CORE_READ(sk, sk_drops.counter);
	kaon_emit(ctx->meta->seq, &listeners, &key, &queue);
	return 0;
}
