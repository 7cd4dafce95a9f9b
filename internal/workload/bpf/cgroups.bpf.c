// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)

// Tells user space of each cgroup that is made or removed, before a task can be in it.
// It needs no headers: what it uses of the kernel is declared here and relocated (CO-RE).

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))
#define PAI __attribute__((preserve_access_index))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *dst, u32 size, const void *src) = (void *)115;
static long (*const bpf_ringbuf_output)(void *ring, void *data, u64 size, u64 flags) = (void *)130;

struct kernfs_node {
	u64 id;
} PAI;
struct cgroup_root {
	int hierarchy_id;
} PAI;
struct cgroup;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
} PAI;
struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
} PAI;

#define READ(dst, src) bpf_probe_read_kernel(&(dst), sizeof(dst), __builtin_preserve_access_index(&(src)))

enum { MADE = 1, REMOVED = 2 };

/* The tracepoints cut paths to this size, NUL included (TRACE_CGROUP_PATH_LEN). */
#define PATH_SIZE 1024

struct event {
	u64 id, parent;         /* kernfs ids; parent 0: none */
	u64 time;               /* CLOCK_MONOTONIC, ns */
	u32 hierarchy;          /* 0: v2 */
	u32 kind;
	char path[PATH_SIZE];   /* from the hierarchy's root; only as much as there is */
};
#define HEADER (sizeof(struct event) - PATH_SIZE)

struct {
	__uint(type, 27 /* BPF_MAP_TYPE_RINGBUF */);
	__uint(max_entries, 512 * 1024);
} events SEC(".maps");

/* The event is too large for the stack. */
struct {
	__uint(type, 6 /* BPF_MAP_TYPE_PERCPU_ARRAY */);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct event);
} scratch SEC(".maps");

/* Events that found no room in the ring. */
struct {
	__uint(type, 2 /* BPF_MAP_TYPE_ARRAY */);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

/* Sets of cgroups by id and hierarchy, as kaon_workload_t has them. What is made below a member becomes one before a
 * task can be in it, and a member that is removed leaves: user space would be late. */
#define SETS 64
struct set {
	__uint(type, 1 /* BPF_MAP_TYPE_HASH */);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, u64);
};
struct {
	__uint(type, 12 /* BPF_MAP_TYPE_ARRAY_OF_MAPS */);
	__uint(max_entries, SETS);
	__type(key, u32);
	__array(values, struct set);
} sets SEC(".maps");

/* Set before loading: the v1 hierarchy that is followed (0: none), and whether v2 is. */
const volatile u32 v1_hierarchy;
const volatile u8 v2;

static __attribute__((always_inline)) inline u64 id_of(u64 id, u32 hierarchy)
{
	return id | (u64)hierarchy << 48;
}

static __attribute__((always_inline)) inline void update_sets(const struct event *e, u32 kind)
{
	u64 id = id_of(e->id, e->hierarchy), parent = id_of(e->parent, e->hierarchy), one = 1;

	for (u32 i = 0; i < SETS; i++) {
		u32 slot = i;
		void *set = bpf_map_lookup_elem(&sets, &slot);

		if (!set)
			continue;
		if (kind == REMOVED)
			bpf_map_delete_elem(set, &id);
		else if (bpf_map_lookup_elem(set, &parent))
			/* One that finds no room finds none when user space tries again, and that tells. */
			bpf_map_update_elem(set, &id, &one, 0);
	}
}

static __attribute__((always_inline)) inline int send(u64 *ctx, u32 kind)
{
	struct cgroup *cgroup = (void *)ctx[0];
	const void *path = (void *)ctx[1];
	struct cgroup_root *root = 0;
	struct kernfs_node *node = 0;
	struct cgroup_subsys_state *parent = 0;
	struct cgroup *above = 0;
	u32 zero = 0, hierarchy = 0;
	struct event *e;
	long size;

	READ(root, cgroup->root);
	READ(hierarchy, root->hierarchy_id);
	if (hierarchy ? hierarchy != v1_hierarchy : !v2)
		return 0;
	e = bpf_map_lookup_elem(&scratch, &zero);
	if (!e)
		return 0;
	e->hierarchy = hierarchy;
	e->kind = kind;
	e->time = bpf_ktime_get_ns();
	e->id = 0;
	e->parent = 0;
	READ(node, cgroup->kn);
	READ(e->id, node->id);
	READ(parent, cgroup->self.parent);
	if (parent) {
		READ(above, parent->cgroup);
		READ(node, above->kn);
		READ(e->parent, node->id);
	}
	update_sets(e, kind);
	size = bpf_probe_read_kernel_str(e->path, PATH_SIZE, path);
	if (size < 0)
		size = 0;
	if (size > PATH_SIZE)
		size = PATH_SIZE;
	if (bpf_ringbuf_output(&events, e, HEADER + size, 0)) {
		u64 *n = bpf_map_lookup_elem(&lost, &zero);
		if (n)
			__sync_fetch_and_add(n, 1);
	}
	return 0;
}

SEC("raw_tp/cgroup_mkdir")
int cgroup_made(u64 *ctx)
{
	return send(ctx, MADE);
}

SEC("raw_tp/cgroup_rmdir")
int cgroup_removed(u64 *ctx)
{
	return send(ctx, REMOVED);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
