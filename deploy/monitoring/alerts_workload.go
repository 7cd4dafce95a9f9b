package monitoring

import (
	"strings"
	"time"
)

// byPlace names a workload and its machine.
const byPlace = "instance, " + byWorkload

// workloadAlerts are about what runs on the machines.
func workloadAlerts() []Alert {
	var all []Alert
	for _, alerts := range [][]Alert{resourceAlerts(), failureAlerts(), networkAlerts(), securityAlerts()} {
		all = append(all, alerts...)
	}
	for i := range all {
		all[i].Expr = inRule(all[i].Expr)
	}
	return all
}

// who names the workload of an alert: namespace/pod/container, or unit, container or cgroup.
const who = "{{ with $labels.pod }}{{ $labels.namespace }}/{{ . }}/{{ $labels.container }}{{ else }}{{ $labels.container }}{{ $labels.unit }}{{ $labels.cgroup }}{{ end }} on {{ $labels.instance }}"

func resourceAlerts() []Alert {
	periods := perSecond(metricOf("cpu_quota_periods_total"), byPlace)
	waits := metricOf("runqueue_latency_seconds")
	requests := metricOf("blockio_latency_seconds")
	syncs := metricOf("fsync_latency_seconds", `operation=~"fsync|fdatasync"`)
	return []Alert{
		{Name: "WorkloadCPUThrottled", For: 15 * time.Minute, Severity: Warning,
			Expr:    share(perSecond(metricOf("cpu_throttled_periods_total"), byPlace), periods) + " > 0.25 and " + periods + " > 1",
			Summary: who + " is stopped by its CPU quota in {{ $value | humanizePercentage }} of the periods",
			Help:    "In a quarter of the periods of 0.1 s the quota was used up before the end: every fourth request waits for the next one. Workloads that run in less than every tenth period are left out."},
		{Name: "WorkloadWaitsForCPU", For: 15 * time.Minute, Severity: Warning,
			Expr:    "(" + quantile(0.99, waits, byPlace) + ") > 0.05 and " + observations(waits, byPlace) + " > 1",
			Summary: who + " waits {{ $value | humanizeDuration }} for a CPU (99th percentile)",
			Help:    "A scheduler that has CPUs to give makes nobody wait for more than some milliseconds. 50 ms are a machine that is too small, a neighbour that takes all, or a quota."},
		{Name: "WorkloadNearMemoryLimit", For: 15 * time.Minute, Severity: Warning,
			Expr:    "(" + by(byPlace, "memory_usage_bytes - memory_inactive_file_bytes") + ") / " + by(byPlace, metricOf("memory_limit_bytes")) + " > 0.9",
			Summary: who + " needs {{ $value | humanizePercentage }} of its memory limit",
			Help:    "Page cache that is not in use is left out, so this can hardly be given back. The last tenth goes fast: then allocations stall, and then the kernel kills."},
		{Name: "WorkloadStallsForMemory", For: 10 * time.Minute, Severity: Warning,
			Expr:    observed(metricOf("memory_stall_seconds"), byPlace+", cause") + " > 0.1",
			Summary: who + " loses {{ $value | humanize }} s per second to finding memory ({{ $labels.cause }})",
			Help:    "Its threads free memory before they get some: a tenth of a thread's time, as latency. Above that, a kill is near."},
		{Name: "DiskSlow", For: 15 * time.Minute, Severity: Warning,
			Expr:    "(" + quantile(0.99, requests, "instance, device") + ") > 0.25 and " + observations(requests, "instance, device") + " > 1",
			Summary: "{{ $labels.device }} on {{ $labels.instance }} takes {{ $value | humanizeDuration }} (99th percentile)",
			Help:    "NVMe takes less than 1 ms, cloud disks 10 ms, turning disks 50 ms. 250 ms are a queue that is too long, a limit of the provider, or a disk that fails."},
		{Name: "DiskErrors", For: time.Minute, Severity: Critical,
			Expr:    events(metricOf("blockio_errors_total", `errno!="EOPNOTSUPP"`), "15m", "instance, device, operation, errno") + " > 0",
			Summary: "{{ $labels.device }} on {{ $labels.instance }} fails: {{ $labels.operation }}, {{ $labels.errno }}",
			Help:    "The kernel gave up on a request after it tried again. One is enough: data was not read or not written. EOPNOTSUPP is a question, not an error."},
		{Name: "FsyncSlow", For: 10 * time.Minute, Severity: Warning,
			Expr:    "(" + quantile(0.99, syncs, byPlace) + ") > 0.1 and " + observations(syncs, byPlace) + " > 0.1",
			Summary: "fsync takes {{ $value | humanizeDuration }} for " + who + " (99th percentile)",
			Help:    "Every commit of a database and every write of a queue waits for it. etcd warns at 10 ms and loses its leader at some 100 ms. Needs the program fsync."},
		{Name: "FsyncFails", For: time.Minute, Severity: Critical,
			Expr:    events(metricOf("fsync_errors_total", `errno=~"EIO|ENOSPC|EDQUOT|EROFS"`), "15m", byPlace+", errno") + " > 0",
			Summary: "Data of " + who + " did not reach the disk: {{ $labels.errno }}",
			Help:    "The kernel could not write what the workload had written before, and tells so only once: what tries again gets success for data that is lost. Needs the program fsync."},
	}
}

func failureAlerts() []Alert {
	return []Alert{
		{Name: "WorkloadOOMKilled", For: time.Minute, Severity: Warning,
			Expr:    events(metricOf("oom_kills_total", `limit!="machine"`), "15m", byPlace) + " > 0",
			Summary: "A process of " + who + " was killed for want of memory",
			Help:    "A memory cgroup was at its limit. Any kill is worth a look: if it was not the container's first process, the container goes on without it."},
		{Name: "MachineOutOfMemory", For: time.Minute, Severity: Critical,
			Expr:    events(metricOf("oom_kills_total", `limit="machine"`), "15m", "instance") + " > 0",
			Summary: "{{ $labels.instance }} has no memory left and kills",
			Help:    "No limit was exceeded: the machine itself is out of memory, and the kernel chose a victim that may be anybody's."},
		{Name: "WorkloadCrashes", For: 5 * time.Minute, Severity: Warning,
			Expr:    events(metricOf("process_exits_total", `signal=~"SIGSEGV|SIGABRT|SIGBUS|SIGILL|SIGFPE|SIGSYS|SIGTRAP"`), "15m", byPlace+", signal") + " > 2.5",
			Summary: who + " crashed {{ $value | humanize }} times in 15 minutes: {{ $labels.signal }}",
			Help:    "Processes ended by signals that only a fault of their own raises. Three in 15 minutes are a loop, also with the 5 minutes that Kubernetes waits at most between attempts."},
		{Name: "WorkloadProcessesFail", For: 15 * time.Minute, Severity: Warning,
			Expr: share(events(metricOf("process_exits_total", `code!="0"`), "30m", byPlace), events(metricOf("process_exits_total"), "30m", byPlace)) + " > 0.9 and " +
				events(metricOf("process_exits_total", `code!="0"`), "30m", byPlace) + " > 4.5",
			Summary: "{{ $value | humanizePercentage }} of the processes of " + who + " end with an error",
			Help:    "Nearly all processes that ended, and five or more in half an hour, had an exit code: a job that never succeeds, a container that restarts all the time. Scripts have failing commands, but not these alone."},
	}
}

func networkAlerts() []Alert {
	fails := perSecond(metricOf("tcp_connect_failures_total"), byPlace)
	again := perSecond(metricOf("tcp_retransmits_total"), byPlace)
	queries := perSecond(metricOf("dns_queries_total"), byPlace)
	latency := metricOf("dns_latency_seconds")
	const lossy = "socket_rcvbuff|socket_backlog|proto_mem|cpu_backlog|full_ring|nomem|qdisc_drop|neigh_queuefull|neigh_failed|neigh_createfail|tcp_csum|udp_csum|ip_csum|skb_csum"
	return []Alert{
		{Name: "WorkloadConnectionsFail", For: 10 * time.Minute, Severity: Warning,
			Expr:    share(fails, perSecond(metricOf("tcp_connects_total"), byPlace)) + " > 0.1 and " + fails + " > 0.1",
			Summary: "{{ $value | humanizePercentage }} of the connections of " + who + " fail",
			Help:    "Every tenth connect() and six or more per minute. Retries hide it from users for a while, at the price of latency."},
		{Name: "WorkloadRetransmits", For: 15 * time.Minute, Severity: Warning,
			Expr:    share(again, perSecond(metricOf("network_packets_total", `direction="transmit"`, `protocol="tcp"`), byPlace)) + " > 0.02 and " + again + " > 1",
			Summary: who + " sends {{ $value | humanizePercentage }} of its TCP segments again",
			Help:    "Up to some tenths of a percent are normal between data centres, nearly none within. At 2 % throughput breaks down, and every loss costs 0.2 s or more. Less than one per second is left out."},
		{Name: "ListenQueueOverflows", For: 5 * time.Minute, Severity: Warning,
			Expr:    perSecond(metricOf("tcp_listen_drops_total"), byPlace+", port") + " > 0",
			Summary: who + " drops clients at port {{ $labels.port }}",
			Help:    "Its queue of connections is full because it does not accept fast enough. Each dropped client waits a second before it tries again, then two. A burst passes within 5 minutes."},
		{Name: "SocketsCloseWait", For: 30 * time.Minute, Severity: Warning,
			Expr:    by(byPlace, metricOf("sockets", `protocol="tcp"`, `state="close_wait"`)) + " > 100",
			Summary: who + " has {{ $value }} connections that it does not close",
			Help:    "The peer has closed, the workload has not: mostly it forgot. A hundred for half an hour are a leak of descriptors that ends in EMFILE; a busy server has a few for moments."},
		{Name: "DNSFails", For: 10 * time.Minute, Severity: Warning,
			Expr: share(by(byPlace, rate(metricOf("dns_responses_total", `rcode!~"noerror|nxdomain"`))+" or "+rate(metricOf("dns_unanswered_total"))), queries) +
				" > 0.05 and " + queries + " > 0.1",
			Summary: "{{ $value | humanizePercentage }} of the DNS queries of " + who + " get no good response",
			Help:    "Errors of servers and queries that nobody answered; names that don't exist are no errors. A query without a response costs 5 s in most resolvers, so that one in twenty is felt."},
		{Name: "DNSSlow", For: 10 * time.Minute, Severity: Warning,
			Expr:    "(" + quantile(0.99, latency, byPlace) + ") > 0.5 and " + observations(latency, byPlace) + " > 0.1",
			Summary: "DNS takes {{ $value | humanizeDuration }} for " + who + " (99th percentile)",
			Help:    "A cache answers in less than 1 ms, a name server of the world in 100 ms. Half a second is added to each new connection."},
		{Name: "PacketsDropped", For: 15 * time.Minute, Severity: Warning,
			Expr:    perSecond(metricOf("packet_drops_total", `reason=~"`+lossy+`"`), byPlace+", reason") + " > 1",
			Summary: "{{ $value | humanize }} packets per second are dropped on {{ $labels.instance }}: {{ $labels.reason }} ({{ $labels.container }}{{ $labels.unit }}{{ $labels.cgroup }})",
			Help:    "Reasons that mean loss: buffers and queues that are full, memory, neighbours that don't answer, wrong checksums. Others, such as a port that nobody has, are everyday. Kernels before 5.17 tell no reasons."},
		{Name: "UDPReceiverTooSlow", For: 10 * time.Minute, Severity: Warning,
			Expr:    perSecond(metricOf("udp_receive_drops_total"), byPlace+", reason") + " > 1",
			Summary: who + " loses {{ $value | humanize }} datagrams per second ({{ $labels.reason }})",
			Help:    "They arrived and found the socket's buffer full: nobody sends them again unless the protocol does. More than one per second for 10 minutes is no burst."},
	}
}

func securityAlerts() []Alert {
	target := "target_namespace, target_pod, target_container, target_unit, target_cgroup"
	attached := events(metricOf("ptrace_calls_total", `operation=~"attach|seize"`, `errno="0"`), "15m", byPlace+", "+target) + " > 0"
	join := func(labels string) string {
		quoted := ""
		for _, l := range strings.Split(labels, ", ") {
			quoted += `, "` + l + `"`
		}
		return "label_join(" + attached + `, "name", "/"` + quoted + ")"
	}
	const runtimes = `unit!~"(containerd|crio|docker|kubelet|podman).*[.]service"`
	loads := metricOf("bpf_program_loads_total", `errno="0"`, `unit!~"init[.]scope|systemd-.*|kaon.*"`, `container!~"kaon.*"`)
	return []Alert{
		{Name: "FilelessExecution", For: time.Minute, Severity: Warning,
			Expr:    events(metricOf("fileless_executions_total", runtimes), "15m", byPlace+", kind") + " > 0",
			Summary: who + " executed a program from {{ if eq $labels.kind \"memory\" }}memory{{ else }}a deleted file{{ end }}",
			Help:    "The usual way of malware to leave nothing on a disk. Container runtimes, which do so for good reasons, are left out; any other is worth a look."},
		{Name: "WorkloadTracesAnother", For: time.Minute, Severity: Warning,
			Expr:    join(byWorkload) + " unless " + join(target),
			Summary: who + " traces {{ $labels.target_namespace }}/{{ $labels.target_pod }} {{ $labels.target_container }}{{ $labels.target_unit }}{{ $labels.target_cgroup }}",
			Help:    "A process attached to one of another workload, whose memory it can then read and change. Debuggers within a workload are left out. Needs the program ptrace."},
		{Name: "UnexpectedBPF", For: time.Minute, Severity: Warning,
			Expr:    events(loads, "15m", byPlace) + " > 0 unless " + by(byPlace, loads+" offset 1h"),
			Summary: who + " loaded a BPF program for the first time",
			Help:    "It had loaded none an hour ago. BPF can see everything and change much; on most machines a few known agents use it. systemd and Kaon are left out. Needs the program bpfuse."},
		{Name: "KernelModuleFromOutside", For: time.Minute, Severity: Warning,
			Expr:    events(metricOf("module_loads_total", `taints!=""`), "15m", "instance, module, taints") + " > 0",
			Summary: "{{ $labels.instance }} loaded the kernel module {{ $labels.module }} ({{ $labels.taints }})",
			Help:    "A module that taints the kernel: from outside of its tree (O), unsigned (E), proprietary (P). After a machine's start few have a reason to appear. Needs the program modules."},
	}
}
