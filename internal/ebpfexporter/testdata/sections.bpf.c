// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
// The section names that libbpf and ebpf_exporter know. Nothing of this is loaded by tests.
#include "test.h"

MAP(seen_total, BPF_MAP_TYPE_ARRAY, u32, 1);

#define FUNCTION(name, section) \
	SEC(section) int name(void *ctx) \
	{ \
		u32 zero = 0; \
		count(&seen_total, &zero, 1); \
		return 0; \
	}

FUNCTION(a_kprobe, "kprobe/vfs_read")
FUNCTION(a_kprobe_offset, "kprobe/vfs_read+0x10")
FUNCTION(a_kretprobe, "kretprobe/vfs_read")
FUNCTION(a_kprobe_multi, "kprobe.multi/vfs_*")
FUNCTION(a_kretprobe_multi, "kretprobe.multi/vfs_?ead")
FUNCTION(a_ksyscall, "ksyscall/getpgid")
FUNCTION(a_kretsyscall, "kretsyscall/getpgid")
FUNCTION(a_uprobe, "uprobe//usr/lib/x.so:malloc+4")
FUNCTION(a_uprobe_sleepable, "uprobe.s/libc.so.6:malloc")
FUNCTION(a_uretprobe, "uretprobe/libc.so.6:malloc")
FUNCTION(a_uprobe_multi, "uprobe.multi/libc.so.6:*alloc")
FUNCTION(a_usdt, "usdt/./demo:provider:name")
FUNCTION(a_tracepoint, "tracepoint/sched/sched_switch")
FUNCTION(a_tp, "tp/sched/sched_switch")
FUNCTION(a_raw_tracepoint, "raw_tracepoint/sched_switch")
FUNCTION(a_raw_tp, "raw_tp/sched_switch")
FUNCTION(a_tp_btf, "tp_btf/sched_switch")
FUNCTION(a_fentry, "fentry/vfs_read")
FUNCTION(a_fexit, "fexit/vfs_read")
FUNCTION(a_fmod_ret, "fmod_ret.s/security_task_kill")
FUNCTION(a_lsm, "lsm.s/bprm_check_security")
FUNCTION(a_perf_event, "perf_event/type=0,config=3,frequency=1")
FUNCTION(a_xdp, "xdp/lo")
FUNCTION(a_xdp_frags, "xdp.frags/lo")
FUNCTION(not_xdp, "xdp")
FUNCTION(not_devmap, "xdp/devmap")
FUNCTION(not_tc, "tc")
FUNCTION(not_cgroup, "cgroup_skb/ingress")
FUNCTION(not_socket, "socket")
FUNCTION(not_loaded, "?raw_tp/sched_switch")
