package programs_test

import (
	"testing"

	"github.com/kaon-project/kaon/internal/program"
)

func cpuArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"hardirq": {"hardirq_duration_seconds": program.Histogram},
			"oncpu": {"oncpu_seconds_total": program.Counter, "offcpu_seconds_total": program.Counter,
				"context_switches_voluntary_total": program.Counter, "context_switches_involuntary_total": program.Counter},
			"softirq":  {"softirq_duration_seconds": program.Histogram},
			"runqueue": {"runqueue_latency_seconds": program.Histogram},
			"profile":  {"cpu_samples_total": program.Counter, "cpu_sampled_seconds_total": program.Counter},
			"throttling": {"cpu_quota_periods_total": program.Counter, "cpu_throttled_periods_total": program.Counter,
				"cpu_throttled_seconds_total": program.Counter, "cpu_quota_seconds": program.Gauge},
		},
		helpers: map[string]func(){"compete": competeForCPU, "spend": spendTime, "burn": burnCPU, "hot-user": hotUser, "hot-kernel": hotKernel, "hot-children": hotChildren, "hot-generated": hotGenerated, "hot-child": hotChild},
		costs: []cost{
			{program: "throttling", event: "scrape of 100 workloads", prepare: hundredCgroups},
			{program: "runqueue", event: "two context switches", cause: switchThreads,
				bpftrace: `tracepoint:sched:sched_wakeup, tracepoint:sched:sched_wakeup_new { @ready[args->pid] = nsecs; }
					tracepoint:sched:sched_switch { if (args->prev_state == 0) { @ready[args->prev_pid] = nsecs; }
					$t = @ready[args->next_pid]; if ($t) { @wait = hist(nsecs - $t); delete(@ready[args->next_pid]); } }`},
			{program: "oncpu", event: "two context switches", cause: switchThreads,
				bpftrace: `tracepoint:sched:sched_switch {
					$on = @on[args->prev_pid]; if ($on) { @ran = sum(nsecs - $on); }
					@left[args->prev_pid] = nsecs; @state[args->prev_pid] = args->prev_state; @on[args->next_pid] = nsecs;
					$left = @left[args->next_pid]; if ($left) { @waited[@state[args->next_pid]] = sum(nsecs - $left); } }`},
			{program: "softirq", event: "soft interrupt", prepare: inNewNetns,
				cause: func(b *testing.B) { sendToMyself(b, b.N) },
				bpftrace: `tracepoint:irq:softirq_entry { @s[cpu] = nsecs; }
					tracepoint:irq:softirq_exit /@s[cpu]/ { @time[args->vec] = hist(nsecs - @s[cpu]); delete(@s[cpu]); }`},
			{program: "hardirq", event: "write to a disk", cause: func(b *testing.B) { interruptDevice(b, b.N) },
				bpftrace: `tracepoint:irq:irq_handler_entry { @s[cpu] = nsecs; @name[cpu] = str(args->name); }
					tracepoint:irq:irq_handler_exit /@s[cpu]/ { @time[args->irq, @name[cpu]] = hist(nsecs - @s[cpu]); delete(@s[cpu]); }`},
			{program: "profile", params: []string{"frequency=2999"}, event: "sample", cause: spendCPU,
				bpftrace: `profile:hz:2999 /pid/ { @[cgroup] = count(); }`},
		},
	}
}
