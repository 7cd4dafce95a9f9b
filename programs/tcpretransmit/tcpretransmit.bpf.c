// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("TCP segments that were sent again, by workload, state and cause.");

enum tcp_state {
	TCP_STATE_ESTABLISHED = 1, TCP_STATE_SYN_SENT, TCP_STATE_SYN_RECV, TCP_STATE_FIN_WAIT1, TCP_STATE_FIN_WAIT2,
	TCP_STATE_TIME_WAIT, TCP_STATE_CLOSE, TCP_STATE_CLOSE_WAIT, TCP_STATE_LAST_ACK, TCP_STATE_LISTEN, TCP_STATE_CLOSING,
};

enum retransmit_kind {
	RETRANSMIT_KIND_SYN,
	RETRANSMIT_KIND_SYNACK,
	RETRANSMIT_KIND_TIMEOUT,
	RETRANSMIT_KIND_FAST,
	RETRANSMIT_KIND_PROBE,
};

enum ip_family {
	IP_FAMILY_IPV4,
	IP_FAMILY_IPV6,
};

struct key {
	kaon_workload_t workload;
	enum tcp_state state;
	enum retransmit_kind kind;
	enum ip_family family;
	KAON_PAD(4);
};

KAON_SOCKET_WORKLOAD();
KAON_COUNTER_MAP(tcp_retransmits_total, HASH, struct key, 4000, "TCP segments that were sent again.") KAON_LIMIT(4000);

/* Since 6.16 the tracepoint also tells of failures. */
struct trace_event_raw_tcp_retransmit_skb___kaon {
	int err;
} KAON_CORE;

static __always_inline void count(struct sock *sk, enum tcp_state state, enum retransmit_kind kind, __u64 segments)
{
	struct key key = { .workload = kaon_sk_workload(sk), .state = state, .kind = kind };

	key.family = kaon_sk_is_ipv4(sk) ? IP_FAMILY_IPV4 : IP_FAMILY_IPV6;
	kaon_add(&tcp_retransmits_total, &key, segments);
}

SEC("tp_btf/tcp_retransmit_skb")
int retransmit(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct sk_buff *skb = (void *)ctx[1];
	enum retransmit_kind kind = RETRANSMIT_KIND_PROBE;
	struct tcp_sock *tcp;
	__u32 state, recovery, segments;

	if (bpf_core_field_exists(struct trace_event_raw_tcp_retransmit_skb___kaon, err) && (int)ctx[2])
		return 0;
	if (!kaon_sk_in_scope(sk))
		return 0;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return 0;
	state = sk->__sk_common.skc_state;
	recovery = BPF_CORE_READ_BITFIELD(&tcp->inet_conn, icsk_ca_state);
	if (state == TCP_STATE_SYN_SENT)
		kind = RETRANSMIT_KIND_SYN;
	else if (state == TCP_STATE_SYN_RECV)
		kind = RETRANSMIT_KIND_SYNACK;
	else if (recovery == TCP_CA_Loss)
		kind = RETRANSMIT_KIND_TIMEOUT;
	else if (recovery == TCP_CA_Recovery)
		kind = RETRANSMIT_KIND_FAST;
	segments = ((struct tcp_skb_cb *)&skb->cb)->tcp_gso_segs;
	count(sk, state, kind, segments ? segments : 1);
	return 0;
}

/* Of a request for a connection: the socket is the listener. */
SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(retransmit_synack, struct sock *sk, struct request_sock *request)
{
	struct sock_common *common = &request->__req_common;

	if (!kaon_sk_in_scope(sk))
		return 0;
	struct key key = { .workload = kaon_sk_workload(sk), .state = TCP_STATE_SYN_RECV, .kind = RETRANSMIT_KIND_SYNACK };

	key.family = kaon_sk_is_ipv4(common) ? IP_FAMILY_IPV4 : IP_FAMILY_IPV6;
	kaon_increment(&tcp_retransmits_total, &key);
	return 0;
}
