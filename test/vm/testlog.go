package main

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Status is the outcome of one test.
type Status string

// The outcomes. A test that began and never ended, because the package
// crashed or the guest died, is failed.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// TestResult is one test or subtest.
type TestResult struct {
	Name    string  `json:"name"`
	Status  Status  `json:"status"`
	Reason  string  `json:"reason,omitempty"` // of a skip
	Seconds float64 `json:"seconds"`

	output []string
	ended  bool
}

// testLog reads what a Go test binary prints with -test.v=test2json: lines of
// the framework are marked by a byte that the tests' own output does not have.
type testLog struct {
	tests   []*TestResult
	byName  map[string]*TestResult
	current *TestResult
	tail    []string // last lines of the package, for crashes
	library []loaded
}

const (
	frameworkMark = "\x16"
	keepLines     = 200 // of output for each test and package
)

var resultLine = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \((\d+(?:\.\d+)?)s\)$`)

// Line takes one line of output, without its end.
func (l *testLog) Line(line string) {
	output, framework, marked := strings.Cut(line, frameworkMark)
	if output != "" || !marked {
		l.addOutput(output)
	}
	if !marked {
		return
	}
	framework = strings.TrimLeft(framework, " ")
	if m := resultLine.FindStringSubmatch(framework); m != nil {
		test := l.test(m[2])
		test.ended = true
		test.Status = map[string]Status{"PASS": Passed, "FAIL": Failed, "SKIP": Skipped}[m[1]]
		if seconds, err := strconv.ParseFloat(m[3], 64); err == nil {
			test.Seconds = seconds
		}
		if test.Status == Skipped {
			test.Reason = skipReason(test.output)
		}
		l.current = test
		return
	}
	for _, prefix := range []string{"=== RUN ", "=== CONT ", "=== NAME "} {
		if rest, ok := strings.CutPrefix(framework, prefix); ok {
			l.current = nil // "=== NAME" without a name: the package itself
			if name := strings.TrimSpace(rest); name != "" {
				l.current = l.test(name)
			}
			return
		}
	}
}

func (l *testLog) test(name string) *TestResult {
	if test, ok := l.byName[name]; ok {
		return test
	}
	test := &TestResult{Name: name, Status: Failed}
	if l.byName == nil {
		l.byName = map[string]*TestResult{}
	}
	l.byName[name] = test
	l.tests = append(l.tests, test)
	return test
}

func (l *testLog) addOutput(line string) {
	if found, ok := parseLoaded(line); ok {
		l.library = append(l.library, found)
		return
	}
	if l.current != nil {
		l.current.output = appendBounded(l.current.output, line)
	}
	l.tail = appendBounded(l.tail, line)
}

func appendBounded(lines []string, line string) []string {
	if len(lines) == 2*keepLines {
		lines = append(lines[:0], lines[keepLines:]...)
	}
	return append(lines, line)
}

// Results are the tests that count: those without subtests, and parents that
// failed although no subtest did. The rest would count the same thing twice.
func (l *testLog) Results() []*TestResult {
	hasChild, childFailed := map[string]bool{}, map[string]bool{}
	for _, test := range l.tests {
		for name := test.Name; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			hasChild[name] = true
			if test.Status == Failed {
				childFailed[name] = true
			}
		}
	}
	var results []*TestResult
	for _, test := range l.tests {
		if !hasChild[test.Name] || test.Status == Failed && !childFailed[test.Name] {
			if !test.ended {
				test.output = appendBounded(test.output, "(the test did not end)")
			}
			results = append(results, test)
		}
	}
	return results
}

var logLine = regexp.MustCompile(`^\s*[^\s:]+\.go:\d+: (.*)$`)

// skipReason is the last message that the test logged, without its position.
func skipReason(output []string) string {
	for i := len(output) - 1; i >= 0; i-- {
		if m := logLine.FindStringSubmatch(output[i]); m != nil {
			reason := m[1]
			for _, more := range output[i+1:] { // of a message of several lines
				reason += " " + strings.TrimSpace(more)
			}
			return strings.TrimSpace(reason)
		}
	}
	return ""
}

// allowedSkip tells whether a reason says what the machine lacks.
func allowedSkip(reason string) bool { return strings.HasPrefix(reason, "needs ") }

// PackageResult is one package on one kernel.
type PackageResult struct {
	Package string        `json:"package"`
	Tests   []*TestResult `json:"tests"`
	Seconds float64       `json:"seconds"`
	// Problem says why the package failed apart from its tests: a crash, a
	// timeout, an exit code that no test explains.
	Problem string `json:"problem,omitempty"`
	// Library is what became of the built-in Programs' functions, test by test.
	Library []loaded `json:"library,omitempty"`

	tail []string
}

// newPackageResult judges a package's log and exit code. ended is false where
// the guest died before the package had.
func newPackageResult(name string, l *testLog, ended bool, code int, elapsed time.Duration) *PackageResult {
	result := &PackageResult{Package: name, Tests: l.Results(), Seconds: elapsed.Seconds(), Library: l.library, tail: l.tail}
	switch {
	case !ended:
		result.Problem = "the guest ended before the package did"
	case code < 0:
		result.Problem = "the tests were killed by a signal or did not start"
	case code != 0 && (result.Count(Failed) == 0 || code != 1):
		result.Problem = "exit code " + strconv.Itoa(code)
	}
	return result
}

// Count returns how many tests had that outcome.
func (r *PackageResult) Count(status Status) int {
	n := 0
	for _, test := range r.Tests {
		if test.Status == status {
			n++
		}
	}
	return n
}

// BadSkips are the skipped tests whose reason does not begin with "needs ".
func (r *PackageResult) BadSkips() []*TestResult {
	var bad []*TestResult
	for _, test := range r.Tests {
		if test.Status == Skipped && !allowedSkip(test.Reason) {
			bad = append(bad, test)
		}
	}
	return bad
}

// OK tells whether nothing failed and every skip is explained.
func (r *PackageResult) OK() bool {
	return r.Problem == "" && r.Count(Failed) == 0 && len(r.BadSkips()) == 0
}
