package helm

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// operator is the Prometheus operator whose definitions judge the monitors.
const operator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// definition is what is used of a CustomResourceDefinition.
type definition struct {
	Spec struct {
		Names    struct{ Kind string }
		Versions []struct {
			Schema struct {
				OpenAPIV3Schema property `json:"openAPIV3Schema"`
			}
		}
	}
}

// property is a part of a structural schema.
type property struct {
	Type                 string
	Properties           map[string]property
	AdditionalProperties *property
	Items                *property
	Required             []string
	Enum                 []any
	Pattern              string
	IntOrString          bool `json:"x-kubernetes-int-or-string"`
}

// check says what of a value is not as the schema wants it. Unknown fields are.
func (p property) check(where string, v any) []string {
	var wrong []string
	if p.IntOrString {
		return nil
	}
	kind := ""
	switch v := v.(type) {
	case map[string]any:
		kind = "object"
		for _, name := range p.Required {
			if _, ok := v[name]; !ok {
				wrong = append(wrong, where+": "+name+" is missing")
			}
		}
		for name, member := range v {
			switch known, ok := p.Properties[name]; {
			case ok:
				wrong = append(wrong, known.check(where+"."+name, member)...)
			case p.AdditionalProperties != nil:
				wrong = append(wrong, p.AdditionalProperties.check(where+"."+name, member)...)
			default:
				wrong = append(wrong, where+": there is no field "+name)
			}
		}
	case []any:
		kind = "array"
		for i, item := range v {
			if p.Items != nil {
				wrong = append(wrong, p.Items.check(fmt.Sprintf("%s[%d]", where, i), item)...)
			}
		}
	case string:
		kind = "string"
		if p.Pattern != "" && !regexp.MustCompile(p.Pattern).MatchString(v) {
			wrong = append(wrong, fmt.Sprintf("%s: %q does not match %s", where, v, p.Pattern))
		}
	case bool:
		kind = "boolean"
	case float64:
		kind = "integer"
	}
	if kind != p.Type {
		wrong = append(wrong, fmt.Sprintf("%s is of type %s, want %s", where, kind, p.Type))
	}
	if len(p.Enum) > 0 && !slices.Contains(p.Enum, v) {
		wrong = append(wrong, fmt.Sprintf("%s is %v, want one of %v", where, v, p.Enum))
	}
	return wrong
}

// definitions are those of the operator, by kind.
func definitions(t *testing.T) map[string]property {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", operator)
	command.Dir, command.Env = t.TempDir(), append(os.Environ(), "GOFLAGS=-mod=mod")
	out, err := command.Output()
	var module struct{ Dir string }
	if err != nil || json.Unmarshal(out, &module) != nil {
		t.Skipf("needs %s: %v", operator, err)
	}
	files, err := filepath.Glob(module.Dir + "/example/prometheus-operator-crd/monitoring.coreos.com_*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no definitions: %v", operator, err)
	}
	all := map[string]property{}
	for _, path := range files {
		if !strings.Contains(path, "monitors") && !strings.Contains(path, "rules") {
			continue
		}
		raw, err := yaml.ToJSON([]byte(strings.TrimPrefix(read(t, path), "---\n")))
		if err != nil {
			t.Fatal(err)
		}
		var d definition
		if err := json.Unmarshal(raw, &d); err != nil {
			t.Fatal(path, err)
		}
		all[d.Spec.Names.Kind] = d.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	return all
}

// The Prometheus operator takes PodMonitors, ServiceMonitor and PrometheusRule.
func TestOperator(t *testing.T) {
	all := definitions(t)
	seen := map[string]bool{}
	for _, text := range []string{template(t, "--api-versions", operatorKinds, "--set", "lab.enabled=true"), template(t, "--values", writeValues(t, everything))} {
		for id, object := range parse(t, text).others {
			kind, _, _ := strings.Cut(id, "/")
			schema, ok := all[kind]
			if !ok {
				continue
			}
			seen[kind] = true
			for _, wrong := range schema.check(id, map[string]any{"spec": object["spec"]}) {
				t.Error(wrong)
			}
		}
	}
	for _, kind := range []string{"PodMonitor", "ServiceMonitor", "PrometheusRule"} {
		if !seen[kind] {
			t.Errorf("no %s was checked", kind)
		}
	}
	// The schema is understood: it refuses what later operators know.
	later := parse(t, template(t, "--api-versions", operatorKinds, "--set", "podMonitor.nativeHistograms=true")).others["PodMonitor/kaon"]
	if wrong := all["PodMonitor"].check("", map[string]any{"spec": later["spec"]}); len(wrong) != 1 || !strings.Contains(wrong[0], "scrapeNativeHistograms") {
		t.Errorf("with native histograms: %v", wrong)
	}
}
