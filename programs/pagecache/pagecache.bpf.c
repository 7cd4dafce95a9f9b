// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#include "kaon.h"

KAON_PROGRAM("Pages of files read from the page cache, those that were not there, and pages added and removed.");

struct key {
	kaon_workload_t workload;
};

struct pages {
	__u64 read KAON_NAME("pagecache_read_pages_total") KAON_TYPE(counter)
		KAON_HELP("Pages that reads of files asked the page cache for.");
	__u64 missed KAON_NAME("pagecache_missed_pages_total") KAON_TYPE(counter)
		KAON_HELP("Of those, pages that were not there and had to be read from the device.");
	__u64 added KAON_NAME("pagecache_added_pages_total") KAON_TYPE(counter)
		KAON_HELP("Pages that came into the page cache: missed, read ahead, written for the first time, faulted in.");
	__u64 removed KAON_NAME("pagecache_removed_pages_total") KAON_TYPE(counter)
		KAON_HELP("Pages that left the page cache: reclaimed, truncated or deleted with their file, by who did that.");
};

KAON_METRICS_MAP(pagecache, HASH, struct key, struct pages, 4000);

#define PAGE_SHIFT 12

/* A read by a thread, or what it has just added to the cache. */
struct span {
	__u64 file;		/* address of the struct address_space; 0: none */
	__u64 first, end;	/* pages */
	__u64 calls;		/* of read and write that the thread had made */
};

struct thread_state {
	struct span read;
	struct span added;	/* where only ends of reads are seen */
	__u64 added_pages;
	bool reading;		/* where beginnings are seen, too */
};

struct thread {
	__u64 id;
};

/* Entries stay for the thread's next read. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct thread);
	__type(value, struct thread_state);
} threads SEC(".maps");

static const struct thread_state nothing;

static __always_inline struct thread_state *state_of_thread(void)
{
	struct thread thread = {.id = bpf_get_current_pid_tgid()};
	struct thread_state *state = bpf_map_lookup_elem(&threads, &thread);

	if (state)
		return state;
	bpf_map_update_elem(&threads, &thread, &nothing, BPF_NOEXIST);
	return bpf_map_lookup_elem(&threads, &thread);
}

static __always_inline struct pages *pages_of_workload(void)
{
	struct key key = {.workload = kaon_workload()};

	return kaon_entry(&pagecache, &key);
}

static __always_inline __u64 calls(void)
{
	if (!bpf_core_field_exists(struct task_struct, ioac.syscr))
		return 0;
	if (kaon_has_task_btf()) {
		struct task_struct *task = bpf_get_current_task_btf();

		return task->ioac.syscr + task->ioac.syscw;
	}
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	return BPF_CORE_READ(task, ioac.syscr) + BPF_CORE_READ(task, ioac.syscw);
}

/* ---- Reads ---------------------------------------------------------------- */

/* A read of these pages; what is longer than a batch of the kernel's comes in parts, whose beginnings advance. */
static __always_inline void reads(struct thread_state *state, struct address_space *mapping, __u64 first, __u64 end)
{
	__u64 size = mapping->host->i_size, last = (size + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT;
	struct span *read = &state->read;
	struct pages *pages;
	bool part;

	if (end > last)
		end = last;
	if (first >= end)
		end = first;
	part = read->file == (__u64)mapping && read->end == end && read->calls == calls() && first > read->first;
	read->file = (__u64)mapping;
	read->first = first;
	read->end = end;
	read->calls = calls();
	if (part || first == end)
		return;
	pages = pages_of_workload();
	if (pages)
		kaon_add_at(&pages->read, end - first);
}

static __always_inline int read_begins(struct kiocb *iocb, __u64 count)
{
	__u64 position = iocb->ki_pos;
	struct thread_state *state;

	if (!count || !kaon_in_scope())
		return 0;
	state = state_of_thread();
	if (!state)
		return 0;
	reads(state, iocb->ki_filp->f_mapping, position >> PAGE_SHIFT, (position + count - 1 + (1 << PAGE_SHIFT)) >> PAGE_SHIFT);
	state->reading = true;
	return 0;
}

static __always_inline int read_ends(void)
{
	struct thread thread = {.id = bpf_get_current_pid_tgid()};
	struct thread_state *state = bpf_map_lookup_elem(&threads, &thread);

	if (state)
		state->reading = false;
	return 0;
}

/* Since 6.2. On older kernels the count is a pointer, with which the verifier lets nobody count. */
SEC("fentry/filemap_get_pages") KAON_ALTERNATIVE(read, 1) KAON_OPTIONAL
int BPF_PROG(read_begins_count, struct kiocb *iocb, __u64 count)
{
	return read_begins(iocb, count);
}

SEC("fentry/filemap_get_pages") KAON_ALTERNATIVE(read, 2) KAON_OPTIONAL
int BPF_PROG(read_begins_iter, struct kiocb *iocb, struct iov_iter *iter)
{
	return read_begins(iocb, iter->count);
}

/* Before 5.12. */
SEC("fentry/generic_file_buffered_read") KAON_ALTERNATIVE(read, 3) KAON_OPTIONAL
int BPF_PROG(read_begins_old, struct kiocb *iocb, struct iov_iter *iter)
{
	return read_begins(iocb, iter->count);
}

SEC("fexit/filemap_get_pages") KAON_ALTERNATIVE(read_end, 1) KAON_OPTIONAL
int BPF_PROG(read_ends_new)
{
	return read_ends();
}

SEC("fexit/generic_file_buffered_read") KAON_ALTERNATIVE(read_end, 2) KAON_OPTIONAL
int BPF_PROG(read_ends_old)
{
	return read_ends();
}

/*
 * Where the kernel refuses trampolines: at the end of each part of a read, when what it missed has been added. The kernel
 * tells nothing of a part whose last page is still on its way: then what the same call added before says where it began.
 */
SEC("tp_btf/mm_filemap_get_pages") KAON_ALTERNATIVE(read, 4) KAON_OPTIONAL
int BPF_PROG(read_done, struct address_space *mapping, __u64 first, __u64 last)
{
	struct thread_state *state;
	struct pages *pages;
	__u64 from, to, missed;
	bool added;

	if (!kaon_in_scope())
		return 0;
	state = state_of_thread();
	if (!state)
		return 0;
	added = state->added_pages && state->added.file == (__u64)mapping && state->added.calls == calls();
	if (added && state->added.first < first && state->added.end > first)
		first = state->added.first;
	reads(state, mapping, first, last + 1);
	if (added) {
		from = state->added.first > first ? state->added.first : first;
		to = state->added.end < state->read.end ? state->added.end : state->read.end;
		missed = to > from ? to - from : 0;
		if (missed > state->added_pages)
			missed = state->added_pages;
		pages = pages_of_workload();
		if (pages)
			kaon_add_at(&pages->missed, missed);
	}
	state->added_pages = 0;
	return 0;
}

/* ---- Pages come and go ---------------------------------------------------- */

struct folio___kaon {
	struct address_space *mapping;
	unsigned long index;
	unsigned long _flags_1;
	unsigned int _folio_nr_pages;	/* until 6.14 */
	unsigned int _nr_pages;		/* since 6.15 */
} KAON_CORE;

struct page___kaon {
	struct address_space *mapping;
	unsigned long index;
} KAON_CORE;

/* At the beginning of both, on all kernels. */
struct flags {
	unsigned long flags;
};

static __always_inline __u64 pages_in(struct folio___kaon *folio)
{
	if (!bpf_core_type_exists(struct folio___kaon))
		return 1;
	if (!(((struct flags *)folio)->flags & 1UL << bpf_core_enum_value(enum pageflags, PG_head)))
		return 1;
	if (bpf_core_field_exists(folio->_nr_pages))
		return folio->_nr_pages;
	if (bpf_core_field_exists(folio->_folio_nr_pages))
		return folio->_folio_nr_pages;
	return 1;
}

SEC("tp_btf/mm_filemap_add_to_page_cache")
int BPF_PROG(page_added, void *page_or_folio)
{
	struct folio___kaon *folio = page_or_folio;
	__u64 number = pages_in(folio), index, file;
	struct thread_state *state;
	struct pages *pages;

	if (!kaon_in_scope())
		return 0;
	if (bpf_core_type_exists(struct folio___kaon)) {
		index = folio->index;
		file = (__u64)folio->mapping;
	} else {
		struct page___kaon *page = page_or_folio;

		index = page->index;
		file = (__u64)page->mapping;
	}
	pages = pages_of_workload();
	if (!pages)
		return 0;
	kaon_add_at(&pages->added, number);
	state = state_of_thread();
	if (!state)
		return 0;
	if (state->reading) {
		__u64 from = index > state->read.first ? index : state->read.first;
		__u64 to = index + number < state->read.end ? index + number : state->read.end;

		if (file == state->read.file && to > from)
			kaon_add_at(&pages->missed, to - from);
		return 0;
	}
	if (state->added_pages && state->added.file == file && index >= state->added.first && state->added.calls == calls()) {
		state->added.end = index + number;
		state->added_pages += number;
		return 0;
	}
	state->added.file = file;
	state->added.first = index;
	state->added.end = index + number;
	state->added.calls = calls();
	state->added_pages = number;
	return 0;
}

SEC("tp_btf/mm_filemap_delete_from_page_cache")
int BPF_PROG(page_removed, void *page_or_folio)
{
	struct pages *pages;

	if (!kaon_in_scope())
		return 0;
	pages = pages_of_workload();
	if (pages)
		kaon_add_at(&pages->removed, pages_in(page_or_folio));
	return 0;
}
