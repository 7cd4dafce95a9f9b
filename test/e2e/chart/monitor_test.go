package chart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// podMonitor is what the chart sets in one.
type podMonitor struct {
	Kind     string
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Selector                struct{ MatchLabels map[string]string }
		JobLabel                string
		ScrapeNativeHistograms  bool
		ScrapeClassicHistograms bool
		PodMetricsEndpoints     []struct {
			Port, Path, Scheme string
			HonorLabels        bool
			Relabelings        []struct {
				Action, Regex, TargetLabel string
				SourceLabels               []string
			}
		}
	}
}

// inPodLabel is a label of a pod as relabeling knows it.
func inPodLabel(name string) string {
	mapped := []rune("__meta_kubernetes_pod_label_" + name)
	for i, r := range mapped {
		if r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') {
			mapped[i] = '_'
		}
	}
	return string(mapped)
}

// configuration is what the Prometheus operator makes of the monitor.
func (m podMonitor) configuration(kubeconfig string) (string, error) {
	type relabeling map[string]any
	var jobs []any
	for i, endpoint := range m.Spec.PodMetricsEndpoints {
		var rules []relabeling
		for name, value := range m.Spec.Selector.MatchLabels {
			rules = append(rules, relabeling{"action": "keep", "source_labels": []string{inPodLabel(name)}, "regex": value})
		}
		rules = append(rules,
			relabeling{"action": "keep", "source_labels": []string{"__meta_kubernetes_pod_container_port_name"}, "regex": endpoint.Port},
			relabeling{"source_labels": []string{"__meta_kubernetes_namespace"}, "target_label": "namespace"},
			relabeling{"source_labels": []string{"__meta_kubernetes_pod_container_name"}, "target_label": "container"},
			relabeling{"source_labels": []string{"__meta_kubernetes_pod_name"}, "target_label": "pod"},
			relabeling{"target_label": "job", "replacement": m.Metadata.Namespace + "/" + m.Metadata.Name},
			relabeling{"source_labels": []string{inPodLabel(m.Spec.JobLabel)}, "target_label": "job", "regex": "(.+)"},
			relabeling{"target_label": "endpoint", "replacement": endpoint.Port})
		for _, r := range endpoint.Relabelings {
			rule := relabeling{}
			for field, value := range map[string]string{"action": r.Action, "regex": r.Regex, "target_label": r.TargetLabel} {
				if value != "" {
					rule[field] = value
				}
			}
			if len(r.SourceLabels) > 0 {
				rule["source_labels"] = r.SourceLabels
			}
			rules = append(rules, rule)
		}
		jobs = append(jobs, map[string]any{
			"job_name":                         fmt.Sprintf("podMonitor/%s/%s/%d", m.Metadata.Namespace, m.Metadata.Name, i),
			"honor_labels":                     endpoint.HonorLabels,
			"metrics_path":                     endpoint.Path,
			"scheme":                           endpoint.Scheme,
			"scrape_native_histograms":         m.Spec.ScrapeNativeHistograms,
			"always_scrape_classic_histograms": m.Spec.ScrapeClassicHistograms,
			"kubernetes_sd_configs":            []any{map[string]any{"role": "pod", "kubeconfig_file": kubeconfig, "namespaces": map[string]any{"names": []string{m.Metadata.Namespace}}}},
			"relabel_configs":                  rules,
		})
	}
	text, err := json.Marshal(map[string]any{"global": map[string]string{"scrape_interval": "1s"}, "scrape_configs": jobs})
	return string(text), err
}

// A Prometheus that scrapes as the PodMonitor says answers by pod.
func testPodMonitor(t *testing.T, r *release) {
	rendered := r.run(t, append([]string{"template", "kaon", filepath.Join(r.root, "deploy/helm/kaon"), "--show-only", "templates/podmonitor.yaml",
		"--set", "podMonitor.enabled=true,podMonitor.nativeHistograms=true,controller.enabled=false"}, r.options...)...)
	var monitor podMonitor
	if err := yaml.Unmarshal([]byte(rendered), &monitor); err != nil || monitor.Kind != "PodMonitor" || len(monitor.Spec.PodMetricsEndpoints) != 1 {
		t.Fatalf("%v: %s", err, rendered)
	}
	configuration, err := monitor.configuration(r.InsideKubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	prometheus, err := r.StartPrometheus(t.Context(), configuration)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"red", "blue"} {
		r.pod(t, name, "loop", "50ms", "fork", "1")
	}
	if err := r.fork(t.Context(), "red", 5, "0s"); err != nil {
		t.Fatal(err)
	}
	// The pods that an expression has a value above 0 for.
	query := func(expression string, want ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if _, err := prometheus.WaitQuery(ctx, expression, func(v model.Vector) error {
			var pods []string
			for _, s := range v {
				if s.Value > 0 {
					pods = append(pods, string(s.Metric["pod"]))
				}
			}
			if slices.Sort(pods); !slices.Equal(pods, want) {
				return errors.New("other pods")
			}
			return nil
		}); err != nil {
			t.Errorf("%s: %v", expression, err)
		}
	}
	const shop = `{namespace="shop", pod=~"red|blue", container="main", job="kaon", node="node1", instance="node1"}`
	query(`sum by (pod) (rate(process_starts_total`+shop+`[30s]))`, "blue", "red")
	query(`histogram_count(sum by (pod) (runqueue_latency_seconds`+shop+`))`, "blue", "red")
	query(`histogram_quantile(0.99, sum by (pod) (runqueue_latency_seconds`+shop+`))`, "blue", "red")
	query(`histogram_quantile(0.99, sum by (pod, le) (runqueue_latency_seconds_bucket`+shop+`))`, "blue", "red")
	// What is about no pod is not about the agent's.
	query(`kaon_kube_connected{job="kaon", source="api"}`, "")
}
