package programs_test

import "github.com/kaon-project/kaon/internal/program"

func memoryArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"memory": {"memory_usage_bytes": program.Gauge, "memory_limit_bytes": program.Gauge, "memory_anon_bytes": program.Gauge,
				"memory_file_bytes": program.Gauge, "memory_inactive_file_bytes": program.Gauge, "memory_shmem_bytes": program.Gauge,
				"memory_kernel_bytes": program.Gauge, "memory_swap_bytes": program.Gauge},
			"faults": {"page_faults_total": program.Counter, "page_faults_major_total": program.Counter,
				"page_refaults_file_total": program.Counter, "page_refaults_anon_total": program.Counter},
			"pagecache": {"pagecache_read_pages_total": program.Counter, "pagecache_missed_pages_total": program.Counter,
				"pagecache_added_pages_total": program.Counter, "pagecache_removed_pages_total": program.Counter},
			"reclaim": {"memory_stall_seconds": program.Histogram, "memory_stall_reclaimed_pages_total": program.Counter},
		},
		helpers: map[string]func(){"memory": touchMemory, "reclaim": needMemory, "faults": faultPages, "pagecache": whenTold(readCached)},
		costs: []cost{
			{program: "memory", event: "scrape of 100 workloads", prepare: hundredCgroups},
			{program: "faults", event: "scrape of 100 workloads", prepare: hundredCgroups},
			{program: "pagecache", event: "page missed and dropped", cause: missCache,
				bpftrace: `tracepoint:filemap:mm_filemap_add_to_page_cache { @added[cgroup] = count(); }
					tracepoint:filemap:mm_filemap_delete_from_page_cache { @removed[cgroup] = count(); }`},
			{program: "reclaim", event: "stall", cause: reclaimAtLimit,
				bpftrace: `tracepoint:vmscan:mm_vmscan_memcg_reclaim_begin { @start[tid] = nsecs; }
					tracepoint:vmscan:mm_vmscan_memcg_reclaim_end /@start[tid]/ { @stall[cgroup] = hist(nsecs - @start[tid]); delete(@start[tid]); }`},
		},
	}
}
