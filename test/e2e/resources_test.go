package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/programs"
	"github.com/kaon-project/kaon/test/e2e/cluster"
	"github.com/kaon-project/kaon/test/sandbox"
)

var programResource = schema.GroupVersionResource{Group: "kaon.dev", Version: "v1alpha1", Resource: "programs"}

// TestResources needs an API server and etcd, which its parts share.
func TestResources(t *testing.T) {
	need(t)
	c := cluster.ForTest(t, cluster.Options{})
	for _, path := range []string{"deploy/crds/programs.kaon.dev.yaml", "test/e2e/testdata/rbac.yaml"} {
		text, err := os.ReadFile(object(t, path))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Apply(t.Context(), string(text)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("Rules", func(t *testing.T) { testRules(t, c) })
	t.Run("Agent", func(t *testing.T) { testAgent(t, c) })
}

// testRules compares what the API server refuses with what the agent refuses.
func testRules(t *testing.T, c *cluster.Cluster) {
	client := c.Dynamic().Resource(programResource)
	// The API server takes a definition up some time after it has accepted it.
	eventually(t, "the API server serves the definition", func() bool {
		_, err := client.List(t.Context(), metav1.ListOptions{})
		return err == nil
	})
	apply := func(name, spec string) (byServer, byAgent error) {
		var content map[string]any
		if err := yaml.Unmarshal([]byte(spec), &content); err != nil {
			t.Fatal(err)
		}
		object := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "kaon.dev/v1alpha1", "kind": "Program",
			"metadata": map[string]any{"name": name}, "spec": content}}
		data, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &content); err != nil { // numbers as the client wants them
			t.Fatal(err)
		}
		object.Object["spec"] = content
		_, byServer = client.Create(t.Context(), object, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
		_, byAgent = manifest.ParseResource(name, data, manifest.Options{Builtin: programs.Load, Decoders: series.Decoders(),
			Objects: func(string, string, string) ([]byte, error) { return nil, os.ErrNotExist }})
		return byServer, byAgent
	}
	refused := func(spec, words string) {
		t.Helper()
		byServer, byAgent := apply("x", spec)
		if byServer == nil || !strings.Contains(byServer.Error(), words) {
			t.Errorf("%s\nthe API server: %v\nwant %s", spec, byServer, words)
		}
		if byAgent == nil || !strings.Contains(byAgent.Error(), words) {
			t.Errorf("%s\nthe agent: %v\nwant %s", spec, byAgent, words)
		}
	}
	refused("{}", v1alpha1.WantSource)
	refused("{metrics: []}", v1alpha1.WantSource)
	refused("{metrics: [{name: a, type: gauge, from: {map: b}}]}", v1alpha1.WantSource)
	refused("{source: {}}", v1alpha1.WantOneSource)
	refused("{source: {builtin: exec, object: {path: /x.o}}}", v1alpha1.WantOneSource)
	refused("{source: {object: {}}}", v1alpha1.WantOneObject)
	refused("{source: {object: {path: /x.o, inline: AAAA}}}", v1alpha1.WantOneObject)
	refused("{source: {object: {path: x.o}}}", v1alpha1.WantAbsolutePath)
	refused("{source: {object: {path: /x.o, sha256: abc}}}", v1alpha1.WantSHA256)
	refused("{source: {builtin: exec}, hooks: [{function: a, pid: 1}]}", v1alpha1.WantNoProcess)
	refused("{source: {builtin: exec}, metrics: [{metric: a, from: {map: b}}]}", v1alpha1.WantOneMetric)
	refused("{source: {builtin: exec}, metrics: [{name: a}]}", v1alpha1.WantOneMetric)
	refused("{source: {builtin: exec}, metrics: [{type: gauge, from: {map: b, iterator: c}}]}", v1alpha1.WantOneFrom)
	refused("{source: {builtin: exec}, metrics: [{metric: process_starts_total, labels: {keep: [], drop: []}}]}", v1alpha1.WantKeepOrDrop)
	refused("{source: {builtin: exec}, metrics: [{metric: process_starts_total, buckets: {max: 1, bounds: [1]}}]}", "")
	refused("{metrics: [{name: a, type: gauge, from: {file: {path: /proc/loadavg, labels: [{name: b}]}}}]}", v1alpha1.WantOneFileLabel)
	refused("{source: {builtin: exec}, limt: 1}", "limt")
	refused("{source: {builtin: exec}, metrics: [{metric: process_starts_total, limit: 0}]}", "limit")
	refused("{source: {builtin: exec}, metrics: [{metric: process_starts_total, type: count}]}", "type")
	refused("{source: {builtin: exec}, hooks: [{target: a}]}", "function")
	refused("{source: {object: {configMapKeyRef: {name: a}}}}", "key")
	refused("{source: {script: a}}", "script")

	accepted := func(spec string) {
		t.Helper()
		if byServer, byAgent := apply("x", spec); byServer != nil || byAgent != nil {
			t.Errorf("%s\nthe API server: %v\nthe agent: %v", spec, byServer, byAgent)
		}
	}
	accepted("{source: {builtin: exec}}")
	accepted("{source: {builtin: blockio}, nodeSelector: {disk: ssd}, help: a, pin: true}")
	accepted("{source: {builtin: exec}, metrics: [{metric: process_starts_total, labels: {keep: []}, scale: 2, limit: 5, staticLabels: {a: b}}]}")
	accepted("{metrics: [{name: a, type: gauge, from: {file: {path: /proc/loadavg, field: a}}}]}")
	for _, name := range []string{"a.b", strings.Repeat("a", 64)} {
		if byServer, byAgent := apply(name, "{source: {builtin: exec}}"); byServer == nil || !strings.Contains(byServer.Error(), "can't be a program's name") || byAgent == nil {
			t.Errorf("%s: the API server: %v, the agent: %v", name, byServer, byAgent)
		}
	}
	// What only the agent can see.
	for spec, words := range map[string]string{
		"{source: {builtin: exec}, params: {pid: 1}}":           v1alpha1.WantNoProcess,
		"{source: {builtin: no-such-program}}":                  "",
		"{source: {builtin: exec}, params: {nonsense: [1, 2]}}": "no such param",
		"{source: {object: {inline: '!'}}}":                     "not base64",
	} {
		if byServer, byAgent := apply("x", spec); byServer != nil || byAgent == nil || !strings.Contains(byAgent.Error(), words) {
			t.Errorf("%s\nthe API server: %v\nthe agent: %v", spec, byServer, byAgent)
		}
	}
}

// account writes a kubeconfig of a ServiceAccount, and returns its path.
func account(t *testing.T, c *cluster.Cluster, name string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	for user := range config.AuthInfos {
		config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token(t, c, name, nil)}
	}
	path := filepath.Join(t.TempDir(), name+".kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// token returns one of a ServiceAccount, bound to a pod if one is named.
func token(t *testing.T, c *cluster.Cluster, name string, pod *authenticationv1.BoundObjectReference, audiences ...string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, BoundObjectRef: pod}}
	answer, err := c.Client().CoreV1().ServiceAccounts("kaon").CreateToken(t.Context(), name, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.Status.Token
}

// inline returns an object as resources have it.
func inline(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(object(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}

// startController runs kaon controller until the test ends, and returns where its metrics are.
func startController(t *testing.T, c *cluster.Cluster, identity string) *sandbox.Agent {
	t.Helper()
	var addresses [2]string
	for i := range addresses {
		var err error
		if addresses[i], err = sandbox.FreeAddress(); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(binary, "controller", "--kubeconfig", account(t, c, "kaon-controller"), "--namespace", "kaon", "--identity", identity,
		"--address", "127.0.0.1", "--write-interval", "500ms", "--listen", addresses[0], "--metrics-listen", addresses[1])
	a, err := sandbox.Start(command, addresses[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(syscall.SIGTERM, 10*time.Second); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(a.Log())
		}
	})
	return a
}

// testAgent runs a controller and an agent with the rights that they have in a cluster.
func testAgent(t *testing.T, c *cluster.Cluster) {
	cgroup := needCgroup(t)
	apply := func(text string) {
		t.Helper()
		if err := c.Apply(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	apply(`
apiVersion: v1
kind: Node
metadata: {name: first, labels: {disk: ssd}}
---
apiVersion: v1
kind: Pod
metadata: {name: kaon-first, namespace: kaon}
spec: {nodeName: first, serviceAccountName: kaon, containers: [{name: kaon, image: kaon}]}
`)
	pod, err := c.Client().CoreV1().Pods("kaon").Get(t.Context(), "kaon-first", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bound := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	tokens := filepath.Join(t.TempDir(), "token")
	write(t, tokens, token(t, c, "kaon", bound, "kaon-controller"))
	controller := startController(t, c, "one")
	eventually(t, "the controller is in charge", func() bool { return strings.Contains(controller.Log(), "in charge") })
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	write(t, config, fmt.Sprintf("kubernetes: {enabled: true, nodeName: first, namespace: kaon, kubeconfig: %s, controllerToken: %s}\n", account(t, c, "kaon"), tokens))
	a := up(t, cgroup, "-c", config)
	if all, err := a.Status(); err != nil || len(all) != 0 {
		t.Errorf("without resources there is %+v, %v", all, err)
	}

	configMap := func(path string) {
		t.Helper()
		data, err := os.ReadFile(object(t, path))
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		apply(fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: calls, namespace: kaon}, binaryData: {x.o: %s}}", encoded))
	}
	program := func(name, spec string) {
		t.Helper()
		apply(fmt.Sprintf("{apiVersion: kaon.dev/v1alpha1, kind: Program, metadata: {name: %s}, spec: %s}", name, spec))
	}
	health := func(name string) (s agent.Status) {
		all, err := a.Status()
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range all {
			if s.Name == name {
				return s
			}
		}
		return s
	}
	// settled waits for what kubectl get prints: READY and REASON.
	settled := func(name, ready, reason string) v1alpha1.ProgramStatus {
		t.Helper()
		var status v1alpha1.ProgramStatus
		var got string
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			object, err := c.Dynamic().Resource(programResource).Get(t.Context(), name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(object.Object["status"])
			if err != nil {
				t.Fatal(err)
			}
			status = v1alpha1.ProgramStatus{}
			if err := json.Unmarshal(data, &status); err != nil {
				t.Fatal(err)
			}
			for _, condition := range status.Conditions {
				if condition.Type == "Ready" {
					got = status.Summary + " " + condition.Reason
				}
			}
			if got == ready+" "+reason && status.ObservedGeneration == object.GetGeneration() {
				return status
			}
			if time.Now().After(end) {
				t.Fatalf("%s is %s, want %s %s: %+v", name, got, ready, reason, status)
			}
		}
	}
	configMap(calls)
	program("calls", "{source: {object: {configMapKeyRef: {name: calls, key: x.o}}}, params: {number: 59}}")
	program("execs", "{source: {builtin: exec}}")
	eventually(t, "both programs run", func() bool { return health("calls").State == agent.Up && health("execs").State == agent.Up })
	count := func() (called, started float64) {
		got := parse(t, scrape(t, a), textType)
		return sum(got, "test_calls_total"), sum(got, "process_starts_total")
	}
	runs(t, cgroup, 3)
	calledBefore, startedBefore := count()
	if calledBefore < 3 || startedBefore != 3 {
		t.Errorf("%v calls, %v starts: want at least 3, and 3", calledBefore, startedBefore)
	}
	id, execsID := health("calls").Hooks[0].ProgramID, health("execs").Hooks[0].ProgramID
	settled("calls", "1/1", "Running")
	if s := settled("execs", "1/1", "Running"); s.Source != "builtin exec" || len(s.Failures) > 0 {
		t.Errorf("%+v", s)
	}

	// Another object in the ConfigMap: this Program is loaded again, and goes on counting.
	configMap("internal/agent/testdata/calls2.bpf.o")
	eventually(t, "the new object is loaded", func() bool {
		h := health("calls").Hooks
		return len(h) > 0 && h[0].ProgramID != id
	})
	runs(t, cgroup, 2)
	if called, started := count(); called < calledBefore+2 || started != 5 {
		t.Errorf("%v calls after %v, %v starts: the counters did not go on", called, calledBefore, started)
	}
	// A broken one: what ran goes on, and the status says why.
	id = health("calls").Hooks[0].ProgramID
	configMap("go.mod")
	status := settled("calls", "0/1", "Incomplete")
	if len(status.Failures) != 1 || !strings.Contains(status.Failures[0].Message, "not a usable eBPF object") || !status.Failures[0].Degraded || status.Failures[0].Nodes[0] != "first" || status.Failures[0].Kernels[0] == "" {
		t.Errorf("%+v", status.Failures)
	}
	// Others that can't run: no such key, code that acts, another digest.
	program("acts", "{source: {object: {inline: "+inline(t, "internal/engine/testdata/net.bpf.o")+"}}}")
	program("pinned", "{source: {object: {secretKeyRef: {name: nothing, key: x.o}}}}")
	if s := settled("pinned", "0/1", "Failed"); !strings.Contains(s.Failures[0].Message, "Secret kaon/nothing: there is none") || s.Nodes.Failed != 1 {
		t.Errorf("%+v", s)
	}
	if s := settled("acts", "0/1", "Failed"); s.Conditions[0].Type != "Accepted" || s.Conditions[0].Reason != "Invalid" || !strings.Contains(s.Failures[0].Message, "can act") {
		t.Errorf("%+v", s)
	}
	if h := health("calls").Hooks; h[0].ProgramID != id || health("execs").Hooks[0].ProgramID != execsID {
		t.Error("programs that did not change were loaded again")
	}
	// The node's labels choose.
	program("execs", "{source: {builtin: exec}, nodeSelector: {disk: hdd}}")
	eventually(t, "it is unloaded where it is not meant to run", func() bool { return health("execs").Name == "" })
	settled("execs", "0/0", "NoNodes")
	apply("{apiVersion: v1, kind: Node, metadata: {name: first, labels: {disk: hdd}}}")
	eventually(t, "it is loaded on a node that got the label", func() bool { return health("execs").State == agent.Up })
	settled("execs", "1/1", "Running")

	// Only the pods that a selector chooses are shown.
	apply(`
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop, labels: {app: web}}
spec: {nodeName: first, serviceAccountName: web, containers: [{name: app, image: web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}}
spec: {nodeName: first, serviceAccountName: web, containers: [{name: app, image: db}]}
`)
	containers := map[string]*sandbox.Cgroup{}
	pods := child(t, cgroup, "kubepods")
	for i, name := range []string{"web-0", "db-0"} {
		pod, err := c.Client().CoreV1().Pods("shop").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "containerd://" + containerID(i+1)}}
		if _, err := c.Client().CoreV1().Pods("shop").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		containers[name] = child(t, child(t, pods, "pod"+string(pod.UID)), containerID(i+1))
	}
	selects := func(n float64) {
		eventually(t, fmt.Sprintf("the kernel selects by %v cgroups", n), func() bool {
			return sum(parse(t, scrape(t, a), textType), "kaon_program_selected_cgroups", "program", "execs") == n
		})
	}
	program("execs", "{source: {builtin: exec}, workloadSelector: {namespaces: [shop], podSelector: {matchLabels: {app: web}}}}")
	settled("execs", "1/1", "Running")
	selects(2)
	runs(t, containers["web-0"], 4)
	runs(t, containers["db-0"], 5)
	eventually(t, "the selected pod has series", func() bool {
		return sum(parse(t, scrape(t, a), textType), "process_starts_total", "namespace", "shop", "pod", "web-0", "container", "app") == 4
	})
	if _, started := count(); started != 4 {
		t.Errorf("%v starts, want those of the selected pod only:\n%s", started, scrape(t, a))
	}

	// While the API server is away, everything goes on. Then what changed is taken up, here by a new controller.
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	runs(t, containers["web-0"], 1)
	if _, started := count(); started != 5 {
		t.Errorf("%v starts while the API server is away, want 5", started)
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := startController(t, c, "two")
	eventually(t, "one of two controllers waits", func() bool { return strings.Contains(second.Log(), "another controller is in charge") })
	stop(t, controller)
	eventually(t, "the other takes over", func() bool { return strings.Contains(second.Log(), "in charge of the status") })
	controller = second
	program("execs", "{source: {builtin: exec}, workloadSelector: {namespaces: [shop]}}")
	selects(4)
	settled("execs", "1/1", "Running")
	runs(t, containers["db-0"], 3)
	eventually(t, "the other pod has series of what it did since it is selected", func() bool {
		return sum(parse(t, scrape(t, a), textType), "process_starts_total", "namespace", "shop", "pod", "db-0") == 3
	})
	if got := sum(parse(t, scrape(t, a), textType), "process_starts_total", "namespace", "shop", "pod", "web-0"); got != 5 {
		t.Errorf("%v starts of the pod that stays selected, want 5", got)
	}

	if err := c.Delete(t.Context(), "{apiVersion: kaon.dev/v1alpha1, kind: Program, metadata: {name: calls}}"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a resource that was deleted runs no more", func() bool { return health("calls").Name == "" })
	if text := scrape(t, a); strings.Contains(text, "test_calls_total{") {
		t.Error("its series are still there")
	}

	// An agent that says it is another node is turned away.
	write(t, config, "{}\n")
	stop(t, a)
	eventually(t, "the agent took its leave", func() bool {
		_, text, _, err := controller.Get("/metrics")
		return err == nil && strings.Contains(text, "kaon_controller_agents 0\n")
	})
	apply("{apiVersion: v1, kind: Node, metadata: {name: second}}")
	write(t, config, fmt.Sprintf("kubernetes: {enabled: true, nodeName: second, namespace: kaon, kubeconfig: %s, controllerToken: %s}\n", account(t, c, "kaon"), tokens))
	up(t, cgroup, "-c", config)
	eventually(t, "the liar is turned away", func() bool {
		_, text, _, err := controller.Get("/metrics")
		return err == nil && strings.Contains(text, "kaon_controller_agents 0\n") && !strings.Contains(text, "refused_reports_total 0\n")
	})
}
