/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * kaon_usdt.h: static probes of user programs. After kaon.h:
 *
 *	SEC("usdt/libc:libc:setjmp")
 *	int BPF_USDT(jump, void *buffer) { ... }
 *
 * It is libbpf's usdt.bpf.h with its weak maps and hidden functions made plain ones, which
 * every loader understands. The agent fills its maps with what the binary says of its probes.
 */
#ifndef KAON_USDT_H
#define KAON_USDT_H

#undef __weak
#define __weak
#undef __hidden
#define __hidden static __attribute__((unused))
#include <bpf/usdt.bpf.h>

#endif /* KAON_USDT_H */
