package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func parseLog(text string) *testLog {
	var l testLog
	for line := range strings.Lines(text) {
		l.Line(strings.TrimRight(line, "\n"))
	}
	return &l
}

func TestTestLog(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		var got []string
		for _, test := range parseLog(text).Results() {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s", test.Name, test.Status, test.Reason)))
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got\n%q\nwant\n%q", got, want)
		}
	}
	f("")
	f("\x16=== RUN   TestA\n\x16--- PASS: TestA (0.01s)\n\x16PASS\n", "TestA passed")
	f("\x16=== RUN   TestA\n    a_test.go:1: first\n    a_test.go:2: needs a kernel\n\x16--- SKIP: TestA (0.00s)\n", "TestA skipped needs a kernel")
	f("\x16=== RUN   TestA\n    a_test.go:2: needs two\n        lines\n\x16--- SKIP: TestA (0.00s)\n", "TestA skipped needs two lines")
	f("\x16=== RUN   TestA\n\x16--- SKIP: TestA (0.00s)\n", "TestA skipped")
	// Output of parallel tests is told apart by name.
	f("\x16=== RUN   TestA\n\x16=== PAUSE TestA\n\x16=== RUN   TestB\n\x16=== PAUSE TestB\n\x16=== CONT  TestA\n\x16=== CONT  TestB\n"+
		"    b_test.go:1: needs b\n\x16=== NAME  TestA\n    a_test.go:1: needs a\n\x16--- SKIP: TestA (0.00s)\n\x16=== NAME  TestB\n\x16--- SKIP: TestB (0.00s)\n",
		"TestA skipped needs a", "TestB skipped needs b")
	// A parent counts only if it failed by itself.
	f("\x16=== RUN   TestA\n\x16=== RUN   TestA/x\n\x16=== RUN   TestA/x/y\n\x16    --- FAIL: TestA/x/y (0.00s)\n\x16--- FAIL: TestA/x (0.00s)\n\x16--- FAIL: TestA (0.00s)\n",
		"TestA/x/y failed")
	f("\x16=== RUN   TestA\n\x16=== RUN   TestA/x\n\x16    --- PASS: TestA/x (0.00s)\n\x16--- FAIL: TestA (0.00s)\n", "TestA failed", "TestA/x passed")
	f("\x16=== RUN   TestA\n\x16=== RUN   TestA/x\n\x16    --- PASS: TestA/x (0.00s)\n\x16--- PASS: TestA (0.00s)\n", "TestA/x passed")
	// A crash: the test that ran has failed.
	f("\x16=== RUN   TestA\n\x16--- PASS: TestA (0.01s)\n\x16=== RUN   TestB\npanic: no\n", "TestA passed", "TestB failed")
	// Output without an end of line in front of the framework's.
	f("\x16=== RUN   TestA\nabc\x16--- PASS: TestA (0.01s)\n", "TestA passed")
	// What a test prints about itself does not count.
	f("\x16=== RUN   TestA\n--- PASS: TestA (0.01s)\n\x16--- FAIL: TestA (0.01s)\n", "TestA failed")
}

func TestPackageResult(t *testing.T) {
	const pass = "\x16=== RUN   TestA\n\x16--- PASS: TestA (0.01s)\n"
	const fail = "\x16=== RUN   TestA\n\x16--- FAIL: TestA (0.01s)\n"
	const skip = "\x16=== RUN   TestA\n    a_test.go:1: %s\n\x16--- SKIP: TestA (0.01s)\n"
	f := func(text string, ended bool, code int, ok bool, problem string) {
		t.Helper()
		r := newPackageResult("./a", parseLog(text), ended, code, time.Second)
		if r.OK() != ok || !strings.Contains(r.Problem, problem) || (problem == "") != (r.Problem == "") {
			t.Errorf("%q: ok %v, problem %q", text, r.OK(), r.Problem)
		}
	}
	f(pass, true, 0, true, "")
	f("", true, 0, true, "")
	f(fail, true, 1, false, "")
	f(pass, true, 1, false, "exit code 1") // TestMain failed
	f(fail, true, 2, false, "exit code 2") // a panic
	f(pass, true, -1, false, "signal")
	f(pass, false, 0, false, "guest ended")
	f(fmt.Sprintf(skip, "needs x"), true, 0, true, "")
	f(fmt.Sprintf(skip, "broken"), true, 0, false, "")
}

func TestAppendBounded(t *testing.T) {
	var lines []string
	for i := range 10 * keepLines {
		lines = appendBounded(lines, fmt.Sprint(i))
	}
	if len(lines) > 2*keepLines || len(lines) < keepLines || lines[len(lines)-1] != fmt.Sprint(10*keepLines-1) {
		t.Errorf("kept %d lines, the last is %s", len(lines), lines[len(lines)-1])
	}
}

func FuzzTestLog(f *testing.F) {
	f.Add("\x16=== RUN   TestA\n    a_test.go:1: needs x\n\x16--- SKIP: TestA (0.00s)\n")
	f.Add("\x16=== RUN   TestA\n\x16=== RUN   TestA/x\n\x16    --- FAIL: TestA/x (0.00s)\n\x16--- FAIL: TestA (0.00s)\n\x16FAIL\n")
	f.Fuzz(func(t *testing.T, text string) {
		l := parseLog(text)
		r := newPackageResult("./a", l, true, 0, 0)
		if n := r.Count(Passed) + r.Count(Failed) + r.Count(Skipped); n != len(r.Tests) || n > len(l.tests) {
			t.Errorf("%d of %d results have an outcome", n, len(r.Tests))
		}
		for _, test := range l.tests {
			if test.Status == Failed && r.OK() {
				t.Errorf("%s failed and the package did not", test.Name)
			}
		}
	})
}
