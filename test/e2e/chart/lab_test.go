package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/test/sandbox"
)

// forwarded is the lab as somebody outside of the cluster has it: through one kubectl port-forward.
type forwarded struct {
	address string
	client  http.Client
}

// forward runs kubectl port-forward until the test ends. A pod that is replaced needs another.
func (r *release) forward(t *testing.T) *forwarded {
	t.Helper()
	address, err := sandbox.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(address, ":")
	ctx, cancel := context.WithCancel(context.Background())
	var wait sync.WaitGroup
	wait.Go(func() {
		for ctx.Err() == nil { // it ends when there is no pod yet
			_, _ = r.Kubectl(ctx, "--namespace", "kaon", "port-forward", "deployment/kaon-lab", port+":9498")
		}
	})
	t.Cleanup(wait.Wait)
	t.Cleanup(cancel)
	return &forwarded{address: "localhost:" + port, client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// ask sends a request as a browser does that has the page open, and decodes the answer.
func (f *forwarded) ask(ctx context.Context, method, path, body string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+f.address+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Origin", "http://"+f.address)
	request.Header.Set("Sec-Fetch-Site", "same-origin")
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := f.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// The lab in a cluster: one value of the chart, one port-forward, a Prometheus as the page says, what is injected by its button, and a restart. The
// agent of the node sees the same pod from the kernel.
func TestLab(t *testing.T) {
	r := install(t)
	r.run(t, append([]string{"upgrade", "kaon", filepath.Join(r.root, "deploy/helm/kaon"), "--wait", "--timeout", "2m",
		"--set", "lab.enabled=true,networkPolicy.enabled=true,lab.extraArgs={--warp=20}"}, r.options...)...)
	page, err := os.ReadFile(filepath.Join(r.root, "docs/how-to/lab-on-kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	scraping := regexp.MustCompile("(?s)```yaml prometheus.yml\n(.*?)```").FindSubmatch(page)
	if scraping == nil {
		t.Fatal("the page has no configuration for Prometheus")
	}
	prometheus, err := r.StartPrometheus(t.Context(), strings.Replace(string(scraping[1]), "- role: pod\n", "- role: pod\n        kubeconfig_file: "+r.InsideKubeconfig()+"\n", 1))
	if err != nil {
		t.Fatal(err)
	}
	query := func(expression string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if _, err := prometheus.WaitQuery(ctx, expression, func(v model.Vector) error {
			if len(v) != 1 {
				return fmt.Errorf("%d series, want 1", len(v))
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", expression, err)
		}
	}
	const target = `{namespace="kaon", pod=~"kaon-lab-.*", container="lab", job="kaon-lab"}`

	lab := r.forward(t)
	until(t, "the page is there", func(ctx context.Context) error { return lab.ask(ctx, http.MethodGet, "/-/healthy", "", nil) })
	if err := lab.ask(t.Context(), http.MethodPost, "/api/launch", "", nil); err != nil {
		t.Fatal(err)
	}
	query(`accelerator_kicks_total` + target + ` > 0`)
	query(`beam_speed_km_s` + target)
	query(`accelerator_runs_total{result="timeout", pod=~"kaon-lab-.*"} == 1`)
	query(`histogram_count(accelerator_run_duration_seconds` + target + `) == 1`)

	starts := func(metrics string) (n int) {
		if m := regexp.MustCompile(`(?m)^process_starts_total\{namespace="kaon",pod="kaon-lab-[^"]*",container="lab"\} (\d+)$`).FindStringSubmatch(metrics); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
		return n
	}
	var before int
	until(t, "the agent sees the lab", func(ctx context.Context) error {
		metrics, err := r.metrics(ctx)
		if before = starts(metrics); err == nil && before != 1 && before != 2 { // with runc's own copy: see release.is
			err = fmt.Errorf("%d process starts of the lab", before)
		}
		return err
	})
	if err := lab.ask(t.Context(), http.MethodPost, "/api/inject/memory", `{"bytes": 16777216, "seconds": 300}`, nil); err != nil {
		t.Fatal(err)
	}
	query(`accelerator_injected_memory_bytes` + target + ` == 16777216`)
	// More than half of what the container's limit leaves would have it killed.
	if err := lab.ask(t.Context(), http.MethodPost, "/api/inject/memory", `{"bytes": 268435456}`, nil); err == nil {
		t.Error("the lab injects as much memory as its container may have")
	}
	until(t, "the agent sees the lab and what it injects", func(ctx context.Context) error {
		metrics, err := r.metrics(ctx)
		if err != nil {
			return err
		}
		if n := starts(metrics); n != before+1 {
			return fmt.Errorf("%d process starts of the lab, want %d", n, before+1)
		}

		return nil
	})
	// It has no right to load programs, and says so.
	var view struct {
		Available, Loading bool
		Reason             string
	}
	until(t, "the kernel's view is known", func(ctx context.Context) error {
		if err := lab.ask(ctx, http.MethodGet, "/api/kernel", "", &view); err != nil {
			return err
		}
		if view.Loading {
			return errors.New("it is loading")
		}
		return nil
	})
	if view.Available || view.Reason == "" {
		t.Errorf("the kernel's view in a pod without rights: %+v", view)
	}
	t.Log("the lab says of the kernel's view:", view.Reason)

	if _, err := r.Kubectl(t.Context(), "--namespace", "kaon", "rollout", "restart", "deployment/kaon-lab"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Kubectl(t.Context(), "--namespace", "kaon", "rollout", "status", "deployment/kaon-lab", "--timeout=2m"); err != nil {
		t.Fatal(err)
	}
	query(`accelerator_kicks_total` + target + ` == 0`)
	query(`accelerator_injected_memory_bytes` + target + ` == 0`)
}
