// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Smoothed round-trip times of TCP connections: when they end and, on request, meanwhile.");

KAON_PARAM(__u32, every, 0, "Also observe at every so many segments that a connection receives. 0: only when it ends.");
KAON_PARAM(bool, ports, false, "Tell remote and local ports apart by the lower of both, which is mostly the server's.");

struct key {
	kaon_workload_t workload;
	kaon_port_t port KAON_OMIT_ZERO;
	KAON_PAD(6);
};

KAON_SOCKET_WORKLOAD();
KAON_HISTOGRAM_MAP(tcp_rtt_seconds, HASH, struct key, 4000, ns, 2, -20, 6,
	"Smoothed round-trip time, as the kernel's TCP measures it.") KAON_UNIT("seconds") KAON_LIMIT(4000);

static __always_inline void observe(struct sock *sk, struct tcp_sock *tcp)
{
	struct key key = {};
	__u32 srtt = tcp->srtt_us; /* in eighths of a microsecond; 0: never measured */

	if (!srtt || !kaon_sk_in_scope(sk))
		return;
	key.workload = kaon_sk_workload(sk);
	if (ports) {
		__u16 remote = bpf_ntohs(sk->__sk_common.skc_dport);

		key.port = sk->__sk_common.skc_num;
		if (remote < key.port)
			key.port = remote;
	}
	kaon_observe_ns(&tcp_rtt_seconds, &key, (__u64)srtt * 125);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(connection_ends, struct sock *sk, int before, int after)
{
	struct tcp_sock *tcp;

	if (before != BPF_TCP_ESTABLISHED)
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (tcp)
		observe(sk, tcp);
	return 0;
}

SEC("tp_btf/tcp_probe") KAON_WHEN(every)
int BPF_PROG(segment_received, struct sock *sk)
{
	struct tcp_sock *tcp = bpf_skc_to_tcp_sock(sk);

	if (tcp && !(tcp->segs_in % every))
		observe(sk, tcp);
	return 0;
}
