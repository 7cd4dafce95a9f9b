package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/test/e2e/cluster"
	"github.com/kaon-project/kaon/test/sandbox"
)

const probedPod = `
apiVersion: v1
kind: Pod
metadata: {name: NAME, namespace: shop, labels: {app: APP}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: main, image: "kaon.dev/probed:test", imagePullPolicy: Never, args: [l]}]
`

// Two pods of one image: a probe is set in the file that both run, and what the one does is counted that the selector chooses.
func TestProbesInPods(t *testing.T) {
	need(t)
	c := cluster.ForTest(t, cluster.Options{Nodes: 1})
	node := c.Nodes()[0]
	program, err := os.ReadFile(object(t, "internal/engine/testdata/target"))
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	image := cluster.Image{Reference: "kaon.dev/probed:test", Entrypoint: []string{"/bin/app"}, Files: map[string][]byte{"/bin/app": program}}
	if err := errors.Join(image.Write(archive), c.LoadImage(t.Context(), archive)); err != nil {
		t.Fatal(err)
	}
	apply := func(text string) {
		t.Helper()
		if err := c.Apply(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	definition, err := os.ReadFile(object(t, "deploy/crds/programs.kaon.dev.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	apply(string(definition))
	apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: kaon}}")
	resource := "{apiVersion: kaon.dev/v1alpha1, kind: Program, metadata: {name: probes}, spec: {source: {object: {path: " + object(t, "internal/agent/testdata/probes.bpf.o") + "}}, workloadSelector: {podSelector: {matchLabels: {app: web}}}}}"
	eventually(t, "the API server serves the definition", func() bool { return c.Apply(t.Context(), resource) == nil })

	config := filepath.Join(t.TempDir(), "kaon.yaml")
	write(t, config, "kubernetes: {enabled: true, namespace: kaon, kubeconfig: "+c.Kubeconfig()+"}\n")
	agent := up(t, &sandbox.Cgroup{Path: node.CgroupRoot()}, "-c", config, "--node-name", node.Name())
	series := func(metric, pod string) float64 {
		return sum(parse(t, scrape(t, agent), textType), metric, "namespace", "shop", "pod", pod, "container", "main")
	}
	attached := func(want float64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%v functions are attached", want), func() bool {
			return sum(parse(t, scrape(t, agent), textType), "kaon_program_hook_attached", "program", "probes") == want
		})
	}
	pod := func(name, app string) {
		t.Helper()
		apply(strings.NewReplacer("NAME", name, "APP", app).Replace(probedPod))
		if _, err := c.WaitPodReady(t.Context(), "shop", name); err != nil {
			t.Fatal(err)
		}
	}
	pod("db", "db")
	attached(0)
	pod("web", "web")
	attached(2)
	for _, metric := range []string{"test_work_total", "test_ticks_total"} {
		eventually(t, metric+" of the selected pod grows", func() bool { return series(metric, "web") > 10 })
	}
	// Another one, which has the file in common with them and comes when that is attached to.
	pod("web-too", "web")
	eventually(t, "what the other selected pod does is counted", func() bool { return series("test_work_total", "web-too") > 10 })
	// Once to the layer below their overlays, or all would count twice.
	status, err := agent.Status()
	if err != nil || len(status) != 1 {
		t.Fatalf("%v, %v", status, err)
	}
	for _, h := range status[0].Hooks {
		if len(h.Targets) != 1 {
			t.Errorf("%s is attached to %q: %s", h.Function, h.Targets, h.Reason)
		}
	}
	if s := status[0]; s.Reason != "" || s.Selection == nil || !s.Selection.InKernel {
		t.Errorf("got %+v", s)
	}
	for _, metric := range []string{"test_work_total", "test_ticks_total"} {
		samples := parse(t, scrape(t, agent), textType)
		if n := sum(samples, metric) - sum(samples, metric, "pod", "web") - sum(samples, metric, "pod", "web-too"); n != 0 {
			t.Errorf("%s: %v are counted elsewhere", metric, n)
		}
	}
	for _, name := range []string{"web", "web-too"} {
		if err := c.Delete(t.Context(), "{apiVersion: v1, kind: Pod, metadata: {name: "+name+", namespace: shop}}"); err != nil {
			t.Fatal(err)
		}
	}
	attached(0)
}
