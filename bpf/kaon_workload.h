/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who did it: the workload's id, and whether it is to be measured. Included by kaon.h.
 *
 * An id is the kernfs id of the cgroup's directory (its inode number), with the hierarchy's
 * number in the upper 16 bits: 0 for cgroup v2, so that v1's can't be taken for v2's.
 * 0 as a whole means: not known.
 */
#ifndef KAON_WORKLOAD_H
#define KAON_WORKLOAD_H

/* The kernel's types, as much of them as is needed; relocated when loaded. */
#define KAON_CORE __attribute__((preserve_access_index))
struct kernfs_node___kaon {
	__u64 id;
} KAON_CORE;
struct cgroup_root___kaon {
	int hierarchy_id;
} KAON_CORE;
struct cgroup___kaon {
	struct kernfs_node___kaon *kn;
	struct cgroup_root___kaon *root;
	int level;
	struct cgroup___kaon *ancestors[1];	/* since 6.1 */
	__u64 ancestor_ids[1];			/* before */
} KAON_CORE;
struct cgroup_subsys_state___kaon {
	struct cgroup___kaon *cgroup;
} KAON_CORE;
struct css_set___kaon {
	struct cgroup_subsys_state___kaon *subsys[16];
	struct cgroup___kaon *dfl_cgrp;
} KAON_CORE;
struct task_struct___kaon {
	struct css_set___kaon *cgroups;
} KAON_CORE;
enum bpf_func_id___kaon {
	BPF_FUNC_get_current_task_btf___kaon = 1000,
};

/* 5.10 does not know bpf_get_current_task_btf. */
#define kaon_has_task_btf() bpf_core_enum_value_exists(enum bpf_func_id___kaon, BPF_FUNC_get_current_task_btf___kaon)

/* The cgroup that counts in the v1 hierarchy. */
static __always_inline struct cgroup___kaon *kaon_v1_cgroup(struct task_struct___kaon *task)
{
	return task->cgroups->subsys[kaon_cgroup_subsys & 15]->cgroup;
}

static __always_inline struct cgroup___kaon *kaon_v1_cgroup_probe(struct task_struct___kaon *task)
{
	struct css_set___kaon *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state___kaon *state = 0;

	bpf_core_read(&state, sizeof(state), (void *)set + bpf_core_field_offset(struct css_set___kaon, subsys) +
		(kaon_cgroup_subsys & 15) * sizeof(void *));
	return BPF_CORE_READ(state, cgroup);
}

static __always_inline __u64 kaon_v1_id(struct cgroup___kaon *cgroup)
{
	return cgroup->kn->id | (__u64)(__u32)cgroup->root->hierarchy_id << 48;
}

static __always_inline __u64 kaon_v1_id_probe(struct cgroup___kaon *cgroup)
{
	return BPF_CORE_READ(cgroup, kn, id) | (__u64)(__u32)BPF_CORE_READ(cgroup, root, hierarchy_id) << 48;
}

/* Whether an id of v2 decides. The root's is 1. */
static __always_inline bool kaon_v2_decides(__u64 id)
{
	return kaon_cgroup_mode == 0 || (kaon_cgroup_mode == 2 && id != 1);
}

/* The workload of a task that the verifier knows to be one: an argument of tp_btf, fentry,
 * fexit, lsm or iter functions. 5-8 ns. */
static __always_inline kaon_workload_t kaon_task_workload(struct task_struct *task)
{
	struct task_struct___kaon *t = (void *)task;

	if (kaon_cgroup_mode != 1) {
		__u64 id = t->cgroups->dfl_cgrp->kn->id;
		if (kaon_v2_decides(id))
			return id;
	}
	return kaon_v1_id(kaon_v1_cgroup(t));
}

/* The same for any pointer to a task, by probe reads: kprobe, raw_tp. About 100-180 ns. */
static __always_inline kaon_workload_t kaon_task_workload_probe(struct task_struct *task)
{
	struct task_struct___kaon *t = (void *)task;

	if (kaon_cgroup_mode != 1) {
		__u64 id = BPF_CORE_READ(t, cgroups, dfl_cgrp, kn, id);
		if (kaon_v2_decides(id))
			return id;
	}
	return kaon_v1_id_probe(kaon_v1_cgroup_probe(t));
}

/* The workload of the current task. In softirq (received packets, timers, completions) that
 * is whoever was interrupted: use the socket's or remember it from where the work began. */
static __always_inline kaon_workload_t kaon_workload(void)
{
	if (kaon_has_task_btf())
		return kaon_task_workload(bpf_get_current_task_btf());
	if (kaon_cgroup_mode != 1) {
		__u64 id = bpf_get_current_cgroup_id();
		if (kaon_v2_decides(id))
			return id;
	}
	return kaon_v1_id_probe(kaon_v1_cgroup_probe((void *)bpf_get_current_task()));
}

/* The same where bpf_get_current_task_btf may not be called: cgroup/sock_create, cgroup/connect4 and the like. */
static __always_inline kaon_workload_t kaon_workload_probe(void)
{
	return kaon_task_workload_probe((struct task_struct *)bpf_get_current_task());
}

/* ---- Scope ---------------------------------------------------------------
 * What is measured is below the cgroup kaon_scope_id and, where workloads are
 * selected, in the map kaon_selected. All of these are true, and cost nothing, if
 * everything is measured: the verifier sees the constants 0 and removes the rest. */

/* The selected cgroups by the ids of kaon_workload_t; the loader creates and fills it if there
 * is a selection. Those made below a member's are members before a task can be in them. */
#define KAON_SELECTED 16384
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KAON_SELECTED);
	__type(key, kaon_workload_t);
	__type(value, __u64);
} kaon_selected SEC(".maps");

static __always_inline bool kaon_is_selected(kaon_workload_t id)
{
	return bpf_map_lookup_elem(&kaon_selected, &id);
}

/* Whether a workload is not selected. A macro, because its id is not even to be looked for without a selection. */
#define kaon_left_out(id) (kaon_selecting && !kaon_is_selected(id))
/* Whether not everything is measured: what belongs to no workload is left out then. */
#define kaon_is_limited() (kaon_scope_id || kaon_selecting)

static __always_inline bool kaon_cgroup_below_scope(struct cgroup___kaon *cgroup)
{
	const __u32 level = kaon_scope_level;
	const __u64 id = kaon_scope_id & 0xffffffffffffULL;

	if ((__u32)BPF_CORE_READ(cgroup, root, hierarchy_id) != kaon_scope_id >> 48)
		return false;
	if (BPF_CORE_READ(cgroup, level) < (int)level)
		return false;
	if (bpf_core_field_exists(struct cgroup___kaon, ancestors)) {
		struct cgroup___kaon *ancestor = 0;
		bpf_core_read(&ancestor, sizeof(ancestor), (void *)cgroup +
			bpf_core_field_offset(struct cgroup___kaon, ancestors) + level * sizeof(void *));
		return BPF_CORE_READ(ancestor, kn, id) == id;
	}
	__u64 ancestor_id = 0;
	bpf_core_read(&ancestor_id, sizeof(ancestor_id), (void *)cgroup +
		bpf_core_field_offset(struct cgroup___kaon, ancestor_ids) + level * sizeof(__u64));
	return ancestor_id == id;
}

static __always_inline bool kaon_task_below_scope(struct task_struct *task)
{
	struct task_struct___kaon *t = (void *)task;

	if (!kaon_scope_id)
		return true;
	if (kaon_scope_id >> 48)
		return kaon_cgroup_below_scope(kaon_v1_cgroup_probe(t));
	return kaon_cgroup_below_scope(BPF_CORE_READ(t, cgroups, dfl_cgrp));
}

static __always_inline bool kaon_below_scope(void)
{
	if (!kaon_scope_id)
		return true;
	/* Before 6.1 tracing functions may not call the helper. */
	if (!(kaon_scope_id >> 48) && bpf_core_field_exists(struct cgroup___kaon, ancestors))
		return bpf_get_current_ancestor_cgroup_id(kaon_scope_level) == kaon_scope_id;
	return kaon_task_below_scope((struct task_struct *)bpf_get_current_task());
}

/* Whether a cgroup of v2 is measured. Any pointer to one will do. */
static __always_inline bool kaon_cgroup_in_scope(struct cgroup___kaon *cgroup)
{
	if (kaon_left_out(BPF_CORE_READ(cgroup, kn, id)))
		return false;
	return !kaon_scope_id || kaon_cgroup_below_scope(cgroup);
}

/* Whether a task that the verifier knows to be one is measured, as for kaon_task_workload. */
static __always_inline bool kaon_task_in_scope(struct task_struct *task)
{
	return !kaon_left_out(kaon_task_workload(task)) && kaon_task_below_scope(task);
}

/* The same for any pointer to a task. */
static __always_inline bool kaon_task_in_scope_probe(struct task_struct *task)
{
	return !kaon_left_out(kaon_task_workload_probe(task)) && kaon_task_below_scope(task);
}

/* Whether the current task is. */
static __always_inline bool kaon_in_scope(void)
{
	return !kaon_left_out(kaon_workload()) && kaon_below_scope();
}

/* The same where kaon_workload may not be called: see kaon_workload_probe. */
static __always_inline bool kaon_in_scope_probe(void)
{
	return !kaon_left_out(kaon_workload_probe()) && kaon_below_scope();
}

#endif /* KAON_WORKLOAD_H */
