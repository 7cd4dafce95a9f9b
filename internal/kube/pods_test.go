package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/internal/workload"
)

const (
	uidA = "8dbc1f1e-2c8a-4c9a-9f5e-0d2f4b1a7c33"
	uidB = "11111111-2c8a-4c9a-9f5e-0d2f4b1a7c33"
	hash = "3c1a5b7d9e0f2a4c6e8b0d1f3a5c7e9b"
)

// containerID makes an id that is easy to tell.
func containerID(c byte) string { return strings.Repeat(string(c), 64) }

func newPod(uid, name string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid)},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "app"}}},
	}
}

func status(id byte, name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, ContainerID: "containerd://" + containerID(id)}
}

// offline are Pods that talk to nobody.
func offline(t testing.TB, options PodsOptions) (*Pods, *store) {
	t.Helper()
	options.Node = "n1"
	p, err := NewPods(&rest.Config{Host: "http://127.0.0.1:1"}, options)
	if err != nil {
		t.Fatal(err)
	}
	return p, &store{p}
}

func TestIdentify(t *testing.T) {
	p, s := offline(t, PodsOptions{})
	f := func(uid string, id byte, want workload.PodIdentity) {
		t.Helper()
		container := ""
		if id != 0 {
			container = containerID(id)
		}
		if got := p.Identify(uid, container); got != want {
			t.Errorf("%s, %c: got %+v, want %+v", uid, id, got, want)
		}
	}
	web := func(container string) workload.PodIdentity {
		return workload.PodIdentity{Namespace: "shop", Pod: "web-0", Container: container}
	}
	f(uidA, 'a', workload.PodIdentity{})
	// The object exists before there is any status.
	pod := newPod(uidA, "web-0")
	pod.Spec.HostNetwork = true // makes no difference
	must(t, s.Add(pod))
	f(uidA, 0, web(""))
	f(uidA, 'a', web(""))
	// All kinds of containers, running, waiting to be restarted, and ended.
	pod = pod.DeepCopy()
	ended := corev1.ContainerStatus{Name: "setup"}
	ended.State.Terminated = &corev1.ContainerStateTerminated{ContainerID: "cri-o://" + containerID('1')}
	restarted := status('a', "app")
	restarted.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ContainerID: "docker://" + containerID('2')}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{ended, status('b', "sidecar")}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{restarted, {Name: "later"}}
	pod.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{status('c', "debugger")}
	must(t, s.Update(pod))
	for id, name := range map[byte]string{'1': "setup", 'a': "app", '2': "app", 'b': "sidecar", 'c': "debugger", 'd': ""} {
		f(uidA, id, web(name))
	}
	// What is no id is nobody's.
	if got := p.Identify(uidA, "zz").Container; got != "" {
		t.Errorf("got %q", got)
	}
	// A container that is in the status no more keeps its name.
	pod = pod.DeepCopy()
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status('e', "app")}
	must(t, s.Update(pod))
	f(uidA, 'a', web("app"))
	f(uidA, 'e', web("app"))
	// So does a pod that was deleted, with its last state.
	pod = pod.DeepCopy()
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status('f', "app")}
	must(t, s.Delete(pod))
	must(t, s.Delete(pod))
	f(uidA, 'f', web("app"))
	f(uidA, 'b', web("sidecar"))
	if got := p.Stats()[0]; got.Pods != 0 || got.Retained != 1 || got.Events != 5 {
		t.Errorf("%+v", got)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A crash loop does not fill the memory.
func TestContainersAreBounded(t *testing.T) {
	p, s := offline(t, PodsOptions{})
	for i := range 3 * maxContainers {
		pod := newPod(uidA, "web-0")
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", ContainerID: fmt.Sprintf("containerd://%064x", i)}}
		must(t, s.Update(pod))
	}
	if n := len(p.pods[uidA].containers); n != maxContainers {
		t.Errorf("%d containers", n)
	}
	if p.Identify(uidA, fmt.Sprintf("%064x", 3*maxContainers-1)).Container != "app" || p.Identify(uidA, fmt.Sprintf("%064x", 2*maxContainers)).Container != "app" {
		t.Error("the latest are not known")
	}
}

// A static pod's cgroups have the hash of its configuration, its object in the API has another UID.
func TestStaticPods(t *testing.T) {
	p, s := offline(t, PodsOptions{Owner: true})
	f := func(want string) {
		t.Helper()
		if got := p.Identify(hash, "").Pod; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// Anybody can write this annotation.
	liar := newPod(uidB, "liar")
	liar.Annotations = map[string]string{hashAnnotation: hash}
	must(t, s.Add(liar))
	f("")
	static := newPod(uidA, "etcd-n1")
	static.Annotations = map[string]string{hashAnnotation: hash, mirrorAnnotation: hash}
	must(t, s.Add(static))
	f("etcd-n1")
	liar = liar.DeepCopy()
	liar.Annotations = static.Annotations
	must(t, s.Update(liar))
	f("etcd-n1")
	// The kubelet makes the copy anew.
	must(t, s.Delete(static))
	f("etcd-n1")
	again := newPod("22222222-2c8a-4c9a-9f5e-0d2f4b1a7c33", "etcd-n1")
	again.Annotations = static.Annotations
	must(t, s.Add(again))
	f("etcd-n1")
	if p.hashes[hash].uid != string(again.UID) {
		t.Error("the old one counts")
	}
}

func TestRetention(t *testing.T) {
	p, s := offline(t, PodsOptions{MaxRetained: 2, Retain: time.Hour})
	pods := make([]any, 5)
	for i := range pods {
		pod := newPod(fmt.Sprintf("%d", i), fmt.Sprintf("web-%d", i))
		pod.Annotations = map[string]string{hashAnnotation: fmt.Sprintf("h%d", i), mirrorAnnotation: "x"}
		pods[i] = pod
	}
	must(t, s.Replace(pods, "1"))
	must(t, s.Replace(pods[4:], "2")) // the others were deleted meanwhile
	stats := p.Stats()[0]
	if stats.Pods != 1 || stats.Retained != 2 || len(p.pods) != 3 || len(p.hashes) != 3 {
		t.Errorf("%+v, %d, %d", stats, len(p.pods), len(p.hashes))
	}
	// One that comes back is alive.
	for uid, n := range p.pods {
		if n.gone {
			must(t, s.Add(newPod(uid, n.name)))
		}
	}
	if stats := p.Stats()[0]; stats.Pods != 3 || stats.Retained != 0 {
		t.Errorf("%+v", stats)
	}
	must(t, s.Replace(nil, "3"))
	p.mu.Lock()
	p.bury(time.Now().Add(2 * time.Hour))
	p.mu.Unlock()
	if len(p.pods)+len(p.hashes)+len(p.graves) != 0 {
		t.Errorf("%v %v", p.pods, p.hashes)
	}
}

func TestExtraLabels(t *testing.T) {
	controller := true
	made := func(kind, name string, labels map[string]string) *corev1.Pod {
		pod := newPod(uidA, "web-0")
		pod.Labels = labels
		if kind != "" {
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: "Other", Name: "x"}, {Kind: kind, Name: name, Controller: &controller}}
		}
		return pod
	}
	f := func(options PodsOptions, pod *corev1.Pod, want ...string) {
		t.Helper()
		p, s := offline(t, options)
		must(t, s.Add(pod))
		var got []string
		p.Identify(uidA, "").Extra.Each(func(name, value string) {
			if !slices.Contains(p.ExtraLabels(), name) {
				t.Errorf("label %s was not announced", name)
			}
			got = append(got, name+"="+value)
		})
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	hashed := map[string]string{"pod-template-hash": "5d4f8", "app.kubernetes.io/name": "web", "secret": "x"}
	f(PodsOptions{}, made("ReplicaSet", "web-5d4f8", hashed))
	f(PodsOptions{Owner: true}, made("ReplicaSet", "web-5d4f8", hashed), "owner_kind=Deployment", "owner_name=web")
	f(PodsOptions{Owner: true}, made("ReplicaSet", "web-5d4f8", nil), "owner_kind=ReplicaSet", "owner_name=web-5d4f8")
	f(PodsOptions{Owner: true}, made("StatefulSet", "db", nil), "owner_kind=StatefulSet", "owner_name=db")
	f(PodsOptions{Owner: true}, made("", "", nil))
	f(PodsOptions{NodeLabel: true, Labels: []string{"app.kubernetes.io/name", "absent"}}, made("", "", hashed), "node=n1", "label_app_kubernetes_io_name=web")
	if _, err := NewPods(&rest.Config{}, PodsOptions{Node: "n1", Labels: []string{"a.b", "a_b"}}); err == nil || !strings.Contains(err.Error(), "label_a_b") {
		t.Error(err)
	}
	if _, err := NewPods(&rest.Config{}, PodsOptions{}); !errors.Is(err, ErrNoNode) {
		t.Error(err)
	}
}

func FuzzParseID(f *testing.F) {
	f.Add("containerd://" + containerID('a'))
	f.Add("://")
	f.Fuzz(func(t *testing.T, status string) {
		var p pod
		p.add(status, "app")
		if len(p.containers) == 1 && p.container(p.containers[0].id) != "app" {
			t.Errorf("%q", status)
		}
	})
}

// fakeAPI is an API server that knows pods of one node only.
type fakeAPI struct {
	*httptest.Server
	once   sync.Once
	mu     sync.Mutex
	pods   []*corev1.Pod
	events chan any
	done   chan struct{}
	// version of the list; watches from another one are too old.
	version  string
	requests []string
	refuse   bool
}

func newFakeAPI(t *testing.T) *fakeAPI {
	f := &fakeAPI{events: make(chan any), done: make(chan struct{}), version: "1"}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.stop)
	return f
}

// stop ends all watches, too, for which Close would wait.
func (f *fakeAPI) stop() {
	f.once.Do(func() {
		close(f.done)
		f.CloseClientConnections()
		f.Close()
	})
}

func (f *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.URL.String())
	refuse, pods := f.refuse, slices.Clone(f.pods)
	f.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	query := r.URL.Query()
	switch {
	case refuse:
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: 403, Message: "no rights"})
	case query.Get("watch") == "" && query.Get("sendInitialEvents") == "":
		list := corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: f.version}}
		for _, p := range pods {
			list.Items = append(list.Items, *p)
		}
		_ = json.NewEncoder(w).Encode(list)
	case query.Get("sendInitialEvents") != "":
		// As a server that can't do that: the client lists.
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: 422})
	case query.Get("resourceVersion") != f.version:
		w.WriteHeader(http.StatusGone)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonExpired, Code: 410})
	default:
		flusher := w.(http.Flusher)
		flusher.Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-f.done:
				return
			case e := <-f.events:
				_ = json.NewEncoder(w).Encode(e)
				flusher.Flush()
			}
		}
	}
}

func (f *fakeAPI) send(kind string, pod *corev1.Pod) {
	f.events <- map[string]any{"type": kind, "object": pod}
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatal(what)
		}
		time.Sleep(time.Millisecond)
	}
}

func run(t *testing.T, p *Pods) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
}

func TestPodsFollow(t *testing.T) {
	api := newFakeAPI(t)
	first := newPod(uidA, "web-0")
	first.ResourceVersion = "1"
	api.pods = []*corev1.Pod{first}
	p, err := NewPods(&rest.Config{Host: api.URL}, PodsOptions{Node: "n1"})
	must(t, err)
	p.backoff = &wait.Backoff{Duration: 10 * time.Millisecond, Factor: 1, Steps: 1}
	run(t, p)
	must(t, p.WaitForAnswer(context.Background()))
	if p.Identify(uidA, "").Pod != "web-0" {
		t.Error("the list was not taken in")
	}
	second := newPod(uidB, "web-1")
	second.ResourceVersion = "2"
	api.send("ADDED", second)
	eventually(t, "the new pod is not known", func() bool { return p.Identify(uidB, "").Pod == "web-1" })
	second.ResourceVersion = "3"
	api.send("DELETED", second)
	eventually(t, "the pod is not gone", func() bool { return p.Stats()[0].Retained == 1 })
	if s := p.Stats()[0]; !s.Connected || s.Errors != 0 && s.Pods != 1 || time.Since(s.LastSync) > time.Hour {
		t.Errorf("%+v", s)
	}
	// The server goes away: what is known stays, and figures tell.
	api.stop()
	eventually(t, "nobody noticed that the server is away", func() bool { return !p.Stats()[0].Connected && p.Stats()[0].Errors > 0 })
	if p.Identify(uidA, "").Pod != "web-0" || p.Identify(uidB, "").Pod != "web-1" {
		t.Error("names are gone with the server")
	}
	// It comes back, and meanwhile pods came and went.
	third := newPod("33333333-2c8a-4c9a-9f5e-0d2f4b1a7c33", "web-2")
	again := &fakeAPI{pods: []*corev1.Pod{third}, events: make(chan any), done: make(chan struct{}), version: "10"}
	listener, err := net.Listen("tcp", api.Listener.Addr().String())
	must(t, err)
	again.Server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: again}}
	again.Start()
	t.Cleanup(again.stop)
	eventually(t, "the new pod is not known", func() bool { return p.Identify(string(third.UID), "").Pod == "web-2" })
	if s := p.Stats()[0]; !s.Connected || s.Pods != 1 || s.Retained != 2 {
		t.Errorf("%+v", s)
	}
	for _, r := range api.requests {
		if !strings.HasPrefix(r, "/api/v1/pods?") || !strings.Contains(r, "fieldSelector=spec.nodeName%3Dn1") {
			t.Errorf("a request for more than this node's pods: %s", r)
		}
	}
}

// Who has no rights is told, and does not wait.
func TestPodsForbidden(t *testing.T) {
	api := newFakeAPI(t)
	api.refuse = true
	p, err := NewPods(&rest.Config{Host: api.URL}, PodsOptions{Node: "n1"})
	must(t, err)
	run(t, p)
	if err := p.WaitForAnswer(context.Background()); err == nil || !strings.Contains(err.Error(), "no rights") {
		t.Error(err)
	}
	if s := p.Stats()[0]; s.Connected || !s.Refused {
		t.Errorf("%+v", s)
	}
}

// BenchmarkPodMemory is what a pod costs while it is known, of the size of a usual Pod object.
func BenchmarkPodMemory(b *testing.B) {
	for b.Loop() {
		_, s := offline(b, PodsOptions{Owner: true, Labels: []string{"app.kubernetes.io/name"}})
		const n = 2000
		before := heap()
		object := 0
		for i := range n {
			pod := newPod(fmt.Sprintf("%08x-2c8a-4c9a-9f5e-0d2f4b1a7c33", i), fmt.Sprintf("web-5d4f8-%05d", i))
			pod.Labels = map[string]string{"app.kubernetes.io/name": "web", "pod-template-hash": "5d4f8"}
			pod.Annotations = map[string]string{"description": strings.Repeat("x", 4000)}
			for c := range 3 {
				pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: fmt.Sprint("app-", c), ContainerID: fmt.Sprintf("containerd://%064x", 3*i+c)})
			}
			data, err := pod.Marshal() // as it comes from the server
			must(b, err)
			object = len(data)
			fresh := &corev1.Pod{}
			must(b, fresh.Unmarshal(data))
			must(b, s.Add(fresh))
		}
		b.ReportMetric(float64(heap()-before)/n, "B/pod")
		b.ReportMetric(float64(object), "B/object")
		runtime.KeepAlive(s)
	}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
