package v1alpha1

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// Text is a scalar of any kind as it was written: 10ms, 5, true. A list of scalars is joined by commas.
type Text string

// UnmarshalText takes the text of a scalar.
func (t *Text) UnmarshalText(text []byte) error {
	*t = Text(text)
	return nil
}

// UnmarshalJSON takes a string, a number, a boolean, or a list of those.
func (t *Text) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return err
	}
	if list, ok := v.([]any); ok {
		parts := make([]string, 0, len(list))
		for _, e := range list {
			part, ok := scalarText(e)
			if !ok || strings.Contains(part, ",") {
				return errors.New("want a list of text without commas, numbers or booleans")
			}
			parts = append(parts, part)
		}
		*t = Text(strings.Join(parts, ","))
		return nil
	}
	text, ok := scalarText(v)
	if !ok {
		return errors.New("want text, a number, a boolean, or a list of those")
	}
	*t = Text(text)
	return nil
}

func scalarText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case json.Number:
		return v.String(), true
	case bool:
		if v {
			return "true", true
		}
		return "false", true
	}
	return "", false
}

// JSONSchema is what a JSON schema says of it.
func (Text) JSONSchema() map[string]any {
	scalar := []string{"string", "number", "boolean"}
	return map[string]any{"oneOf": []any{
		map[string]any{"type": scalar},
		map[string]any{"type": "array", "items": map[string]any{"type": scalar}},
	}}
}
