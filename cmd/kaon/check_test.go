package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The exit code says whether there are errors; warnings are none.
func TestCheckExposition(t *testing.T) {
	f := func(code int, want, stdin string, arguments ...string) {
		t.Helper()
		command := kaon(append([]string{"check"}, arguments...)...)
		command.Stdin = strings.NewReader(stdin)
		out, _ := command.CombinedOutput()
		if got := command.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), want) {
			t.Errorf("%q: exit code %d, want %d and %q: %s", arguments, got, code, want, out)
		}
	}
	path := filepath.Join(t.TempDir(), "a.prom")
	if err := os.WriteFile(path, []byte("# TYPE a counter\na 1\n# EOF\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	f(1, "write a_total", "", "--exposition", path)
	f(0, "2 warnings", "a 1\n", "--exposition", "-")
	f(1, "# EOF is missing", "a 1\n", "--exposition", "--format", "openmetrics", "-")
	f(1, `"severity": "error"`, "", "--exposition", "-o", "json", path)
	f(1, "want openmetrics or text", "", "--exposition", "--format", "xml", path)
	f(1, "give both", "", "--format", "text", path)
	f(1, "no such file", "", "--exposition", "missing.prom")
}
