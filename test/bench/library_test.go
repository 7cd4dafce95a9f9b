package main

import (
	"slices"
	"strings"
	"testing"
)

func TestCosts(t *testing.T) {
	const text = `goos: linux
BenchmarkCost/exec-2  cost: {"program":"exec","event":"process","ns":4000,"bpftraceNs":8000}
cost: {"program":"syscalls","params":["latency=true","x=1"],"event":"system call","ns":100}
cost: {"program":"exec","event":"process","ns":2000,"bpftraceNs":6000}
cost: {"program":"exec","event":"process","ns":1000,"bpftraceNs":9000}
cost: {"program":"tasks","event":"scrape","atScrape":true,"ns":70000}
PASS
`
	found, err := parseCosts(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	costs := joinCosts(nil, found)
	if len(costs) != 3 {
		t.Fatalf("%d costs", len(costs))
	}
	f := func(c *programCost, want ...string) {
		t.Helper()
		if got := c.columns(); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f(costs[0], "exec", "", "process", "2000", "1000", "5000", "8000", "4×")
	f(costs[1], "syscalls", "latency=true x=1", "system call", "100", "100", "100,000", "", "")
	f(costs[2], "tasks", "", "scrape", "70000", "70000", "143", "", "")
	f(&programCost{program: "a", event: "b", ns: []float64{-1}}, "a", "", "b", "-1", "-1", "never", "", "")
	f(&programCost{program: "a", event: "b", ns: []float64{5}}, "a", "", "b", "5", "5", "2.0 million", "", "")
	if _, err := parseCosts(strings.NewReader("cost: {x")); err == nil {
		t.Error("a broken line is accepted")
	}
}
