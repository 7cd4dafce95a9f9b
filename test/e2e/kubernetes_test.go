package e2e

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kaon-project/kaon/test/e2e/cluster"
	"github.com/kaon-project/kaon/test/sandbox"
)

// nodePods makes pods as an API server and a kubelet would, but for the containers, which are cgroups with processes.
type nodePods struct {
	*testing.T
	api  *cluster.Cluster
	root *sandbox.Cgroup
}

func (p *nodePods) create(name, node string, annotations map[string]string) *corev1.Pod {
	p.Helper()
	grace := int64(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: annotations, Labels: map[string]string{"app.kubernetes.io/name": "web"}},
		Spec:       corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: &grace, Containers: []corev1.Container{{Name: "app", Image: "none"}}},
	}
	pod, err := p.api.Client().CoreV1().Pods("shop").Create(p.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		p.Fatal(err)
	}
	return pod
}

// tell writes what the kubelet says of the pod's container.
func (p *nodePods) tell(pod *corev1.Pod, id string) {
	p.Helper()
	pod = pod.DeepCopy()
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: "containerd://" + id}}
	if _, err := p.api.Client().CoreV1().Pods("shop").UpdateStatus(p.Context(), pod, metav1.UpdateOptions{}); err != nil {
		p.Fatal(err)
	}
}

func (p *nodePods) remove(pod *corev1.Pod) {
	p.Helper()
	if err := p.api.Client().CoreV1().Pods("shop").Delete(p.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		p.Fatal(err)
	}
}

// live makes a pod's cgroups, has its container start one program, and removes them.
func (p *nodePods) live(uid string, sandboxID, id int) {
	p.Helper()
	pod, err := p.root.Child("pod" + uid)
	if err != nil {
		p.Fatal(err)
	}
	pause, err := pod.Child(containerID(sandboxID))
	if err != nil {
		p.Fatal(err)
	}
	container, err := pod.Child(containerID(id))
	if err != nil {
		p.Fatal(err)
	}
	runs(p.T, container, 1)
	if err := errors.Join(container.Remove(), pause.Remove(), pod.Remove()); err != nil {
		p.Fatal(err)
	}
}

// A real API server, pods that exist there, and cgroups as a kubelet makes them.
func TestPodNames(t *testing.T) {
	cgroup := needCgroup(t)
	api := cluster.ForTest(t, cluster.Options{})
	_, err := api.Client().CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	no := false
	_, err = api.Client().CoreV1().ServiceAccounts("shop").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}, AutomountServiceAccountToken: &no}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubepods := child(t, cgroup, "kubepods")
	pods := &nodePods{T: t, api: api, root: kubepods}

	config := filepath.Join(t.TempDir(), "kaon.yaml")
	write(t, config, "programs: [exec]\nkubernetes: {enabled: true, labels: [app.kubernetes.io/name], kubeconfig: "+api.Kubeconfig()+"}\n")
	before := pods.create("before", "n1", nil)
	pods.create("elsewhere", "n2", nil)
	agent := up(t, cgroup, "-c", config, "--node-name", "n1", "--namespace", "kaon")

	const metric = "process_starts_total"
	// What is gone is in one scrape only: as in Prometheus, what was seen stays.
	seen := map[string]sample{}
	starts := func(match ...string) float64 {
		for _, s := range parse(t, scrape(t, agent), textType)[metric] {
			seen[s.labels.String()] = s
		}
		all := map[string][]sample{metric: slices.Collect(maps.Values(seen))}
		return sum(all, metric, match...)
	}
	is := func(want float64, match ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%v of %v", want, match), func() bool { return starts(match...) == want })
	}

	t.Run("container", func(t *testing.T) {
		pod := child(t, kubepods, "pod"+string(before.UID))
		pause, container := child(t, pod, containerID(1)), child(t, pod, containerID(2))
		nested := child(t, container, "container") // as crun does
		runs(t, pod, 4)
		runs(t, pause, 1)
		runs(t, container, 2)
		runs(t, nested, 1)
		is(4, "namespace", "shop", "pod", "before", "container", "", "label_app_kubernetes_io_name", "web")
		// The status comes late: until then there is no series, so that none has a wrong name.
		if n := starts("pod", "before"); n != 4 {
			t.Errorf("%v starts in pod before, want those of no container only:\n%s", n, scrape(t, agent))
		}
		pods.tell(before, containerID(2))
		is(3, "namespace", "shop", "pod", "before", "container", "app")
		is(1, "namespace", "shop", "pod", "before", "container", "POD")
	})
	t.Run("static", func(t *testing.T) {
		const hash = "3c1a5b7d9e0f2a4c6e8b0d1f3a5c7e9b"
		static := pods.create("etcd-n1", "n1", map[string]string{"kubernetes.io/config.hash": hash, "kubernetes.io/config.mirror": hash})
		pods.tell(static, containerID(3))
		pods.live(hash, 4, 3)
		is(1, "pod", "etcd-n1", "container", "app")
	})
	t.Run("short", func(t *testing.T) {
		const n = 20
		for i := range n {
			pod := pods.create(fmt.Sprintf("short-%d", i), "n1", nil)
			if i%2 == 0 { // the status is the last that comes
				pods.live(string(pod.UID), 1000+i, 100+i)
				pods.tell(pod, containerID(100+i))
			} else {
				pods.tell(pod, containerID(100+i))
				pods.live(string(pod.UID), 1000+i, 100+i)
			}
			pods.remove(pod)
		}
		for i := range n {
			is(1, "pod", fmt.Sprintf("short-%d", i), "container", "app")
		}
	})
	for name := range seen {
		if strings.Contains(name, `container="0`) || strings.Contains(name, "elsewhere") || strings.Contains(name, "unresolved") {
			t.Errorf("a wrong name: %s", name)
		}
	}
	body := scrape(t, agent)
	figures := parse(t, body, textType)
	if sum(figures, "kaon_kube_pods", "source", "api") != 2 || sum(figures, "kaon_kube_retained_pods", "source", "api") != 20 || sum(figures, "kaon_kube_connected", "source", "api") != 1 {
		t.Error(body)
	}

	t.Run("away", func(t *testing.T) {
		if err := api.StopAPIServer(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "nobody noticed that the API server is away", func() bool {
			return sum(parse(t, scrape(t, agent), textType), "kaon_kube_connected", "source", "api") == 0
		})
		pod := child(t, kubepods, "pod"+string(before.UID))
		runs(t, child(t, pod, containerID(2)), 1) // a cgroup that is new to the agent
		is(4, "namespace", "shop", "pod", "before", "container", "app")
		has(t, agent.Log(), "pods can't be followed")
		// It comes back.
		if err := api.StartAPIServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		after := pods.create("after", "n1", nil)
		pods.tell(after, containerID(5))
		pods.live(string(after.UID), 6, 5)
		eventually(t, "a pod that was made when the API server was back", func() bool {
			return starts("namespace", "shop", "pod", "after", "container", "app") == 1
		})
		has(t, agent.Log(), "pods are followed again")
	})
}

const kubeletPods = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      initContainers:
      - {name: setup, image: "IMAGE", args: [fork, "3"]}
      - {name: sidecar, image: "IMAGE", restartPolicy: Always, args: [pause]}
      containers:
      - {name: app, image: "IMAGE", args: [loop, 100ms, fork, "1"]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, namespace: shop}
spec:
  hostNetwork: true
  hostPID: true
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: "IMAGE", args: [pause]}]
---
apiVersion: v1
kind: Pod
metadata: {name: short, namespace: shop}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "IMAGE", args: [exit, "0"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: crash, namespace: shop}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "IMAGE", args: [exit, "1"]}]
`

const staticPod = `
apiVersion: v1
kind: Pod
metadata: {name: static, namespace: shop}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "IMAGE", imagePullPolicy: Never, args: [pause]}]
`

// A real kubelet and containerd: every kind of container has its name, and no series ever had another.
func TestPodNamesOfKubelet(t *testing.T) {
	need(t)
	c := cluster.ForTest(t, cluster.Options{Nodes: 1})
	node := c.Nodes()[0]
	image := func(text string) string { return strings.ReplaceAll(text, "IMAGE", cluster.WorkloadImage) }
	if err := c.Apply(t.Context(), "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}"); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "kaon.yaml")
	write(t, config, "programs: [exec]\nkubernetes: {enabled: true, owner: true, node: true, kubeconfig: "+c.Kubeconfig()+"}\n")
	agent := up(t, &sandbox.Cgroup{Path: node.CgroupRoot()}, "-c", config, "--node-name", node.Name(), "--namespace", "kaon")

	seen := map[string]bool{}
	look := func() {
		for _, s := range parse(t, scrape(t, agent), textType)["process_starts_total"] {
			l := s.labels
			seen[l.Get("namespace")+"/"+l.Get("pod")+"/"+l.Get("container")+" "+l.Get("owner_kind")+"/"+l.Get("owner_name")+" "+l.Get("node")] = true
			if l.Get("pod") == "" || l.Get("runtime") == "" && len(l.Get("container")) > 20 || l.Get("cgroup")+l.Get("unit") != "" {
				t.Errorf("a wrong name: %v", l)
			}
		}
	}
	if err := node.WriteStaticPod(image(staticPod)); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(t.Context(), image(kubeletPods)); err != nil {
		t.Fatal(err)
	}
	var web string
	eventually(t, "a pod of the Deployment", func() bool {
		look()
		list, err := c.Client().CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
		if err == nil && len(list.Items) == 1 {
			web = list.Items[0].Name
		}
		return web != ""
	})
	pod, err := c.WaitPodReady(t.Context(), "shop", web)
	if err != nil {
		t.Fatal(err)
	}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", Image: cluster.WorkloadImage, ImagePullPolicy: corev1.PullNever, Args: []string{"pause"}}}}
	if _, err := c.Client().CoreV1().Pods("shop").UpdateEphemeralContainers(t.Context(), web, pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, container := range []string{"setup", "sidecar", "app", "debugger", "POD"} {
		want = append(want, "shop/"+web+"/"+container+" Deployment/web node1")
	}
	for _, name := range []string{"host/app", "host/POD", "short/main", "short/POD", "crash/main", "crash/POD"} {
		want = append(want, "shop/"+name+" / node1")
	}
	want = append(want, "shop/static-node1/main Node/node1 node1", "shop/static-node1/POD Node/node1 node1")
	missing := func() (names []string) {
		look()
		for _, name := range want {
			if !seen[name] {
				names = append(names, name)
			}
		}
		return names
	}
	for end := time.Now().Add(time.Minute); len(missing()) > 0 && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	if names := missing(); len(names) > 0 || len(seen) != len(want) {
		t.Errorf("missing: %q\nseen: %q", names, slices.Sorted(maps.Keys(seen)))
	}
}
