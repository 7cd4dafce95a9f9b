/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whose socket it is. Included by kaon.h.
 *
 * A socket belongs to the workload that created it, an accepted one to its listener's. cgroup v2
 * is asked of the kernel, which notes it in every socket. On cgroup v1, and for what is in the root of
 * v2 on hybrid machines, sockets must remember it: KAON_SOCKET_WORKLOAD.
 */
#ifndef KAON_SOCKET_H
#define KAON_SOCKET_H

struct sock_cgroup_data___kaon {
	struct cgroup___kaon *cgroup;	/* since 5.15 */
	__u64 val;			/* before */
} KAON_CORE;
struct sock_common___kaon {
	volatile unsigned char skc_state;
} KAON_CORE;
struct sock___kaon {
	struct sock_common___kaon __sk_common;
	struct sock_cgroup_data___kaon sk_cgrp_data;
} KAON_CORE;

/* Connections that wait (TIME_WAIT) and requests for one (NEW_SYN_RECV) look like sockets
 * but are smaller: they know no cgroup. */
#define kaon_state_is_full(state) (!(1ULL << ((state) & 63) & (1ULL << 6 | 1ULL << 12)))

/* Before 5.15 the two low bits say that this is the data of cgroup v1's net_cls and net_prio instead. */
static __always_inline struct cgroup___kaon *kaon_sk_cgroup_of(__u64 val)
{
	return val & 3 ? 0 : (struct cgroup___kaon *)val;
}

/* The v2 cgroup's id; 1, the root's, if the kernel does not know. */
static __always_inline __u64 kaon_sk_v2_id(struct sock *sk)
{
	struct sock___kaon *s = (void *)sk;
	struct cgroup___kaon *cgroup;

	if (bpf_core_field_exists(struct sock_cgroup_data___kaon, cgroup))
		return s->sk_cgrp_data.cgroup->kn->id;
	cgroup = kaon_sk_cgroup_of(BPF_CORE_READ(s, sk_cgrp_data.val));
	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : 1;
}

static __always_inline __u64 kaon_sk_v2_id_probe(struct sock *sk)
{
	struct sock___kaon *s = (void *)sk;
	struct cgroup___kaon *cgroup;

	if (bpf_core_field_exists(struct sock_cgroup_data___kaon, cgroup))
		cgroup = BPF_CORE_READ(s, sk_cgrp_data.cgroup);
	else
		cgroup = kaon_sk_cgroup_of(BPF_CORE_READ(s, sk_cgrp_data.val));
	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : 1;
}

static __always_inline bool kaon_sk_v2_below_scope(struct sock *sk)
{
	struct sock___kaon *s = (void *)sk;
	struct cgroup___kaon *cgroup;

	if (bpf_core_field_exists(struct sock_cgroup_data___kaon, cgroup))
		cgroup = BPF_CORE_READ(s, sk_cgrp_data.cgroup);
	else
		cgroup = kaon_sk_cgroup_of(BPF_CORE_READ(s, sk_cgrp_data.val));
	return cgroup && kaon_cgroup_below_scope(cgroup);
}

/* Whether it speaks IPv4: IPv6's sockets may, too. sk: a socket or a struct sock_common that the verifier knows. */
static __always_inline bool kaon_sk_is_ipv4(void *sk)
{
	struct sock_common *common = sk;

	if (common->skc_family != 10 /* AF_INET6 */)
		return true;
	return !common->skc_v6_daddr.in6_u.u6_addr32[0] && !common->skc_v6_daddr.in6_u.u6_addr32[1] &&
		common->skc_v6_daddr.in6_u.u6_addr32[2] == bpf_htonl(0xffff);
}

/* The workload of a socket, by probe reads: any pointer to one, in kprobe and raw_tp functions.
 * About 100 ns. cgroup v2 only: 0 in mode 1, the root's in mode 2. */
static __always_inline kaon_workload_t kaon_sk_workload_probe(struct sock *sk)
{
	struct sock___kaon *s = (void *)sk;

	if (kaon_cgroup_mode == 1 || !kaon_state_is_full(BPF_CORE_READ(s, __sk_common.skc_state)))
		return 0;
	return kaon_sk_v2_id_probe(sk);
}

/* Whether it is measured. With a scope in cgroup v1: always false. */
static __always_inline bool kaon_sk_in_scope_probe(struct sock *sk)
{
	struct sock___kaon *s = (void *)sk;

	if (kaon_left_out(kaon_sk_workload_probe(sk)))
		return false;
	if (!kaon_scope_id)
		return true;
	if (kaon_scope_id >> 48 || !kaon_state_is_full(BPF_CORE_READ(s, __sk_common.skc_state)))
		return false;
	return kaon_sk_v2_below_scope(sk);
}

/* ---- Packets --------------------------------------------------------------
 * In tc and cgroup_skb functions the current task means nothing: the socket's
 * workload is asked for. */

/* cgroup v2 only: 0 in mode 1, the root's in mode 2. See KAON_SOCKET_WORKLOAD. */
static __always_inline kaon_workload_t kaon_skb_workload(struct __sk_buff *skb)
{
	return kaon_cgroup_mode == 1 ? 0 : bpf_skb_cgroup_id(skb);
}

static __always_inline bool kaon_skb_below_scope(struct __sk_buff *skb)
{
	if (!kaon_scope_id)
		return true;
	if (kaon_scope_id >> 48)
		return false;
	return bpf_skb_ancestor_cgroup_id(skb, kaon_scope_level) == kaon_scope_id;
}

/* With a scope in cgroup v1: always false. See KAON_SOCKET_WORKLOAD. */
static __always_inline bool kaon_skb_in_scope(struct __sk_buff *skb)
{
	return !kaon_left_out(kaon_skb_workload(skb)) && kaon_skb_below_scope(skb);
}

/* What a socket remembers of the task that created it. */
struct kaon_socket {
	__u64 workload;
	/* Below kaon_scope_id. Whether it is selected may change. */
	__u64 below_scope;
};

/*
 * Defines the functions kaon_sock_create and kaon_sock_begin and the map kaon_sockets, by which
 * sockets remember the workload that created them (accepted ones: their listener's) where that is
 * not cgroup v2's, and
 *   kaon_socket_workload(skb)  as kaon_skb_workload, right in every mode;
 *   kaon_socket_in_scope(skb)  as kaon_skb_in_scope;
 *   kaon_sk_workload(sk), kaon_sk_in_scope(sk)
 *                              for a socket that the verifier knows to be one: an argument of tp_btf,
 *                              fentry, lsm and iter functions. 0 and false for connections in TIME_WAIT.
 * Sockets that are older than the Program (unless they connect or listen later), and packets without a socket (received, before
 * routing), have the workload 0 in mode 1: they are counted as unresolved. Before Linux 5.11 tracing
 * functions can't ask sockets for what they remember: on cgroup v1 kaon_sk_workload is 0 there.
 */
#define KAON_SOCKET_WORKLOAD() \
	struct { \
		__uint(type, BPF_MAP_TYPE_SK_STORAGE); \
		__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE); \
		__type(key, int); \
		__type(value, struct kaon_socket); \
	} kaon_sockets SEC(".maps"); \
	SEC("cgroup/sock_create") KAON_OPTIONAL \
	int kaon_sock_create(struct bpf_sock *sk) \
	{ \
		if (!kaon_cgroup_mode) \
			return 1; \
		/* Then the kernel knows. */ \
		if (kaon_cgroup_mode == 2 && !(kaon_scope_id >> 48) && bpf_get_current_cgroup_id() != 1) \
			return 1; \
		struct kaon_socket *socket = bpf_sk_storage_get(&kaon_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE); \
		if (socket) { \
			socket->workload = kaon_workload_probe(); \
			socket->below_scope = kaon_below_scope(); \
		} \
		return 1; \
	} \
	/* What the kernel made for a socket of MPTCP, and what is older than the Program. */ \
	SEC("tp_btf/inet_sock_set_state") KAON_OPTIONAL \
	int BPF_PROG(kaon_sock_begin, struct sock *sk, int before, int after) \
	{ \
		if (!kaon_cgroup_mode || !kaon_has_task_btf() || (after != BPF_TCP_SYN_SENT && after != BPF_TCP_LISTEN)) \
			return 0; \
		if (kaon_cgroup_mode == 2 && !(kaon_scope_id >> 48) && kaon_sk_v2_id(sk) != 1) \
			return 0; \
		struct kaon_socket *socket = bpf_sk_storage_get(&kaon_sockets, sk, 0, BPF_SK_STORAGE_GET_F_CREATE); \
		if (socket && !socket->workload) { \
			socket->workload = kaon_workload(); \
			socket->below_scope = kaon_below_scope(); \
		} \
		return 0; \
	} \
	static __always_inline __attribute__((unused)) struct kaon_socket *kaon_socket_of(struct __sk_buff *skb) \
	{ \
		struct bpf_sock *sk = skb->sk; \
		if (!sk) \
			return 0; \
		sk = bpf_sk_fullsock(sk); \
		if (!sk) \
			return 0; \
		return bpf_sk_storage_get(&kaon_sockets, sk, 0, 0); \
	} \
	static __always_inline __attribute__((unused)) kaon_workload_t kaon_socket_workload(struct __sk_buff *skb) \
	{ \
		if (kaon_cgroup_mode) { \
			struct kaon_socket *socket = kaon_socket_of(skb); \
			if (socket) \
				return socket->workload; \
		} \
		return kaon_skb_workload(skb); \
	} \
	static __always_inline __attribute__((unused)) bool kaon_socket_in_scope(struct __sk_buff *skb) \
	{ \
		if (kaon_left_out(kaon_socket_workload(skb))) \
			return false; \
		if (kaon_scope_id >> 48) { \
			struct kaon_socket *socket = kaon_socket_of(skb); \
			return socket && socket->below_scope; \
		} \
		return kaon_skb_below_scope(skb); \
	} \
	static __always_inline __attribute__((unused)) kaon_workload_t kaon_sk_workload(struct sock *sk) \
	{ \
		__u64 id = 0; \
		if (!kaon_state_is_full(((struct sock___kaon *)sk)->__sk_common.skc_state)) \
			return 0; \
		if (kaon_cgroup_mode != 1) { \
			id = kaon_sk_v2_id(sk); \
			if (kaon_v2_decides(id)) \
				return id; \
		} \
		/* Tracing functions were given both in 5.11. */ \
		if (kaon_has_task_btf()) { \
			struct kaon_socket *socket = bpf_sk_storage_get(&kaon_sockets, sk, 0, 0); \
			if (socket) \
				return socket->workload; \
		} \
		return id; \
	} \
	static __always_inline __attribute__((unused)) bool kaon_sk_in_scope(struct sock *sk) \
	{ \
		if (kaon_left_out(kaon_sk_workload(sk))) \
			return false; \
		if (!kaon_scope_id) \
			return true; \
		if (!kaon_state_is_full(((struct sock___kaon *)sk)->__sk_common.skc_state)) \
			return false; \
		if (!(kaon_scope_id >> 48)) \
			return kaon_sk_v2_below_scope(sk); \
		if (kaon_has_task_btf()) { \
			struct kaon_socket *socket = bpf_sk_storage_get(&kaon_sockets, sk, 0, 0); \
			return socket && socket->below_scope; \
		} \
		return false; \
	} \
	struct kaon_socket

#endif /* KAON_SOCKET_H */
