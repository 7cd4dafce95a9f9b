package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// mostAgain is how many tests are run a second time on a kernel. Where more fail, it is not for want of a CPU.
const mostAgain = 5

// failure is a test that failed, without its subtests.
type failure struct{ pkg, test string }

func topLevel(name string) string {
	top, _, _ := strings.Cut(name, "/")
	return top
}

// failures returns the tests that failed, each once; none where a package or the guest did not come to its end.
func (b *Boot) failures() []failure {
	if b.Problem != "" {
		return nil
	}
	var failed []failure
	for _, p := range b.Packages {
		if p.Problem != "" {
			return nil
		}
		for _, test := range p.Tests {
			f := failure{p.Package, topLevel(test.Name)}
			if test.Status == Failed && !slices.Contains(failed, f) {
				failed = append(failed, f)
			}
		}
	}
	return failed
}

// again runs what failed a second time with run, which boots a guest for these packages and the tests that match the
// expression: beside other work an emulated machine may get no CPU for seconds. A test that passes then has passed, with a warning
// that has what it printed at first; one that fails twice has failed.
func (b *Boot) again(packages []testPackage, run func(kernel Cached, packages []testPackage, expression string) (*Boot, error)) error {
	failed := b.failures()
	if len(failed) == 0 || len(failed) > mostAgain {
		return nil
	}
	var names []string
	for _, f := range failed {
		names = append(names, regexp.QuoteMeta(f.test))
	}
	packages = slices.DeleteFunc(slices.Clone(packages), func(p testPackage) bool {
		return !slices.ContainsFunc(failed, func(f failure) bool { return f.pkg == p.name })
	})
	second, err := run(b.Kernel, packages, "^("+strings.Join(names, "|")+")$")
	if err != nil {
		return err
	}
	b.TotalSeconds += second.TotalSeconds
	b.Warnings = append(b.Warnings, second.Warnings...)
	for _, p := range b.Packages {
		for _, test := range p.Tests {
			switch {
			case test.Status != Failed:
			case second.passed(failure{p.Package, topLevel(test.Name)}):
				test.Status = Passed
				b.Warnings = append(b.Warnings, fmt.Sprintf("%s %s failed, and passed when it was run again:\n    %s", p.Package, test.Name, strings.Join(test.output, "\n    ")))
			default:
				test.output = append(append(test.output, "when it was run again:"), second.output(p.Package, topLevel(test.Name))...)
			}
		}
	}
	for _, again := range second.Packages {
		if at := slices.IndexFunc(b.Packages, func(p *PackageResult) bool { return p.Package == again.Package }); at >= 0 {
			b.Packages[at].Library = append(b.Packages[at].Library, again.Library...)
		}
	}
	return nil
}

// output returns what the failed parts of a test printed, or why it may not have run.
func (b *Boot) output(pkg, test string) []string {
	var lines []string
	for _, p := range b.Packages {
		for _, result := range p.Tests {
			if p.Package == pkg && topLevel(result.Name) == test && result.Status == Failed {
				lines = append(lines, result.output...)
			}
		}
	}
	if b.Problem != "" {
		lines = append(lines, b.Problem)
	}
	return lines
}

// passed tells whether the test ran and neither it nor a subtest failed.
func (b *Boot) passed(f failure) bool {
	ran := false
	for _, p := range b.Packages {
		if p.Package != f.pkg || p.Problem != "" {
			continue
		}
		for _, test := range p.Tests {
			if topLevel(test.Name) != f.test {
				continue
			}
			if test.Status == Failed {
				return false
			}
			ran = ran || test.Status == Passed
		}
	}
	return ran && b.Problem == ""
}
