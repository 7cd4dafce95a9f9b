// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Sockets by protocol, state and family, and the memory of their queues, read at scrape time.");

KAON_PARAM(bool, unowned, false, "Also count TCP connections that no process has open, in the agent's own network namespace.");

enum socket_family {
	SOCKET_FAMILY_OTHER, SOCKET_FAMILY_IPV4, SOCKET_FAMILY_IPV6, SOCKET_FAMILY_UNIX, SOCKET_FAMILY_NETLINK,
	SOCKET_FAMILY_PACKET, SOCKET_FAMILY_VSOCK,
};

enum socket_protocol {
	SOCKET_PROTOCOL_NONE, SOCKET_PROTOCOL_TCP, SOCKET_PROTOCOL_UDP, SOCKET_PROTOCOL_MPTCP, SOCKET_PROTOCOL_SCTP,
	SOCKET_PROTOCOL_OTHER,
};

enum socket_state {
	SOCKET_STATE_NONE, SOCKET_STATE_ESTABLISHED, SOCKET_STATE_SYN_SENT, SOCKET_STATE_SYN_RECV, SOCKET_STATE_FIN_WAIT1,
	SOCKET_STATE_FIN_WAIT2, SOCKET_STATE_TIME_WAIT, SOCKET_STATE_CLOSE, SOCKET_STATE_CLOSE_WAIT, SOCKET_STATE_LAST_ACK,
	SOCKET_STATE_LISTEN, SOCKET_STATE_CLOSING,
	SOCKET_STATE_NEW_SYN_RECV,
};

struct key {
	kaon_workload_t workload;
	enum socket_family family;
	enum socket_protocol protocol KAON_OMIT_ZERO;
	enum socket_state state KAON_OMIT_ZERO;
	KAON_PAD(4);
};

struct usage {
	__s64 sockets KAON_NAME("sockets") KAON_TYPE(gauge) KAON_HELP("Sockets that processes have open.");
	__s64 receive KAON_NAME("socket_receive_memory_bytes") KAON_TYPE(gauge) KAON_UNIT("bytes")
		KAON_HELP("Memory of what was received and not yet read.");
	__s64 send KAON_NAME("socket_send_memory_bytes") KAON_TYPE(gauge) KAON_UNIT("bytes")
		KAON_HELP("Memory of what was written and is not yet sent and acknowledged.");
};

struct unowned {
	kaon_workload_t workload KAON_OMIT_ZERO;
	enum socket_family family;
	enum socket_state state;
};

KAON_ITERATOR_METRICS(open_sockets, struct key, struct usage, walk_files);
KAON_ITERATOR_GAUGE(tcp_unowned_sockets, struct unowned, walk_tcp,
	"TCP connections that no process has open: closed but not over, not yet accepted, waiting. Of the agent's network namespace.") KAON_WHEN(unowned);
KAON_SOCKET_WORKLOAD();

/* At which file of which reading a socket was met: several processes may have it. */
struct meeting {
	__u64 session, file;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct meeting);
} met SEC(".maps");

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define AF_NETLINK 16
#define AF_PACKET 17
#define AF_VSOCK 40
#define FILE_TYPE 0170000
#define FILE_SOCKET 0140000
#define SOCKFS 0x534f434b

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

static __always_inline enum socket_protocol protocol_of(__u32 protocol)
{
	switch (protocol) {
	case 6:
		return SOCKET_PROTOCOL_TCP;
	case 17:
		return SOCKET_PROTOCOL_UDP;
	case 132:
		return SOCKET_PROTOCOL_SCTP;
	case 262:
		return SOCKET_PROTOCOL_MPTCP;
	}
	return SOCKET_PROTOCOL_OTHER;
}

static __always_inline void describe(struct key *key, struct usage *usage, struct sock *sk)
{
	__u32 family = BPF_CORE_READ(sk, __sk_common.skc_family);

	key->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	usage->receive = BPF_CORE_READ(sk, sk_backlog.rmem_alloc.counter);
	switch (family) {
	case AF_INET:
		key->family = SOCKET_FAMILY_IPV4;
		break;
	case AF_INET6:
		key->family = SOCKET_FAMILY_IPV6;
		break;
	case AF_UNIX:
		key->family = SOCKET_FAMILY_UNIX;
		break;
	case AF_NETLINK:
		key->family = SOCKET_FAMILY_NETLINK;
		break;
	case AF_PACKET:
		key->family = SOCKET_FAMILY_PACKET;
		break;
	case AF_VSOCK:
		key->family = SOCKET_FAMILY_VSOCK;
		break;
	}
	if (family == AF_INET || family == AF_INET6)
		key->protocol = protocol_of(BPF_CORE_READ(sk, sk_protocol));
	if (key->protocol == SOCKET_PROTOCOL_TCP || key->protocol == SOCKET_PROTOCOL_MPTCP)
		usage->send = BPF_CORE_READ(sk, sk_wmem_queued);
	else
		usage->send = (__s64)BPF_CORE_READ(sk, sk_wmem_alloc.refs.counter) - 1; /* one is the socket's own */
}

SEC("iter/task_file")
int walk_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct usage usage = { .sockets = 1 };
	struct key key = {};
	struct sock *sk;

	if (!task || !file || (file->f_inode->i_mode & FILE_TYPE) != FILE_SOCKET || file->f_inode->i_sb->s_magic != SOCKFS)
		return 0;
	if (!kaon_task_in_scope(task))
		return 0;
	sk = BPF_CORE_READ((struct socket *)file->private_data, sk);
	if (!sk || !first_meeting((__u64)sk, ctx->meta))
		return 0;
	key.workload = kaon_task_workload(task);
	describe(&key, &usage, sk);
	kaon_emit(ctx->meta->seq, &open_sockets, &key, &usage);
	return 0;
}

SEC("iter/tcp") KAON_WHEN(unowned)
int walk_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct unowned key = {};
	struct tcp_sock *tcp;
	__s64 one = 1;

	if (!common)
		return 0;
	key.state = common->skc_state;
	tcp = bpf_skc_to_tcp_sock(common);
	if (tcp) {
		if (tcp->inet_conn.icsk_inet.sk.sk_socket || !kaon_sk_in_scope((struct sock *)tcp))
			return 0;
		key.workload = kaon_sk_workload((struct sock *)tcp);
	} else if (kaon_is_limited()) {
		return 0;
	}
	if (key.state == SOCKET_STATE_NEW_SYN_RECV)
		key.state = SOCKET_STATE_SYN_RECV;
	key.family = kaon_sk_is_ipv4(common) ? SOCKET_FAMILY_IPV4 : SOCKET_FAMILY_IPV6;
	kaon_emit(ctx->meta->seq, &tcp_unowned_sockets, &key, &one);
	return 0;
}
