// Package schema makes JSON schemas of the Go types that package manifest decodes, and
// keeps them in step: descriptions are the types' doc comments, bounds are their struct tags.
package schema

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Comments are doc comments by "package.Type" and "package.Type.Field".
type Comments map[string]string

// ReadComments reads the doc comments of the types in the Go packages in dirs.
func ReadComments(dirs ...string) (Comments, error) {
	comments := Comments{}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return nil, fmt.Errorf("read comments of %s: %w", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
			if err != nil {
				return nil, fmt.Errorf("read comments: %w", err)
			}
			comments.file(parsed)
		}
	}
	return comments, nil
}

func (c Comments) file(file *ast.File) {
	for _, declaration := range file.Decls {
		general, ok := declaration.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range general.Specs {
			typ, ok := spec.(*ast.TypeSpec)
			if !ok {
				continue
			}
			name := file.Name.Name + "." + typ.Name.Name
			doc := typ.Doc
			if doc == nil {
				doc = general.Doc
			}
			c[name] = oneLine(doc)
			fields, ok := typ.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range fields.Fields.List {
				for _, ident := range field.Names {
					c[name+"."+ident.Name] = oneLine(field.Doc)
				}
			}
		}
	}
}

func oneLine(doc *ast.CommentGroup) string {
	return strings.Join(strings.Fields(doc.Text()), " ")
}

// Generate returns the JSON schema (draft 2020-12) of what manifest.Unmarshal accepts for v, a struct or a pointer to one.
func Generate(v any, id, title string, comments Comments) ([]byte, error) {
	t := reflect.TypeOf(v)
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("schema of %s: not a struct", t)
	}
	g := &generator{comments: comments, definitions: map[string]any{}}
	root := g.structure(t)
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = id
	root["title"] = title
	if len(g.definitions) > 0 {
		root["$defs"] = g.definitions
	}
	if g.err != nil {
		return nil, g.err
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		return nil, fmt.Errorf("schema of %s: %w", t, err)
	}
	return out.Bytes(), nil
}

type generator struct {
	comments    Comments
	definitions map[string]any
	err         error
}

// own is implemented by types that say themselves what their schema is.
type own interface{ JSONSchema() map[string]any }

var (
	ownType         = reflect.TypeFor[own]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

func (g *generator) of(t reflect.Type) map[string]any {
	switch {
	case t.Kind() == reflect.Pointer:
		return g.of(t.Elem())
	case t.Implements(ownType):
		return reflect.Zero(t).Interface().(own).JSONSchema()
	case t == durationType:
		return map[string]any{"type": "string", "examples": []any{"10s"}}
	case t.Kind() != reflect.Struct && reflect.PointerTo(t).Implements(textUnmarshaler):
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float32, reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": g.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": g.of(t.Elem())}
	case reflect.Interface:
		return map[string]any{}
	case reflect.Struct:
		return g.reference(t)
	}
	g.err = fmt.Errorf("schema of %s: this kind has none", t)
	return nil
}

// reference defines a struct once and refers to it.
func (g *generator) reference(t reflect.Type) map[string]any {
	name := t.Name()
	if _, known := g.definitions[name]; !known {
		g.definitions[name] = nil // recursive types end here
		g.definitions[name] = g.structure(t)
	}
	reference := map[string]any{"$ref": "#/$defs/" + name}
	if reflect.PointerTo(t).Implements(jsonUnmarshaler) {
		return map[string]any{"oneOf": []any{map[string]any{"type": "string"}, reference}}
	}
	return reference
}

func (g *generator) structure(t reflect.Type) map[string]any {
	schema := map[string]any{"type": "object", "additionalProperties": false}
	if text := g.comments[t.String()]; text != "" {
		schema["description"] = text
	}
	properties := map[string]any{}
	var required []string
	g.fields(t, properties, &required)
	schema["properties"] = properties
	if len(required) > 0 {
		slices.Sort(required)
		schema["required"] = required
	}
	return schema
}

func (g *generator) fields(t reflect.Type, properties map[string]any, required *[]string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			g.fields(f.Type, properties, required)
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		property := g.of(f.Type)
		if property == nil {
			return
		}
		if text := g.comments[t.String()+"."+f.Name]; text != "" {
			property["description"] = text
		}
		if enum := f.Tag.Get("enum"); enum != "" {
			property["enum"] = strings.Split(enum, ",")
		}
		bound(property, f.Tag)
		properties[name] = property
		if !strings.Contains(options, "omitempty") && !strings.Contains(options, "omitzero") {
			*required = append(*required, name)
		}
	}
}

// bound adds the bounds of a field's tags. Those of text in a map are its values'.
func bound(property map[string]any, tag reflect.StructTag) {
	for _, name := range []string{"minimum", "maximum", "maxItems", "maxProperties", "maxLength"} {
		n, err := strconv.ParseInt(tag.Get(name), 10, 64)
		if err != nil {
			continue
		}
		to := property
		if values, ok := property["additionalProperties"].(map[string]any); ok && name == "maxLength" {
			to = values
		}
		to[name] = n
	}
	if format := tag.Get("format"); format != "" {
		property["format"] = format
	}
}
