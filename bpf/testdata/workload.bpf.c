// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// Tells the workload and the scope of whoever runs it.
#include "kaon.h"

KAON_PROGRAM("Tells workloads.");

struct answer {
	__u64 runs, workload, in_scope;
};

struct answer current SEC(".data.answers"), probed SEC(".data.answers"), task SEC(".data.answers"),
	packet SEC(".data.answers"), socket SEC(".data.answers"), iterated SEC(".data.answers"), connected SEC(".data.answers"), accepted SEC(".data.answers"),
	listed SEC(".data.answers"), guessed SEC(".data.answers");
__u32 target;	/* a process */
__u32 target_netns;	/* its network namespace */

KAON_COUNTER(seen_total, kaon_none_t, "Runs.");
KAON_SOCKET_WORKLOAD();

SEC("raw_tp/sys_enter")
int ask(void *ctx)
{
	struct task_struct *t = (void *)bpf_get_current_task();

	current.workload = kaon_workload();
	current.in_scope = kaon_in_scope();
	current.runs++;
	probed.workload = kaon_task_workload_probe(t);
	probed.in_scope = kaon_task_in_scope_probe(t);
	probed.runs++;
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(leave, struct task_struct *t)
{
	if (t->tgid != target)
		return 0;
	task.workload = kaon_task_workload(t);
	task.in_scope = kaon_task_in_scope(t);
	task.runs++;
	return 0;
}

SEC("iter/task")
int tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *t = ctx->task;

	if (!t || t->tgid != target)
		return 0;
	iterated.workload = kaon_task_workload(t);
	iterated.in_scope = kaon_task_in_scope(t);
	iterated.runs++;
	return 0;
}

SEC("cgroup_skb/egress")
int send(struct __sk_buff *skb)
{
	__u8 protocol = 0;

	/* Not those of connections: the kernel's own socket may send the last one. */
	if (bpf_skb_load_bytes(skb, 9, &protocol, 1) || protocol != IPPROTO_UDP)
		return 1;
	packet.workload = kaon_skb_workload(skb);
	packet.in_scope = kaon_skb_in_scope(skb);
	packet.runs++;
	socket.workload = kaon_socket_workload(skb);
	socket.in_scope = kaon_socket_in_scope(skb);
	socket.runs++;
	return 1;
}

static __always_inline void tell(struct answer *answer, struct sock *sk)
{
	answer->workload = kaon_sk_workload(sk);
	answer->in_scope = kaon_sk_in_scope(sk);
	answer->runs++;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(connect, struct sock *sk, int before, int after)
{
	if (after != BPF_TCP_ESTABLISHED || sk->__sk_common.skc_net.net->ns.inum != target_netns)
		return 0;
	tell(before == BPF_TCP_SYN_RECV ? &accepted : &connected, sk);
	guessed.workload = kaon_sk_workload_probe(sk);
	guessed.in_scope = kaon_sk_in_scope_probe(sk);
	guessed.runs++;
	return 0;
}

// Loaded only: the namespace is the one of whoever opens it.
SEC("iter/tcp")
int connections(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct tcp_sock *tcp;

	if (!common)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (tcp)
		tell(&listed, (struct sock *)tcp);
	return 0;
}

// Loaded only: the same helpers must be accepted here.
SEC("tc")
int classify(struct __sk_buff *skb)
{
	if (kaon_socket_in_scope(skb) && kaon_socket_workload(skb) != 1)
		kaon_increment(&seen_total, KAON_NONE);
	return 0;
}

SEC("tracepoint/sched/sched_process_exec")
int on_tracepoint(void *ctx)
{
	if (kaon_in_scope() && kaon_workload())
		kaon_increment(&seen_total, KAON_NONE);
	return 0;
}

SEC("perf_event")
int on_sample(void *ctx)
{
	if (kaon_in_scope() && kaon_workload())
		kaon_increment(&seen_total, KAON_NONE);
	return 0;
}

SEC("kprobe/tcp_close")
int BPF_KPROBE(on_close, struct sock *sk)
{
	if (kaon_sk_in_scope_probe(sk) && kaon_sk_workload_probe(sk))
		kaon_increment(&seen_total, KAON_NONE);
	return 0;
}

SEC("kprobe/vfs_read")
int on_kprobe(void *ctx)
{
	if (kaon_in_scope() && kaon_workload())
		kaon_increment(&seen_total, KAON_NONE);
	return 0;
}

SEC("cgroup/connect4")
int on_connect(struct bpf_sock_addr *ctx)
{
	if (kaon_in_scope_probe() && kaon_workload_probe())
		kaon_increment(&seen_total, KAON_NONE);
	return 1;
}

// Loaded only: what it costs to ask.
SEC("raw_tp/sys_exit")
int asked(void *ctx)
{
	return kaon_in_scope();
}

SEC("raw_tp/sys_exit")
int unasked(void *ctx)
{
	return 1;
}
