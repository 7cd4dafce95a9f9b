package monitoring

func processRow() Row {
	sender := "sender_namespace, sender_pod, sender_container, sender_unit, sender_cgroup"
	senderLegend := "{{sender_namespace}} {{sender_pod}} {{sender_container}} {{sender_unit}} {{sender_cgroup}}"
	return Row{Title: "Processes", Area: "process", Panels: []Panel{
		curves("Program starts", "ops", "Each is an execve. A script that forks without end shows here.",
			topWorkloads(perSecond(selector("process_starts_total"), byWorkload))),
		curves("Program starts that fail", "ops", "By error: ENOENT is a file that is missing, EACCES a right. Needs the param errors of exec.",
			Query{top(10, perSecond(selector("process_start_errors_total"), byWorkload+", errno")), workloadLegend + " {{errno}}"}),
		curves("Processes that fail", "ops", "By exit code. 126 and 127 are a shell's: can't be executed, not found.",
			Query{top(10, perSecond(selector("process_exits_total", `code!="0"`), byWorkload+", code")), workloadLegend + " code {{code}}"}),
		curves("Processes killed by a signal", "ops", "SIGSEGV, SIGABRT, SIGBUS: crashes. SIGKILL: somebody, or the out-of-memory killer.",
			Query{top(10, perSecond(selector("process_exits_total", `signal!="0"`), byWorkload+", signal")), workloadLegend + " {{signal}}"}),
		curves("Signals", "ops", "By receiver. A program that lives on timers or on signals to itself is normal.",
			Query{top(10, perSecond(selector("signals_total"), byWorkload+", signal")), workloadLegend + " {{signal}}"}),
		curves("Who kills whom", "short", "SIGKILL and SIGTERM between workloads and within them.",
			Query{top(10, events(selector("signals_total", `signal=~"SIGKILL|SIGTERM"`, `origin="process"`), "$__rate_interval", sender+", "+byWorkload+", signal")),
				senderLegend + " -> " + workloadLegend + " {{signal}}"}),
		curves("Out-of-memory kills", "short", "By whose memory was short: the cgroup's limit is too small, or the machine is.",
			Query{top(10, events(selector("oom_kills_total"), "$__rate_interval", byWorkload+", limit")), workloadLegend + " {{limit}}"}),
		stacked("Threads by state", "short", "Of all workloads. Many that are blocked wait for disks or for locks of the kernel.",
			Query{by("state", selector("tasks")), "{{state}}"}),
		curves("Threads", "short", "A leak grows without end.", topWorkloads(by(byWorkload, selector("tasks")))),
		curves("Processes", "short", "Zombies are processes whose parent does not wait for them.",
			topWorkloads(by(byWorkload, selector("processes"))),
			Query{top(5, by(byWorkload, selector("processes", `state="zombie"`))+" > 0"), workloadLegend + " zombies"}),
		curves("Capabilities that are used", "cps", "What a securityContext must leave to the workload.",
			Query{top(10, perSecond(selector("capability_checks_total", `result="granted"`), byWorkload+", capability")), workloadLegend + " {{capability}}"}),
		curves("Capabilities that are denied", "cps", "The reason of an Operation not permitted. The kernel asks for sys_admin at each mmap, where a denial does no harm.",
			Query{top(10, perSecond(selector("capability_checks_total", `result="denied"`), byWorkload+", capability")), workloadLegend + " {{capability}}"}),
		curves("Mounts and unmounts", "ops", "By operation. A container that mounts is rare; a container runtime does it all the time.",
			Query{top(10, perSecond(selector("mount_calls_total", `errno="0"`), byWorkload+", operation")), workloadLegend + " {{operation}}"}),
		curves("Mounts that fail", "ops", "By error: a volume that is missing (ENOENT, ENODEV), busy (EBUSY), or a right (EPERM).",
			Query{top(10, perSecond(selector("mount_calls_total", `errno!="0"`), byWorkload+", operation, errno")), workloadLegend + " {{operation}} {{errno}}"}),
		curves("Kernel modules", "short", "Loaded, unloaded, and asked for by the kernel on somebody's behalf.",
			Query{top(10, events(selector("module_loads_total"), "$__rate_interval", "instance, module, taints")), "{{instance}} loaded {{module}} {{taints}}"},
			Query{top(10, events(selector("module_unloads_total"), "$__rate_interval", "instance, module")), "{{instance}} unloaded {{module}}"},
			Query{top(10, events(selector("module_requests_total"), "$__rate_interval", byWorkload)), workloadLegend + " asked"}),
	}}
}

func securityRow() Row {
	target := "target_namespace, target_pod, target_container, target_unit, target_cgroup"
	targetLegend := "{{target_namespace}} {{target_pod}} {{target_container}} {{target_unit}} {{target_cgroup}}"
	return Row{Title: "Security", Area: "security", Panels: []Panel{
		curves("Programs that run from memory or from deleted files", "short", "The usual way of malware to leave nothing on a disk; container runtimes do it, too.",
			Query{top(10, events(selector("fileless_executions_total"), "$__rate_interval", byWorkload+", kind")), workloadLegend + " {{kind}}"}),
		curves("Who becomes root", "short", "By a system call or by a setuid program such as sudo.",
			Query{top(10, events(selector("setuid_calls_total", `from="other"`, `to="root"`, `errno="0"`), "$__rate_interval", byWorkload+", call")), workloadLegend + " {{call}}"},
			Query{top(10, events(selector("setuid_executions_total", `to="root"`), "$__rate_interval", byWorkload+", kind")), workloadLegend + " {{kind}} program"}),
		curves("Changes of users and groups", "ops", "By call and error. EPERM is one that may not.",
			Query{top(10, perSecond(selector("setuid_calls_total"), byWorkload+", call, errno")), workloadLegend + " {{call}} {{errno}}"}),
		curves("Who traces whom", "short", "Debuggers and profilers attach; so does what injects code.",
			Query{top(10, events(selector("ptrace_calls_total", `operation=~"attach|seize"`, `errno="0"`), "$__rate_interval", byWorkload+", "+target)),
				workloadLegend + " -> " + targetLegend}),
		curves("Tracing by operation", "ops", "poke, set_registers and process_vm_writev change other processes.",
			Query{top(10, perSecond(selector("ptrace_calls_total"), byWorkload+", operation, errno")), workloadLegend + " {{operation}} {{errno}}"}),
		curves("Who loads BPF programs", "short", "By type. On most machines these are a few agents that are known.",
			Query{top(10, events(selector("bpf_program_loads_total", `errno="0"`), "$__rate_interval", byWorkload+", type")), workloadLegend + " {{type}}"}),
		curves("Calls of bpf", "cps", "By command. Kaon's own calls, at each scrape, are among them.",
			Query{top(10, perSecond(selector("bpf_calls_total"), byWorkload+", command, errno")), workloadLegend + " {{command}} {{errno}}"}),
	}}
}
