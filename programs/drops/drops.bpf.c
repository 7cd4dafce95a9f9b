// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Packets that the kernel dropped, by reason and by the function that did.");

KAON_PARAM(bool, location, true, "Tell which function of the kernel dropped them.");
KAON_PARAM(bool, netns, false, "Tell network namespaces apart, by their inode.");

#define ADDRESS_FAMILY_IPV4 2
#define ADDRESS_FAMILY_IPV6 10
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd

#define NO_PROTOCOL 0xffff	/* not IP: no label */

struct key {
	kaon_workload_t workload KAON_OMIT_ZERO;
	kaon_ksym_t location KAON_OMIT_ZERO;
	enum skb_drop_reason reason KAON_KERNEL_ENUM;
	kaon_netns_t netns KAON_OMIT_ZERO;
	kaon_ethertype_t ethertype;
	__u16 protocol KAON_DECODER("protocol");
	KAON_PAD(4);
};

KAON_SOCKET_WORKLOAD();
KAON_COUNTER_MAP(packet_drops_total, HASH, struct key, 5000, "Packets that the kernel dropped.") KAON_LIMIT(5000);

static __always_inline __u16 ethertype_of(struct sk_buff *skb, struct sock *sk)
{
	__u16 ethertype = bpf_ntohs(skb->protocol), family;

	if (ethertype || !sk)
		return ethertype;
	/* On its way down it has none yet. */
	family = sk->__sk_common.skc_family;
	if (family == ADDRESS_FAMILY_IPV4)
		return ETHERTYPE_IPV4;
	return family == ADDRESS_FAMILY_IPV6 ? ETHERTYPE_IPV6 : 0;
}

static __always_inline __u16 protocol_of(struct sk_buff *skb, __u16 ethertype)
{
	__u16 network = skb->network_header;
	__u8 protocol = 0, version = 0;
	unsigned char *header;

	if (!network || (ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6))
		return NO_PROTOCOL;
	header = skb->head + network;
	/* The header may not be written yet, or cut off. */
	if (bpf_probe_read_kernel(&version, 1, header) || version >> 4 != (ethertype == ETHERTYPE_IPV4 ? 4 : 6))
		return NO_PROTOCOL;
	if (bpf_probe_read_kernel(&protocol, 1, header + (ethertype == ETHERTYPE_IPV4 ? 9 : 6)))
		return NO_PROTOCOL;
	return protocol;
}

static __always_inline __u32 netns_of(struct sk_buff *skb, struct sock *sk)
{
	struct net *net = 0;

	/* What queues of sockets hold has other things where the device was. */
	if (sk)
		net = sk->__sk_common.skc_net.net;
	else if (skb->dev)
		net = skb->dev->nd_net.net;
	return net ? net->ns.inum : 0;
}

static __always_inline int count(struct sk_buff *skb, void *caller, __u32 reason, struct sock *receiver)
{
	struct sock *sk = receiver;
	struct key key = {.reason = reason};

	if (!sk)
		sk = skb->sk;
	if (kaon_is_limited() && !sk)
		return 0;
	if (sk && !kaon_sk_in_scope(sk))
		return 0;
	key.ethertype = ethertype_of(skb, sk);
	/* Messages of unix and netlink sockets are no packets. */
	if (!key.ethertype)
		return 0;
	key.protocol = protocol_of(skb, key.ethertype);
	if (sk)
		key.workload = kaon_sk_workload(sk);
	if (location)
		key.location = (__u64)caller;
	if (netns)
		key.netns = netns_of(skb, sk);
	kaon_increment(&packet_drops_total, &key);
	return 0;
}

/* Since 6.11 the kernel tells for whom the packet was. */
SEC("tp_btf/kfree_skb") KAON_ALTERNATIVE(dropped, 1)
int BPF_PROG(packet_dropped_receiver, struct sk_buff *skb, void *caller, enum skb_drop_reason reason, struct sock *receiver)
{
	return count(skb, caller, reason, receiver);
}

/* Since 5.17 it tells why. */
SEC("tp_btf/kfree_skb") KAON_ALTERNATIVE(dropped, 2)
int BPF_PROG(packet_dropped_reason, struct sk_buff *skb, void *caller, enum skb_drop_reason reason)
{
	return count(skb, caller, reason, 0);
}

SEC("tp_btf/kfree_skb") KAON_ALTERNATIVE(dropped, 3)
int BPF_PROG(packet_dropped, struct sk_buff *skb, void *caller)
{
	return count(skb, caller, 0, 0);
}
