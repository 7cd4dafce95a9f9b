package schema

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/kaon-project/kaon/api/v1alpha1"
	kaon "github.com/kaon-project/kaon/internal/agent"
)

var update = flag.Bool("update", false, "write the published schema anew")

const (
	reference  = "../../../docs/reference"
	api, agent = "../../../api/v1alpha1", "../../agent"
)

func generate(t *testing.T, v any, name, title string) []byte {
	t.Helper()
	comments, err := ReadComments(api, agent)
	if err != nil {
		t.Fatal(err)
	}
	data, err := Generate(v, "https://kaon.dev/schemas/"+name, title, comments)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestPublishedSchemasAreCurrent(t *testing.T) {
	f := func(v any, name, title string) {
		t.Helper()
		path, data := filepath.Join(reference, name), generate(t, v, name, title)
		if *update {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		committed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(committed) != string(data) {
			t.Errorf("%s is out of date: run `go test ./internal/manifest/schema -update`", name)
		}
	}
	f(v1alpha1.Program{}, "program.schema.json", "Program")
	f(kaon.Config{}, "kaon.schema.json", "Configuration of the agent (kaon.yaml)")
}

// Whoever reads the schema in an editor must find every field described.
func TestEveryFieldIsDescribed(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(generate(t, v1alpha1.Program{}, "x", "x"), &root); err != nil {
		t.Fatal(err)
	}
	definitions, _ := root["$defs"].(map[string]any)
	if len(definitions) < 10 {
		t.Fatalf("%d definitions", len(definitions))
	}
	definitions["Program"] = root
	for name, definition := range definitions {
		d := definition.(map[string]any)
		if d["description"] == nil {
			t.Errorf("%s is not described", name)
		}
		for field, property := range d["properties"].(map[string]any) {
			p := property.(map[string]any)
			if p["description"] == nil && p["$ref"] == nil {
				t.Errorf("%s.%s is not described", name, field)
			}
			if ref, ok := p["$ref"].(string); ok && definitions[filepath.Base(ref)] == nil {
				t.Errorf("%s.%s refers to %s, which does not exist", name, field, ref)
			}
		}
	}
}

// Short can be written as its name alone.
type short struct {
	Name string `json:"name"`
}

func (s *short) UnmarshalJSON([]byte) error { return nil }

func TestGenerate(t *testing.T) {
	f := func(v any, want string) {
		t.Helper()
		data, err := Generate(v, "id", "title", nil)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Properties map[string]json.RawMessage
			Required   []string
		}
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		var compact any
		if err := json.Unmarshal(got.Properties["x"], &compact); err != nil {
			t.Fatal(err)
		}
		if b, _ := json.Marshal(compact); string(b) != want {
			t.Errorf("%T:\ngot  %s\nwant %s", v, b, want)
		}
	}
	type embedded struct {
		X string `json:"x,omitempty" enum:"a,b"`
	}
	f(struct {
		X int `json:"x" minimum:"1" maximum:"9"`
	}{}, `{"maximum":9,"minimum":1,"type":"integer"}`)
	f(struct {
		X []float64 `json:"x" maxItems:"3"`
	}{}, `{"items":{"type":"number"},"maxItems":3,"type":"array"}`)
	f(struct {
		X map[string]*bool `json:"x"`
	}{}, `{"additionalProperties":{"type":"boolean"},"type":"object"}`)
	f(struct{ embedded }{}, `{"enum":["a","b"],"type":"string"}`)
	f(struct {
		X short `json:"x"`
	}{}, `{"oneOf":[{"type":"string"},{"$ref":"#/$defs/short"}]}`)
	f(struct {
		X v1alpha1.Text `json:"x"`
	}{}, `{"oneOf":[{"type":["string","number","boolean"]},{"items":{"type":["string","number","boolean"]},"type":"array"}]}`)
	for _, v := range []any{5, struct {
		X chan int `json:"x"`
	}{}} {
		if _, err := Generate(v, "", "", nil); err == nil {
			t.Errorf("%T: no error", v)
		}
	}
}
