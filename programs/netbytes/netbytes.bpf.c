// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Bytes and packets that workloads send and receive.");

KAON_PARAM(bool, loopback, false, "Count what stays in the machine, on the loopback interface, too.");

#define LOOPBACK 1	/* the number of that interface, in every network namespace */
#define ALLOW 1

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_IPV6 0x86dd
#define NO_PROTOCOL 0xffff

enum direction {
	DIRECTION_RECEIVE,
	DIRECTION_TRANSMIT,
};

struct key {
	kaon_workload_t workload;
	enum direction direction;
	kaon_ethertype_t ethertype;
	__u16 protocol KAON_DECODER("protocol");
};

struct traffic {
	__u64 packets KAON_NAME("network_packets_total") KAON_TYPE(counter) KAON_HELP("IP packets that sockets sent or received.");
	__u64 bytes KAON_NAME("network_bytes_total") KAON_TYPE(counter) KAON_UNIT("bytes")
		KAON_HELP("Bytes of IP packets that sockets sent or received, with their IP headers.");
};

KAON_SOCKET_WORKLOAD();
KAON_METRICS_MAP(network, PERCPU_HASH, struct key, struct traffic, 5000);

static __always_inline int count(struct __sk_buff *skb, enum direction direction)
{
	__u8 *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct key key = {.direction = direction, .ethertype = bpf_ntohs(skb->protocol), .protocol = NO_PROTOCOL};
	__u32 segments = skb->gso_segs;
	struct traffic *traffic;

	if (!loopback && skb->ifindex == LOOPBACK)
		return ALLOW;
	if (!kaon_socket_in_scope(skb))
		return ALLOW;
	key.workload = kaon_socket_workload(skb);
	if (data + 20 <= end)
		key.protocol = key.ethertype == ETHERTYPE_IPV6 ? data[6] : data[9];
	traffic = kaon_entry(&network, &key);
	if (traffic) {
		/* Several packets may travel as one: segmentation and receive offload. */
		kaon_add_at(&traffic->packets, segments > 1 ? segments : 1);
		kaon_add_at(&traffic->bytes, skb->len);
	}
	return ALLOW;
}

SEC("cgroup_skb/ingress")
int packet_received(struct __sk_buff *skb)
{
	return count(skb, DIRECTION_RECEIVE);
}

SEC("cgroup_skb/egress")
int packet_sent(struct __sk_buff *skb)
{
	return count(skb, DIRECTION_TRANSMIT);
}
