package kube

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// podLabels are labels that never change.
type podLabels func(uid string) (string, map[string]string, bool)

func (f podLabels) Labels(uid string) (string, map[string]string, bool) { return f(uid) }
func (f podLabels) Listed() bool                                        { return true }
func (f podLabels) Changed() <-chan struct{}                            { return nil }

func TestSelection(t *testing.T) {
	pods := podLabels(func(uid string) (string, map[string]string, bool) {
		switch uid {
		case "web":
			return "shop", map[string]string{"app": "web", "tier": "front"}, true
		case "bare":
			return "other", nil, true
		}
		return "", nil, false
	})
	spec := &program.Spec{Name: "x", Readers: []program.Reader{{Key: []program.Label{{Decoder: "workload"}}}}}
	f := func(s v1alpha1.WorkloadSelector, want string) {
		t.Helper()
		selected, err := newSelection(&s, spec, pods)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, uid := range []string{"web", "bare", "unknown", ""} {
			if selected.Selects(workload.Workload{PodUID: uid}) {
				got = append(got, uid)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
	expression := func(key, operator string, values ...string) v1alpha1.WorkloadSelector {
		return v1alpha1.WorkloadSelector{PodSelector: &v1alpha1.LabelSelector{MatchExpressions: []v1alpha1.LabelRequirement{{Key: key, Operator: operator, Values: values}}}}
	}
	f(v1alpha1.WorkloadSelector{}, "web bare")
	f(v1alpha1.WorkloadSelector{Namespaces: []string{"shop", "none"}}, "web")
	f(v1alpha1.WorkloadSelector{PodSelector: &v1alpha1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}, "web")
	f(v1alpha1.WorkloadSelector{Namespaces: []string{"other"}, PodSelector: &v1alpha1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}, "")
	f(expression("tier", "In", "front", "back"), "web")
	f(expression("tier", "NotIn", "front"), "bare")
	f(expression("tier", "Exists"), "web")
	f(expression("tier", "DoesNotExist"), "bare")

	refused := func(s v1alpha1.WorkloadSelector, spec *program.Spec, pods PodLabels, want string) {
		t.Helper()
		if _, err := newSelection(&s, spec, pods); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	refused(expression("tier", "In"), spec, pods, "spec.workloadSelector.podSelector")
	refused(v1alpha1.WorkloadSelector{}, &program.Spec{Name: "x"}, pods, "x neither tells workloads apart nor asks which are selected")
	refused(v1alpha1.WorkloadSelector{}, spec, nil, "does not know pods' labels")
	if selected, err := newSelection(nil, spec, nil); selected != nil || err != nil {
		t.Error("without a selector there is a selection")
	}
}

// Who selects by labels is told when they change, and not at every change of a pod.
func TestPodsChanged(t *testing.T) {
	pods, err := NewPods(&rest.Config{Host: "127.0.0.1:1"}, PodsOptions{Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{pods}
	f := func(what string, want bool, change func() error) {
		t.Helper()
		changed := pods.Changed()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-changed:
			if !want {
				t.Errorf("%s: a change was told", what)
			}
		default:
			if want {
				t.Errorf("%s: no change was told", what)
			}
		}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "web", Namespace: "shop", Labels: map[string]string{"app": "web"}}}
	f("a new pod", true, func() error { return s.Add(pod) })
	pod = pod.DeepCopy()
	pod.Status.Phase = corev1.PodRunning
	f("another status", false, func() error { return s.Update(pod) })
	pod = pod.DeepCopy()
	pod.Labels["app"] = "db"
	f("other labels", true, func() error { return s.Update(pod) })
	f("all pods for the first time", true, func() error { return s.Replace([]any{pod}, "1") })
	f("all pods again", false, func() error { return s.Replace([]any{pod}, "1") })
	f("the end", false, func() error { return s.Delete(pod) })
}

// What is not known of a pod is known to be nothing once all pods were told.
func TestSelectionKnown(t *testing.T) {
	pods, err := NewPods(&rest.Config{Host: "127.0.0.1:1"}, PodsOptions{Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	s := &store{pods}
	selected := &selection{pods: pods}
	f := func(uid string, want bool) {
		t.Helper()
		if got := selected.Known(workload.Workload{PodUID: uid}); got != want {
			t.Errorf("%q: %v, want %v", uid, got, want)
		}
	}
	f("", true)
	f("one", false)
	if err := s.Add(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "one"}}); err != nil {
		t.Fatal(err)
	}
	f("one", true)
	f("two", false)
	changed := pods.Changed()
	if err := s.Replace([]any{&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "one"}}}, ""); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("nobody is told that all pods are known")
	}
	f("two", true)
}
