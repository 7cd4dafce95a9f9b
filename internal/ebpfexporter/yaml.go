package ebpfexporter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/internal/program"
)

// Limits of a file.
const (
	maxSize    = 1 << 20
	maxNesting = 32
	maxNodes   = 100_000 // with aliases expanded
)

// reading is the state of reading one file.
type reading struct {
	path     string
	problems []error
	doubts   []*program.Problem
	nodes    int
}

// item is one value with the field that it belongs to.
type item struct {
	place
	node  *yaml.Node
	field string
	depth int
}

// fields says how to read the values of a mapping, by key.
type fields map[string]func(item)

func ignored(item) {}

func (r *reading) problem(at place, what, fix string) {
	r.problems = append(r.problems, &program.Problem{Where: string(at), What: what, Fix: fix})
}

func (r *reading) doubt(at place, what, fix string) {
	r.doubts = append(r.doubts, &program.Problem{Where: string(at), What: what, Fix: fix})
}

// root parses the file's one document; nil if it is empty or a problem was found.
func (r *reading) root(data []byte) (root *yaml.Node) {
	// The parser is a library's: what a hostile file makes of it must not be ours to die of.
	defer func() {
		if p := recover(); p != nil {
			r.problem(place(r.path), fmt.Sprintf("not readable as YAML (%v)", p), "")
			root = nil
		}
	}()
	if len(data) > maxSize {
		r.problem(place(r.path), fmt.Sprintf("the file has more than %d bytes", maxSize), "")
		return nil
	}
	var document yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(data)).Decode(&document); err != nil {
		if !errors.Is(err, io.EOF) {
			r.problem(place(r.path), "not valid YAML: "+strings.TrimPrefix(err.Error(), "yaml: "), "")
		}
		return nil
	}
	if len(document.Content) == 0 {
		return nil
	}
	return document.Content[0]
}

func (r *reading) item(node *yaml.Node, field string, depth int) item {
	for range maxNesting {
		if node.Kind != yaml.AliasNode || node.Alias == nil {
			break
		}
		node = node.Alias
	}
	return item{place(fmt.Sprintf("%s:%d: %s", r.path, node.Line, field)), node, field, depth}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// enter bounds what is read.
func (r *reading) enter(i item) bool {
	r.nodes++
	switch {
	case r.nodes == maxNodes+1:
		r.problem(i.place, fmt.Sprintf("the file has more than %d values", maxNodes), "")
		return false
	case r.nodes > maxNodes:
		return false
	case i.depth > maxNesting:
		r.problem(i.place, "it is nested too deeply", "")
		return false
	}
	return true
}

// decode reads a mapping.
func (r *reading) decode(i item, f fields) {
	if isNull(i.node) || !r.enter(i) {
		return
	}
	if i.node.Kind != yaml.MappingNode {
		r.problem(i.place, "want a mapping", "write "+strings.Join(slices.Sorted(maps.Keys(f)), ", "))
		return
	}
	r.pairs(i, map[string]bool{}, func(key, value *yaml.Node) {
		field := key.Value
		if i.field != "" {
			field = i.field + "." + field
		}
		read, known := f[key.Value]
		if !known {
			fix := "remove it; known are " + strings.Join(slices.Sorted(maps.Keys(f)), ", ")
			if near := program.Nearest(key.Value, slices.Sorted(maps.Keys(f))); near != "" {
				fix = fmt.Sprintf("did you mean %s?", near)
			}
			if i.field == "" && !isNull(value) && value.Anchor != "" {
				return // a place for what is referred to elsewhere
			}
			r.doubt(r.item(key, field, 0).place, fmt.Sprintf("the field %q is unknown, so it does nothing", key.Value), fix)
			return
		}
		next := r.item(value, field, i.depth+1)
		next.place = r.item(key, field, 0).place
		if r.enter(next) {
			read(next)
		}
	})
}

// pairs calls f with the entries of a mapping, those that are merged in (<<) last.
func (r *reading) pairs(i item, seen map[string]bool, f func(key, value *yaml.Node)) {
	var merged []*yaml.Node
	for n := 0; n+1 < len(i.node.Content); n += 2 {
		key, value := i.node.Content[n], i.node.Content[n+1]
		if key.ShortTag() == "!!merge" {
			merged = append(merged, value)
			continue
		}
		if key.Kind != yaml.ScalarNode {
			r.problem(r.item(key, i.field, 0).place, "a key is no text", "")
			continue
		}
		if seen[key.Value] {
			continue
		}
		seen[key.Value] = true
		f(key, value)
	}
	for _, node := range merged {
		from := r.item(node, i.field, i.depth+1)
		if !r.enter(from) {
			return
		}
		parts := []*yaml.Node{from.node}
		if from.node.Kind == yaml.SequenceNode {
			parts = from.node.Content
		}
		for _, part := range parts {
			if p := r.item(part, i.field, i.depth+2); p.node.Kind == yaml.MappingNode && r.enter(p) {
				r.pairs(p, seen, f)
			}
		}
	}
}

func (r *reading) mapping(f fields) func(item) {
	return func(i item) { r.decode(i, f) }
}

func (r *reading) list(each func(item)) func(item) {
	return func(i item) {
		if isNull(i.node) {
			return
		}
		if i.node.Kind != yaml.SequenceNode {
			r.problem(i.place, "want a list", "begin each entry with -")
			return
		}
		for n, node := range i.node.Content {
			next := r.item(node, fmt.Sprintf("%s[%d]", i.field, n), i.depth+1)
			if r.enter(next) {
				each(next)
			}
		}
	}
}

// scalar reads the text of a value that is neither list nor mapping.
func (r *reading) scalar(i item, set func(text string) error) {
	if isNull(i.node) {
		return
	}
	if i.node.Kind != yaml.ScalarNode {
		r.problem(i.place, "want a single value", "")
		return
	}
	if err := set(i.node.Value); err != nil {
		r.problem(i.place, fmt.Sprintf("%q: %v", clip(i.node.Value), err), "")
	}
}

// clip bounds what is quoted in messages.
func clip(text string) string {
	if len(text) > 100 {
		return text[:100] + "..."
	}
	return text
}

func (r *reading) text(to *string) func(item) {
	return func(i item) { r.scalar(i, func(text string) error { *to = text; return nil }) }
}

func (r *reading) texts(to *[]string) func(item) {
	return r.list(func(i item) { r.scalar(i, func(text string) error { *to = append(*to, text); return nil }) })
}

// table reads a mapping of texts. Numbers are taken as they are written.
func (r *reading) table(to *map[string]string) func(item) {
	return func(i item) {
		if isNull(i.node) {
			return
		}
		if i.node.Kind != yaml.MappingNode {
			r.problem(i.place, "want a mapping", "write FROM: TO")
			return
		}
		*to = map[string]string{}
		r.pairs(i, map[string]bool{}, func(key, value *yaml.Node) {
			next := r.item(value, i.field+"."+clip(key.Value), i.depth+1)
			if !r.enter(next) {
				return
			}
			(*to)[key.Value] = ""
			r.scalar(next, func(text string) error { (*to)[key.Value] = text; return nil })
		})
	}
}

func (r *reading) boolean(to *bool) func(item) {
	return func(i item) {
		r.scalar(i, func(text string) error {
			switch strings.ToLower(text) {
			case "true", "yes", "on", "y":
				*to = true
			case "false", "no", "off", "n":
				*to = false
			default:
				return errors.New("want true or false")
			}
			return nil
		})
	}
}

func (r *reading) duration(to *time.Duration) func(item) {
	return func(i item) {
		r.scalar(i, func(text string) error {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil {
				*to = time.Duration(n)
				return nil
			}
			d, err := time.ParseDuration(text)
			if err != nil || d < 0 {
				return errors.New("want a duration such as 10m")
			}
			*to = d
			return nil
		})
	}
}

func (r *reading) float(to *float64) func(item) {
	return func(i item) {
		r.scalar(i, func(text string) error {
			f, err := strconv.ParseFloat(strings.ReplaceAll(text, "_", ""), 64)
			if err != nil {
				n, intErr := strconv.ParseInt(text, 0, 64)
				if intErr != nil {
					return errors.New("want a number")
				}
				f = float64(n)
			}
			if math.IsNaN(f) || math.IsInf(f, 0) {
				return errors.New("want a finite number")
			}
			*to = f
			return nil
		})
	}
}

func (r *reading) integer(to *int64) func(item) {
	return func(i item) {
		r.scalar(i, func(text string) error {
			n, err := strconv.ParseInt(text, 0, 64)
			if err != nil {
				f, floatErr := strconv.ParseFloat(text, 64)
				if floatErr != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
					return errors.New("want a whole number")
				}
				n = int64(f)
			}
			*to = n
			return nil
		})
	}
}

// size reads a number of bytes.
func (r *reading) size(to *uint32) func(item) {
	return func(i item) {
		r.scalar(i, func(text string) error {
			n, err := strconv.ParseUint(text, 0, 16)
			if err != nil {
				return errors.New("want a number of bytes, at most 65535")
			}
			*to = uint32(n)
			return nil
		})
	}
}
