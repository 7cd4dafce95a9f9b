/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * kaon_syscall.h: system calls and the files that they name. After kaon.h. One object
 * serves x86-64 and arm64.
 */
#ifndef KAON_SYSCALL_H
#define KAON_SYSCALL_H

struct pt_regs___kaon_x86 {
	unsigned long orig_ax, cs, di, si, dx, r10, r8, r9;
} KAON_CORE;

struct pt_regs___kaon_arm64 {
	__s32 syscallno;
	__u64 pstate, orig_x0;
	__u64 regs[31];
} KAON_CORE;

#define KAON_USER32_CS 0x23
#define KAON_PSR_MODE32_BIT 0x10
#define kaon_is_x86() bpf_core_field_exists(struct pt_regs___kaon_x86, orig_ax)

/* The number that a call has on one of the two architectures. */
#define KAON_SYSCALL(x86, arm64) (kaon_is_x86() ? (x86) : (arm64))

/* The number of the call that begins or returns, of a tp_btf/sys_enter or sys_exit; -1 if it has none in
 * the architecture's own table: 32-bit programs. */
static __always_inline long kaon_syscall_number(struct pt_regs *regs)
{
	if (kaon_is_x86()) {
		struct pt_regs___kaon_x86 *x86 = (void *)regs;

		return (x86->cs & 0xffff) == KAON_USER32_CS ? -1 : (long)x86->orig_ax;
	}
	if (bpf_core_field_exists(struct pt_regs___kaon_arm64, syscallno)) {
		struct pt_regs___kaon_arm64 *arm64 = (void *)regs;

		return arm64->pstate & KAON_PSR_MODE32_BIT ? -1 : arm64->syscallno;
	}
	return -1;
}

/* The nth (0 to 3, constant) argument of that call, also when it returns. */
static __always_inline __u64 kaon_syscall_argument(struct pt_regs *regs, int n)
{
	if (kaon_is_x86()) {
		struct pt_regs___kaon_x86 *x86 = (void *)regs;

		return n == 0 ? x86->di : n == 1 ? x86->si : n == 2 ? x86->dx : x86->r10;
	}
	if (bpf_core_field_exists(struct pt_regs___kaon_arm64, orig_x0)) {
		struct pt_regs___kaon_arm64 *arm64 = (void *)regs;

		return n == 0 ? arm64->orig_x0 : n == 1 ? arm64->regs[1] : n == 2 ? arm64->regs[2] : arm64->regs[3];
	}
	return 0;
}

/* The current task's open file with this descriptor, to be read by BPF_CORE_READ only; NULL if there is none. 25 ns. */
static __always_inline struct file *kaon_file(int fd)
{
	struct fdtable *table;
	struct file **files, *file = 0;
	unsigned int size;

	if (kaon_has_task_btf()) {
		table = bpf_get_current_task_btf()->files->fdt;
		size = table->max_fds;
		files = table->fd;
	} else {
		table = BPF_CORE_READ((struct task_struct *)bpf_get_current_task(), files, fdt);
		size = BPF_CORE_READ(table, max_fds);
		files = BPF_CORE_READ(table, fd);
	}
	if ((unsigned int)fd < size)
		bpf_probe_read_kernel(&file, sizeof(file), files + (unsigned int)fd);
	return file;
}

/* Writes the name of a file's type of filesystem ("ext4") to name, 16 bytes of zeros. file: one that the
 * verifier knows, an argument of fentry, fexit or lsm functions. */
static __always_inline void kaon_filesystem(char *name, struct file *file)
{
	bpf_probe_read_kernel_str(name, 16, file->f_inode->i_sb->s_type->name);
}

/* The same for any pointer, as from kaon_file; does nothing for NULL. */
static __always_inline void kaon_filesystem_probe(char *name, struct file *file)
{
	if (file)
		bpf_probe_read_kernel_str(name, 16, BPF_CORE_READ(file, f_inode, i_sb, s_type, name));
}

#endif /* KAON_SYSCALL_H */
