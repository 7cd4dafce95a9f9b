// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("TCP resets sent and received, by workload, state and reason.");

enum tcp_state {
	TCP_STATE_NONE, TCP_STATE_ESTABLISHED, TCP_STATE_SYN_SENT, TCP_STATE_SYN_RECV, TCP_STATE_FIN_WAIT1, TCP_STATE_FIN_WAIT2,
	TCP_STATE_TIME_WAIT, TCP_STATE_CLOSE, TCP_STATE_CLOSE_WAIT, TCP_STATE_LAST_ACK, TCP_STATE_LISTEN, TCP_STATE_CLOSING,
	TCP_STATE_NEW_SYN_RECV,
};

struct sent {
	kaon_workload_t workload KAON_OMIT_ZERO;
	enum tcp_state state KAON_OMIT_ZERO;
	enum sk_rst_reason reason KAON_KERNEL_ENUM;
};

struct received {
	kaon_workload_t workload;
	enum tcp_state state;
	KAON_PAD(4);
};

KAON_SOCKET_WORKLOAD();
KAON_COUNTER_MAP(tcp_resets_sent_total, HASH, struct sent, 4000,
	"TCP resets sent. Without a workload: nobody has the socket that the other side meant.") KAON_LIMIT(4000);
KAON_COUNTER_MAP(tcp_resets_received_total, HASH, struct received, 4000, "TCP resets received.") KAON_LIMIT(4000);

SEC("tp_btf/tcp_send_reset")
int reset_sent(__u64 *ctx)
{
	struct sock *sk = (void *)ctx[0];
	struct sent key = {};

	if (sk) {
		if (!kaon_sk_in_scope(sk))
			return 0;
		key.workload = kaon_sk_workload(sk);
		key.state = sk->__sk_common.skc_state;
	} else if (kaon_is_limited()) {
		return 0;
	}
	/* The argument came with the type, in 6.10. */
	if (bpf_core_enum_value_exists(enum sk_rst_reason, SK_RST_REASON_NO_SOCKET))
		key.reason = ctx[2];
	kaon_increment(&tcp_resets_sent_total, &key);
	return 0;
}

SEC("tp_btf/tcp_receive_reset")
int BPF_PROG(reset_received, struct sock *sk)
{
	struct received key = {};

	if (!kaon_sk_in_scope(sk))
		return 0;
	key.workload = kaon_sk_workload(sk);
	key.state = sk->__sk_common.skc_state;
	kaon_increment(&tcp_resets_received_total, &key);
	return 0;
}
