// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Programs that run from memory or from deleted files.");

KAON_PARAM(bool, names, false, "Tell programs apart by the name of their file.");

#define SB_KERNMOUNT (1 << 22)

enum kind { KIND_MEMORY, KIND_DELETED };

struct key {
	kaon_workload_t workload;
	enum kind kind;
	char file[36];
};

KAON_COUNTER_MAP(fileless_executions_total, HASH, struct key, 2000,
	"Programs that were executed from a file that has no name: in memory, or deleted.") KAON_LIMIT(2000);

SEC("tp_btf/sched_process_exec")
int BPF_PROG(fileless_exec, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	struct inode *inode = program->file->f_inode;
	struct key key = {};

	if (inode->i_nlink || !kaon_task_in_scope(task))
		return 0;
	key.workload = kaon_task_workload(task);
	/* Memory files live in a filesystem that only the kernel has mounted. */
	key.kind = inode->i_sb->s_flags & SB_KERNMOUNT ? KIND_MEMORY : KIND_DELETED;
	if (names)
		bpf_probe_read_kernel_str(key.file, sizeof(key.file), BPF_CORE_READ(program, file, f_path.dentry, d_name.name));
	kaon_increment(&fileless_executions_total, &key);
	return 0;
}
