// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "test.h"

COUNTER(by_xdp);
COUNTER(by_tcx_ingress);
COUNTER(by_tcx_egress);
COUNTER(by_socket);
COUNTER(by_sk_lookup);
COUNTER(by_netfilter);
COUNTER(by_cgroup_skb);
COUNTER(by_connect4);
COUNTER(by_sysctl);
COUNTER(by_sockops);

SEC("xdp")
int on_xdp(struct xdp_md *ctx)
{
	count(&by_xdp);
	return XDP_PASS;
}

SEC("tcx/ingress")
int on_ingress(struct __sk_buff *skb)
{
	count(&by_tcx_ingress);
	return -1; /* next */
}

SEC("tcx/egress")
int on_egress(struct __sk_buff *skb)
{
	count(&by_tcx_egress);
	return -1;
}

SEC("socket")
int on_socket(struct __sk_buff *skb)
{
	count(&by_socket);
	return 0;
}

SEC("sk_lookup")
int on_sk_lookup(struct bpf_sk_lookup *ctx)
{
	count(&by_sk_lookup);
	return 1; /* pass */
}

struct nf_hook_state;
SEC("netfilter")
int on_netfilter(void *ctx)
{
	count(&by_netfilter);
	return 1; /* accept */
}

SEC("cgroup_skb/egress")
int on_cgroup_skb(struct __sk_buff *skb)
{
	count(&by_cgroup_skb);
	return 1;
}

SEC("cgroup/connect4")
int on_connect4(struct bpf_sock_addr *ctx)
{
	count(&by_connect4);
	return 1;
}

SEC("cgroup/sysctl")
int on_sysctl(struct bpf_sysctl *ctx)
{
	count(&by_sysctl);
	return 1;
}

SEC("sockops")
int on_sockops(struct bpf_sock_ops *ctx)
{
	count(&by_sockops);
	return 1;
}
