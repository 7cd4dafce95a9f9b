// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Packets and bytes by interface, direction and protocol.");

KAON_PARAM(bool, xdp, false, "Count what is received by XDP, before the kernel makes packet buffers, instead of at tcx. What is sent is not counted.");

#define NEXT -1			/* let others decide: TCX_NEXT, TC_ACT_UNSPEC */
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8

#define NO_PROTOCOL 0xffff	/* not IP: no label */

enum direction {
	DIRECTION_RECEIVE,
	DIRECTION_TRANSMIT,
};

struct key {
	kaon_ifindex_t interface;
	kaon_ethertype_t ethertype;
	__u16 protocol KAON_DECODER("protocol");
	enum direction direction;
};

struct traffic {
	__u64 packets KAON_NAME("packets_total") KAON_TYPE(counter) KAON_HELP("Packets.");
	__u64 bytes KAON_NAME("packet_bytes_total") KAON_TYPE(counter) KAON_UNIT("bytes")
		KAON_HELP("Bytes of packets, with their link layer headers.");
};

KAON_METRICS_MAP(packets, PERCPU_HASH, struct key, struct traffic, 5000);

static __always_inline void count(struct key *key, __u64 packets_, __u64 bytes)
{
	struct traffic *traffic = kaon_entry(&packets, key);

	if (traffic) {
		kaon_add_at(&traffic->packets, packets_);
		kaon_add_at(&traffic->bytes, bytes);
	}
}

static __always_inline void count_skb(struct __sk_buff *skb, enum direction direction)
{
	struct key key = {
		.interface = skb->ifindex, .ethertype = bpf_ntohs(skb->protocol), .protocol = NO_PROTOCOL,
		.direction = direction,
	};
	__u8 protocol = 0;

	/* Relative to the network header: links differ in what is before it. */
	if (key.ethertype == ETHERTYPE_IPV4 || key.ethertype == ETHERTYPE_IPV6) {
		if (!bpf_skb_load_bytes_relative(skb, key.ethertype == ETHERTYPE_IPV4 ? 9 : 6, &protocol, 1, BPF_HDR_START_NET))
			key.protocol = protocol;
	}
	/* Several packets may travel as one: segmentation and receive offload. */
	count(&key, skb->gso_segs > 1 ? skb->gso_segs : 1, skb->len);
}

SEC("tcx/ingress") KAON_UNLESS(xdp)
int packet_received(struct __sk_buff *skb)
{
	count_skb(skb, DIRECTION_RECEIVE);
	return NEXT;
}

SEC("tcx/egress") KAON_UNLESS(xdp)
int packet_sent(struct __sk_buff *skb)
{
	count_skb(skb, DIRECTION_TRANSMIT);
	return NEXT;
}

SEC("xdp/generic") KAON_WHEN(xdp)
int packet_arrived(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct key key = {
		.interface = ctx->ingress_ifindex, .protocol = NO_PROTOCOL, .direction = DIRECTION_RECEIVE,
	};
	__u8 *network = data + 14;
	__be16 *type = data + 12;

	if ((void *)(type + 1) <= end) {
		key.ethertype = bpf_ntohs(*type);
		if (key.ethertype == ETHERTYPE_VLAN || key.ethertype == ETHERTYPE_QINQ) {
			type = data + 16;
			network = data + 18;
			if ((void *)(type + 1) <= end)
				key.ethertype = bpf_ntohs(*type);
		}
		if (key.ethertype == ETHERTYPE_IPV4 && (void *)(network + 20) <= end)
			key.protocol = network[9];
		else if (key.ethertype == ETHERTYPE_IPV6 && (void *)(network + 40) <= end)
			key.protocol = network[6];
	}
	count(&key, 1, end - data);
	return XDP_PASS;
}
