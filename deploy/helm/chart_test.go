package helm

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/doctor"
	"github.com/kaon-project/kaon/programs"
	"github.com/kaon-project/kaon/test/sandbox"
)

// everything is a set of values that differ from the defaults wherever that changes what is rendered.
const everything = `
image: {repository: localhost:5000/kaon, digest: "sha256:0123", pullPolicy: Never}
imagePullSecrets: [{name: registry}]
commonLabels: {team: platform}
programs:
  exec: null
  retransmits: {source: {builtin: tcpretransmit}, nodeSelector: {disk: ssd}}
  syscalls: {params: {errors_only: "true"}}
  meminfo: {metrics: [{from: {file: {path: /proc/meminfo, field: MemFree}}, name: free_bytes, type: gauge}]}
config:
  staticLabels: {cluster: north}
  kubernetes: {labels: [app.kubernetes.io/name], owner: true}
  web: {profiling: true}
web: {tlsSecretName: kaon-tls, basicAuthUsers: {prometheus: $2b$10$abc}}
agent:
  port: 9500
  hostNetwork: false
  hostPID: false
  capabilities: [BPF, PERFMON, SYS_ADMIN]
  seccompProfile: {type: Unconfined}
  appArmorProfile: {type: RuntimeDefault}
  pins: false
  resources: {requests: {cpu: 1, memory: 1Gi}}
  priorityClassName: system-node-critical
  tolerations: [{key: a, operator: Equal, value: b, effect: NoSchedule, tolerationSeconds: 5}]
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
  updateStrategy: {type: OnDelete, rollingUpdate: null}
  podAnnotations: {a: b}
  podLabels: {c: d}
  extraArgs: [--cgroup-root=/sys/fs/cgroup/kubepods]
  extraEnv: [{name: A, value: b}]
  extraVolumes: [{name: objects, hostPath: {path: /opt/objects}}]
  extraVolumeMounts: [{name: objects, mountPath: /objects, readOnly: true}]
controller:
  replicas: 2
  port: 1
  metricsPort: 2
  priorityClassName: high
  tolerations: [{operator: Exists}]
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname}]}}
  podAnnotations: {a: b}
  podLabels: {c: d}
serviceAccount: {annotations: {a: b}}
podMonitor:
  enabled: false
  labels: {release: prometheus}
  interval: 30s
  scrapeTimeout: 20s
  nativeHistograms: false
  classicHistograms: false
  tlsConfig: {ca: {secret: {name: ca, key: ca.crt}}}
  basicAuth: {username: {name: u, key: user}, password: {name: u, key: password}}
  relabelings: [{targetLabel: zone, replacement: a}]
  metricRelabelings: [{action: drop, sourceLabels: [__name__], regex: go_.*}]
serviceMonitor: {enabled: true}
prometheusRule: {enabled: true, labels: {release: prometheus}}
dashboard: {labels: {grafana: "yes"}, annotations: {folder: Kaon}, namespace: grafana}
networkPolicy: {enabled: true, from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}]}
lab:
  enabled: true
  mode: physics
  program: "KICK_POWER = 40\n\ndef kick(turn, beam):\n    return KICK_POWER\n"
  port: 8080
  hosts: [lab.example]
  scrapeInterval: 5s
  resources: {limits: {cpu: 2}}
  nodeSelector: {kubernetes.io/os: linux, disk: ssd}
  tolerations: [{operator: Exists}]
  affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname}]}}
  podAnnotations: {a: b}
  podLabels: {c: d}
  extraArgs: [--seed=7]
`

// Helm finds nothing to complain about.
func TestLint(t *testing.T) {
	for name, arguments := range map[string][]string{
		"defaults": nil, "everything": {"--values", writeValues(t, everything)},
	} {
		out, err := run(t, append([]string{"lint", "--strict", chart}, arguments...)...)
		if err != nil || strings.Contains(out, "[WARNING]") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// What the chart makes are objects of Kubernetes without unknown fields, whatever the values.
func TestRendered(t *testing.T) {
	all := parse(t, template(t, "--values", writeValues(t, everything)))
	defaults := parse(t, template(t, "--api-versions", operatorKinds))
	for id := range defaults.typed {
		if kind, _, _ := strings.Cut(id, "/"); !slices.Contains([]string{"DaemonSet", "Deployment", "ConfigMap", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}, kind) {
			t.Errorf("by default there is %s", id)
		}
	}
	for _, id := range []string{"Service/kaon", "NetworkPolicy/kaon", "NetworkPolicy/kaon-controller", "Secret/kaon-web", "NetworkPolicy/kaon-lab", "Service/kaon-lab", "ConfigMap/kaon-lab", "ConfigMap/kaon-lab-dashboard"} {
		if all.typed[id] == nil {
			t.Errorf("with all values there is no %s", id)
		}
	}
	for _, id := range []string{"PodMonitor/kaon", "PodMonitor/kaon-controller", "PrometheusRule/kaon"} {
		if defaults.others[id] == nil {
			t.Errorf("with the operator's kinds there is no %s", id)
		}
		if parse(t, template(t)).others[id] != nil {
			t.Errorf("without the operator's kinds there is %s", id)
		}
	}
	if len(get[*corev1.ConfigMap](t, all, "ConfigMap/kaon-dashboard").Data) != 1 || all.typed["ConfigMap/kaon-dashboard"].(*corev1.ConfigMap).Namespace != "grafana" {
		t.Error("the dashboard is not where Grafana looks")
	}
	if _, err := run(t, "template", chart, "--set", "podMonitor.enabled=true,serviceMonitor.enabled=true"); err == nil || !strings.Contains(err.Error(), "scraped twice") {
		t.Errorf("PodMonitor and ServiceMonitor together: %v", err)
	}
	for _, wrong := range []string{"agent.hostPid=true", "image.pullPolicy=Sometimes", "controller.replicas=two", "podMonitor.enabled=maybe", "programs.x=y"} {
		if _, err := run(t, "template", chart, "--set", wrong); err == nil || !strings.Contains(err.Error(), "schema") {
			t.Errorf("--set %s: %v, want the schema to refuse it", wrong, err)
		}
	}
}

// The agents' container may do what it needs, and nothing else.
func TestAgentSecurity(t *testing.T) {
	defaults := parse(t, template(t))
	pod := get[*appsv1.DaemonSet](t, defaults, "DaemonSet/kaon").Spec.Template.Spec
	c := pod.Containers[0].SecurityContext
	if *c.Privileged || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem {
		t.Errorf("the container is privileged, can become so or can write to its root: %+v", c)
	}
	if !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) || slices.Contains(c.Capabilities.Add, "SYS_ADMIN") {
		t.Errorf("the capabilities are %+v", c.Capabilities)
	}
	if !pod.HostPID || !pod.HostNetwork || pod.HostIPC {
		t.Errorf("hostPID %v, hostNetwork %v, hostIPC %v", pod.HostPID, pod.HostNetwork, pod.HostIPC)
	}
	writable := map[string]bool{}
	for _, m := range pod.Containers[0].VolumeMounts {
		if !m.ReadOnly {
			writable[m.MountPath] = true
		}
	}
	if want := map[string]bool{"/sys/fs/bpf": true}; !reflect.DeepEqual(writable, want) {
		t.Errorf("writable are %v, want %v", writable, want)
	}
	var hostPaths []string
	for _, v := range pod.Volumes {
		if v.HostPath != nil {
			hostPaths = append(hostPaths, v.HostPath.Path)
		}
	}
	slices.Sort(hostPaths)
	if want := []string{"/sys/fs/bpf", "/sys/fs/cgroup", "/sys/kernel/tracing"}; !slices.Equal(hostPaths, want) {
		t.Errorf("of the node it sees %v, want %v", hostPaths, want)
	}
	if tolerations := pod.Tolerations; len(tolerations) != 1 || tolerations[0] != (corev1.Toleration{Operator: corev1.TolerationOpExists}) {
		t.Errorf("it tolerates %+v, want everything", tolerations)
	}

	all := parse(t, template(t, "--values", writeValues(t, everything)))
	pod = get[*appsv1.DaemonSet](t, all, "DaemonSet/kaon").Spec.Template.Spec
	if pod.HostPID || pod.HostNetwork {
		t.Error("hostPID and hostNetwork can't be switched off")
	}
	// The API server refuses false with this capability.
	if c := pod.Containers[0].SecurityContext; !*c.AllowPrivilegeEscalation {
		t.Error("allowPrivilegeEscalation is false together with SYS_ADMIN")
	}
	privileged := get[*appsv1.DaemonSet](t, parse(t, template(t, "--set", "agent.privileged=true")), "DaemonSet/kaon").Spec.Template.Spec.Containers[0].SecurityContext
	if !*privileged.Privileged || privileged.Capabilities != nil || privileged.AllowPrivilegeEscalation != nil || !*privileged.ReadOnlyRootFilesystem {
		t.Errorf("a privileged container is %+v", privileged)
	}

	controller := get[*appsv1.Deployment](t, defaults, "Deployment/kaon-controller").Spec.Template.Spec
	if s, c := controller.SecurityContext, controller.Containers[0].SecurityContext; !*s.RunAsNonRoot || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || len(c.Capabilities.Add) > 0 {
		t.Errorf("the controller is %+v, %+v", s, c)
	}
	if controller.HostPID || controller.HostNetwork || len(controller.Volumes) > 0 {
		t.Error("the controller sees something of its node")
	}
}

// The capabilities suffice for each hook of a built-in Program, where the kernel asks for no more.
func TestCapabilities(t *testing.T) {
	added := get[*appsv1.DaemonSet](t, parse(t, template(t)), "DaemonSet/kaon").Spec.Template.Spec.Containers[0].SecurityContext.Capabilities.Add
	needs := map[string][]doctor.Capability{}
	for _, r := range doctor.Requirements() {
		needs[string(r.Kind)] = r.Capabilities
	}
	for _, name := range programs.Names() {
		specs, err := agent.Resolve(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range specs {
			for _, h := range spec.Hooks {
				for _, c := range needs[string(h.Kind)] {
					if !slices.Contains(added, corev1.Capability(strings.TrimPrefix(c.String(), "CAP_"))) {
						t.Errorf("program %s, function %s: a %s hook needs %v", name, h.Function, h.Kind, c)
					}
				}
			}
		}
	}
}

// Agents read Secrets of their own namespace only, and only the controller writes anything.
func TestRights(t *testing.T) {
	r := parse(t, template(t))
	for id, object := range r.typed {
		var rules []rbacv1.PolicyRule
		cluster := false
		switch o := object.(type) {
		case *rbacv1.ClusterRole:
			rules, cluster = o.Rules, true
		case *rbacv1.Role:
			rules = o.Rules
		}
		for _, rule := range rules {
			for _, list := range [][]string{rule.APIGroups, rule.Resources, rule.Verbs} {
				if slices.Contains(list, "*") {
					t.Errorf("%s: a wildcard: %+v", id, rule)
				}
			}
			if cluster && (slices.Contains(rule.Resources, "secrets") || slices.Contains(rule.Resources, "configmaps")) {
				t.Errorf("%s: Secrets or ConfigMaps of all namespaces: %+v", id, rule)
			}
			writes := slices.ContainsFunc(rule.Verbs, func(v string) bool { return !slices.Contains([]string{"get", "list", "watch"}, v) })
			if writes && !strings.HasSuffix(id, "/kaon-controller") && !strings.HasSuffix(id, "/kaon-program-editor") {
				t.Errorf("%s: it may write: %+v", id, rule)
			}
			if writes && slices.Contains(rule.Resources, "programs") && !strings.HasSuffix(id, "-editor") {
				t.Errorf("%s: it may change Programs: %+v", id, rule)
			}
		}
	}
	for id, object := range r.typed {
		if b, ok := object.(*rbacv1.ClusterRoleBinding); ok && (r.typed["ClusterRole/"+b.RoleRef.Name] == nil || r.typed["ServiceAccount/"+b.Subjects[0].Name] == nil) {
			t.Errorf("%s binds %s to %s, which are not there", id, b.RoleRef.Name, b.Subjects[0].Name)
		}
		if b, ok := object.(*rbacv1.RoleBinding); ok && (r.typed["Role/"+b.RoleRef.Name] == nil || r.typed["ServiceAccount/"+b.Subjects[0].Name] == nil) {
			t.Errorf("%s binds %s to %s, which are not there", id, b.RoleRef.Name, b.Subjects[0].Name)
		}
	}
}

// The rights are those of which the end-to-end tests show that all are needed, and no more.
func TestRightsAreTested(t *testing.T) {
	roles := func(r rendered) map[string][]string {
		all := map[string][]string{}
		for id, object := range r.typed {
			var rules []rbacv1.PolicyRule
			switch o := object.(type) {
			case *rbacv1.ClusterRole:
				rules = o.Rules
			case *rbacv1.Role:
				rules = o.Rules
			}
			for _, rule := range rules {
				all[id] = append(all[id], rule.String())
			}
			slices.Sort(all[id])
		}
		return all
	}
	got := roles(parse(t, template(t)))
	for id, want := range roles(parse(t, read(t, root+"/test/e2e/testdata/rbac.yaml"))) {
		if !slices.Equal(got[id], want) {
			t.Errorf("%s has\n%s\nwant\n%s", id, strings.Join(got[id], "\n"), strings.Join(want, "\n"))
		}
	}
}

// Selectors select the pods that they are about, and what is mounted is there.
func TestWiring(t *testing.T) {
	for name, text := range map[string]string{"defaults": template(t), "everything": template(t, "--values", writeValues(t, everything))} {
		r := parse(t, text)
		agents, controller := get[*appsv1.DaemonSet](t, r, "DaemonSet/kaon"), get[*appsv1.Deployment](t, r, "Deployment/kaon-controller")
		selects := func(what string, selector map[string]string, template corev1.PodTemplateSpec) {
			t.Helper()
			for key, value := range selector {
				if template.Labels[key] != value {
					t.Errorf("%s: %s wants %s=%s, pods have %q", name, what, key, value, template.Labels[key])
				}
			}
		}
		selects("DaemonSet", agents.Spec.Selector.MatchLabels, agents.Spec.Template)
		selects("Deployment", controller.Spec.Selector.MatchLabels, controller.Spec.Template)
		templates := []corev1.PodTemplateSpec{agents.Spec.Template, controller.Spec.Template}
		if lab, ok := r.typed["Deployment/kaon-lab"].(*appsv1.Deployment); ok {
			templates = append(templates, lab.Spec.Template)
			selects("the lab's Deployment", lab.Spec.Selector.MatchLabels, lab.Spec.Template)
			selects("the lab's Service", get[*corev1.Service](t, r, "Service/kaon-lab").Spec.Selector, lab.Spec.Template)
			if p, ok := r.typed["NetworkPolicy/kaon-lab"].(*networkingv1.NetworkPolicy); ok {
				selects("the lab's NetworkPolicy", p.Spec.PodSelector.MatchLabels, lab.Spec.Template)
			}
		}
		if s, ok := r.typed["Service/kaon"].(*corev1.Service); ok {
			selects("Service", s.Spec.Selector, agents.Spec.Template)
		}
		if p, ok := r.typed["NetworkPolicy/kaon"].(*networkingv1.NetworkPolicy); ok {
			selects("NetworkPolicy", p.Spec.PodSelector.MatchLabels, agents.Spec.Template)
		}
		for _, template := range templates {
			volumes := map[string]bool{}
			for _, v := range template.Spec.Volumes {
				volumes[v.Name] = true
				if v.ConfigMap != nil && r.typed["ConfigMap/"+v.ConfigMap.Name] == nil {
					t.Errorf("%s: there is no ConfigMap %s", name, v.ConfigMap.Name)
				}
			}
			for _, m := range template.Spec.Containers[0].VolumeMounts {
				if !volumes[m.Name] {
					t.Errorf("%s: there is no volume %s", name, m.Name)
				}
				delete(volumes, m.Name)
			}
			if len(volumes) > 0 {
				t.Errorf("%s: volumes %v are not mounted", name, volumes)
			}
			if name := template.Spec.ServiceAccountName; name != "" && r.typed["ServiceAccount/"+name] == nil {
				t.Errorf("%s: there is no ServiceAccount %s", name, template.Spec.ServiceAccountName)
			}
		}
		for id, other := range r.others {
			if spec, _ := other["spec"].(map[string]any); strings.Contains(id, "Monitor/") {
				labels := map[string]string{}
				for key, value := range spec["selector"].(map[string]any)["matchLabels"].(map[string]any) {
					labels[key] = value.(string)
				}
				template := agents.Spec.Template
				switch {
				case strings.HasSuffix(id, "-controller"):
					template = controller.Spec.Template
				case strings.HasSuffix(id, "-lab"):
					template = templates[2]
				}
				selects(id, labels, template)
			}
		}
	}
}

// Changes of fields that are read at start restart the agents, others don't.
func TestRestarts(t *testing.T) {
	annotations := func(set string) string {
		r := parse(t, template(t, "--set", set))
		return get[*appsv1.DaemonSet](t, r, "DaemonSet/kaon").Spec.Template.Annotations["kaon.dev/config-at-start"]
	}
	before := annotations("config.staticLabels.a=b")
	if after := annotations("config.staticLabels.a=c"); after != before {
		t.Error("a change of staticLabels restarts the agents")
	}
	for _, set := range []string{"config.cgroupRoot=/kubepods", "web.tlsSecretName=x"} {
		if annotations(set) == before {
			t.Errorf("%s does not restart the agents", set)
		}
	}
}

// The agents' configuration is one, with and without TLS.
func TestConfig(t *testing.T) {
	for name, text := range map[string]string{"defaults": template(t), "everything": template(t, "--values", writeValues(t, everything))} {
		r := parse(t, text)
		path := filepath.Join(t.TempDir(), "kaon.yaml")
		if err := os.WriteFile(path, []byte(get[*corev1.ConfigMap](t, r, "ConfigMap/kaon").Data["kaon.yaml"]), 0o644); err != nil {
			t.Fatal(err)
		}
		config, err := agent.ReadConfig(path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name == "everything" && (config.Web.ConfigFile != "/etc/kaon-web/web.yaml" || !config.Web.Profiling || config.StaticLabels["cluster"] != "north") {
			t.Errorf("the configuration became %+v", config)
		}
	}
	web := get[*corev1.Secret](t, parse(t, template(t, "--values", writeValues(t, everything))), "Secret/kaon-web").StringData["web.yaml"]
	var parsed struct {
		TLS   map[string]string `json:"tls_server_config"`
		Users map[string]string `json:"basic_auth_users"`
	}
	if raw, err := yaml.ToJSON([]byte(web)); err != nil || json.Unmarshal(raw, &parsed) != nil || parsed.TLS["cert_file"] == "" || parsed.Users["prometheus"] != "$2b$10$abc" {
		t.Errorf("web.yaml is %s", web)
	}
}

// The Programs are the default set; null leaves one out, and a spec of its own stays.
func TestPrograms(t *testing.T) {
	r := parse(t, template(t))
	var got []string
	for id, o := range r.others {
		if name, ok := strings.CutPrefix(id, "Program/"); ok {
			got = append(got, name)
			if want := map[string]any{"source": map[string]any{"builtin": name}}; !reflect.DeepEqual(o["spec"], want) {
				t.Errorf("Program %s is %v, want %v", name, o["spec"], want)
			}
		}
	}
	slices.Sort(got)
	want := slices.Sorted(slices.Values(programs.Default()))
	if !slices.Equal(got, want) {
		t.Errorf("Programs are %v, want the default set: %v", got, want)
	}
	r = parse(t, template(t, "--values", writeValues(t, everything)))
	if r.others["Program/exec"] != nil {
		t.Error("exec: null does not leave it out")
	}
	for name, want := range map[string]string{
		"retransmits": `{"nodeSelector":{"disk":"ssd"},"source":{"builtin":"tcpretransmit"}}`,
		"syscalls":    `{"params":{"errors_only":"true"},"source":{"builtin":"syscalls"}}`,
		"meminfo":     `{"metrics":[{"from":{"file":{"field":"MemFree","path":"/proc/meminfo"}},"name":"free_bytes","type":"gauge"}]}`,
	} {
		if got, err := json.Marshal(r.others["Program/"+name]["spec"]); err != nil || string(got) != want {
			t.Errorf("Program %s is %s, want %s", name, got, want)
		}
	}
}

// Rules and dashboard are those of deploy/prometheus and deploy/grafana.
func TestMonitoring(t *testing.T) {
	r := parse(t, template(t, "--api-versions", operatorKinds))
	same := func(what string, got any, path string) {
		t.Helper()
		raw, err := yaml.ToJSON([]byte(read(t, path)))
		if err != nil {
			t.Fatal(err)
		}
		var want any
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the %s is not %s", what, path)
		}
	}
	same("PrometheusRule", r.others["PrometheusRule/kaon"]["spec"], root+"/deploy/prometheus/kaon.rules.yaml")
	var dashboard any
	if err := json.Unmarshal([]byte(get[*corev1.ConfigMap](t, r, "ConfigMap/kaon-dashboard").Data["kaon.json"]), &dashboard); err != nil {
		t.Fatal(err)
	}
	same("dashboard", dashboard, root+"/deploy/grafana/kaon.json")
	endpoint := r.others["PodMonitor/kaon"]["spec"].(map[string]any)["podMetricsEndpoints"].([]any)[0].(map[string]any)
	if endpoint["honorLabels"] != true {
		t.Error("the PodMonitor does not honor labels: pod would be the agent's")
	}
}

// The binary knows the commands and options that the manifests give it.
func TestArguments(t *testing.T) {
	binary, err := sandbox.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"defaults": template(t), "everything": template(t, "--values", writeValues(t, everything))} {
		r := parse(t, text)
		all := [][]string{
			get[*appsv1.DaemonSet](t, r, "DaemonSet/kaon").Spec.Template.Spec.Containers[0].Args,
			get[*appsv1.Deployment](t, r, "Deployment/kaon-controller").Spec.Template.Spec.Containers[0].Args,
		}
		if lab, ok := r.typed["Deployment/kaon-lab"].(*appsv1.Deployment); ok {
			all = append(all, lab.Spec.Template.Spec.Containers[0].Args)
		}
		for _, arguments := range all {
			// Options are parsed before help is given.
			out, err := exec.CommandContext(t.Context(), binary, append(arguments, "--help")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "kaon "+arguments[0]) {
				t.Errorf("%s: kaon %s: %v\n%s", name, strings.Join(arguments, " "), err, out)
			}
		}
	}
}
