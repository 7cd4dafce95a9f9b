package manifest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Marshal writes a value with json tags, such as a Program, as YAML with its fields in the order of its type.
func Marshal(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var node yaml.Node
	// JSON is YAML, and a node keeps its order.
	if err := yaml.Unmarshal(data, &node); err != nil {
		return nil, err
	}
	restyle(&node, 0)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

// restyle undoes JSON's style, but keeps lists of scalars on one line.
func restyle(n *yaml.Node, depth int) {
	scalars := n.Kind == yaml.SequenceNode && !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return c.Kind != yaml.ScalarNode })
	n.Style = 0
	if scalars || n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		n.Style = yaml.FlowStyle
	}
	for i, c := range n.Content {
		restyle(c, depth+1)
		// Texts that look like something else stay quoted.
		if c.Kind == yaml.ScalarNode && c.Tag == "!!str" && (n.Kind != yaml.MappingNode || i%2 == 1 || strings.Trim(c.Value, "0123456789") == "") {
			var plain yaml.Node
			if yaml.Unmarshal([]byte(c.Value), &plain) != nil || len(plain.Content) != 1 || plain.Content[0].ShortTag() != "!!str" {
				c.Style = yaml.DoubleQuotedStyle
			}
		}
	}
}
