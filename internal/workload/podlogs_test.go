package workload

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParsePodLog(t *testing.T) {
	f := func(name, wantUID, wantNamespace, wantPod string) {
		t.Helper()
		id, pod, ok := parsePodLog(name)
		if ok != (wantUID != "") || id != wantUID || pod.namespace != wantNamespace || pod.name != wantPod {
			t.Errorf("%q: %q, %+v, %v", name, id, pod, ok)
		}
	}
	f("shop_web-0_"+uid, uid, "shop", "web-0")
	f("kube-system_etcd-node.example.com_"+staticUID, staticUID, "kube-system", "etcd-node.example.com")
	f("shop_web-0", "", "", "")
	f("shop_web_0_"+uid, "", "", "")
	f("shop_web-0_x", "", "", "")
	f("Shop_web-0_"+uid, "", "", "")
	f("_web-0_"+uid, "", "", "")
	f("sh.op_web-0_"+uid, "", "", "")
	f("", "", "", "")
}

func TestParseContainerLog(t *testing.T) {
	f := func(name, wantID, want string) {
		t.Helper()
		id, c, ok := parseContainerLog(name)
		if ok != (wantID != "") || id != wantID || ok && c.namespace+"/"+c.name+"/"+c.container != want {
			t.Errorf("%q: %q, %+v, %v", name, id, c, ok)
		}
	}
	f("web-0_shop_side-car-"+idA+".log", idA, "shop/web-0/side-car")
	f("a.b_shop_app-"+idA+".log", idA, "shop/a.b/app")
	f("web-0_shop_app-"+idA, "", "")
	f("web-0_shop_"+idA+".log", "", "")
	f("web-0_shop_app-"+idA[1:]+".log", "", "")
	f("web-0_shop_app_"+idA+".log", "", "")
	f(strings.Repeat("a", 300)+"_shop_app-"+idA+".log", "", "")
}

func FuzzPodLogNames(f *testing.F) {
	f.Add("shop_web-0_" + uid)
	f.Add("web-0_shop_app-" + idA + ".log")
	f.Fuzz(func(t *testing.T, name string) {
		if uid, pod, ok := parsePodLog(name); ok && pod.namespace+"_"+pod.name+"_"+uid != name {
			t.Errorf("%q: %q, %+v", name, uid, pod)
		}
		if id, c, ok := parseContainerLog(name); ok && c.name+"_"+c.namespace+"_"+c.container+"-"+id+".log" != name {
			t.Errorf("%q: %q, %+v", name, id, c)
		}
	})
}

// varLog is a node's /var/log.
func varLog(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	makeDirectory(t, dir, podLogs)
	makeDirectory(t, dir, containerLogs)
	return dir
}

func makeDirectory(t *testing.T, parts ...string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(parts...), 0o755); err != nil {
		t.Fatal(err)
	}
}

func makeLink(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Symlink("/nowhere", filepath.Join(dir, containerLogs, name)); err != nil {
		t.Fatal(err)
	}
}

func TestPodLogs(t *testing.T) {
	dir := varLog(t)
	makeDirectory(t, dir, podLogs, "shop_web-0_"+uid)
	makeDirectory(t, dir, podLogs, "not a pod")
	makeLink(t, dir, "web-0_shop_app-"+idA+".log")
	l, err := NewPodLogs(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := func(uid, container string, want PodIdentity) {
		t.Helper()
		if got := l.Identify(uid, container); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	app := PodIdentity{Namespace: "shop", Pod: "web-0", Container: "app"}
	f(uid, idA, app)
	f(uid, "", PodIdentity{Namespace: "shop", Pod: "web-0"})
	f(uid, idB, PodIdentity{Namespace: "shop", Pod: "web-0"})
	f(staticUID, idA, PodIdentity{}) // another pod's container

	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { l.Run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()
	// What comes and goes at once is known.
	makeDirectory(t, dir, podLogs, "shop_short_"+staticUID)
	makeLink(t, dir, "short_shop_main-"+idB+".log")
	for _, path := range []string{podLogs + "/shop_short_" + staticUID, podLogs + "/shop_web-0_" + uid, containerLogs + "/short_shop_main-" + idB + ".log"} {
		if err := os.Remove(filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
	}
	main := PodIdentity{Namespace: "shop", Pod: "short", Container: "main"}
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) && (l.Stats()[0].Retained < 2 || l.Identify(staticUID, idB) != main) {
		time.Sleep(time.Millisecond)
	}
	f(staticUID, idB, main)
	f(uid, idA, app)
	if s := l.Stats()[0]; s.Pods != 0 || s.Retained != 2 || s.Events < 4 || s.Source != "logs" {
		t.Errorf("%+v", s)
	}
}

// A scan finds what no event told of, and forgets what is gone for long.
func TestPodLogsScan(t *testing.T) {
	dir := varLog(t)
	l, err := NewPodLogs(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	makeDirectory(t, dir, podLogs, "shop_web-0_"+uid)
	makeLink(t, dir, "web-0_shop_app-"+idA+".log")
	now := time.Now()
	l.scan(now)
	if l.Identify(uid, idA).Container != "app" {
		t.Error("not found")
	}
	if err := os.RemoveAll(filepath.Join(dir, podLogs, "shop_web-0_"+uid)); err != nil {
		t.Fatal(err)
	}
	l.scan(now)
	l.scan(now.Add(podLogsAge))
	if l.Identify(uid, idA).Container != "app" {
		t.Error("forgotten too early")
	}
	l.scan(now.Add(podLogsAge + time.Second))
	if l.Identify(uid, idA).Pod != "" {
		t.Error("never forgotten")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	l.scan(now)
	if _, err := NewPodLogs(dir, nil); !errors.Is(err, ErrNoPodLogs) {
		t.Error(err)
	}
}
