package manifest

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

var block = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// examples are the documents in the reference; parts of a spec are completed.
func examples(t *testing.T) []string {
	t.Helper()
	page, err := os.ReadFile("../../docs/reference/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	var documents []string
	for _, m := range block.FindAllStringSubmatch(string(page), -1) {
		text := m[1]
		if !strings.HasPrefix(text, "apiVersion") {
			text = head + "spec:\n  source: {builtin: shop}\n  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
		}
		documents = append(documents, text)
	}
	if len(documents) < 10 {
		t.Fatalf("%d examples", len(documents))
	}
	return documents
}

func TestExamplesOfReference(t *testing.T) {
	o := options(t)
	for _, text := range examples(t) {
		if _, err := Parse([]byte(text), "testdata/example.yaml", o); err != nil {
			t.Errorf("%s\n%v", text, err)
		}
	}
}

// Every field and every decoder must stand in the reference.
func TestReferenceNamesEveryField(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/manifest.md")
	if err != nil {
		t.Fatal(err)
	}
	resource, err := os.ReadFile("../../docs/reference/program-resource.md")
	if err != nil {
		t.Fatal(err)
	}
	page = append(page, resource...)
	for _, decoder := range Decoders() {
		if !strings.Contains(string(page), "`"+decoder+"`") {
			t.Errorf("the reference does not name the decoder %s", decoder)
		}
	}
	for name, properties := range schemaProperties(t) {
		for field := range properties {
			if !regexp.MustCompile("[`.]" + field + "[`.]").Match(page) {
				t.Errorf("the reference does not name %s.%s", name, field)
			}
		}
	}
}

func readSchema(t *testing.T) map[string]any {
	t.Helper()
	data, err := os.ReadFile("../../docs/reference/program.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

func schemaProperties(t *testing.T) map[string]map[string]any {
	schema := readSchema(t)
	all := map[string]map[string]any{"Program": schema["properties"].(map[string]any)}
	for name, definition := range schema["$defs"].(map[string]any) {
		all[name] = definition.(map[string]any)["properties"].(map[string]any)
	}
	return all
}

// What the schema says must be what the decoder does: both accept the examples, both refuse mistakes.
func TestSchemaAgreesWithDecoder(t *testing.T) {
	schema := readSchema(t)
	check := func(text string, want bool) {
		t.Helper()
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		bySchema := conforms(schema, schema, v)
		var p v1alpha1.Program
		byDecoder := Unmarshal([]byte(text), "f", &p)
		if (bySchema == "") != want || (byDecoder == nil) != want {
			t.Errorf("%s\nschema: %s\ndecoder: %v\nwant accepted: %v", text, bySchema, byDecoder, want)
		}
	}
	golden, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append(examples(t), string(golden)) {
		check(text, true)
	}
	for _, spec := range []string{"limt: 1", "pin: 1", "params: {a: {b: c}}", "hooks: [{target: a}]", "hooks: [{function: a, pid: -1}]", "metrics: {a: b}",
		"metrics: [{limit: 0}]", "metrics: [{type: count}]", "metrics: [{native: off}]", "metrics: [{labels: {keep: a}}]", "metrics: [{staticLabels: {a: 1}}]",
		"metrics: [{from: {file: {value: 1}}}]", "metrics: [{from: {file: {path: /a, value: 0}}}]", "metrics: [{from: {cgroup: {file: a, v1: {file: b}}}}]", "metrics: [{buckets: {bounds: [a]}}]", "source: {script: a}"} {
		check(head+"spec: {"+spec+"}", false)
	}
	check("kind: Program\n", false)
}

// conforms is as much of JSON schema as ours need. It returns what does not conform.
func conforms(root, schema map[string]any, v any) string {
	if ref, ok := schema["$ref"].(string); ok {
		return conforms(root, root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any), v)
	}
	if alternatives, ok := schema["oneOf"].([]any); ok {
		matches := 0
		for _, a := range alternatives {
			if conforms(root, a.(map[string]any), v) == "" {
				matches++
			}
		}
		if matches != 1 {
			return fmt.Sprintf("%v matches %d alternatives", v, matches)
		}
	}
	kind := ""
	number := math.NaN()
	switch v := v.(type) {
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case int:
		kind, number = "integer", float64(v)
	case float64:
		kind, number = "number", v
	case []any:
		kind = "array"
	case map[string]any, map[any]any:
		kind = "object"
	}
	var types []any
	switch t := schema["type"].(type) {
	case string:
		types = []any{t}
	case []any:
		types = t
	}
	if types != nil && !slices.Contains(types, any(kind)) && !(kind == "integer" && slices.Contains(types, any("number"))) {
		return fmt.Sprintf("%v is a %s, not a %v", v, kind, types)
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return fmt.Sprintf("%v is none of %v", v, enum)
	}
	if least, ok := schema["minimum"].(float64); ok && number < least {
		return fmt.Sprintf("%v is too small", v)
	}
	if most, ok := schema["maximum"].(float64); ok && number > most {
		return fmt.Sprintf("%v is too large", v)
	}
	items, limited := schema["items"].(map[string]any)
	if list, ok := v.([]any); ok && limited {
		for _, e := range list {
			if what := conforms(root, items, e); what != "" {
				return what
			}
		}
	}
	object, ok := v.(map[string]any)
	if numbered, isNumbered := v.(map[any]any); isNumbered { // YAML's keys may be numbers
		object, ok = map[string]any{}, true
		for k, e := range numbered {
			object[fmt.Sprint(k)] = e
		}
	}
	if !ok {
		return ""
	}
	required, _ := schema["required"].([]any)
	for _, name := range required {
		if _, ok := object[name.(string)]; !ok {
			return fmt.Sprintf("%s is missing", name)
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, e := range object {
		property, known := properties[name].(map[string]any)
		if !known {
			if property, known = schema["additionalProperties"].(map[string]any); !known {
				return name + " is unknown"
			}
		}
		if what := conforms(root, property, e); what != "" {
			return name + ": " + what
		}
	}
	return ""
}
