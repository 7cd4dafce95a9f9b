// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"
#include "kaon_syscall.h"

KAON_PROGRAM("How long reads, writes, opens, syncs and listings of files take, by filesystem and operation.");

KAON_PARAM_DURATION(minimum, 0, "Observe only operations that take at least this long; cheaper, because most don't.");

enum operation {
	OPERATION_NONE,
	OPERATION_READ,
	OPERATION_WRITE,
	OPERATION_OPEN,
	OPERATION_FSYNC,
	OPERATION_READDIR,
};

struct key {
	kaon_workload_t workload;
	enum operation operation;
	char filesystem[16];
	KAON_PAD(4);
};

KAON_HISTOGRAM_MAP(filesystem_latency_seconds, HASH, struct key, 4000, ns, 2, -22, 6,
	"Time that operations on regular files and directories took.") KAON_UNIT("seconds") KAON_LIMIT(4000);

/* What a thread is in. Operations nest where filesystems do, as overlay on ext4. */
struct call {
	__u64 thread;
	__u64 place;	/* the superblock's address and the operation; 0: a system call */
};

struct begun {
	__u64 time;	/* 0: not in progress */
	__u64 file;
};

/* Entries stay for the thread's next operation. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct call);
	__type(value, struct begun);
} calls SEC(".maps");

#define S_IFMT 0170000
#define S_IFREG 0100000
#define S_IFDIR 0040000

/* Pipes, sockets and devices wait for somebody else, not for a filesystem. */
static __always_inline bool is_file(__u16 mode)
{
	return (mode & S_IFMT) == S_IFREG || (mode & S_IFMT) == S_IFDIR;
}

static __always_inline void remember(struct call *call, __u64 file)
{
	struct begun *begun = bpf_map_lookup_elem(&calls, call);

	if (begun) {
		begun->file = file;
		begun->time = kaon_now();
	} else {
		struct begun first = {.time = kaon_now(), .file = file};

		bpf_map_update_elem(&calls, call, &first, BPF_ANY);
	}
}

/* When the call began, and no more from now on; 0 if it is not known or was quick. */
static __always_inline __u64 recall(struct call *call, __u64 *file)
{
	struct begun *begun = bpf_map_lookup_elem(&calls, call);
	__u64 elapsed;

	if (!begun || !begun->time)
		return 0;
	elapsed = kaon_now() - begun->time;
	*file = begun->file;
	begun->time = 0;
	return elapsed < minimum ? 0 : elapsed | !elapsed;
}

static __always_inline int observe(enum operation operation, struct file *file, __u64 elapsed)
{
	struct key key = {.workload = kaon_workload(), .operation = operation};

	kaon_filesystem_probe(key.filesystem, file);
	kaon_observe_ns(&filesystem_latency_seconds, &key, elapsed);
	return 0;
}

/* ---- Trampolines: only what works on files becomes slower ---------------- */

static __always_inline struct call call_of(struct file *file, enum operation operation)
{
	struct call call = {.thread = bpf_get_current_pid_tgid(), .place = operation};

	if (file)
		call.place += (__u64)file->f_inode->i_sb;
	return call;
}

static __always_inline int enter(struct file *file, enum operation operation)
{
	struct call call;

	if (!kaon_in_scope() || (file && !is_file(file->f_inode->i_mode)))
		return 0;
	call = call_of(file, operation);
	remember(&call, 0);
	return 0;
}

static __always_inline int leave(struct file *file, struct call *call, enum operation operation)
{
	struct key key = {.operation = operation};
	__u64 unused, elapsed = recall(call, &unused);

	if (!elapsed)
		return 0;
	key.workload = kaon_workload();
	kaon_filesystem(key.filesystem, file);
	kaon_observe_ns(&filesystem_latency_seconds, &key, elapsed);
	return 0;
}

#define ON_FILE(name, function, operation, optional) \
	SEC("fentry/" #function) optional \
	int BPF_PROG(name##_begins, struct file *file) { return enter(file, operation); } \
	SEC("fexit/" #function) optional##_END \
	int BPF_PROG(name##_ends, struct file *file) \
	{ \
		struct call call; \
		if (!is_file(file->f_inode->i_mode)) \
			return 0; \
		call = call_of(file, operation); \
		return leave(file, &call, operation); \
	}

#define FIRST KAON_ALTERNATIVE(begin, 1)
#define FIRST_END KAON_ALTERNATIVE(end, 1)
#define OTHER KAON_OPTIONAL
#define OTHER_END KAON_OPTIONAL

ON_FILE(read, vfs_read, OPERATION_READ, FIRST)
ON_FILE(write, vfs_write, OPERATION_WRITE, OTHER)
ON_FILE(readv, vfs_readv, OPERATION_READ, OTHER)
ON_FILE(writev, vfs_writev, OPERATION_WRITE, OTHER)
ON_FILE(readdir, iterate_dir, OPERATION_READDIR, OTHER)

static __always_inline int opened(struct file *file)
{
	struct call call = call_of(0, OPERATION_OPEN);
	__u64 unused;

	/* An open that failed has no file. */
	if ((__u64)file >= (__u64)-4095 || !is_file(file->f_inode->i_mode)) {
		recall(&call, &unused);
		return 0;
	}
	return leave(file, &call, OPERATION_OPEN);
}

#define OPEN(name, function, rank) \
	SEC("fentry/" #function) KAON_ALTERNATIVE(open_begins, rank) KAON_OPTIONAL \
	int BPF_PROG(name##_begins) { return enter(0, OPERATION_OPEN); } \
	SEC("fexit/" #function) KAON_ALTERNATIVE(open_ends, rank) KAON_OPTIONAL \
	int BPF_PROG(name##_ends, int directory, struct filename *path, struct open_flags *flags, struct file *file) { return opened(file); }

OPEN(open, do_filp_open, 1)
OPEN(open_newer, do_file_open, 2) /* since 7.0 */

static __always_inline int sync_begins(struct pt_regs *regs)
{
	struct file *file = kaon_file(kaon_syscall_argument(regs, 0));
	struct call call = {.thread = bpf_get_current_pid_tgid(), .place = OPERATION_FSYNC};

	if (kaon_in_scope() && file && is_file(BPF_CORE_READ(file, f_inode, i_mode)))
		remember(&call, (__u64)file);
	return 0;
}

static __always_inline int sync_ends(void)
{
	struct call call = {.thread = bpf_get_current_pid_tgid(), .place = OPERATION_FSYNC};
	__u64 file, elapsed = recall(&call, &file);

	return elapsed ? observe(OPERATION_FSYNC, (struct file *)file, elapsed) : 0;
}

/* The system calls: compilers make what is below them part of them. */
#define SYNC(name) \
	SEC("fentry/__x64_sys_" #name) KAON_ALTERNATIVE(name##_begins, 1) KAON_OPTIONAL \
	int BPF_PROG(name##_begins, struct pt_regs *regs) { return sync_begins(regs); } \
	SEC("fexit/__x64_sys_" #name) KAON_ALTERNATIVE(name##_ends, 1) KAON_OPTIONAL \
	int BPF_PROG(name##_ends) { return sync_ends(); } \
	SEC("fentry/__arm64_sys_" #name) KAON_ALTERNATIVE(name##_begins, 2) KAON_OPTIONAL \
	int BPF_PROG(name##_begins_arm64, struct pt_regs *regs) { return sync_begins(regs); } \
	SEC("fexit/__arm64_sys_" #name) KAON_ALTERNATIVE(name##_ends, 2) KAON_OPTIONAL \
	int BPF_PROG(name##_ends_arm64) { return sync_ends(); }

SYNC(fsync)
SYNC(fdatasync)

/* ---- Where the kernel refuses those: all system calls --------------------- */

#define CALLS 512

static const __u8 x86_calls[CALLS] = {
	[0] = OPERATION_READ, [17] = OPERATION_READ, [19] = OPERATION_READ, [295] = OPERATION_READ, [327] = OPERATION_READ,
	[1] = OPERATION_WRITE, [18] = OPERATION_WRITE, [20] = OPERATION_WRITE, [296] = OPERATION_WRITE, [328] = OPERATION_WRITE,
	[2] = OPERATION_OPEN, [85] = OPERATION_OPEN, [257] = OPERATION_OPEN, [437] = OPERATION_OPEN,
	[74] = OPERATION_FSYNC, [75] = OPERATION_FSYNC,
	[78] = OPERATION_READDIR, [217] = OPERATION_READDIR,
};

static const __u8 arm64_calls[CALLS] = {
	[63] = OPERATION_READ, [67] = OPERATION_READ, [65] = OPERATION_READ, [69] = OPERATION_READ, [286] = OPERATION_READ,
	[64] = OPERATION_WRITE, [68] = OPERATION_WRITE, [66] = OPERATION_WRITE, [70] = OPERATION_WRITE, [287] = OPERATION_WRITE,
	[56] = OPERATION_OPEN, [437] = OPERATION_OPEN,
	[82] = OPERATION_FSYNC, [83] = OPERATION_FSYNC,
	[61] = OPERATION_READDIR,
};

static __always_inline enum operation operation_of(struct pt_regs *regs)
{
	__u64 number = kaon_syscall_number(regs);

	if (number >= CALLS)
		return OPERATION_NONE;
	return kaon_is_x86() ? x86_calls[number & (CALLS - 1)] : arm64_calls[number & (CALLS - 1)];
}

SEC("tp_btf/sys_enter") KAON_ALTERNATIVE(begin, 2)
int BPF_PROG(call_begins, struct pt_regs *regs)
{
	enum operation operation = operation_of(regs);
	struct call call = {};
	struct file *file = 0;

	if (!operation || !kaon_in_scope())
		return 0;
	if (operation != OPERATION_OPEN) {
		file = kaon_file(kaon_syscall_argument(regs, 0));
		if (!file || !is_file(BPF_CORE_READ(file, f_inode, i_mode)))
			return 0;
	}
	call.thread = bpf_get_current_pid_tgid();
	remember(&call, (__u64)file);
	return 0;
}

SEC("tp_btf/sys_exit") KAON_ALTERNATIVE(end, 2)
int BPF_PROG(call_ends, struct pt_regs *regs, long result)
{
	enum operation operation = operation_of(regs);
	struct call call = {};
	__u64 elapsed, address;
	struct file *file;

	if (!operation)
		return 0;
	call.thread = bpf_get_current_pid_tgid();
	elapsed = recall(&call, &address);
	if (!elapsed)
		return 0;
	file = (struct file *)address;
	if (operation == OPERATION_OPEN) {
		file = result < 0 ? 0 : kaon_file(result);
		if (!file || !is_file(BPF_CORE_READ(file, f_inode, i_mode)))
			return 0;
	}
	return observe(operation, file, elapsed);
}
