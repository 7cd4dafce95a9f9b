package manifest

import (
	"fmt"
	"time"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

// Text is a scalar of any kind, kept as it was written.
type Text = v1alpha1.Text

// Duration is a time.Duration that reads and writes itself as text: 10s, 1m30s.
type Duration time.Duration

// UnmarshalText parses what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	n, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("want a duration such as 10s, not %q", text)
	}
	*d = Duration(n)
	return nil
}

// MarshalText is the counterpart of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// JSONSchema is what a JSON schema says of it.
func (Duration) JSONSchema() map[string]any {
	return map[string]any{"type": "string", "examples": []any{"10s"}}
}
