package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// start starts a cluster for a test: there must be no trace of it in the end.
func start(t *testing.T, nodes int) *Cluster {
	t.Helper()
	Need(t, nodes)
	before := machineState(t)
	var c *Cluster
	var spaces []string
	t.Cleanup(func() {
		if c == nil {
			return
		}
		// What was killed takes a moment to be gone.
		left := traces(t, c.Name(), c.Dir, spaces)
		for deadline := time.Now().Add(20 * time.Second); len(left) > 0 && time.Now().Before(deadline); left = traces(t, c.Name(), c.Dir, spaces) {
			time.Sleep(50 * time.Millisecond)
		}
		for _, trace := range left {
			t.Error("after the end there is still", trace)
		}
		if after := machineState(t); !slices.Equal(before, after) {
			t.Errorf("the machine's own folders have %q, and had %q", after, before)
		}
	})
	c = ForTest(t, Options{Nodes: nodes})
	spaces = namespaces(t, c)
	return c
}

// namespaces returns the network and mount namespaces of the cluster's processes.
func namespaces(t *testing.T, c *Cluster) []string {
	t.Helper()
	own := map[string]bool{}
	for _, kind := range []string{"net", "mnt"} {
		link, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		own[link] = true
	}
	var found []string
	for _, m := range append([]*machine{c.control}, nodeMachines(c)...) {
		for _, kind := range []string{"net", "mnt"} {
			link, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", m.pid(), kind))
			if err != nil {
				t.Fatal(err)
			}
			if own[link] {
				t.Errorf("%s has no %s namespace of its own", m.name, kind)
			}
			found = append(found, link)
		}
	}
	return found
}

func nodeMachines(c *Cluster) []*machine {
	var machines []*machine
	for _, n := range c.nodes {
		machines = append(machines, n.machine)
	}
	return machines
}

// traces looks for what a cluster could leave: cgroups, processes, mounts, files.
func traces(t *testing.T, name, directory string, spaces []string) []string {
	t.Helper()
	var found []string
	cgroups, err := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if err != nil {
		t.Fatal(err)
	}
	found = append(found, cgroups...)
	for _, path := range []string{"/sys/fs/cgroup/" + name, directory} {
		if _, err := os.Stat(path); err == nil {
			found = append(found, path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, directory) || strings.Contains(line, name) {
			found = append(found, "mount "+line)
		}
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, process := range processes {
		command, _ := os.ReadFile(process + "/cmdline")
		text := strings.ReplaceAll(string(command), "\x00", " ")
		belongs := strings.Contains(text, directory) || strings.Contains(text, name)
		for _, kind := range []string{"net", "mnt"} {
			// A zombie has no namespaces.
			link, err := os.Readlink(process + "/ns/" + kind)
			belongs = belongs || err == nil && slices.Contains(spaces, link)
		}
		if belongs {
			found = append(found, "process "+filepath.Base(process)+" "+text)
		}
	}
	return found
}

// machineState lists the machine's own folders which nodes have, too.
func machineState(t *testing.T) []string {
	t.Helper()
	var state []string
	for _, pattern := range []string{"/run/containerd*", "/run/netns/*", "/var/lib/containerd*", "/var/lib/kubelet*", "/var/lib/cni*", "/var/log/pods*", "/var/log/containers*", "/etc/cni*", "/sys/class/net/veth*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		state = append(state, found...)
	}
	return state
}

const definition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: particles.test.kaon.dev}
spec:
  group: test.kaon.dev
  scope: Cluster
  names: {kind: Particle, plural: particles, singular: particle}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {mass: {type: integer}}
            x-kubernetes-validations: [{rule: "self.mass < 1000", message: too heavy}]
---
apiVersion: test.kaon.dev/v1
kind: Particle
metadata: {name: kaon}
spec: {mass: 497}
`

func TestControlPlane(t *testing.T) {
	c := start(t, 0)
	// The second object is of the kind that the first one defines.
	if err := c.Apply(t.Context(), definition); err != nil {
		t.Fatal(err)
	}
	heavy := strings.ReplaceAll(definition[strings.LastIndex(definition, "---"):], "497", "1019")
	if err := c.Apply(t.Context(), heavy); err == nil || !strings.Contains(err.Error(), "too heavy") {
		t.Errorf("a particle that the schema forbids: %v", err)
	}
	// Through the kubeconfig, from a process that knows nothing of namespaces.
	mass, err := c.Kubectl(t.Context(), "get", "particles", "kaon", "-o", "jsonpath={.spec.mass}")
	if err != nil || mass != "497" {
		t.Errorf("kubectl says %q, %v", mass, err)
	}
	if err := c.StopAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Dial(t.Context(), "tcp", apiServer); err == nil {
		t.Error("the API server answers though it was stopped")
	}
	if err := c.StartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(t.Context(), definition); err != nil {
		t.Error(err)
	}
}

const helloPods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: hello}
spec:
  replicas: 2
  selector: {matchLabels: {app: hello}}
  template:
    metadata: {labels: {app: hello}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: hello}}}]
      containers:
      - {name: server, image: "IMAGE", args: [serve, ":8080"], readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}
      - {name: printer, image: "IMAGE", args: [print, hello, from, the, pod]}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: whoami}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: whoami, image: "IMAGE", args: [whoami]}]
---
apiVersion: v1
kind: Pod
metadata: {name: exit}
spec:
  restartPolicy: Never
  containers: [{name: exit, image: "IMAGE", args: [exit, "3"]}]
`

func TestCluster(t *testing.T) {
	c := start(t, 2)
	ctx := t.Context()
	if err := c.Apply(ctx, strings.ReplaceAll(helloPods, "IMAGE", WorkloadImage)); err != nil {
		t.Fatal(err)
	}
	err := c.Nodes()[1].WriteStaticPod(`{apiVersion: v1, kind: Pod, metadata: {name: own}, spec: {containers: [{name: pause, image: "` + WorkloadImage + `"}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	pods, err := c.WaitPods(ctx, "default", "app=hello", 2)
	if err != nil {
		t.Fatal(err)
	}
	if pods[0].Spec.NodeName == pods[1].Spec.NodeName {
		t.Errorf("both pods run on %s", pods[0].Spec.NodeName)
	}
	for _, pod := range pods {
		checkPod(t, c, &pod)
	}

	if _, err := c.WaitPodReady(ctx, "default", "own-node2"); err != nil {
		t.Error(err)
	}

	// By the service's address, from node 1: kube-proxy's work, once for each pod at least if asked often enough.
	service, err := c.Client().CoreV1().Services("default").Get(ctx, "hello", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	deadline := time.Now().Add(30 * time.Second)
	for len(seen) < 2 && time.Now().Before(deadline) {
		conn, err := c.Nodes()[0].Dial(ctx, "tcp", service.Spec.ClusterIP+":80")
		if err != nil {
			continue
		}
		fmt.Fprint(conn, "GET / HTTP/1.0\r\n\r\n")
		answer, err := io.ReadAll(conn)
		conn.Close()
		if _, body, found := strings.Cut(string(answer), "\r\n\r\n"); err == nil && found {
			seen[strings.TrimSpace(body)] = true
		}
	}
	if !seen[pods[0].Name] || !seen[pods[1].Name] {
		t.Errorf("the service was answered by %v", seen)
	}

	ended, err := c.WaitPodEnd(ctx, "default", "whoami")
	if err != nil {
		t.Fatal(err)
	}
	log, err := c.Logs(ctx, "default", "whoami", "")
	if err != nil || ended.Status.Phase != corev1.PodSucceeded || !strings.Contains(log, "system:serviceaccount:default:default") {
		t.Errorf("a pod asks who it is: %s, %v\n%s", ended.Status.Phase, err, log)
	}
	ended, err = c.WaitPodEnd(ctx, "default", "exit")
	if err != nil {
		t.Fatal(err)
	}
	if s := ended.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 3 {
		t.Errorf("a pod that ends with 3: %+v", ended.Status.ContainerStatuses)
	}
}

func checkPod(t *testing.T, c *Cluster, pod *corev1.Pod) {
	t.Helper()
	ctx := t.Context()
	log, err := c.Logs(ctx, "default", pod.Name, "printer")
	if err != nil || strings.TrimSpace(log) != "hello from the pod" {
		t.Errorf("the log of %s: %q, %v", pod.Name, log, err)
	}
	conn, err := c.Dial(ctx, "tcp", pod.Status.PodIP+":8080")
	if err != nil {
		t.Errorf("%s can't be reached: %v", pod.Name, err)
	} else {
		conn.Close()
	}
	number, err := strconv.Atoi(strings.TrimPrefix(pod.Spec.NodeName, "node"))
	if err != nil {
		t.Fatal(err)
	}
	root := c.Nodes()[number-1].CgroupRoot()
	found, err := filepath.Glob(root + "/kubepods*/*/pod" + string(pod.UID) + "/*/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	// Two containers and the sandbox.
	if len(found) != 3 {
		t.Errorf("cgroups of %s below %s: %q", pod.Name, root, found)
	}
	output, err := c.Kubectl(ctx, "exec", pod.Name, "-c", "server", "--", "/workload", "sleep", "1ms")
	if err != nil {
		t.Errorf("exec in %s: %v %s", pod.Name, err, output)
	}
}

// TestKilled kills who started a cluster, as an end of time does, and waits for the cluster to vanish.
func TestKilled(t *testing.T) {
	const variable = "KAON_CLUSTER_VICTIM"
	if os.Getenv(variable) != "" {
		c, err := StartControlPlane(context.Background(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(variable, c.Name(), c.Dir)
		select {}
	}
	Need(t, 0)
	command := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
	command.Env = append(os.Environ(), variable+"=1")
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	var name, directory string
	if _, err := fmt.Fscan(output, new(string), &name, &directory); err != nil {
		t.Error(err)
	}
	if len(traces(t, name, directory, nil)) < 4 {
		t.Errorf("%s in %s is not a cluster", name, directory)
	}
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	var found []string
	for range 300 {
		if found = traces(t, name, directory, nil); len(found) == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("there is still %q", found)
}
