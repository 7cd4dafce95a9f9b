package manifest

import (
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/internal/program"
)

// decoder walks the nodes of one document into Go values, and notes problems and lines.
type decoder struct {
	path     string
	problems []error
	// lines of the fields that were decoded, by field path.
	lines map[string]int
	nodes int
	done  bool
}

func newDecoder(path string) *decoder {
	return &decoder{path: path, lines: map[string]int{}}
}

func (d *decoder) problem(node *yaml.Node, field, what, fix string) {
	if d.done {
		return
	}
	if len(d.problems) == maxProblems {
		d.done = true
		what, fix = "more problems follow", "solve those above first"
	}
	d.problems = append(d.problems, &program.Problem{Where: at(d.path, node.Line, field), What: shorten(what), Fix: shorten(fix)})
}

// shorten cuts a message that quotes something long from the file.
func shorten(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	return strings.ToValidUTF8(message[:maxMessage], "") + "..."
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

func (d *decoder) decode(node *yaml.Node, v reflect.Value, field string, depth int) {
	if d.done {
		return
	}
	for hops := 0; node.Kind == yaml.AliasNode; hops++ {
		if node.Alias == nil || hops > maxNesting {
			d.problem(node, field, "an alias that leads nowhere", "write the value out")
			return
		}
		node = node.Alias
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxNesting {
		d.problem(node, field, "too many or too deeply nested values (aliases count where they are used)", "write less")
		d.done = true
		return
	}
	d.lines[field] = node.Line
	if v.Kind() == reflect.Pointer {
		p := reflect.New(v.Type().Elem())
		before := len(d.problems)
		d.decode(node, p.Elem(), field, depth)
		if len(d.problems) == before {
			v.Set(p)
		}
		return
	}
	tag := node.ShortTag()
	if node.Kind == yaml.ScalarNode && tag == "!!null" {
		// A list or mapping all of whose entries are commented out is an empty one.
		switch v.Kind() {
		case reflect.Slice, reflect.Map:
		case reflect.Struct:
			d.structure(&yaml.Node{Kind: yaml.MappingNode, Line: node.Line}, v, field, depth)
		default:
			d.problem(node, field, "it has no value", "give it one, or remove it")
		}
		return
	}
	switch {
	case v.Addr().Type().Implements(textUnmarshaler) && node.Kind == yaml.ScalarNode:
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(node.Value)); err != nil {
			d.problem(node, field, err.Error(), "")
		}
		return
	case v.Addr().Type().Implements(jsonUnmarshaler) && (v.Kind() != reflect.Struct || node.Kind == yaml.ScalarNode):
		d.viaJSON(node, v, field, depth)
		return
	case v.Type() == durationType:
		d.duration(node, v, field)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(node, v, field, depth)
	case reflect.Map:
		d.mapping(node, v, field, depth)
	case reflect.Slice:
		d.list(node, v, field, depth)
	case reflect.Interface:
		if generic := d.generic(node, depth); generic != nil {
			v.Set(reflect.ValueOf(generic))
		}
	default:
		d.scalar(node, v, field)
	}
}

// described says what a node is, for messages.
func described(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch node.ShortTag() {
		case "!!str":
			return fmt.Sprintf("the text %q", node.Value)
		case "!!int", "!!float":
			return "the number " + node.Value
		}
		return node.Value
	}
	return "something else"
}

func (d *decoder) wrong(node *yaml.Node, field, want, fix string) {
	d.problem(node, field, fmt.Sprintf("want %s, not %s", want, described(node)), fix)
}

func (d *decoder) scalar(node *yaml.Node, v reflect.Value, field string) {
	tag := node.ShortTag()
	switch v.Kind() {
	case reflect.String:
		if node.Kind != yaml.ScalarNode {
			d.wrong(node, field, "text", "")
			return
		}
		if tag != "!!str" && tag != "!!timestamp" {
			d.wrong(node, field, "text", fmt.Sprintf("write %q, with quotes", node.Value))
			return
		}
		v.SetString(node.Value)
	case reflect.Bool:
		if node.Kind != yaml.ScalarNode || tag != "!!bool" {
			d.wrong(node, field, "true or false", "")
			return
		}
		v.SetBool(strings.EqualFold(node.Value, "true"))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, ok := integer(node)
		if !ok || v.OverflowInt(n) {
			d.wrong(node, field, "a whole number", "")
			return
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(node.Value, 0, 64)
		if node.Kind != yaml.ScalarNode || tag != "!!int" || err != nil || v.OverflowUint(n) {
			d.wrong(node, field, "a whole number that is not negative", "")
			return
		}
		v.SetUint(n)
	case reflect.Float64, reflect.Float32:
		n, err := strconv.ParseFloat(node.Value, 64)
		if node.Kind != yaml.ScalarNode || tag != "!!int" && tag != "!!float" || err != nil || math.IsInf(n, 0) || math.IsNaN(n) {
			d.wrong(node, field, "a number", "")
			return
		}
		v.SetFloat(n)
	default:
		d.problem(node, field, fmt.Sprintf("can't be decoded into a %s", v.Type()), "")
	}
}

// integer accepts whole numbers, also in the form 1e6.
func integer(node *yaml.Node) (int64, bool) {
	if node.Kind != yaml.ScalarNode {
		return 0, false
	}
	switch node.ShortTag() {
	case "!!int":
		n, err := strconv.ParseInt(node.Value, 0, 64)
		return n, err == nil
	case "!!float":
		f, err := strconv.ParseFloat(node.Value, 64)
		return int64(f), err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53
	}
	return 0, false
}

func (d *decoder) duration(node *yaml.Node, v reflect.Value, field string) {
	if node.Kind == yaml.ScalarNode {
		if n, err := time.ParseDuration(node.Value); err == nil {
			v.SetInt(int64(n))
			return
		}
	}
	d.wrong(node, field, "a duration such as 10s", "")
}

func (d *decoder) list(node *yaml.Node, v reflect.Value, field string, depth int) {
	if node.Kind != yaml.SequenceNode {
		d.wrong(node, field, "a list", "begin each entry with -, or write [a, b]")
		return
	}
	if len(node.Content) > maxNodes {
		d.problem(node, field, "too many entries", "")
		return
	}
	list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, entry := range node.Content {
		d.decode(entry, list.Index(i), fmt.Sprintf("%s[%d]", field, i), depth+1)
	}
	v.Set(list)
}

// child is the path of a field or key below a field.
func child(field, name string) string {
	switch {
	case strings.ContainsAny(name, ".[]\" \n"):
		return field + "[" + strconv.Quote(name) + "]"
	case field == "":
		return name
	}
	return field + "." + name
}

// pairs yields the keys and values of a mapping, each key once.
func (d *decoder) pairs(node *yaml.Node, field string, yield func(key *yaml.Node, value *yaml.Node)) {
	first := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind == yaml.AliasNode && key.Alias != nil {
			key = key.Alias
		}
		if key.Kind != yaml.ScalarNode {
			d.problem(key, field, "a key must be a name", "")
			continue
		}
		if key.ShortTag() == "!!merge" {
			d.problem(key, field, "merge keys (<<) are not supported", "write the fields out")
			continue
		}
		if len(key.Value) > maxKey {
			d.problem(key, field, fmt.Sprintf("a key of %d bytes", len(key.Value)), fmt.Sprintf("at most %d are allowed", maxKey))
			continue
		}
		if line, twice := first[key.Value]; twice {
			d.problem(key, child(field, key.Value), fmt.Sprintf("it is already set in line %d", line), "remove one of the two")
			continue
		}
		first[key.Value] = key.Line
		yield(key, value)
	}
}

func (d *decoder) mapping(node *yaml.Node, v reflect.Value, field string, depth int) {
	if node.Kind != yaml.MappingNode {
		d.wrong(node, field, "a mapping", "write NAME: VALUE")
		return
	}
	if v.Type().Key().Kind() != reflect.String {
		d.problem(node, field, fmt.Sprintf("can't be decoded into a %s", v.Type()), "")
		return
	}
	m := reflect.MakeMap(v.Type())
	d.pairs(node, field, func(key, value *yaml.Node) {
		entry := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, entry, child(field, key.Value), depth+1)
		m.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), entry)
	})
	v.Set(m)
}

// structField is a field of a struct as YAML sees it.
type structField struct {
	name     string
	index    []int
	required bool
	tag      reflect.StructTag
}

// structFields lists the fields of a struct type, those of embedded structs included.
func structFields(t reflect.Type) []structField {
	var fields []structField
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			for _, inner := range structFields(f.Type) {
				inner.index = append(slices.Clone(f.Index), inner.index...)
				fields = append(fields, inner)
			}
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		optional := slices.ContainsFunc(strings.Split(options, ","), func(o string) bool { return o == "omitempty" || o == "omitzero" })
		fields = append(fields, structField{name: name, index: f.Index, required: !optional, tag: f.Tag})
	}
	return fields
}

func (d *decoder) structure(node *yaml.Node, v reflect.Value, field string, depth int) {
	fields := structFields(v.Type())
	names := make([]string, 0, len(fields))
	for _, f := range fields {
		names = append(names, f.name)
	}
	if node.Kind != yaml.MappingNode {
		d.wrong(node, field, "a mapping", "its fields are "+strings.Join(names, ", "))
		return
	}
	seen := map[string]bool{}
	d.pairs(node, field, func(key, value *yaml.Node) {
		at := child(field, key.Value)
		i := slices.Index(names, key.Value)
		if i < 0 {
			fix := "the fields here are " + strings.Join(names, ", ")
			if near := nearest(key.Value, names); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			d.problem(key, at, "unknown field", fix)
			return
		}
		seen[key.Value] = true
		before := len(d.problems)
		target := v.FieldByIndex(fields[i].index)
		d.decode(value, target, at, depth+1)
		// The line of a block is the key's, not that of the first line of what it holds.
		d.lines[at] = key.Line
		if len(d.problems) == before {
			d.bounds(value, target, fields[i].tag, at)
		}
	})
	for _, f := range fields {
		if f.required && !seen[f.name] {
			d.problem(node, child(field, f.name), "it is missing", "")
		}
	}
}

// nearest is program.Nearest, which counts case as any other difference, after a look without it.
func nearest(name string, candidates []string) string {
	if len(name) > maxKey {
		return ""
	}
	for _, c := range candidates {
		if strings.EqualFold(c, name) {
			return c
		}
	}
	return program.Nearest(name, candidates)
}

// bounds checks the tags enum, minimum, maximum and maxItems.
func (d *decoder) bounds(node *yaml.Node, v reflect.Value, tag reflect.StructTag, field string) {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return
		}
		v = v.Elem()
	}
	if enum := tag.Get("enum"); enum != "" && v.Kind() == reflect.String {
		if allowed := strings.Split(enum, ","); !slices.Contains(allowed, v.String()) {
			fix := "it is one of " + strings.Join(allowed, ", ")
			if len(allowed) == 1 {
				fix = "write " + allowed[0]
			}
			d.problem(node, field, fmt.Sprintf("%q is not known here", v.String()), fix)
		}
	}
	if most, err := strconv.Atoi(tag.Get("maxItems")); err == nil && v.Kind() == reflect.Slice && v.Len() > most {
		d.problem(node, field, fmt.Sprintf("it has %d entries, at most %d are allowed", v.Len(), most), "split it")
	}
	var n float64
	switch {
	case v.CanInt():
		n = float64(v.Int())
	case v.CanUint():
		n = float64(v.Uint())
	case v.CanFloat():
		n = v.Float()
	default:
		return
	}
	if least, err := strconv.ParseFloat(tag.Get("minimum"), 64); err == nil && n < least {
		d.problem(node, field, fmt.Sprintf("%s is too small", node.Value), "the least is "+tag.Get("minimum"))
	}
	if most, err := strconv.ParseFloat(tag.Get("maximum"), 64); err == nil && n > most {
		d.problem(node, field, fmt.Sprintf("%s is too large", node.Value), "the most is "+tag.Get("maximum"))
	}
}

// viaJSON hands a node to a type's own UnmarshalJSON.
func (d *decoder) viaJSON(node *yaml.Node, v reflect.Value, field string, depth int) {
	before := len(d.problems)
	data, err := json.Marshal(d.generic(node, depth))
	if len(d.problems) > before {
		return
	}
	if err == nil {
		err = v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(data)
	}
	if err != nil {
		d.problem(node, field, err.Error(), "")
	}
}

// generic turns a node into maps, lists and scalars.
func (d *decoder) generic(node *yaml.Node, depth int) any {
	for hops := 0; node.Kind == yaml.AliasNode && node.Alias != nil && hops < maxNesting; hops++ {
		node = node.Alias
	}
	if d.nodes++; d.nodes > maxNodes || depth > maxNesting {
		if !d.done {
			d.problem(node, "", "too many or too deeply nested values (aliases count where they are used)", "write less")
			d.done = true
		}
		return nil
	}
	switch node.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		d.pairs(node, "", func(key, value *yaml.Node) { m[key.Value] = d.generic(value, depth+1) })
		return m
	case yaml.SequenceNode:
		list := make([]any, 0, len(node.Content))
		for _, entry := range node.Content {
			list = append(list, d.generic(entry, depth+1))
		}
		return list
	case yaml.ScalarNode:
		switch node.ShortTag() {
		case "!!null":
			return nil
		case "!!bool":
			return strings.EqualFold(node.Value, "true")
		case "!!int", "!!float":
			if json.Valid([]byte(node.Value)) {
				return json.Number(node.Value)
			}
		}
		return node.Value
	}
	return nil
}
