package chart

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaon-project/kaon/deploy/helm"
	"github.com/kaon-project/kaon/programs"
	"github.com/kaon-project/kaon/test/e2e/cluster"
	"github.com/kaon-project/kaon/test/sandbox"
)

// release is the chart as installed on a cluster of one node, with two Programs: exec, which is pinned, and runqueue.
type release struct {
	*cluster.Cluster
	node    *cluster.Node
	helm    string
	root    string
	options []string
	client  http.Client
	// byRuntime is how often the container runtime started something in a pod, by the pod's name.
	byRuntime map[string]float64
}

func install(t *testing.T) *release {
	t.Helper()
	cluster.Need(t, 1)
	r := &release{byRuntime: map[string]float64{}}
	var err error
	if r.helm, err = helm.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.root, err = sandbox.Root(); err != nil {
		t.Fatal(err)
	}
	r.Cluster = cluster.ForTest(t, cluster.Options{Nodes: 1})
	r.node = r.Nodes()[0]
	r.client = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: r.Dial, DisableKeepAlives: true}}
	if err := r.LoadImage(t.Context(), makeImage(t, r.root)); err != nil {
		t.Fatal(err)
	}
	text := "programs:\n"
	for _, name := range programs.Default() {
		text += "  " + name + ": null\n"
	}
	text = strings.NewReplacer("  exec: null\n", "  exec: {pin: true}\n", "  runqueue: null\n", "  runqueue: {}\n").Replace(text)
	path := filepath.Join(t.TempDir(), "programs.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r.options = []string{"--namespace", "kaon", "--values", values(t, r.node), "--values", path}
	r.run(t, append([]string{"install", "kaon", filepath.Join(r.root, "deploy/helm/kaon"), "--create-namespace", "--wait", "--timeout", "2m"}, r.options...)...)
	r.apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")
	r.settled(t, "exec", "1/1", "Running")
	r.settled(t, "runqueue", "1/1", "Running")
	t.Cleanup(func() {
		if t.Failed() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			log, _ := r.Kubectl(ctx, "--namespace", "kaon", "logs", "--selector", "app.kubernetes.io/component=agent", "--tail", "100")
			t.Log(log)
		}
	})
	return r
}

// run runs helm.
func (r *release) run(t *testing.T, arguments ...string) string {
	t.Helper()
	home := t.TempDir()
	command := exec.CommandContext(t.Context(), r.helm, arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("helm %v: %v\n%s", arguments, err, out)
	}
	return string(out)
}

func (r *release) apply(t *testing.T, text string) {
	t.Helper()
	if err := r.Apply(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// pod makes one with one container, named main.
func (r *release) pod(t *testing.T, name string, arguments ...string) {
	t.Helper()
	r.byRuntime[name]++
	r.apply(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: shop}, spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0,
 containers: [{name: main, image: %q, imagePullPolicy: Never, args: [%s]}]}}`, name, cluster.WorkloadImage, `"`+strings.Join(arguments, `", "`)+`"`))
	if _, err := r.WaitPodReady(t.Context(), "shop", name); err != nil {
		t.Fatal(err)
	}
}

// fork starts n programs in a pod, with an interval between, after one that starts them.
func (r *release) fork(ctx context.Context, pod string, n int, interval string) error {
	r.byRuntime[pod]++
	_, err := r.Kubectl(ctx, "exec", "--namespace", "shop", pod, "--", "/workload", "fork", strconv.Itoa(n), interval)
	return err
}

// metrics are those that the agent exports now.
func (r *release) metrics(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.node.IP()+":9497/metrics", nil)
	if err != nil {
		return "", err
	}
	response, err := r.client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("/metrics: %s: %s", response.Status, body)
	}
	return string(body), err
}

func startsOf(pod string) string {
	return `process_starts_total{namespace="shop",pod="` + pod + `",container="main"}`
}

// value waits until a series has a value that is accepted, and returns it.
func (r *release) value(t *testing.T, series string, accept func(float64) bool) float64 {
	t.Helper()
	var value float64
	until(t, series, func(ctx context.Context) error {
		text, err := r.metrics(ctx)
		if err != nil {
			return err
		}
		var found bool
		if value, found = sandbox.Sample(text, series); !found {
			return errors.New("there is no such series")
		}
		if !accept(value) {
			return fmt.Errorf("%v is not what is wanted", value)
		}
		return nil
	})
	return value
}

// is waits until so many programs have been started in a pod. Each time that runc starts something it first executes a copy
// of itself, and on a busy machine it may be in the container's cgroup by then.
func (r *release) is(t *testing.T, pod string, want float64) {
	t.Helper()
	most := want + r.byRuntime[pod]
	r.value(t, startsOf(pod), func(v float64) bool {
		if v > most {
			t.Fatalf("%v programs started in %s, want %v, with runc's own at most %v", v, pod, want, most)
		}
		return v >= want
	})
}

// gone waits until nothing with this text is exported.
func (r *release) gone(t *testing.T, text string) {
	t.Helper()
	until(t, "no "+text, func(ctx context.Context) error {
		metrics, err := r.metrics(ctx)
		if i := strings.Index(metrics, text); err == nil && i >= 0 {
			err = fmt.Errorf("it is there: %.200s", metrics[i:])
		}
		return err
	})
}

// settled waits for what kubectl get programs shows.
func (r *release) settled(t *testing.T, program, ready, reason string) {
	t.Helper()
	until(t, "the Program "+program, func(ctx context.Context) error {
		out, err := r.Kubectl(ctx, "get", "program", program, "--output",
			`jsonpath={.metadata.generation} {.status.observedGeneration} {.status.summary} {.status.conditions[?(@.type=="Ready")].reason}`)
		if err != nil {
			return err
		}
		fields := strings.Fields(out)
		if len(fields) != 4 || fields[0] != fields[1] || fields[2] != ready || fields[3] != reason {
			return fmt.Errorf("it is %s, want %s %s", out, ready, reason)
		}
		return nil
	})
}

// agent is the one pod of the DaemonSet.
func (r *release) agent(t *testing.T) *corev1.Pod {
	t.Helper()
	pods, err := r.WaitPods(t.Context(), "kaon", "app.kubernetes.io/component=agent", 1)
	if err != nil {
		t.Fatal(err)
	}
	return &pods[0]
}

// kill kills what is in the agent's container, as a crash or the kernel's out-of-memory killer does.
func (r *release) kill(t *testing.T, agent *corev1.Pod) {
	t.Helper()
	_, id, _ := strings.Cut(agent.Status.ContainerStatuses[0].ContainerID, "://")
	killed := 0
	err := filepath.WalkDir(r.node.CgroupRoot(), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // other pods end meanwhile
			return nil
		}
		if err != nil || id == "" || !entry.IsDir() || entry.Name() != id {
			return err
		}
		list, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			return err
		}
		for _, field := range strings.Fields(string(list)) {
			pid, err := strconv.Atoi(field)
			if err != nil || pid <= 1 {
				return fmt.Errorf("%s/cgroup.procs: %q", path, field)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return err
			}
			killed++
		}
		return nil
	})
	if err != nil || killed == 0 {
		t.Fatalf("%d processes were killed: %v", killed, err)
	}
}

// restarts is how often an agent's container was started again.
func (r *release) restarts(t *testing.T, agent *corev1.Pod) int32 {
	t.Helper()
	pod, err := r.Client().CoreV1().Pods("kaon").Get(t.Context(), agent.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod.Status.ContainerStatuses[0].RestartCount
}

// objectMap makes the ConfigMap that the Program calls names.
func (r *release) objectMap(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.root, path))
	if err != nil {
		t.Fatal(err)
	}
	r.apply(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: calls, namespace: kaon}, binaryData: {x.o: "+base64.StdEncoding.EncodeToString(data)+"}}")
}

// What happens to agents in a cluster, with the chart installed.
func TestOperation(t *testing.T) {
	r := install(t)
	t.Run("Pod", func(t *testing.T) { testPod(t, r) })
	t.Run("ConfigMap", func(t *testing.T) { testConfigMap(t, r) })
	t.Run("NodeLabel", func(t *testing.T) { testNodeLabel(t, r) })
	t.Run("PodMonitor", func(t *testing.T) { testPodMonitor(t, r) })
	t.Run("Kill", func(t *testing.T) { testKill(t, r) })
	t.Run("Upgrade", func(t *testing.T) { testUpgrade(t, r) })
	t.Run("Outage", func(t *testing.T) { testOutage(t, r) })
}

// Series are there as long as their pod.
func testPod(t *testing.T, r *release) {
	r.pod(t, "brief", "pause")
	r.is(t, "brief", 1)
	if err := r.fork(t.Context(), "brief", 4, "0s"); err != nil {
		t.Fatal(err)
	}
	r.is(t, "brief", 6)
	if _, err := r.Kubectl(t.Context(), "delete", "pod", "--namespace", "shop", "brief"); err != nil {
		t.Fatal(err)
	}
	r.gone(t, `pod="brief"`)
}

// Another object in a ConfigMap is loaded, and its counters go on; a broken one is in the status, and hurts nobody.
func testConfigMap(t *testing.T, r *release) {
	r.pod(t, "caller", "pause")
	r.objectMap(t, "internal/agent/testdata/calls.bpf.o")
	r.apply(t, fmt.Sprintf("{apiVersion: kaon.dev/v1alpha1, kind: Program, metadata: {name: calls}, spec: {source: {object: {configMapKeyRef: {name: calls, key: x.o}}}, params: {number: %d}}}", syscall.SYS_EXECVE))
	r.settled(t, "calls", "1/1", "Running")
	if err := r.fork(t.Context(), "caller", 9, "0s"); err != nil {
		t.Fatal(err)
	}
	const series = `test_calls_total{comm="workload"}`
	before := r.value(t, series, func(v float64) bool { return v >= 9 })
	r.is(t, "caller", 11)
	r.objectMap(t, "internal/agent/testdata/calls2.bpf.o")
	until(t, "the other object is loaded", func(ctx context.Context) error {
		text, err := r.metrics(ctx)
		if err == nil && !strings.Contains(text, "# HELP test_calls_total Calls, counted.") {
			err = errors.New("the first is")
		}
		return err
	})
	if now := r.value(t, series, func(float64) bool { return true }); now < before {
		t.Errorf("%v calls after the reload, %v before", now, before)
	}

	r.objectMap(t, "go.mod")
	r.settled(t, "calls", "0/1", "Incomplete")
	message, err := r.Kubectl(t.Context(), "get", "program", "calls", "--output", "jsonpath={.status.failures[0].message}")
	if err != nil || !strings.Contains(message, "not a usable eBPF object") {
		t.Errorf("the status says %q, %v", message, err)
	}
	r.settled(t, "exec", "1/1", "Running")
	before = r.value(t, series, func(float64) bool { return true })
	if err := r.fork(t.Context(), "caller", 2, "0s"); err != nil {
		t.Fatal(err)
	}
	r.is(t, "caller", 14)
	r.value(t, series, func(v float64) bool { return v >= before+2 })
	if _, err := r.Kubectl(t.Context(), "delete", "program", "calls"); err != nil {
		t.Fatal(err)
	}
	r.gone(t, "test_calls_total{")
}

// A label decides whether a node runs a Program.
func testNodeLabel(t *testing.T, r *release) {
	r.apply(t, "{apiVersion: kaon.dev/v1alpha1, kind: Program, metadata: {name: ends}, spec: {source: {builtin: exit}, nodeSelector: {e2e: chosen}}}")
	const running = `kaon_program_up{program="ends"}`
	label := func(text string) {
		t.Helper()
		if _, err := r.Kubectl(t.Context(), "label", "node", r.node.Name(), text); err != nil {
			t.Fatal(err)
		}
	}
	r.settled(t, "ends", "0/0", "NoNodes")
	r.gone(t, running)
	label("e2e=chosen")
	r.value(t, running, func(v float64) bool { return v == 1 })
	r.settled(t, "ends", "1/1", "Running")
	label("e2e-")
	r.gone(t, running)
	r.settled(t, "ends", "0/0", "NoNodes")
	if _, err := r.Kubectl(t.Context(), "delete", "program", "ends"); err != nil {
		t.Fatal(err)
	}
}

// forkMeanwhile has programs started in a pod, while something happens to the agent, which must have counted each of them afterwards.
func (r *release) forkMeanwhile(t *testing.T, pod string, happen func()) {
	t.Helper()
	r.pod(t, pod, "pause")
	r.is(t, pod, 1)
	const n = 300
	done := make(chan error, 1)
	go func() { done <- r.fork(t.Context(), pod, n, "20ms") }()
	r.value(t, startsOf(pod), func(v float64) bool { return v > 3 })
	happen()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.is(t, pod, 1+1+n)
	if err := r.fork(t.Context(), pod, 3, "0s"); err != nil {
		t.Fatal(err)
	}
	r.is(t, pod, 1+1+n+1+3)
}

// The agent is killed; the kubelet starts it again, and what is pinned was counted meanwhile.
func testKill(t *testing.T, r *release) {
	agent := r.agent(t)
	before := r.restarts(t, agent)
	r.forkMeanwhile(t, "survivor", func() {
		r.kill(t, agent)
		until(t, "the container is started again", func(context.Context) error {
			if n := r.restarts(t, agent); n != before+1 {
				return fmt.Errorf("it was started again %d times, before: %d", n, before)
			}
			return nil
		})
	})
	if again := r.agent(t); again.UID != agent.UID {
		t.Error("the agent's pod is another")
	}
	r.settled(t, "exec", "1/1", "Running")
	r.settled(t, "runqueue", "1/1", "Running")
}

// An upgrade replaces the agent's pod, and loses no count of what is pinned.
func testUpgrade(t *testing.T, r *release) {
	agent := r.agent(t)
	r.forkMeanwhile(t, "upgraded", func() {
		r.run(t, append([]string{"upgrade", "kaon", filepath.Join(r.root, "deploy/helm/kaon"), "--wait", "--timeout", "2m", "--set", "agent.podAnnotations.upgrade=yes"}, r.options...)...)
	})
	if r.agent(t).UID == agent.UID {
		t.Error("the agent's pod is the same")
	}
	r.settled(t, "exec", "1/1", "Running")
}

// While the API server is away, known pods have their series, and the agent lives. Then new ones get theirs.
func testOutage(t *testing.T, r *release) {
	agent := r.agent(t)
	before := r.restarts(t, agent)
	r.pod(t, "known", "loop", "100ms", "fork", "1")
	r.value(t, startsOf("known"), func(v float64) bool { return v > 1 })
	if err := r.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	const connected = `kaon_kube_connected{source="api"}`
	r.value(t, connected, func(v float64) bool { return v == 0 })
	last := r.value(t, startsOf("known"), func(v float64) bool { return v > 1 })
	for range 15 {
		time.Sleep(time.Second)
		last = r.value(t, startsOf("known"), func(v float64) bool { return v > last })
	}
	if err := r.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.value(t, connected, func(v float64) bool { return v == 1 })
	r.pod(t, "new", "pause")
	r.is(t, "new", 1)
	if again := r.agent(t); again.UID != agent.UID || r.restarts(t, agent) != before {
		t.Error("the agent was started again")
	}
	r.settled(t, "exec", "1/1", "Running")
}

// 200 pods come and go: each has its name, and nothing remains of them.
func TestChurn(t *testing.T) {
	cluster.NeedFull(t)
	r := install(t)
	const total, batch = 200, 20
	const alive = `kaon_kube_pods{source="api"}`
	before := r.value(t, alive, func(v float64) bool { return v > 0 })
	seen := map[string]bool{}
	look := func(ctx context.Context) error {
		text, err := r.metrics(ctx)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "process_starts_total{") {
				continue
			}
			series, _, _ := strings.Cut(line, "} ")
			if !strings.Contains(series, `namespace="`) || strings.Contains(series, "unresolved") || strings.Contains(series, `pod=""`) {
				t.Errorf("a wrong name: %s", line)
			}
			seen[series+"}"] = true
		}
		return nil
	}
	memory := func() (resident float64) {
		return r.value(t, "process_resident_memory_bytes", func(v float64) bool { return v > 0 })
	}
	var first float64
	for start := 0; start < total; start += batch {
		var text strings.Builder
		for i := start; i < start+batch; i++ {
			fmt.Fprintf(&text, "---\n{apiVersion: v1, kind: Pod, metadata: {name: churn-%d, namespace: shop, labels: {churn: now}}, spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{name: main, image: %q, imagePullPolicy: Never, args: [exit, \"0\"]}]}}\n", i, cluster.WorkloadImage)
		}
		r.apply(t, text.String())
		until(t, "the pods have run", func(ctx context.Context) error {
			if err := look(ctx); err != nil {
				return err
			}
			for i := start; i < start+batch; i++ {
				if name := startsOf(fmt.Sprintf("churn-%d", i)); !seen[name] {
					return fmt.Errorf("there was no %s", name)
				}
			}
			return nil
		})
		if _, err := r.Kubectl(t.Context(), "delete", "pods", "--namespace", "shop", "--selector", "churn=now", "--wait=false"); err != nil {
			t.Fatal(err)
		}
		if start == batch {
			first = memory()
		}
	}
	r.value(t, alive, func(v float64) bool { return v == before })
	r.gone(t, `pod="churn-`)
	for _, series := range []string{`kaon_program_series{program="exec",reader="process_starts_total"}`, `kaon_program_series{program="runqueue",reader="runqueue_latency_seconds"}`,
		`kaon_program_map_entries{map="process_starts_total",program="exec"}`} {
		r.value(t, series, func(v float64) bool { return v < 20 })
	}
	for _, series := range []string{`kaon_program_failed_inserts_total{map="process_starts_total",program="exec"}`, `kaon_program_lost_total{counter="kaon_lost",program="exec"}`,
		`kaon_program_unresolved_series{program="exec",reader="process_starts_total"}`, `kaon_kube_lookups_missed_total`} {
		r.value(t, series, func(v float64) bool { return v == 0 })
	}
	if now := memory(); now > first+32<<20 {
		t.Errorf("the agent has %.0f bytes, had %.0f after the first pods", now, first)
	}
	names := make([]string, 0, len(seen))
	for name := range seen {
		if strings.Contains(name, `pod="churn-`) && !strings.Contains(name, `container="main"`) && !strings.Contains(name, `container="POD"`) {
			names = append(names, name)
		}
	}
	if slices.Sort(names); len(names) > 0 {
		t.Errorf("containers with wrong names: %q", names)
	}
}
