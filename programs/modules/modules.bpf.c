// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Kernel modules that are loaded, unloaded and asked for.");

KAON_PARAM(bool, request_names, false, "Name what was asked for. Users can make names up.");

struct load_key {
	kaon_workload_t workload;
	char module[56];
	char taints[8];
};

struct key {
	kaon_workload_t workload;
	char module[56];
};

KAON_COUNTER_MAP(module_loads_total, HASH, struct load_key, 1000, "Kernel modules that were loaded.") KAON_LIMIT(1000);
KAON_COUNTER_MAP(module_unloads_total, HASH, struct key, 1000, "Kernel modules that were unloaded.") KAON_LIMIT(1000);
KAON_COUNTER_MAP(module_requests_total, HASH, struct key, 1000, "Times that the kernel asked for a module on somebody's behalf.")
	KAON_LIMIT(1000);

/* Bits of module.taints that a module itself can cause, as the kernel's log shows them. */
static __always_inline void name_taints(char *name, __u64 taints)
{
	int n = 0;

#define TAINT(bit, letter) \
	if (taints & 1 << (bit)) \
		name[n++ & 7] = letter
	TAINT(0, 'P');	/* proprietary */
	TAINT(10, 'C');	/* staging */
	TAINT(12, 'O');	/* out of the kernel's tree */
	TAINT(13, 'E');	/* unsigned */
	TAINT(15, 'K');	/* live patch */
	TAINT(18, 'N');	/* test */
}

SEC("tp_btf/module_load")
int BPF_PROG(module_load, struct module *module)
{
	struct load_key key = {};

	if (!kaon_in_scope())
		return 0;
	key.workload = kaon_workload();
	bpf_probe_read_kernel_str(key.module, sizeof(key.module), module->name);
	name_taints(key.taints, module->taints);
	kaon_increment(&module_loads_total, &key);
	return 0;
}

SEC("tp_btf/module_free")
int BPF_PROG(module_unload, struct module *module)
{
	struct key key = {};

	if (!kaon_in_scope())
		return 0;
	key.workload = kaon_workload();
	bpf_probe_read_kernel_str(key.module, sizeof(key.module), module->name);
	kaon_increment(&module_unloads_total, &key);
	return 0;
}

SEC("tp_btf/module_request")
int BPF_PROG(module_request, char *name)
{
	struct key key = {};

	if (!kaon_in_scope())
		return 0;
	key.workload = kaon_workload();
	if (request_names)
		bpf_probe_read_kernel_str(key.module, sizeof(key.module), name);
	kaon_increment(&module_requests_total, &key);
	return 0;
}
