package kube

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/agent"
)

// Bounds of a status.
const (
	maxFailures       = 10
	maxFailureNodes   = 3
	maxFailureKernels = 5
	// MaxMessage is the length in bytes of one message.
	MaxMessage = 1024
)

// Elsewhere is the state of Programs that are not meant for the node that reports.
const Elsewhere agent.State = "elsewhere"

// silence is the message about nodes whose agents report no more.
const silence = "the agent has stopped reporting: look at its pod on the node"

// observation is what is known of one node.
type observation struct {
	node, kernel string
	// silent nodes have not reported for too long.
	silent bool
	// report about the Program; nil if the node said nothing of it.
	report *ProgramReport
}

// subject is the Program that a status is about.
type subject struct {
	uid        string
	generation int64
	source     string
	// before is its status as it is.
	before *v1alpha1.ProgramStatus
}

// aggregate makes a status of what nodes report.
func aggregate(s subject, observations []observation, now time.Time) *v1alpha1.ProgramStatus {
	status := &v1alpha1.ProgramStatus{ObservedGeneration: s.generation, Source: s.source}
	type group struct {
		v1alpha1.Failure
		kernels map[string]bool
	}
	groups := map[string]*group{}
	note := func(message string, degraded bool, o observation) {
		g := groups[message]
		if g == nil {
			g = &group{Failure: v1alpha1.Failure{Message: message, Degraded: degraded}, kernels: map[string]bool{}}
			groups[message] = g
		}
		g.Count++
		g.Nodes = append(g.Nodes, o.node)
		g.kernels[o.kernel] = true
	}
	pending, current, unread, degraded := 0, 0, 0, 0
	for _, o := range observations {
		r := o.report
		if r != nil && r.UID != s.uid {
			r = nil
		}
		if r != nil && r.State != Elsewhere {
			status.Nodes.Desired++
		}
		switch {
		case o.silent && r != nil && r.State != Elsewhere:
			status.Nodes.Failed++
			note(silence, false, o)
			continue
		case o.silent:
			continue
		case r == nil || r.Generation < s.generation:
			pending++
			continue
		}
		current++
		if r.Unread {
			unread++
		}
		switch r.State {
		case agent.Up:
			status.Nodes.Ready++
		case agent.Degraded:
			degraded++
			note(r.Message, true, o)
		case agent.Down:
			status.Nodes.Failed++
			note(r.Message, false, o)
		}
	}
	all := make([]*group, 0, len(groups))
	for _, message := range slices.Sorted(maps.Keys(groups)) {
		all = append(all, groups[message])
	}
	slices.SortStableFunc(all, func(a, b *group) int { return cmp.Compare(b.Count, a.Count) })
	for i, g := range all {
		if i == maxFailures {
			status.OmittedFailures = len(all) - i
			break
		}
		slices.Sort(g.Nodes)
		g.Nodes = g.Nodes[:min(len(g.Nodes), maxFailureNodes)]
		g.Kernels = slices.Sorted(maps.Keys(g.kernels))
		g.Kernels = g.Kernels[:min(len(g.Kernels), maxFailureKernels)]
		status.Failures = append(status.Failures, g.Failure)
	}
	n := status.Nodes
	status.Summary = fmt.Sprintf("%d/%d", n.Ready, n.Desired)

	conditions := conditions{status: status, before: s.before, now: now}
	first := ""
	if len(status.Failures) > 0 {
		first = status.Failures[0].Message
	}
	switch {
	case unread > 0:
		conditions.set("Accepted", "False", "Invalid", first)
	case current == 0:
		conditions.set("Accepted", "Unknown", "Pending", "no agent has reported on this generation yet")
	default:
		conditions.set("Accepted", "True", "Valid", "")
	}
	runs := fmt.Sprintf("runs on %d of %d nodes", n.Ready, n.Desired)
	switch {
	case n.Failed > 0:
		conditions.set("Ready", "False", "Failed", fmt.Sprintf("%s: %s", runs, first))
	case pending > 0 || current == 0:
		conditions.set("Ready", "Unknown", "Progressing", fmt.Sprintf("%s; %d have not reported on this generation yet", runs, pending))
	case n.Desired == 0:
		conditions.set("Ready", "False", "NoNodes", "the node selector matches no node")
	case n.Ready < n.Desired:
		conditions.set("Ready", "False", "Incomplete", fmt.Sprintf("runs completely on %d of %d nodes: %s", n.Ready, n.Desired, first))
	default:
		conditions.set("Ready", "True", "Running", runs)
	}
	if degraded > 0 {
		conditions.set("Degraded", "True", "Incomplete", fmt.Sprintf("on %d nodes something is missing: %s", degraded, first))
	} else {
		conditions.set("Degraded", "False", "AsSpecified", "")
	}
	return status
}

// conditions sets those of a status, and keeps the time since when they are as they are.
type conditions struct {
	status, before *v1alpha1.ProgramStatus
	now            time.Time
}

func (c *conditions) set(kind, status, reason, message string) {
	condition := v1alpha1.Condition{Type: kind, Status: status, Reason: reason, Message: message,
		ObservedGeneration: c.status.ObservedGeneration, LastTransitionTime: c.now.UTC().Format(time.RFC3339)}
	if c.before != nil {
		for _, b := range c.before.Conditions {
			if b.Type == kind && b.Status == status && b.LastTransitionTime != "" {
				condition.LastTransitionTime = b.LastTransitionTime
			}
		}
	}
	c.status.Conditions = append(c.status.Conditions, condition)
}

// describe says in words what a spec's code is.
func describe(spec *v1alpha1.ProgramSpec) string {
	switch s := spec.Source; {
	case s == nil:
		return "files"
	case s.Builtin != "":
		return "builtin " + s.Builtin
	case s.Object == nil:
		return ""
	case s.Object.ConfigMapKeyRef != nil:
		return fmt.Sprintf("configmap %s/%s", s.Object.ConfigMapKeyRef.Name, s.Object.ConfigMapKeyRef.Key)
	case s.Object.SecretKeyRef != nil:
		return fmt.Sprintf("secret %s/%s", s.Object.SecretKeyRef.Name, s.Object.SecretKeyRef.Key)
	case s.Object.Path != "":
		return "path " + s.Object.Path
	}
	return "inline"
}
