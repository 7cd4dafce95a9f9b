// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"
#include "kaon_syscall.h"

KAON_PROGRAM("Files and directories opened, created, deleted, renamed and linked, and why that failed.");

enum operation {
	OPERATION_NONE,
	OPERATION_OPEN,
	OPERATION_CREATE,
	OPERATION_DELETE,
	OPERATION_RENAME,
	OPERATION_MKDIR,
	OPERATION_RMDIR,
	OPERATION_LINK,
	OPERATION_SYMLINK,
	OPERATION_MKNOD,
};

struct key {
	kaon_workload_t workload;
	enum operation operation;
	KAON_PAD(4);
};

struct error_key {
	kaon_workload_t workload;
	enum operation operation;
	kaon_errno_t errno;
};

KAON_COUNTER_MAP(file_operations_total, HASH, struct key, 10000,
	"Calls that open, create, delete, rename or link files or directories.");
KAON_COUNTER_MAP(file_operation_errors_total, HASH, struct error_key, 10000,
	"Of those, calls that failed.");

#define O_CREAT 0100
#define AT_REMOVEDIR 0x200
#define FMODE_CREATED (1 << 20)	/* of file.f_mode: this open made the file */

static __always_inline int count(enum operation operation, long result)
{
	struct key key = {.operation = operation};

	if (!kaon_in_scope())
		return 0;
	key.workload = kaon_workload();
	kaon_increment(&file_operations_total, &key);
	if (result < 0) {
		struct error_key failed = {.workload = key.workload, .operation = operation, .errno = -result};

		kaon_increment(&file_operation_errors_total, &failed);
	}
	return 0;
}

/* Of an open that may create: whether it did, or failed to. */
static __always_inline enum operation open_or_create(long result)
{
	struct file *file;

	if (result < 0)
		return OPERATION_CREATE;
	file = kaon_file(result);
	return file && BPF_CORE_READ(file, f_mode) & FMODE_CREATED ? OPERATION_CREATE : OPERATION_OPEN;
}

/* Trampolines on what the system calls have in common: nothing else of the machine becomes slower. */
SEC("fexit/do_sys_openat2") KAON_ALTERNATIVE(open, 1)
int BPF_PROG(opened, int directory, const char *name, struct open_how *how, int result)
{
	return count(how->flags & O_CREAT ? open_or_create(result) : OPERATION_OPEN, result);
}

SEC("fexit/do_handle_open") KAON_OPTIONAL
int BPF_PROG(opened_by_handle, int mount, void *handle, int flags, int result)
{
	return count(OPERATION_OPEN, result);
}

/* The second function is the first one's name since 7.0. */
#define CALL(name, function, newer, operation, ...) \
	SEC("fexit/" #function) KAON_ALTERNATIVE(name, 1) KAON_OPTIONAL \
	int BPF_PROG(name, __VA_ARGS__, int result) { return count(operation, result); } \
	SEC("fexit/" #newer) KAON_ALTERNATIVE(name, 2) KAON_OPTIONAL \
	int BPF_PROG(name##_newer, __VA_ARGS__, int result) { return count(operation, result); }

CALL(deleted, do_unlinkat, filename_unlinkat, OPERATION_DELETE, long a, long b)
CALL(renamed, do_renameat2, filename_renameat2, OPERATION_RENAME, long a, long b, long c, long d, long e)
CALL(directory_made, do_mkdirat, filename_mkdirat, OPERATION_MKDIR, long a, long b, long c)
CALL(directory_removed, do_rmdir, filename_rmdir, OPERATION_RMDIR, long a, long b)
CALL(linked, do_linkat, filename_linkat, OPERATION_LINK, long a, long b, long c, long d, long e)
CALL(symlinked, do_symlinkat, filename_symlinkat, OPERATION_SYMLINK, long a, long b, long c)
CALL(node_made, do_mknodat, filename_mknodat, OPERATION_MKNOD, long a, long b, long c, long d)

/* Operations by number of their call; what needs a look at the arguments has its own. */
enum {
	OPEN_FLAGS_1 = 100,	/* flags are the second argument */
	OPEN_FLAGS_2,		/* the third */
	OPEN_HOW,		/* the third points to struct open_how */
	OPEN_CREATES,
	UNLINK_AT,
};

#define CALLS 512

static const __u8 x86_calls[CALLS] = {
	[2] = OPEN_FLAGS_1, [257] = OPEN_FLAGS_2, [437] = OPEN_HOW, [85] = OPEN_CREATES, [304] = OPERATION_OPEN,
	[87] = OPERATION_DELETE, [263] = UNLINK_AT, [84] = OPERATION_RMDIR,
	[82] = OPERATION_RENAME, [264] = OPERATION_RENAME, [316] = OPERATION_RENAME,
	[83] = OPERATION_MKDIR, [258] = OPERATION_MKDIR,
	[86] = OPERATION_LINK, [265] = OPERATION_LINK,
	[88] = OPERATION_SYMLINK, [266] = OPERATION_SYMLINK,
	[133] = OPERATION_MKNOD, [259] = OPERATION_MKNOD,
};

static const __u8 arm64_calls[CALLS] = {
	[56] = OPEN_FLAGS_2, [437] = OPEN_HOW, [265] = OPERATION_OPEN,
	[35] = UNLINK_AT, [38] = OPERATION_RENAME, [276] = OPERATION_RENAME, [34] = OPERATION_MKDIR,
	[37] = OPERATION_LINK, [36] = OPERATION_SYMLINK, [33] = OPERATION_MKNOD,
};

/* Where the kernel refuses those: all calls, in which these are looked for. */
SEC("tp_btf/sys_exit") KAON_ALTERNATIVE(open, 2)
int BPF_PROG(call_ends, struct pt_regs *regs, long result)
{
	__u64 number = kaon_syscall_number(regs), flags = 0;
	__u8 operation;

	if (number >= CALLS)
		return 0;
	operation = kaon_is_x86() ? x86_calls[number & (CALLS - 1)] : arm64_calls[number & (CALLS - 1)];
	if (!operation)
		return 0;
	switch (operation) {
	case OPEN_FLAGS_1:
		flags = kaon_syscall_argument(regs, 1);
		break;
	case OPEN_FLAGS_2:
		flags = kaon_syscall_argument(regs, 2);
		break;
	case OPEN_HOW:
		bpf_probe_read_user(&flags, sizeof(flags), (void *)kaon_syscall_argument(regs, 2));
		break;
	case OPEN_CREATES:
		flags = O_CREAT;
		break;
	case UNLINK_AT:
		operation = kaon_syscall_argument(regs, 2) & AT_REMOVEDIR ? OPERATION_RMDIR : OPERATION_DELETE;
		break;
	}
	if (operation >= OPEN_FLAGS_1)
		operation = flags & O_CREAT ? open_or_create(result) : OPERATION_OPEN;
	return count(operation, result);
}
