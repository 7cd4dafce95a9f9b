package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaon-project/kaon/test/sandbox"
)

const openMetricsType = "application/openmetrics-text; version=1.0.0"

const protobufType = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

func TestUp(t *testing.T) {
	cgroup := needCgroup(t)
	a := up(t, cgroup, "exec", "exit")
	runs(t, cgroup, 4)
	for range 3 {
		_ = cgroup.Run("sh", "-c", "exit 3")
	}
	_ = cgroup.Run("sh", "-c", "kill -9 $$")
	time.Sleep(50 * time.Millisecond) // a process can be waited for before its last function ran
	for _, format := range []struct{ accept, contentType, end string }{
		{"", textType, ""},
		{openMetricsType, openMetricsType, "# EOF\n"},
		{protobufType, protobufType, ""},
	} {
		code, body, header, err := a.Get("/metrics", "Accept", format.accept)
		if err != nil || code != 200 {
			t.Fatal(code, err)
		}
		contentType := header.Get("Content-Type")
		if prefix, _, _ := strings.Cut(format.contentType, ";"); !strings.HasPrefix(contentType, prefix) {
			t.Errorf("Accept: %s: got %s", format.accept, contentType)
		}
		if !strings.HasSuffix(body, format.end) {
			t.Errorf("%s does not end in %q", contentType, format.end)
		}
		got := parse(t, body, contentType)
		for _, want := range []struct {
			value float64
			name  string
			match []string
		}{
			{8, "process_starts_total", nil},
			{5, "process_exits_total", []string{"code", "0"}}, // one of them by a signal
			{3, "process_exits_total", []string{"code", "3"}},
			{1, "process_exits_total", []string{"signal", "SIGKILL"}},
			{1, "kaon_program_up", []string{"program", "exec"}},
		} {
			if x := sum(got, want.name, want.match...); x != want.value {
				t.Errorf("%s: %s%v is %v, want %v: %v", contentType, want.name, want.match, x, want.value, got[want.name])
			}
		}
		if len(got["go_goroutines"]) != 1 || len(got["process_cpu_seconds_total"]) != 1 {
			t.Errorf("%s: no go_ or process_ metrics", contentType)
		}
	}
	before := held(t, a)
	stop(t, a)
	before.gone(t)
}

// The end of an agent with XDP and perf event programs, which peers crash at or leave attached.
func TestTermWithXDPAndPerfEvents(t *testing.T) {
	cgroup := needCgroup(t)
	if veth != nil {
		t.Skip(veth)
	}
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	write(t, config, fmt.Sprintf("programs:\n- source: packets\n  params: {xdp: true, interfaces: %s}\n- %s\n", sandbox.Interface, object(t, "test/e2e/testdata/perf.bpf.o")))
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		a := up(t, cgroup, "-c", config)
		send(t, sandbox.Peer, 5)
		eventually(t, "packets and samples are counted", func() bool {
			got := parse(t, scrape(t, a), textType)
			return sum(got, "packets_total", "interface", sandbox.Interface, "direction", "receive") >= 5 && sum(got, "test_samples_total") > 0
		})
		if !attachedXDP(t) {
			t.Fatal("XDP is not attached: the test shows nothing")
		}
		before := held(t, a)
		if len(before.links) == 0 {
			t.Error("the agent holds no links")
		}
		if err := a.Stop(signal, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		if code := a.ExitCode(); code != 0 && signal != syscall.SIGKILL {
			t.Errorf("%v: exit code %d: %s", signal, code, a.Log())
		}
		before.gone(t)
		if attachedXDP(t) {
			t.Errorf("%v: XDP is still attached", signal)
		}
	}
}

func attachedXDP(t *testing.T) bool {
	t.Helper()
	out, err := exec.Command("ip", "link", "show", sandbox.Interface).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Contains(string(out), "xdp")
}

// Many scrapes at the same time see the same, and none of them fails.
func TestConcurrentScrapes(t *testing.T) {
	cgroup := needCgroup(t)
	a := up(t, cgroup, "exec", "tasks")
	runs(t, cgroup, 3)
	time.Sleep(50 * time.Millisecond)
	var wait sync.WaitGroup
	for range 10 {
		wait.Go(func() {
			for range 5 {
				code, body, header, err := a.Get("/metrics")
				if err != nil || code != 200 {
					t.Error(code, err)
					return
				}
				if x := sum(parse(t, body, header.Get("Content-Type")), "process_starts_total"); x != 3 {
					t.Errorf("got %v", x)
				}
			}
		})
	}
	wait.Wait()
}

func TestDefaultPrograms(t *testing.T) {
	cgroup := needCgroup(t)
	if veth != nil {
		t.Skip(veth)
	}
	a := up(t, cgroup)
	all, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.State != "up" {
			t.Errorf("%s is %s: %s", s.Name, s.State, s.Reason)
		}
	}
	if len(all) < 5 {
		t.Errorf("only %d programs run", len(all))
	}
	has(t, a.Log(), "up        exec", "/metrics", "kaon run exec")
}
