package monitoring

import (
	"log/slog"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// An example is series in the notation of Prometheus' tests, one a line. N stands for the samples of more than two hours, one every 15 s; B
// for the labels of the workload of all examples.
type example struct {
	// fires and silent are what the alert fires for, and what it must be silent for: the first of these is just below the threshold.
	fires, silent []string
	// summary is what the first one that fires is called.
	summary string
}

const (
	// steady is when examples have long been there: alerts must fire from then until their time is over.
	steady = time.Hour
	// lasting is how many samples N stands for: until the end of the longest alert, and an hour more.
	lasting = "500"
	place   = `instance="a",unit="web.service"`
)

func (e example) expand(series string) string {
	return strings.NewReplacer("xN", "x"+lasting, "{B", "{"+place).Replace(series)
}

// buckets are classic buckets of a histogram with few great values: of each 100 observations, slow ones are above 0.125 s.
func buckets(name, labels string, fast, all int) string {
	var b strings.Builder
	for _, bucket := range []struct {
		le string
		n  int
	}{{"0.03125", fast}, {"0.125", fast}, {"1", all}, {"+Inf", all}} {
		b.WriteString(name + "_bucket{" + labels + `,le="` + bucket.le + `"} 0+` + strconv.Itoa(bucket.n) + "xN\n")
	}
	b.WriteString(name + "_count{" + labels + "} 0+" + strconv.Itoa(all) + "xN\n")
	b.WriteString(name + "_sum{" + labels + "} 0+" + strconv.Itoa(all) + "xN\n")
	return b.String()
}

// firing is the examples of each alert.
func firing() map[string]example {
	const dns = `dns_queries_total{B} 0+100xN
`
	tail := func(count int) string {
		return "{{schema:0 sum:1 count:1 buckets:[1]}}+{{schema:0 sum:1 count:" + strconv.Itoa(count) + " buckets:[" + strconv.Itoa(count) + "]}}xN"
	}
	return map[string]example{
		"WorkloadCPUThrottled": {
			fires:   []string{"cpu_quota_periods_total{B} 0+150xN\ncpu_throttled_periods_total{B} 0+40xN"},
			silent:  []string{"cpu_quota_periods_total{B} 0+150xN\ncpu_throttled_periods_total{B} 0+36xN", "cpu_quota_periods_total{B} 0+14xN\ncpu_throttled_periods_total{B} 0+14xN"},
			summary: "web.service on a is stopped by its CPU quota in",
		},
		"WorkloadWaitsForCPU": {
			// A native histogram whose observations all lie between 0.5 and 1 s.
			fires:   []string{buckets("runqueue_latency_seconds", place, 98, 100), "runqueue_latency_seconds{B} " + tail(100)},
			silent:  []string{buckets("runqueue_latency_seconds", place, 100, 100), buckets("runqueue_latency_seconds", place, 1, 14), "runqueue_latency_seconds{B} " + tail(14)},
			summary: "web.service on a waits",
		},
		"WorkloadNearMemoryLimit": {
			fires: []string{"memory_usage_bytes{B} 96xN\nmemory_inactive_file_bytes{B} 5xN\nmemory_limit_bytes{B} 100xN"},
			silent: []string{"memory_usage_bytes{B} 95xN\nmemory_inactive_file_bytes{B} 5xN\nmemory_limit_bytes{B} 100xN",
				"memory_usage_bytes{B} 99xN\nmemory_inactive_file_bytes{B} 0xN"},
			summary: "web.service on a needs",
		},
		"WorkloadStallsForMemory": {
			fires:   []string{`memory_stall_seconds_sum{B,cause="limit"} 0+1.6xN`, `memory_stall_seconds{B,cause="limit"} {{schema:0 sum:1 count:1 buckets:[1]}}+{{schema:0 sum:2 count:1 buckets:[1]}}xN`},
			silent:  []string{`memory_stall_seconds_sum{B,cause="limit"} 0+1.4xN`},
			summary: "web.service on a loses",
		},
		"DiskSlow": {
			fires:   []string{buckets("blockio_latency_seconds", `instance="a",device="sda"`, 98, 100)},
			silent:  []string{buckets("blockio_latency_seconds", `instance="a",device="sda"`, 99, 100), buckets("blockio_latency_seconds", `instance="a",device="sda"`, 0, 14)},
			summary: "sda on a takes",
		},
		"DiskErrors": {
			fires:   []string{`blockio_errors_total{instance="a",device="sda",operation="read",errno="EIO"} _x236 1xN`, `blockio_errors_total{instance="a",device="sda",errno="EIO"} 7x236 8xN`},
			silent:  []string{`blockio_errors_total{instance="a",device="sda",errno="EIO"} 7xN`, `blockio_errors_total{instance="a",device="sda",errno="EOPNOTSUPP"} 0+1xN`},
			summary: "sda on a fails: read, EIO",
		},
		"FsyncSlow": {
			fires:   []string{buckets("fsync_latency_seconds", place+`,operation="fdatasync"`, 98, 100)},
			silent:  []string{buckets("fsync_latency_seconds", place+`,operation="fsync"`, 99, 100), buckets("fsync_latency_seconds", place+`,operation="fsync"`, 0, 1), buckets("fsync_latency_seconds", place+`,operation="sync"`, 0, 100)},
			summary: "fsync takes",
		},
		"FsyncFails": {
			fires:   []string{`fsync_errors_total{B,operation="fsync",filesystem="ext4",errno="EIO"} _x236 1xN`, `fsync_errors_total{B,operation="fsync",errno="ENOSPC"} 1x236 2xN`},
			silent:  []string{`fsync_errors_total{B,operation="fsync",errno="EIO"} 1xN`, `fsync_errors_total{B,operation="fsync",errno="EBADF"} 0+1xN`},
			summary: "Data of web.service on a did not reach the disk: EIO",
		},
		"WorkloadOOMKilled": {
			fires:   []string{`oom_kills_total{B,limit="cgroup"} _x236 1xN`, `oom_kills_total{B,limit="unknown"} 1x236 2xN`},
			silent:  []string{`oom_kills_total{B,limit="cgroup"} 3xN`, `oom_kills_total{B,limit="machine"} _x236 1xN`},
			summary: "A process of web.service on a was killed",
		},
		"MachineOutOfMemory": {
			fires:   []string{`oom_kills_total{B,limit="machine"} _x236 1xN`},
			silent:  []string{`oom_kills_total{B,limit="machine"} 3xN`, `oom_kills_total{B,limit="cgroup"} 0+1xN`},
			summary: "a has no memory left",
		},
		"WorkloadCrashes": {
			fires:   []string{`process_exits_total{B,code="0",signal="SIGSEGV"} 5x220 6 7 8xN`, `process_exits_total{B,code="0",signal="SIGABRT"} _x220 1 2 3xN`},
			silent:  []string{`process_exits_total{B,code="0",signal="SIGSEGV"} 5x220 6 7xN`, `process_exits_total{B,code="0",signal="SIGTERM"} 0+1xN`},
			summary: "web.service on a crashed 3",
		},
		"WorkloadProcessesFail": {
			fires: []string{`process_exits_total{B,code="1",signal="0"} 0+1xN`, "process_exits_total{B,code=\"1\",signal=\"0\"} 0+95xN\nprocess_exits_total{B,code=\"0\",signal=\"0\"} 0+5xN"},
			silent: []string{"process_exits_total{B,code=\"1\",signal=\"0\"} 0+89xN\nprocess_exits_total{B,code=\"0\",signal=\"0\"} 0+11xN",
				`process_exits_total{B,code="1",signal="0"} 0x220 1 2 3 4xN`},
			summary: "100% of the processes of web.service on a",
		},
		"WorkloadConnectionsFail": {
			fires: []string{"tcp_connects_total{B} 0+100xN\ntcp_connect_failures_total{B,error=\"ECONNREFUSED\"} 0+7xN\ntcp_connect_failures_total{B,error=\"ETIMEDOUT\"} 0+4xN"},
			silent: []string{"tcp_connects_total{B} 0+100xN\ntcp_connect_failures_total{B,error=\"ECONNREFUSED\"} 0+9xN",
				"tcp_connects_total{B} 0+1xN\ntcp_connect_failures_total{B,error=\"ECONNREFUSED\"} 0+1xN"},
			summary: "11% of the connections of web.service on a fail",
		},
		"WorkloadRetransmits": {
			fires: []string{"tcp_retransmits_total{B,kind=\"fast\"} 0+30xN\nnetwork_packets_total{B,direction=\"transmit\",protocol=\"tcp\"} 0+1000xN"},
			silent: []string{"tcp_retransmits_total{B,kind=\"fast\"} 0+19xN\nnetwork_packets_total{B,direction=\"transmit\",protocol=\"tcp\"} 0+1000xN",
				"tcp_retransmits_total{B,kind=\"fast\"} 0+14xN\nnetwork_packets_total{B,direction=\"transmit\",protocol=\"tcp\"} 0+100xN"},
			summary: "web.service on a sends 3% of its TCP segments again",
		},
		"ListenQueueOverflows": {
			fires:   []string{`tcp_listen_drops_total{B,port="80"} 0+1xN`},
			silent:  []string{`tcp_listen_drops_total{B,port="80"} 9x238 12xN`, `tcp_listen_drops_total{B,port="80"} 9xN`},
			summary: "web.service on a drops clients at port 80",
		},
		"SocketsCloseWait": {
			fires:   []string{`sockets{B,protocol="tcp",family="ipv4",state="close_wait"} 101xN`, "sockets{B,protocol=\"tcp\",family=\"ipv4\",state=\"close_wait\"} 60xN\nsockets{B,protocol=\"tcp\",family=\"ipv6\",state=\"close_wait\"} 60xN"},
			silent:  []string{`sockets{B,protocol="tcp",family="ipv4",state="close_wait"} 100xN`, `sockets{B,protocol="tcp",state="close_wait"} 500x300 50xN`, `sockets{B,protocol="tcp",state="established"} 1000xN`},
			summary: "web.service on a has 101 connections",
		},
		"DNSFails": {
			fires: []string{dns + `dns_responses_total{B,rcode="servfail"} 0+6xN`, dns + `dns_unanswered_total{B} 0+6xN`,
				dns + "dns_responses_total{B,rcode=\"refused\"} 0+3xN\ndns_unanswered_total{B} 0+3xN"},
			silent: []string{dns + `dns_responses_total{B,rcode="servfail"} 0+5xN`, dns + `dns_responses_total{B,rcode="nxdomain"} 0+50xN`,
				"dns_queries_total{B} 0+1xN\ndns_unanswered_total{B} 0+1xN"},
			summary: "6% of the DNS queries of web.service on a",
		},
		"DNSSlow": {
			fires:   []string{buckets("dns_latency_seconds", place, 95, 100)},
			silent:  []string{buckets("dns_latency_seconds", place, 99, 100), buckets("dns_latency_seconds", place, 0, 1)},
			summary: "DNS takes",
		},
		"PacketsDropped": {
			fires:   []string{`packet_drops_total{B,reason="socket_rcvbuff"} 0+16xN`, `packet_drops_total{instance="a",reason="qdisc_drop"} 0+16xN`},
			silent:  []string{`packet_drops_total{B,reason="socket_rcvbuff"} 0+15xN`, `packet_drops_total{B,reason="no_socket"} 0+100xN`, `packet_drops_total{B} 0+100xN`},
			summary: "1.067 packets per second are dropped on a: socket_rcvbuff (web.service)",
		},
		"UDPReceiverTooSlow": {
			fires:   []string{`udp_receive_drops_total{B,reason="receive_buffer"} 0+16xN`},
			silent:  []string{`udp_receive_drops_total{B,reason="receive_buffer"} 0+15xN`},
			summary: "web.service on a loses",
		},
		"FilelessExecution": {
			fires:   []string{`fileless_executions_total{B,kind="memory"} _x236 1xN`, `fileless_executions_total{B,kind="deleted"} 0x236 1xN`, `fileless_executions_total{instance="a",namespace="shop",pod="web-1",container="web",kind="memory"} _x236 1xN`},
			silent:  []string{`fileless_executions_total{B,kind="memory"} 4xN`, `fileless_executions_total{instance="a",unit="containerd.service",kind="memory"} 0+1xN`},
			summary: "web.service on a executed a program from memory",
		},
		"WorkloadTracesAnother": {
			fires: []string{`ptrace_calls_total{B,target_unit="db.service",operation="attach",errno="0"} _x236 1xN`, `ptrace_calls_total{B,target_container="db",operation="seize",errno="0"} 1x236 2xN`},
			silent: []string{`ptrace_calls_total{B,target_unit="web.service",operation="attach",errno="0"} _x236 1xN`, `ptrace_calls_total{B,target_unit="db.service",operation="attach",errno="EPERM"} 0+1xN`,
				`ptrace_calls_total{B,target_unit="db.service",operation="attach",errno="0"} 1xN`, `ptrace_calls_total{B,operation="poke",errno="0"} 0+1xN`},
			summary: "web.service on a traces / db.service",
		},
		"UnexpectedBPF": {
			fires: []string{`bpf_program_loads_total{B,type="kprobe",errno="0"} _x236 1xN`},
			silent: []string{"bpf_program_loads_total{B,type=\"kprobe\",errno=\"0\"} 1xN\nbpf_program_loads_total{B,type=\"lsm\",errno=\"0\"} _x236 1xN", `bpf_program_loads_total{B,type="kprobe",errno="EPERM"} _x236 1xN`,
				`bpf_program_loads_total{instance="a",unit="init.scope",type="cgroup_skb",errno="0"} _x236 1xN`, `bpf_program_loads_total{instance="a",unit="kaon.service",errno="0"} _x236 1xN`},
			summary: "web.service on a loaded a BPF program for the first time",
		},
		"KernelModuleFromOutside": {
			fires:   []string{`module_loads_total{B,module="evil",taints="OE"} _x236 1xN`},
			silent:  []string{`module_loads_total{B,module="evil",taints="OE"} 1xN`, `module_loads_total{B,module="xfs"} _x236 1xN`},
			summary: "a loaded the kernel module evil (OE)",
		},
		"KaonDown": {
			fires:   []string{`up{job="kaon",instance="a"} 0xN`, `up{job="monitoring/kaon",instance="a"} 0xN`},
			silent:  []string{`up{job="kaon",instance="a"} 0x250 1 0xN`, `up{job="node",instance="a"} 0xN`},
			summary: "Kaon on a does not answer",
		},
		"KaonProgramDown": {
			fires:   []string{`kaon_program_up{instance="a",program="exec"} 0xN`},
			silent:  []string{`kaon_program_up{instance="a",program="exec"} 0x270 1xN`, `kaon_program_up{instance="a",program="exec"} 1xN`},
			summary: "exec does not run on a",
		},
		"KaonProgramDegraded": {
			fires:   []string{`kaon_program_degraded{instance="a",program="exec"} 1xN`},
			silent:  []string{`kaon_program_degraded{instance="a",program="exec"} 1x290 0xN`, `kaon_program_degraded{instance="a",program="exec"} 0xN`},
			summary: "exec on a is degraded",
		},
		"KaonReadingFails": {
			fires:   []string{`kaon_program_read_success{instance="a",program="exec",reader="starts"} 0xN`},
			silent:  []string{`kaon_program_read_success{instance="a",program="exec",reader="starts"} 0x270 1xN`},
			summary: "starts of exec on a can't be read",
		},
		"KaonCountsLost": {
			fires:   []string{`kaon_program_lost_total{instance="a",program="exec",counter="x"} 0+1xN`},
			silent:  []string{`kaon_program_lost_total{instance="a",program="exec",counter="x"} 0x240 100xN`, `kaon_program_lost_total{instance="a",program="exec",counter="x"} 5xN`},
			summary: "exec on a loses",
		},
		"KaonMapFull": {
			fires:   []string{`kaon_program_failed_inserts_total{instance="a",program="exec",map="x"} 0+1xN`},
			silent:  []string{`kaon_program_failed_inserts_total{instance="a",program="exec",map="x"} 0x240 100xN`, `kaon_program_failed_inserts_total{instance="a",program="exec",map="x"} 5xN`},
			summary: "A map of exec on a is full",
		},
		"KaonSeriesFolded": {
			fires: []string{"kaon_program_folded_series{instance=\"a\",program=\"exec\",reader=\"x\"} 3xN\nkaon_program_cut_series{instance=\"a\",program=\"exec\",reader=\"x\"} 0xN",
				"kaon_program_folded_series{instance=\"a\",program=\"exec\",reader=\"x\"} 0xN\nkaon_program_cut_series{instance=\"a\",program=\"exec\",reader=\"y\"} 1xN"},
			silent:  []string{"kaon_program_folded_series{instance=\"a\",program=\"exec\",reader=\"x\"} 0xN\nkaon_program_cut_series{instance=\"a\",program=\"exec\",reader=\"x\"} 0xN"},
			summary: "3 series of exec on a are beyond the limit",
		},
		"KaonSeriesLeftOut": {
			fires:   []string{`kaon_scrape_left_out_series_total{instance="a"} 0+10xN`},
			silent:  []string{`kaon_scrape_left_out_series_total{instance="a"} 0x240 10xN`, `kaon_scrape_left_out_series_total{instance="a"} 10xN`},
			summary: "Kaon on a leaves whole programs out",
		},
		"KaonScrapeSlow": {
			fires:   []string{`kaon_program_scrape_seconds{instance="a",program="tasks"} 2.1xN`},
			silent:  []string{`kaon_program_scrape_seconds{instance="a",program="tasks"} 2xN`, `kaon_program_scrape_seconds{instance="a",program="tasks"} 9x290 0.1xN`},
			summary: "tasks on a takes",
		},
		"KaonWorkloadsUnresolved": {
			fires:   []string{"kaon_program_unresolved_series{instance=\"a\",program=\"exec\",reader=\"x\"} 6xN\nkaon_program_series{instance=\"a\",program=\"exec\",reader=\"x\"} 100xN"},
			silent:  []string{"kaon_program_unresolved_series{instance=\"a\",program=\"exec\",reader=\"x\"} 5xN\nkaon_program_series{instance=\"a\",program=\"exec\",reader=\"x\"} 100xN"},
			summary: "6% of the series on a",
		},
		"KaonReloadFails": {
			fires:   []string{`kaon_program_load_failures_total{instance="a"} 0x236 1xN`},
			silent:  []string{`kaon_program_load_failures_total{instance="a"} 1xN`},
			summary: "Kaon on a could not take a change",
		},
		"KaonMissesEvents": {
			fires:   []string{"kaon_program_missed_runs_total{instance=\"a\",program=\"exec\",function=\"f\"} 0+2xN\nkaon_program_runs_total{instance=\"a\",program=\"exec\",function=\"f\"} 0+100xN"},
			silent:  []string{"kaon_program_missed_runs_total{instance=\"a\",program=\"exec\",function=\"f\"} 0+1xN\nkaon_program_runs_total{instance=\"a\",program=\"exec\",function=\"f\"} 0+100xN"},
			summary: "The kernel leaves out 2% of the runs of exec on a",
		},
	}
}

// holds says whether a rule has a result at each evaluation of its time, so that it fires at the end of it; and which one.
func holds(t *testing.T, engine *promql.Engine, m *memory, a Alert) (promql.Vector, bool) {
	t.Helper()
	var last promql.Vector
	for at := steady; at <= steady+a.For; at += interval {
		if last = evaluate(t, engine, m, a.Expr, at); len(last) == 0 {
			return nil, false
		}
	}
	return last, true
}

// Every alert fires for what it is about and for nothing else.
func TestAlerts(t *testing.T) {
	engine := newEngine(t)
	examples := firing()
	for _, a := range Alerts() {
		example, ok := examples[a.Name]
		if !ok || len(example.fires) == 0 || len(example.silent) == 0 {
			t.Errorf("%s: no series are known that it fires for, or that it must be silent for", a.Name)
			continue
		}
		delete(examples, a.Name)
		if a.For <= 0 || a.Help == "" || a.Severity != Warning && a.Severity != Critical {
			t.Errorf("%s: it has no time, no help or no severity", a.Name)
		}
		for i, series := range example.fires {
			series = example.expand(series)
			result, fires := holds(t, engine, newMemory(t, series), a)
			if !fires {
				t.Errorf("%s does not fire for\n%s", a.Name, series)
				continue
			}
			if got := summary(t, a, result[0]); i == 0 && (!strings.HasPrefix(got, example.summary) || example.summary == "") {
				t.Errorf("%s says %q, want %q", a.Name, got, example.summary)
			}
		}
		for _, series := range append(example.silent, "") {
			series = example.expand(series)
			if result, fires := holds(t, engine, newMemory(t, series), a); fires {
				t.Errorf("%s fires with %v for\n%s", a.Name, result, series)
			}
		}
	}
	for name := range examples {
		t.Errorf("there is no alert %s", name)
	}
}

// Prometheus takes the rules, templates included.
func TestRules(t *testing.T) {
	text, err := RulesYAML(Alerts())
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Error(err)
	}
	if groups == nil || len(groups.Groups) != 1 || len(groups.Groups[0].Rules) != len(Alerts()) {
		t.Errorf("Prometheus reads %+v", groups)
	}
}

// summary is an alert's text as Prometheus makes it.
func summary(t *testing.T, a Alert, s promql.Sample) string {
	t.Helper()
	percent := func(v float64) string { return trim(100*v) + "%" }
	text, err := template.New(a.Name).Option("missingkey=zero").Funcs(template.FuncMap{"humanize": trim, "humanizePercentage": percent, "humanizeDuration": trim}).
		Parse("{{$labels := .Labels}}{{$value := .Value}}" + a.Summary)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := text.Execute(&b, map[string]any{"Labels": s.Metric.Map(), "Value": s.F}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Every alert has a runbook that says what to do, and every runbook an alert.
func TestRunbooks(t *testing.T) {
	names := map[string]bool{}
	for _, a := range Alerts() {
		names[a.Name] = true
		page, err := os.ReadFile("../../docs/runbooks/" + a.Name + ".md")
		if err != nil {
			t.Error(err)
			continue
		}
		for _, section := range []string{"# " + a.Name + "\n", "## What it means", "## What to look at", "## What to do"} {
			if !strings.Contains(string(page), section) {
				t.Errorf("the runbook of %s lacks %q", a.Name, section)
			}
		}
		if !regexp.MustCompile("(?m)^```promql$").Match(page) {
			t.Errorf("the runbook of %s has no query", a.Name)
		}
	}
	files, err := os.ReadDir("../../docs/runbooks")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name, _ := strings.CutSuffix(f.Name(), ".md"); !names[name] {
			t.Errorf("%s is the runbook of no alert", f.Name())
		}
	}
}

func trim(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
