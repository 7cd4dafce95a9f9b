// Package chart installs the Helm chart in a real cluster.
package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/deploy/helm"
	"github.com/kaon-project/kaon/programs"
	"github.com/kaon-project/kaon/test/e2e/cluster"
	"github.com/kaon-project/kaon/test/sandbox"
)

const image = "registry.local/kaon"

// values are what this test needs besides the defaults: the image that it made, an agent that measures the cluster's pods only, and, where
// the machine itself lacks a capability, containers that don't ask for it.
func values(t *testing.T, node *cluster.Node) string {
	t.Helper()
	text := fmt.Sprintf("image: {repository: %s, tag: test, pullPolicy: Never}\nagent:\n  extraArgs: [--cgroup-root=%s]\n  capabilities: [BPF, PERFMON, NET_ADMIN, SYSLOG, SYS_PTRACE]\n", image, node.CgroupRoot())
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeImage builds the image as `make image` does, for this architecture.
func makeImage(t *testing.T, root string) string {
	t.Helper()
	binary, err := sandbox.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "kaon.tar")
	architecture, err := exec.CommandContext(t.Context(), "go", "env", "GOARCH").Output()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "go", "run", "./deploy/image", "-name", image+":test", "-archive", archive, strings.TrimSpace(string(architecture))+"="+binary)
	command.Dir = root
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("make the image: %v: %s", err, out)
	}
	return archive
}

// until asks again until there is no error.
func until(t *testing.T, what string, ask func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		err := ask(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// After helm install the default Programs run, pods have series, and what the pages say works: TLS and a password, who may create what, one
// command on a node.
func TestChart(t *testing.T) {
	cluster.Need(t, 1)
	binary, err := helm.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root, err := sandbox.Root()
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.ForTest(t, cluster.Options{Nodes: 1})
	node := c.Nodes()[0]
	if err := c.LoadImage(t.Context(), makeImage(t, root)); err != nil {
		t.Fatal(err)
	}
	chart, file := filepath.Join(root, "deploy/helm/kaon"), values(t, node)
	run := func(arguments ...string) {
		t.Helper()
		home := t.TempDir()
		command := exec.CommandContext(t.Context(), binary, arguments...)
		command.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home)
		if out, err := command.CombinedOutput(); err != nil {
			pods, _ := c.Kubectl(t.Context(), "--namespace", "kaon", "describe", "pods")
			t.Fatalf("helm %v: %v\n%s\n%s", arguments, err, out, pods)
		}
	}
	kubectl := func(arguments ...string) string {
		t.Helper()
		out, err := c.Kubectl(t.Context(), arguments...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	run("install", "kaon", chart, "--namespace", "kaon", "--create-namespace", "--values", file, "--wait", "--timeout", "2m")
	until(t, "the default Programs run", func(context.Context) error {
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct{ Summary string }
			}
		}
		if err := json.Unmarshal([]byte(kubectl("get", "programs", "--output", "json")), &list); err != nil {
			return err
		}
		if want := len(programs.Default()); len(list.Items) != want {
			return fmt.Errorf("there are %d Programs, want %d", len(list.Items), want)
		}
		var errs []error
		for _, p := range list.Items {
			if p.Status.Summary != "1/1" {
				errs = append(errs, fmt.Errorf("%s: %q", p.Metadata.Name, p.Status.Summary))
			}
		}
		return errors.Join(errs...)
	})

	kubectl("create", "namespace", "shop")
	// Relative to wherever the container sees the node's cgroups.
	scope := strings.TrimPrefix(strings.TrimPrefix(node.CgroupRoot(), "/sys/fs/cgroup/"), "unified/")
	debug := kubectl("debug", "node/"+node.Name(), "--image="+image+":test", "--image-pull-policy=Never", "--profile=sysadmin", "--attach=false",
		"--", "kaon", "run", "exec", "--for", "12s", "--filter", "namespace=shop", "--cgroup-root", scope)
	debugger := regexp.MustCompile(`node-debugger-\S+`).FindString(debug)
	if _, err := c.WaitPodReady(t.Context(), "default", debugger); err != nil {
		out, _ := c.Logs(t.Context(), "default", debugger, "debugger")
		t.Fatalf("%v\n%s", err, out)
	}
	scrape := func(ctx context.Context, arguments ...string) (string, error) {
		return node.Run(ctx, "curl", append([]string{"--silent", "--show-error", "--fail"}, arguments...)...)
	}
	const web = `{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {restartPolicy: Never,
 containers: [{name: server, image: "kaon.dev/workload:test", imagePullPolicy: Never, args: [pause]}]}}`
	if err := c.Apply(t.Context(), web); err != nil {
		t.Fatal(err)
	}
	until(t, "a pod has series", func(ctx context.Context) error {
		metrics, err := scrape(ctx, "http://"+node.IP()+":9497/metrics")
		if err != nil {
			return err
		}
		// runc's own copy may be in the container's cgroup when it is executed: see release.is.
		for _, want := range []string{`process_starts_total\{namespace="shop",pod="web",container="server"\} [12]$`, `tasks\{namespace="shop",pod="web",container="server",state="sleeping"\} `} {
			if !regexp.MustCompile("(?m)^" + want).MatchString(metrics) {
				return fmt.Errorf("there is no %s in\n%s", want, strings.Join(regexp.MustCompile(`(?m)^.*namespace="shop".*$`).FindAllString(metrics, 20), "\n"))
			}
		}
		return nil
	})

	page, err := os.ReadFile(filepath.Join(root, "docs/how-to/install-on-kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	// A Prometheus, configured as the page says.
	scraping := regexp.MustCompile("(?s)```yaml prometheus.yml\n(.*?)```").FindSubmatch(page)
	if scraping == nil {
		t.Fatal("the page has no configuration for Prometheus")
	}
	configuration := strings.Replace(string(scraping[1]), "- role: pod\n", "- role: pod\n        kubeconfig_file: "+c.InsideKubeconfig()+"\n", 1)
	prometheus, err := c.StartPrometheus(t.Context(), "global: {scrape_interval: 1s}\n"+configuration)
	if err != nil {
		t.Fatal(err)
	}
	query := func(expression string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if _, err := prometheus.WaitQuery(ctx, expression, func(v model.Vector) error {
			if len(v) != 1 {
				return fmt.Errorf("%s: %d series, want 1", expression, len(v))
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	query(`process_starts_total{namespace="shop", pod="web", container="server", instance="` + node.Name() + `", job="kaon"}`)
	query(`histogram_count(runqueue_latency_seconds{namespace="shop", pod="web", container="server"}) > 0`)
	query(`runqueue_latency_seconds_bucket{namespace="shop", pod="web", container="server", le="+Inf"} > 0`)
	// What is about no pod does not look as if it were about the agent's.
	query(`kaon_kube_connected{namespace="", pod="", container="", source="api"}`)

	// Who may create what, as the page says.
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1) {
		if err := c.Apply(t.Context(), string(block[1])); err != nil {
			t.Fatal(err)
		}
	}
	create := func(source string) error {
		path := filepath.Join(t.TempDir(), "program.yaml")
		if err := os.WriteFile(path, []byte("{apiVersion: kaon.dev/v1alpha1, kind: Program, metadata: {name: mine}, spec: {source: {"+source+"}}}"), 0o644); err != nil {
			return err
		}
		_, err := c.Kubectl(t.Context(), "apply", "--dry-run=server", "--as=ann", "--as-group=observers", "--as-group=system:authenticated", "--filename", path)
		return err
	}
	until(t, "a policy takes effect", func(context.Context) error {
		err := create("object: {path: /x.o}")
		if err == nil {
			return errors.New("code of one's own is permitted")
		}
		if !strings.Contains(err.Error(), "built-in programs only") {
			return fmt.Errorf("code of one's own is refused for another reason: %w", err)
		}
		return nil
	})
	if err := create("builtin: softirq"); err != nil {
		t.Error(err)
	}

	until(t, "one command on a node tells", func(ctx context.Context) error {
		out, err := c.Logs(ctx, "default", debugger, "debugger")
		if err == nil && (!strings.Contains(out, "namespace=shop") || !strings.Contains(out, "pod=web")) {
			err = fmt.Errorf("there is no pod web in %s", out)
		}
		return err
	})

	directory := t.TempDir()
	key, certificate := filepath.Join(directory, "tls.key"), filepath.Join(directory, "tls.crt")
	if out, err := exec.CommandContext(t.Context(), "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=kaon", "-keyout", key, "-out", certificate).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kubectl("--namespace", "kaon", "create", "secret", "tls", "kaon-tls", "--cert", certificate, "--key", key)
	run("upgrade", "kaon", chart, "--namespace", "kaon", "--values", file, "--wait", "--timeout", "2m", "--set", "web.tlsSecretName=kaon-tls",
		"--set", "web.basicAuthUsers.prometheus=$2b$10$vTW03f1tGsUxzNGxLB8uVOgjkWB2KNy5ecRZkma6ZUQLkllNVA4iW")
	until(t, "TLS and a password", func(ctx context.Context) error {
		_, err := scrape(ctx, "--insecure", "--user", "prometheus:secret", "https://"+node.IP()+":9497/-/ready")
		return err
	})
	if _, err := scrape(t.Context(), "--insecure", "https://"+node.IP()+":9497/metrics"); err == nil {
		t.Error("metrics are there for everybody")
	}
	run("uninstall", "kaon", "--namespace", "kaon", "--wait", "--timeout", "1m")
}
