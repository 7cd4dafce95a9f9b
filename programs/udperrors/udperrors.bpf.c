// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("UDP datagrams that were lost in full buffers, errors of sending, and unreachable ports.");

#define ADDRESS_FAMILY_IPV4 2
#define ADDRESS_FAMILY_IPV6 10
#define PROTOCOL_UDP 17
#define ENOMEM 12

enum reason {
	REASON_RECEIVE_BUFFER,
	REASON_MEMORY,
};

struct drop_key {
	kaon_workload_t workload KAON_OMIT_ZERO;
	enum reason reason;
	KAON_PAD(4);
};

struct error_key {
	kaon_workload_t workload KAON_OMIT_ZERO;
	kaon_errno_t errno;
	KAON_PAD(4);
};

KAON_SOCKET_WORKLOAD();
KAON_COUNTER_MAP(udp_receive_drops_total, HASH, struct drop_key, 2000,
	"Datagrams that were dropped because the socket's receive buffer, or the memory for all UDP sockets, was full.") KAON_LIMIT(2000);
KAON_COUNTER_MAP(udp_send_errors_total, HASH, struct error_key, 4000, "Datagrams that could not be sent.") KAON_LIMIT(4000);
KAON_COUNTER_MAP(udp_socket_errors_total, HASH, struct error_key, 4000,
	"Errors that UDP sockets were told of by ICMP, such as ports that nobody listens on (ECONNREFUSED).") KAON_LIMIT(4000);

static __always_inline int dropped(struct sock *sk, int error)
{
	struct drop_key key = {.reason = error == -ENOMEM ? REASON_RECEIVE_BUFFER : REASON_MEMORY};

	if (!kaon_sk_in_scope(sk))
		return 0;
	key.workload = kaon_sk_workload(sk);
	kaon_increment(&udp_receive_drops_total, &key);
	return 0;
}

/* Since 6.10, when it got the packet, too, it is called for IPv6. */
SEC("tp_btf/udp_fail_queue_rcv_skb") KAON_ALTERNATIVE(dropped, 1)
int BPF_PROG(datagram_dropped, int error, struct sock *sk, struct sk_buff *skb)
{
	return skb ? dropped(sk, error) : 0;
}

SEC("fexit/__udp_enqueue_schedule_skb") KAON_ALTERNATIVE(dropped, 2)
int BPF_PROG(datagram_queued, struct sock *sk, struct sk_buff *skb, int error)
{
	return error < 0 ? dropped(sk, error) : 0;
}

/* Without IPv6. */
SEC("tp_btf/udp_fail_queue_rcv_skb") KAON_ALTERNATIVE(dropped, 3)
int BPF_PROG(datagram_dropped_v4, int error, struct sock *sk)
{
	return dropped(sk, error);
}

static __always_inline int told(struct sock *sk)
{
	struct error_key key = {};

	if (sk->sk_protocol != PROTOCOL_UDP || !sk->sk_err || !kaon_sk_in_scope(sk))
		return 0;
	key.workload = kaon_sk_workload(sk);
	key.errno = sk->sk_err;
	kaon_increment(&udp_socket_errors_total, &key);
	return 0;
}

SEC("tp_btf/inet_sk_error_report") KAON_ALTERNATIVE(told, 1)
int BPF_PROG(socket_told, struct sock *sk)
{
	return told(sk);
}

/* Before 5.14. */
SEC("fentry/sock_def_error_report") KAON_ALTERNATIVE(told, 2)
int BPF_PROG(socket_told_old, struct sock *sk)
{
	return told(sk);
}

/* The current task is the one that sends. */
static __always_inline int sent(int result)
{
	struct error_key key = {};

	if (result >= 0 || !kaon_in_scope())
		return 0;
	key.workload = kaon_workload();
	key.errno = -result;
	kaon_increment(&udp_send_errors_total, &key);
	return 0;
}

SEC("fexit/udp_sendmsg") KAON_ALTERNATIVE(sent, 1)
int BPF_PROG(datagram_sent, struct sock *sk, struct msghdr *message, size_t size, int result)
{
	/* Sockets of IPv6 that send by IPv4 come here, too. */
	return result < 0 && sk->__sk_common.skc_family == ADDRESS_FAMILY_IPV4 ? sent(result) : 0;
}

SEC("fexit/udpv6_sendmsg") KAON_OPTIONAL
int BPF_PROG(datagram_sent_v6, struct sock *sk, struct msghdr *message, size_t size, int result)
{
	return sent(result);
}

/* Since 6.3, of all sockets: where functions can't be traced. */
SEC("tp_btf/sock_send_length") KAON_ALTERNATIVE(sent, 2)
int BPF_PROG(message_sent, struct sock *sk, int result)
{
	__u16 family;

	if (result >= 0 || sk->sk_protocol != PROTOCOL_UDP)
		return 0;
	family = sk->__sk_common.skc_family;
	return family == ADDRESS_FAMILY_IPV4 || family == ADDRESS_FAMILY_IPV6 ? sent(result) : 0;
}
