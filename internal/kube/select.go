package kube

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// PodLabels tells pods' labels.
type PodLabels interface {
	// Labels returns the namespace and the labels of a pod by the UID in its cgroups' path.
	Labels(uid string) (namespace string, labels map[string]string, known bool)
	// Listed tells whether all pods were told once: what Labels does not know since then is no pod.
	Listed() bool
	// Changed returns a channel that is closed when Labels or Listed have other answers than now.
	Changed() <-chan struct{}
}

// selection is a selector and what it is asked about. It implements agent.Selection.
type selection struct {
	namespaces []string
	selector   labels.Selector
	pods       PodLabels
}

// newSelection returns nil for a nil selector.
func newSelection(s *v1alpha1.WorkloadSelector, spec *program.Spec, pods PodLabels) (agent.Selection, error) {
	if s == nil {
		return nil, nil
	}
	const where = "spec.workloadSelector"
	if pods == nil {
		return nil, &program.Problem{Where: where, What: "the agent does not know pods' labels", Fix: "let it follow the node's pods"}
	}
	tellsApart := slices.ContainsFunc(spec.Readers, func(r program.Reader) bool {
		return slices.ContainsFunc(r.Key, func(l program.Label) bool { return l.Decoder == "workload" })
	})
	if !tellsApart && !spec.SelectsInKernel() {
		return nil, &program.Problem{Where: where, What: fmt.Sprintf("%s neither tells workloads apart nor asks which are selected", spec.Name),
			Fix: "remove it, or ask kaon_in_scope() in the code"}
	}
	selector := &metav1.LabelSelector{}
	if p := s.PodSelector; p != nil {
		selector.MatchLabels = p.MatchLabels
		for _, e := range p.MatchExpressions {
			selector.MatchExpressions = append(selector.MatchExpressions, metav1.LabelSelectorRequirement{Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values})
		}
	}
	matches, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return nil, &program.Problem{Where: where + ".podSelector", What: err.Error()}
	}
	return &selection{s.Namespaces, matches, pods}, nil
}

// Selects implements agent.Selection.
func (s *selection) Selects(w workload.Workload) bool {
	if w.PodUID == "" {
		return false
	}
	namespace, labels, known := s.pods.Labels(w.PodUID)
	return known && (len(s.namespaces) == 0 || slices.Contains(s.namespaces, namespace)) && s.selector.Matches(labelSet(labels))
}

// Known implements agent.Selection.
func (s *selection) Known(w workload.Workload) bool {
	if w.PodUID == "" || s.pods.Listed() {
		return true
	}
	_, _, known := s.pods.Labels(w.PodUID)
	return known
}

// Changed implements agent.Selection.
func (s *selection) Changed() <-chan struct{} { return s.pods.Changed() }

// labelSet is a pod's labels as selectors take them.
type labelSet map[string]string

func (l labelSet) Has(name string) bool   { _, ok := l[name]; return ok }
func (l labelSet) Get(name string) string { return l[name] }
func (l labelSet) Lookup(name string) (string, bool) {
	value, ok := l[name]
	return value, ok
}
