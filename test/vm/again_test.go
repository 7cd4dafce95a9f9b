package main

import (
	"errors"
	"strings"
	"testing"
)

func TestAgain(t *testing.T) {
	result := func(pkg string, tests ...*TestResult) *PackageResult {
		return &PackageResult{Package: pkg, Tests: tests}
	}
	f := func(what string, second *Boot, problem string, ok bool, warnings int) {
		t.Helper()
		first := &Boot{Problem: problem, Packages: []*PackageResult{
			result("./a", &TestResult{Name: "TestA", Status: Passed}, &TestResult{Name: "TestB/x", Status: Failed, output: []string{"too late"}}, &TestResult{Name: "TestB/y", Status: Failed}),
			result("./b", &TestResult{Name: "TestB", Status: Passed}),
			result("./c", &TestResult{Name: "TestC", Status: Failed}),
		}}
		ran := false
		err := first.again([]testPackage{{name: "./a"}, {name: "./b"}, {name: "./c"}}, func(_ Cached, packages []testPackage, expression string) (*Boot, error) {
			ran = true
			if len(packages) != 2 || packages[0].name != "./a" || packages[1].name != "./c" || expression != "^(TestB|TestC)$" {
				t.Errorf("%s: again %v of %v", what, expression, packages)
			}
			return second, nil
		})
		if err != nil || ran != (problem == "") || first.OK() != ok || len(first.Warnings) != warnings {
			t.Errorf("%s: ran %v, ok %v, warnings %q, %v", what, ran, first.OK(), first.Warnings, err)
		}
		if output := first.Packages[0].Tests[1].output; warnings == 1 && (len(output) != 3 || output[2] != "later still") {
			t.Errorf("%s: printed %q", what, output)
		}
		if warnings > 1 && !strings.Contains(first.Warnings[0], "./a TestB/x failed, and passed when it was run again:\n    too late") {
			t.Errorf("%s: warning %q", what, first.Warnings[0])
		}
	}
	b := func(x Status) *PackageResult {
		return result("./a", &TestResult{Name: "TestB/x", Status: x, output: []string{"later still"}}, &TestResult{Name: "TestB/y", Status: Passed})
	}
	c := result("./c", &TestResult{Name: "TestC", Status: Passed})
	f("both pass", &Boot{Packages: []*PackageResult{b(Passed), c}}, "", true, 3)
	f("one fails twice", &Boot{Packages: []*PackageResult{b(Failed), c}}, "", false, 1)
	f("one is skipped", &Boot{Packages: []*PackageResult{b(Passed), result("./c", &TestResult{Name: "TestC", Status: Skipped})}}, "", false, 2)
	f("one does not run", &Boot{Packages: []*PackageResult{b(Passed)}}, "", false, 2)
	f("the guest dies", &Boot{Problem: "ended early", Packages: []*PackageResult{b(Passed), c}}, "", false, 0)
	f("the guest had died", nil, "ended early", false, 0)
}

func TestAgainHasLimits(t *testing.T) {
	many := &PackageResult{Package: "./a"}
	for i := range mostAgain + 1 {
		many.Tests = append(many.Tests, &TestResult{Name: "Test" + string(rune('A'+i)), Status: Failed})
	}
	for _, p := range []*PackageResult{many, {Package: "./a", Problem: "exit code 2", Tests: many.Tests[:1]}, {Package: "./a", Tests: []*TestResult{{Name: "TestA", Status: Passed}}}} {
		b := &Boot{Packages: []*PackageResult{p}}
		if err := b.again(nil, func(Cached, []testPackage, string) (*Boot, error) { return nil, errors.New("ran") }); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}
