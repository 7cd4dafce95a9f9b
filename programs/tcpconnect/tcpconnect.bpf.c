// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("TCP connections: connects, accepts, failures by errno, and how long connecting takes.");

KAON_PARAM(bool, ports, false, "Tell ports apart: the remote one of connects, the listener's of accepts.");

#define ERROR_GIVEN_UP 125		/* ECANCELED */
#define ERROR_NO_PORT 99		/* EADDRNOTAVAIL */

struct key {
	kaon_workload_t workload;
	kaon_port_t port KAON_OMIT_ZERO;
	KAON_PAD(6);
};

struct failure {
	kaon_workload_t workload;
	kaon_errno_t error;
	kaon_port_t port KAON_OMIT_ZERO;
	KAON_PAD(2);
};

struct connection {
	__u64 socket;
};

KAON_SOCKET_WORKLOAD();
KAON_COUNTER_MAP(tcp_connects_total, HASH, struct key, 4000, "Connections that were begun by connect().") KAON_LIMIT(4000);
KAON_COUNTER_MAP(tcp_accepts_total, HASH, struct key, 4000, "Connections that were made to a listener.") KAON_LIMIT(4000);
KAON_COUNTER_MAP(tcp_connect_failures_total, HASH, struct failure, 4000,
	"Connections that were begun and never made. ECANCELED: given up by the program, mostly after a time of its own.") KAON_LIMIT(4000);
KAON_HISTOGRAM_MAP(tcp_connect_latency_seconds, HASH, struct key, 2000, ns, 2, -20, 6,
	"Time from connect() until the connection was made.") KAON_UNIT("seconds") KAON_LIMIT(2000);
KAON_STARTS(starts, struct connection, 16384);

/* What connects, runs as the task that does; all other states are entered in softirq. */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_state, struct sock *sk, int before, int after)
{
	struct connection connection = { .socket = (__u64)sk };
	struct tcp_sock *tcp;
	struct key key = {};
	__u64 elapsed;

	if (after != BPF_TCP_SYN_SENT && before != BPF_TCP_SYN_SENT && (before != BPF_TCP_SYN_RECV || after != BPF_TCP_ESTABLISHED))
		return 0;
	/* Other protocols have these states, too. */
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp || !kaon_sk_in_scope(sk))
		return 0;
	key.workload = kaon_sk_workload(sk);
	if (before == BPF_TCP_SYN_RECV) {
		if (ports)
			key.port = sk->__sk_common.skc_num;
		kaon_increment(&tcp_accepts_total, &key);
		return 0;
	}
	if (ports)
		key.port = bpf_ntohs(sk->__sk_common.skc_dport);
	if (after == BPF_TCP_SYN_SENT) {
		kaon_start(&starts, &connection);
		kaon_increment(&tcp_connects_total, &key);
		return 0;
	}
	elapsed = kaon_elapsed(&starts, &connection);
	if (after == BPF_TCP_ESTABLISHED) {
		if (elapsed)
			kaon_observe_ns(&tcp_connect_latency_seconds, &key, elapsed);
	} else if (after == BPF_TCP_CLOSE) {
		struct failure failure = { .workload = key.workload, .error = sk->sk_err, .port = key.port };

		/* Without an error it was closed, or there was no local port for it. */
		if (!failure.error)
			failure.error = tcp->inet_conn.icsk_inet.inet_sport ? ERROR_GIVEN_UP : ERROR_NO_PORT;
		kaon_increment(&tcp_connect_failures_total, &failure);
	}
	return 0;
}
