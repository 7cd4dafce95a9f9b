package terminal

import (
	"bytes"
	"testing"
)

func TestPlain(t *testing.T) {
	f := func(want string, parts ...string) {
		t.Helper()
		var b bytes.Buffer
		w := Plain(&b)
		for _, part := range parts {
			if n, err := w.Write([]byte(part)); err != nil || n != len(part) {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if b.String() != want {
			t.Errorf("%q: got %q, want %q", parts, b.String(), want)
		}
	}
	f("plain\ttext\n≤ µs ü ©", "plain\ttext\n≤ µs ü ©")
	f("?[2Jx?", "\x1b[2Jx\x7f")
	f("a?b?", "a\rb\x00")
	f("¿31m", "\u009b31m")
	f("¿31m", "\xc2", "\x9b31m") // a character in two writes
	f("\xc2©", "\xc2", "\xc2\xa9")
}
