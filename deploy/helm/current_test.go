package helm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/programs"
)

// value is one of the chart's values.
type value struct {
	path, help string
	// standard is the default as JSON.
	standard any
	// children are set for groups of values.
	children []value
}

// special are schemas of values whose default does not tell it.
var special = map[string]string{
	"image.pullPolicy":            `{"enum": ["Always", "IfNotPresent", "Never"]}`,
	"programs":                    `{"type": "object", "additionalProperties": {"type": "object"}}`,
	"web.basicAuthUsers":          `{"type": "object", "additionalProperties": {"type": "string"}}`,
	"agent.logLevel":              `{"enum": ["debug", "info", "warn", "error"]}`,
	"agent.logFormat":             `{"enum": ["text", "json"]}`,
	"agent.capabilities":          `{"type": "array", "items": {"type": "string", "pattern": "^[A-Z_]+$"}}`,
	"controller.logLevel":         `{"enum": ["debug", "info", "warn", "error"]}`,
	"controller.logFormat":        `{"enum": ["text", "json"]}`,
	"podMonitor.enabled":          `{"enum": [true, false, "auto"]}`,
	"podMonitor.nativeHistograms": `{"enum": [true, false, "auto"]}`,
	"prometheusRule.enabled":      `{"enum": [true, false, "auto"]}`,
	"serviceAccount.annotations":  `{"type": "object", "additionalProperties": {"type": "string"}}`,
	"agent.updateStrategy":        `{"type": "object"}`,
	"dashboard.labels":            `{"type": "object", "additionalProperties": {"type": "string"}}`,
	"agent.nodeSelector":          `{"type": "object", "additionalProperties": {"type": "string"}}`,
	"controller.nodeSelector":     `{"type": "object", "additionalProperties": {"type": "string"}}`,
	"agent.seccompProfile":        `{"type": "object"}`,
	"agent.resources":             `{"type": "object"}`,
	"lab.mode":                    `{"enum": ["compatible", "physics"]}`,
	"lab.resources":               `{"type": "object"}`,
	"lab.nodeSelector":            `{"type": "object", "additionalProperties": {"type": "string"}}`,
	"lab.hosts":                   `{"type": "array", "items": {"type": "string"}}`,
	"networkPolicy.from":          `{"type": "array", "items": {"type": "object"}}`,
}

// values reads what a mapping of values.yaml has. A mapping is a group if its members have comments.
func values(t *testing.T, prefix string, mapping *yaml.Node) []value {
	t.Helper()
	var all []value
	for i := 0; i < len(mapping.Content); i += 2 {
		key, node := mapping.Content[i], mapping.Content[i+1]
		v := value{path: prefix + key.Value, help: strings.ReplaceAll(strings.ReplaceAll(key.HeadComment, "\n# ", " "), "# ", "")}
		if node.Kind == yaml.MappingNode && len(node.Content) > 0 && node.Content[0].HeadComment != "" {
			v.children = values(t, v.path+".", node)
		} else if err := node.Decode(&v.standard); err != nil {
			t.Fatal(err)
		}
		if v.help == "" && v.children == nil {
			t.Errorf("values.yaml: %s has no comment", v.path)
		}
		all = append(all, v)
	}
	return all
}

func readValues(t *testing.T) []value {
	t.Helper()
	var document yaml.Node
	// The comment at the top is about the file.
	_, text, _ := strings.Cut(read(t, chart+"/values.yaml"), "\n\n")
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	return values(t, "", document.Content[0])
}

func rows(b *strings.Builder, all []value) {
	for _, v := range all {
		if v.children != nil {
			rows(b, v.children)
			continue
		}
		standard, err := json.Marshal(v.standard)
		if err != nil || v.path == "programs" {
			standard = []byte("the default set")
		}
		text := "`" + string(standard) + "`"
		if string(standard) == `""` || v.path == "programs" {
			text = strings.Trim(text, "`\"")
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", v.path, strings.ReplaceAll(v.help, "|", "\\|"), text)
	}
}

// schema returns the JSON schema of values.
func schema(t *testing.T, all []value) map[string]any {
	t.Helper()
	properties := map[string]any{}
	for _, v := range all {
		s := map[string]any{}
		switch standard := v.standard.(type) {
		case bool:
			s["type"] = "boolean"
		case int:
			s["type"], s["minimum"] = "integer", 0
		case string:
			s["type"] = "string"
		case []any:
			s["type"] = "array"
		case map[string]any:
			s["type"] = "object"
		case nil:
			s = schema(t, v.children)
		default:
			t.Fatalf("values.yaml: %s: what is a %T?", v.path, standard)
		}
		if text, ok := special[v.path]; ok {
			s = map[string]any{}
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				t.Fatalf("schema of %s: %v", v.path, err)
			}
		}
		if v.help != "" {
			s["description"] = v.help
		}
		properties[v.path[strings.LastIndex(v.path, ".")+1:]] = s
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

const pageHead = `# Helm chart

<!-- Written by "go test ./deploy/helm -run TestCurrent -update" from values.yaml; don't edit. -->

An agent on each node, the controller, the definition of Programs, and what Prometheus and Grafana take: [how to install it](../../../docs/how-to/install-on-kubernetes.md).

| value | meaning | default |
|---|---|---|
`

const manifestsHead = `# Written by "make docs" from deploy/helm/kaon with its default values, without the dashboard (deploy/grafana/kaon.json); don't edit.
# Programs are in programs.yaml, which needs the definition below to be established.
apiVersion: v1
kind: Namespace
metadata:
  name: kaon
  labels:
    # Agents see the node's processes, network and cgroups.
    pod-security.kubernetes.io/enforce: privileged
`

// defaultPrograms are the lines of values.yaml that name the default set.
var defaultPrograms = regexp.MustCompile(`(?m)^programs:\n(  [a-z0-9]+: \{\}\n)+`)

// What is made of values.yaml and of the chart is committed, and the chart's copies are what they are copies of.
func TestCurrent(t *testing.T) {
	set := "programs:\n"
	for _, name := range programs.Default() {
		set += "  " + name + ": {}\n"
	}
	current(t, chart+"/values.yaml", defaultPrograms.ReplaceAllLiteralString(read(t, chart+"/values.yaml"), set))
	all := readValues(t)
	var page strings.Builder
	page.WriteString(pageHead)
	rows(&page, all)
	whole := schema(t, all)
	whole["$schema"], whole["title"] = "http://json-schema.org/draft-07/schema#", "Values of the chart kaon"
	whole["properties"].(map[string]any)["global"] = map[string]any{"type": "object", "description": "Values of a chart that this one is part of. Not used."}
	properties, err := json.MarshalIndent(whole, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard, labDashboard bytes.Buffer
	// A ConfigMap that kubectl applies may not be longer than 256 KiB.
	if err := errors.Join(json.Compact(&dashboard, []byte(read(t, root+"/deploy/grafana/kaon.json"))),
		json.Compact(&labDashboard, []byte(read(t, root+"/deploy/grafana/kaon-lab.json")))); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		chart + "/README.md":             page.String(),
		chart + "/values.schema.json":    string(properties) + "\n",
		chart + "/files/kaon.json":       dashboard.String(),
		chart + "/files/kaon-lab.json":   labDashboard.String(),
		chart + "/files/kaon.rules.yaml": read(t, root+"/deploy/prometheus/kaon.rules.yaml"),
	}
	crds, err := filepath.Glob(root + "/deploy/crds/*.yaml")
	if err != nil || len(crds) == 0 {
		t.Fatalf("there are no definitions: %v", err)
	}
	for _, path := range crds {
		files[chart+"/crds/"+filepath.Base(path)] = read(t, path)
	}
	for path, want := range files {
		current(t, path, want)
	}
	copies, err := filepath.Glob(chart + "/crds/*")
	if err != nil || len(copies) != len(crds) {
		t.Errorf("the chart has the definitions %v, deploy/crds %v", copies, crds)
	}
}

const labManifestsHead = `# Written by "make docs" from deploy/helm/kaon: the accelerator lab, without its dashboard (deploy/grafana/kaon-lab.json); don't edit.
# It needs nothing but a namespace: kubectl create namespace kaon.
`

var (
	programResource = regexp.MustCompile(`(?m)^kind: Program$`)
	// helmsOwn are lines that are true of a release only.
	helmsOwn = regexp.MustCompile(`(?m)^# Source: .*\n|^ *app.kubernetes.io/managed-by: Helm\n`)
)

// The plain manifests are the chart with its default values.
func TestManifests(t *testing.T) {
	var core, own strings.Builder
	core.WriteString(manifestsHead)
	own.WriteString("# Written by \"make docs\" from deploy/helm/kaon: the Programs that run by default; don't edit.\n")
	for _, document := range separator.Split(template(t, "--include-crds", "--set", "dashboard.enabled=false"), -1) {
		document = strings.TrimSpace(helmsOwn.ReplaceAllString(document, "")) + "\n"
		b := &core
		if programResource.MatchString(document) {
			b = &own
		}
		if strings.Trim(document, "\n") != "" {
			b.WriteString("---\n" + document)
		}
	}
	current(t, root+"/deploy/kubernetes/kaon.yaml", core.String())
	current(t, root+"/deploy/kubernetes/programs.yaml", own.String())
	current(t, root+"/deploy/kubernetes/lab.yaml", labManifests(t))
	parse(t, core.String())
	if !strings.Contains(core.String(), strings.TrimSpace(read(t, root+"/deploy/crds/programs.kaon.dev.yaml"))) {
		t.Error("the manifests lack the definition of Programs")
	}
}

// labManifests are what lab.enabled adds.
func labManifests(t *testing.T) string {
	t.Helper()
	without := map[string]bool{}
	for _, document := range separator.Split(template(t, "--set", "dashboard.enabled=false"), -1) {
		without[document] = true
	}
	var b strings.Builder
	b.WriteString(labManifestsHead)
	for _, document := range separator.Split(template(t, "--set", "dashboard.enabled=false,lab.enabled=true"), -1) {
		if !without[document] {
			b.WriteString("---\n" + strings.TrimSpace(helmsOwn.ReplaceAllString(document, "")) + "\n")
		}
	}
	parse(t, b.String())
	return b.String()
}

// current compares a file with what it should be, or writes it.
func current(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is out of date (%v): run `make docs`", path, err)
	}
}
