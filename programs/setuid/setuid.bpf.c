// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Changes of user and group, and setuid programs: who becomes root.");

#define S_ISUID 04000
#define S_ISGID 02000

enum identity { IDENTITY_ROOT, IDENTITY_OTHER };

enum call { CALL_SETUID, CALL_SETREUID, CALL_SETRESUID, CALL_SETGID, CALL_SETREGID, CALL_SETRESGID };

enum kind { KIND_SETUID, KIND_SETGID, KIND_BOTH };

struct call_key {
	kaon_workload_t workload;
	enum call call;
	enum identity from;
	enum identity to;
	kaon_errno_t errno;
};

struct execution_key {
	kaon_workload_t workload;
	enum kind kind;
	enum identity from;
	enum identity to;
	KAON_PAD(4);
};

KAON_COUNTER_MAP(setuid_calls_total, HASH, struct call_key, 5000,
	"System calls that change the user or the group of a process.") KAON_LIMIT(5000);
KAON_COUNTER_MAP(setuid_executions_total, HASH, struct execution_key, 2000,
	"Executions of setuid and setgid programs that changed the user or the group.") KAON_LIMIT(2000);

/* What a thread asked for, until its call returns. */
struct asked {
	__u32 from;
	__u32 wants_root;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct asked);
} begun SEC(".maps");

static __always_inline const struct cred *credentials(void)
{
	return BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), cred);
}

static __always_inline bool is_group(enum call call)
{
	return call >= CALL_SETGID;
}

static __always_inline int begin(enum call call, bool wants_root)
{
	__u64 thread = bpf_get_current_pid_tgid();
	const struct cred *cred = credentials();
	struct asked request = {};

	if (!kaon_in_scope())
		return 0;
	request.from = is_group(call) ? BPF_CORE_READ(cred, egid.val) : BPF_CORE_READ(cred, euid.val);
	request.wants_root = wants_root;
	bpf_map_update_elem(&begun, &thread, &request, BPF_ANY);
	return 0;
}

/* Whether one of the ids is the machine's root. */
static __always_inline bool has_root(enum call call)
{
	const struct cred *cred = credentials();

	if (is_group(call))
		return !BPF_CORE_READ(cred, gid.val) || !BPF_CORE_READ(cred, egid.val) || !BPF_CORE_READ(cred, sgid.val);
	return !BPF_CORE_READ(cred, uid.val) || !BPF_CORE_READ(cred, euid.val) || !BPF_CORE_READ(cred, suid.val);
}

static __always_inline int finish(enum call call, long result)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct asked *request = bpf_map_lookup_elem(&begun, &thread);
	struct call_key key = {.call = call};

	if (!request)
		return 0;
	key.workload = kaon_workload();
	key.from = request->from ? IDENTITY_OTHER : IDENTITY_ROOT;
	key.to = (result < 0 ? request->wants_root : has_root(call)) ? IDENTITY_ROOT : IDENTITY_OTHER;
	if (result < 0)
		key.errno = result;
	kaon_increment(&setuid_calls_total, &key);
	bpf_map_delete_elem(&begun, &thread);
	return 0;
}

/* What x86 passes to system calls. Objects are for all architectures: elsewhere tracepoints are used. */
struct pt_regs___x86 {
	long unsigned int di, si, dx;
} KAON_CORE;

/* Whether one of the arguments is 0. */
#define WANTS_ROOT_1(a, b, c) (!(__u32)(a))
#define WANTS_ROOT_2(a, b, c) (!(__u32)(a) || !(__u32)(b))
#define WANTS_ROOT_3(a, b, c) (!(__u32)(a) || !(__u32)(b) || !(__u32)(c))

/* Trampolines cost other system calls nothing. Tracepoints, where those can't be had, do. */
#define COUNT(name, call, arguments) \
	SEC("fentry/__x64_sys_" #name) KAON_ALTERNATIVE(name##_enter, 1) \
	int BPF_PROG(name##_trampoline_enter, struct pt_regs *regs) \
	{ \
		struct pt_regs___x86 *x86 = (void *)regs; \
		return begin(call, WANTS_ROOT_##arguments(x86->di, x86->si, x86->dx)); \
	} \
	SEC("fexit/__x64_sys_" #name) KAON_ALTERNATIVE(name##_exit, 1) \
	int BPF_PROG(name##_trampoline_exit, struct pt_regs *regs, long result) \
	{ \
		return finish(call, result); \
	} \
	SEC("tracepoint/syscalls/sys_enter_" #name) KAON_ALTERNATIVE(name##_enter, 2) \
	int name##_enter(struct trace_event_raw_sys_enter *ctx) \
	{ \
		return begin(call, WANTS_ROOT_##arguments(ctx->args[0], ctx->args[1], ctx->args[2])); \
	} \
	SEC("tracepoint/syscalls/sys_exit_" #name) KAON_ALTERNATIVE(name##_exit, 2) \
	int name##_exit(struct trace_event_raw_sys_exit *ctx) \
	{ \
		return finish(call, ctx->ret); \
	}

COUNT(setuid, CALL_SETUID, 1)
COUNT(setreuid, CALL_SETREUID, 2)
COUNT(setresuid, CALL_SETRESUID, 3)
COUNT(setgid, CALL_SETGID, 1)
COUNT(setregid, CALL_SETREGID, 2)
COUNT(setresgid, CALL_SETRESGID, 3)

SEC("tp_btf/sched_process_exec")
int BPF_PROG(setuid_exec, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	__u32 mode = program->file->f_inode->i_mode;
	const struct cred *cred = task->cred;
	struct execution_key key = {};
	bool user, group;

	if (!(mode & (S_ISUID | S_ISGID)) || !kaon_task_in_scope(task))
		return 0;
	user = mode & S_ISUID && cred->euid.val != cred->uid.val;
	group = mode & S_ISGID && cred->egid.val != cred->gid.val;
	if (!user && !group)
		return 0;
	key.workload = kaon_task_workload(task);
	key.kind = user ? group ? KIND_BOTH : KIND_SETUID : KIND_SETGID;
	key.from = (user ? cred->uid.val : cred->gid.val) ? IDENTITY_OTHER : IDENTITY_ROOT;
	key.to = (user ? cred->euid.val : cred->egid.val) ? IDENTITY_OTHER : IDENTITY_ROOT;
	kaon_increment(&setuid_executions_total, &key);
	return 0;
}
