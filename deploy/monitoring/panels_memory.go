package monitoring

func memoryRow() Row {
	sum := func(metric string) Query { return Query{by("", selector(metric+"_bytes")), metric[len("memory_"):]} }
	return Row{Title: "Memory", Area: "memory", Panels: []Panel{
		curves("Share of the limit", "percentunit", "Without page cache that is not in use. Near 1, the next allocation stalls or kills.", topWorkloads(memoryShare())),
		curves("Anonymous memory", "bytes", "Heaps and stacks: what container_memory_rss tells. A leak grows without end.",
			topWorkloads(by(byWorkload, selector("memory_anon_bytes")))),
		stacked("Memory by kind", "bytes", "Of all chosen workloads. Shared memory and tmpfs are part of the page cache (file).",
			sum("memory_anon"), sum("memory_file"), sum("memory_kernel"), sum("memory_swap")),
		curves("Shared memory and tmpfs", "bytes", "It hides in the page cache, but can't be given back.", topWorkloads(by(byWorkload, selector("memory_shmem_bytes")))),
		curves("Stalls: seconds lost per second", "short", "Threads that had to free memory (machine, limit) or move it (compaction) before they got some.",
			Query{top(10, observed(selector("memory_stall_seconds"), byWorkload+", cause")), workloadLegend + " {{cause}}"}),
		curves("Stalls, 99th percentile", "s", "How long a thread was held up.",
			Query{top(10, quantile(0.99, selector("memory_stall_seconds"), byWorkload+", cause")), workloadLegend + " {{cause}}"}),
		curves("Pages reclaimed in stalls", "ops", "cause limit: a workload that lives off its page cache.",
			Query{top(10, perSecond(selector("memory_stall_reclaimed_pages_total"), byWorkload+", cause")), workloadLegend + " {{cause}}"}),
		curves("Page faults", "ops", "A jump is a process that starts, or an allocator that gives memory back and takes it again.",
			topWorkloads(perSecond(selector("page_faults_total"), byWorkload))),
		curves("Major page faults", "ops", "Threads that waited for a disk.", topWorkloads(perSecond(selector("page_faults_major_total"), byWorkload))),
		curves("Refaults", "ops", "Pages that came back soon after they were evicted: the working set does not fit.",
			Query{top(10, perSecond(selector("page_refaults_file_total"), byWorkload)), workloadLegend + " file"},
			Query{top(10, perSecond(selector("page_refaults_anon_total"), byWorkload)), workloadLegend + " swap"}),
		curves("Page cache: share of reads that missed", "percentunit", "Pages that reads of files wanted and that were not in memory.",
			topWorkloads(share(perSecond(selector("pagecache_missed_pages_total"), byWorkload), perSecond(selector("pagecache_read_pages_total"), byWorkload)))),
		curves("Page cache: pages added", "ops", "Missed, read ahead, or new. As many removed is a cache that is too small.",
			Query{top(10, perSecond(selector("pagecache_added_pages_total"), byWorkload)), workloadLegend + " added"},
			Query{top(10, perSecond(selector("pagecache_removed_pages_total"), byWorkload)), workloadLegend + " removed"}),
	}}
}
