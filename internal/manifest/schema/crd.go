package schema

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

// Column is one that kubectl prints.
type Column struct {
	Name        string `yaml:"name"`
	Type        string `yaml:"type"`
	JSONPath    string `yaml:"jsonPath"`
	Description string `yaml:"description,omitempty"`
	// Priority above 0: with -o wide only.
	Priority int `yaml:"priority,omitempty"`
}

// Resource describes a custom resource definition of the group kaon.dev, version v1alpha1, cluster-scoped.
type Resource struct {
	Kind, Plural string
	ShortNames   []string
	Columns      []Column
}

// GenerateCRD returns the custom resource definition of v, a struct with apiVersion, kind, metadata, spec and status: its
// structural schema (OpenAPI v3) with the rules (CEL) of the types.
func GenerateCRD(v any, resource Resource, comments Comments) ([]byte, error) {
	g := &structural{comments: comments}
	root := g.structure(reflect.TypeOf(v))
	if g.err != nil {
		return nil, g.err
	}
	properties := root["properties"].(map[string]any)
	for _, name := range []string{"apiVersion", "kind"} {
		delete(properties[name].(map[string]any), "enum") // the API server sees to it
	}
	properties["metadata"] = map[string]any{"type": "object"}
	root["required"] = []string{"spec"}
	singular := strings.ToLower(resource.Kind)
	crd := map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1",
		"kind":       "CustomResourceDefinition",
		"metadata":   map[string]any{"name": resource.Plural + ".kaon.dev"},
		"spec": map[string]any{
			"group": "kaon.dev",
			"scope": "Cluster",
			"names": map[string]any{
				"kind": resource.Kind, "listKind": resource.Kind + "List", "plural": resource.Plural, "singular": singular,
				"shortNames": resource.ShortNames, "categories": []string{"kaon"},
			},
			"versions": []any{map[string]any{
				"name": "v1alpha1", "served": true, "storage": true,
				"subresources":             map[string]any{"status": map[string]any{}},
				"additionalPrinterColumns": resource.Columns,
				"schema":                   map[string]any{"openAPIV3Schema": root},
			}},
		},
	}
	var out bytes.Buffer
	out.WriteString("# Made of api/v1alpha1 by `make docs`.\n")
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(crd); err != nil {
		return nil, fmt.Errorf("definition of %s: %w", resource.Kind, err)
	}
	return out.Bytes(), nil
}

// structural makes what the API server takes for a schema: every type written out where it is used.
type structural struct {
	comments Comments
	depth    int
	err      error
}

// ruled is implemented by types whose fields depend on each other.
type ruled interface{ Rules() []v1alpha1.Rule }

func (g *structural) of(t reflect.Type) map[string]any {
	switch {
	case t.Kind() == reflect.Pointer:
		return g.of(t.Elem())
	case t.Implements(ownType):
		// Several types, which no structural schema can tell: the agent looks.
		return map[string]any{"x-kubernetes-preserve-unknown-fields": true}
	case t == reflect.TypeFor[time.Duration]():
		return map[string]any{"type": "string"}
	case t.Kind() != reflect.Struct && (reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) ||
		reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer", "format": "int64"}
	case reflect.Uint64:
		return map[string]any{"type": "integer", "format": "int64", "minimum": 0}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.of(t.Elem())}
	case reflect.Struct:
		return g.structure(t)
	}
	g.err = fmt.Errorf("structural schema of %s: this kind has none", t)
	return map[string]any{}
}

func (g *structural) structure(t reflect.Type) map[string]any {
	if g.depth++; g.depth > 20 {
		g.err = fmt.Errorf("structural schema of %s: it contains itself", t)
		return map[string]any{}
	}
	defer func() { g.depth-- }()
	schema := map[string]any{"type": "object"}
	if text := g.comments[t.String()]; text != "" {
		schema["description"] = text
	}
	properties := map[string]any{}
	var required []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		property := g.of(f.Type)
		if text := g.comments[t.String()+"."+f.Name]; text != "" {
			property["description"] = text
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			property["enum"] = strings.Split(enum, ",")
		}
		bound(property, f.Tag)
		properties[name] = property
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			required = append(required, name)
		}
	}
	schema["properties"] = properties
	if len(required) > 0 {
		schema["required"] = required
	}
	if r, ok := reflect.Zero(t).Interface().(ruled); ok {
		var rules []any
		for _, rule := range r.Rules() {
			entry := map[string]any{"rule": rule.CEL, "message": rule.Message}
			if rule.Field != "" {
				entry["fieldPath"] = "." + rule.Field
			}
			rules = append(rules, entry)
		}
		schema["x-kubernetes-validations"] = rules
	}
	return schema
}
