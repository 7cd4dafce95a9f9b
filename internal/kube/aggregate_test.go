package kube

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/agent"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// seen is an observation of one node.
func seen(node, kernel string, generation int64, state agent.State, message string) observation {
	return observation{node: node, kernel: kernel, report: &ProgramReport{Name: "x", UID: "u", Generation: generation, State: state, Message: message}}
}

func TestAggregate(t *testing.T) {
	silent := func(o observation) observation { o.silent = true; return o }
	unread := func(o observation) observation { o.report.Unread = true; return o }
	nothing := observation{node: "n"}
	f := func(observations []observation, summary string, failed int, accepted, ready, degraded string) {
		t.Helper()
		s := aggregate(subject{uid: "u", generation: 2, source: "builtin x"}, observations, noon)
		var got []string
		for _, c := range s.Conditions {
			got = append(got, c.Status+" "+c.Reason)
			if c.ObservedGeneration != 2 || c.LastTransitionTime != "2026-01-02T12:00:00Z" {
				t.Errorf("condition %+v", c)
			}
		}
		if s.Summary != summary || s.Nodes.Failed != failed || strings.Join(got, ", ") != strings.Join([]string{accepted, ready, degraded}, ", ") {
			t.Errorf("%s, %d failed, %q\nwant %s, %d, %q", s.Summary, s.Nodes.Failed, got, summary, failed, []string{accepted, ready, degraded})
		}
	}
	const valid, invalid, pending = "True Valid", "False Invalid", "Unknown Pending"
	const fine, missing = "False AsSpecified", "True Incomplete"
	up, down := seen("a", "6.1", 2, agent.Up, ""), seen("b", "5.10", 2, agent.Down, "no")
	f(nil, "0/0", 0, pending, "Unknown Progressing", fine)
	f([]observation{up, up, up}, "3/3", 0, valid, "True Running", fine)
	f([]observation{up, down}, "1/2", 1, valid, "False Failed", fine)
	f([]observation{up, unread(seen("b", "5.10", 2, agent.Down, "no"))}, "1/2", 1, invalid, "False Failed", fine)
	f([]observation{up, seen("b", "5.10", 2, agent.Degraded, "half")}, "1/2", 0, valid, "False Incomplete", missing)
	f([]observation{unread(seen("b", "5.10", 2, agent.Degraded, "change"))}, "0/1", 0, invalid, "False Incomplete", missing)
	// An agent that has not seen the generation is meant nevertheless.
	f([]observation{up, seen("b", "6.1", 1, agent.Up, "")}, "1/2", 0, valid, "Unknown Progressing", fine)
	f([]observation{up, nothing}, "1/1", 0, valid, "Unknown Progressing", fine)
	f([]observation{seen("a", "6.1", 2, Elsewhere, "")}, "0/0", 0, valid, "False NoNodes", fine)
	f([]observation{up, seen("b", "6.1", 2, Elsewhere, "")}, "1/1", 0, valid, "True Running", fine)
	f([]observation{up, silent(seen("b", "6.1", 2, agent.Up, ""))}, "1/2", 1, valid, "False Failed", fine)
	f([]observation{up, silent(nothing)}, "1/1", 0, valid, "True Running", fine)
	// Another resource of the same name, which is gone.
	other := seen("b", "6.1", 5, agent.Up, "")
	other.report.UID = "older"
	f([]observation{up, other}, "1/1", 0, valid, "Unknown Progressing", fine)
}

func TestAggregateFailures(t *testing.T) {
	var all []observation
	for i := range 500 {
		all = append(all, seen(fmt.Sprintf("node%03d", i), fmt.Sprintf("6.%d", i%7), 1, agent.Down, fmt.Sprintf("reason %02d", i%20)))
	}
	for i := range 100 {
		all = append(all, seen(fmt.Sprintf("old%03d", i), "5.4", 1, agent.Degraded, "half"))
	}
	s := aggregate(subject{uid: "u", generation: 1}, all, noon)
	want := v1alpha1.Failure{Message: "half", Degraded: true, Count: 100, Nodes: []string{"old000", "old001", "old002"}, Kernels: []string{"5.4"}}
	if len(s.Failures) != 10 || s.OmittedFailures != 11 || !reflect.DeepEqual(s.Failures[0], want) {
		t.Errorf("%d failures, %d omitted, first %+v", len(s.Failures), s.OmittedFailures, s.Failures[0])
	}
	if second := s.Failures[1]; second.Message != "reason 00" || second.Count != 25 || len(second.Nodes) != 3 || len(second.Kernels) != 5 {
		t.Errorf("second %+v", second)
	}
	if s.Nodes != (v1alpha1.NodeCounts{Desired: 600, Failed: 500}) {
		t.Errorf("nodes %+v", s.Nodes)
	}
}

func TestConditionsKeepTheirTime(t *testing.T) {
	up, down := []observation{seen("a", "6.1", 1, agent.Up, "")}, []observation{seen("a", "6.1", 1, agent.Down, "no")}
	first := aggregate(subject{uid: "u", generation: 1}, up, noon)
	later := noon.Add(time.Hour)
	if again := aggregate(subject{uid: "u", generation: 1, before: first}, up, later); !reflect.DeepEqual(again, first) {
		t.Errorf("nothing changed, but %+v became %+v", first, again)
	}
	second := aggregate(subject{uid: "u", generation: 1, before: first}, down, later)
	if second.Conditions[0].LastTransitionTime != "2026-01-02T12:00:00Z" || second.Conditions[1].LastTransitionTime != "2026-01-02T13:00:00Z" {
		t.Errorf("%+v", second.Conditions)
	}
}

// The page lists what the controller exports.
func TestControllerMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/reference/kubernetes.md")
	if err != nil {
		t.Fatal(err)
	}
	c := &Controller{collector: &collector{nodes: map[string]*heard{}}}
	found := 0
	for line := range strings.Lines(string(c.Metrics())) {
		if fields := strings.Fields(line); fields[0] != "#" {
			found++
			if !strings.Contains(string(page), "`"+fields[0]+"`") {
				t.Errorf("the page does not name %s", fields[0])
			}
		}
	}
	if found != 6 {
		t.Errorf("%d metrics", found)
	}
}
