package page

import (
	"strings"
	"testing"
)

func TestDiff(t *testing.T) {
	f := func(before, after, want string) {
		t.Helper()
		if got := diff("a", before, "b", after); got != want {
			t.Errorf("%q to %q:\n%s\nwant\n%s", before, after, got, want)
		}
	}
	f("x\n", "x\n", "")
	f("x\ny\n", "x\nz\n", "--- a\n+++ b\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n")
	f("", "x", "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+x\n\\ No newline at end of file\n")
	f("x\n", "", "--- a\n+++ b\n@@ -1,1 +0,0 @@\n-x\n")
}

// Both texts can be read off a diff.
func FuzzDiff(f *testing.F) {
	f.Add("a\nb\nc\n", "b\nd\nc")
	f.Add("", "\n\n")
	f.Add("KICK_POWER = 27\n", "KICK_POWER = 40\n")
	f.Fuzz(func(t *testing.T, before, after string) {
		if strings.Count(before, "\n") > 200 || strings.Count(after, "\n") > 200 || before == after {
			return
		}
		var a, b strings.Builder
		last := byte(0)
		lines := strings.SplitAfter(diff("a", before, "b", after), "\n")
		for _, line := range lines[3:] {
			if line == "" {
				continue
			}
			if strings.HasPrefix(line, "\\ No newline") {
				for mark, text := range map[byte]*strings.Builder{'-': &a, '+': &b} {
					if last == mark || last == ' ' {
						cut := strings.TrimSuffix(text.String(), "\n")
						text.Reset()
						text.WriteString(cut)
					}
				}
				continue
			}
			last = line[0]
			if last != '+' {
				a.WriteString(line[1:])
			}
			if last != '-' {
				b.WriteString(line[1:])
			}
		}
		if a.String() != before || b.String() != after {
			t.Errorf("%q and %q become %q and %q", before, after, a.String(), b.String())
		}
	})
}
