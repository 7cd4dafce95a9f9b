package kube

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/kaon-project/kaon/internal/workload"
)

// hashAnnotation is on a static pod's copy in the API, whose UID is another than in its cgroups' path. Only
// where mirrorAnnotation is, too, because anybody may write annotations.
const (
	hashAnnotation   = "kubernetes.io/config.hash"
	mirrorAnnotation = corev1.MirrorPodAnnotationKey
)

// maxContainers bounds the containers of one pod whose names are kept, those that ended included.
const maxContainers = 64

// container is one that was started. Its id is what runtimes write as 64 hexadecimal digits.
type container struct {
	id   [32]byte
	name string
}

// extraLabel is one that a pod gives its series.
type extraLabel struct {
	name  string
	value func(*corev1.Pod) string
}

// extraLabels returns what the options ask for.
func extraLabels(options PodsOptions) (all []extraLabel, names []string, err error) {
	if options.Owner {
		all = append(all, extraLabel{"owner_kind", func(p *corev1.Pod) string { kind, _ := owner(p); return kind }},
			extraLabel{"owner_name", func(p *corev1.Pod) string { _, name := owner(p); return name }})
	}
	if options.NodeLabel {
		all = append(all, extraLabel{"node", func(*corev1.Pod) string { return options.Node }})
	}
	for _, key := range options.Labels {
		all = append(all, extraLabel{"label_" + sanitize(key), func(p *corev1.Pod) string { return p.Labels[key] }})
	}
	for _, l := range all {
		if slices.Contains(names, l.name) {
			return nil, nil, fmt.Errorf("two labels of pods would both be called %s: name one of them only", l.name)
		}
		names = append(names, l.name)
	}
	return all, names, nil
}

// sanitize makes the key of a pod's label part of a label name, as Prometheus does.
func sanitize(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

// owner returns who made a pod. ReplicaSets that a Deployment made stand for it: their names
// end with a hash that is also on their pods.
func owner(p *corev1.Pod) (kind, name string) {
	o := metav1.GetControllerOf(p)
	if o == nil {
		return "", ""
	}
	if o.Kind == "ReplicaSet" {
		if hash := p.Labels["pod-template-hash"]; hash != "" {
			if deployment, ok := strings.CutSuffix(o.Name, "-"+hash); ok {
				return "Deployment", deployment
			}
		}
	}
	return o.Kind, o.Name
}

// newPod keeps of a Pod what is needed. before is what was kept of it, nil if it is new: containers that
// ended are in a Pod's status for a while only.
func (p *Pods) newPod(from *corev1.Pod, before *pod) *pod {
	n := &pod{namespace: from.Namespace, name: from.Name, uid: string(from.UID), labels: from.Labels}
	if _, mirrored := from.Annotations[mirrorAnnotation]; mirrored {
		n.hash = from.Annotations[hashAnnotation]
	}
	for _, l := range p.extra {
		n.extra = n.extra.Append(l.name, l.value(from))
	}
	for _, statuses := range [][]corev1.ContainerStatus{from.Status.ContainerStatuses, from.Status.InitContainerStatuses, from.Status.EphemeralContainerStatuses} {
		for i := range statuses {
			s := &statuses[i]
			n.add(s.ContainerID, s.Name)
			for _, t := range []*corev1.ContainerStateTerminated{s.State.Terminated, s.LastTerminationState.Terminated} {
				if t != nil {
					n.add(t.ContainerID, s.Name)
				}
			}
		}
	}
	if before != nil {
		for _, c := range before.containers {
			if len(n.containers) < maxContainers && n.container(c.id) == "" {
				n.containers = append(n.containers, c)
			}
		}
		if before.extra == n.extra {
			n.extra = before.extra
		}
	}
	n.containers = slices.Clip(n.containers)
	return n
}

// add notes a container by its id as a status has it: RUNTIME://ID.
func (n *pod) add(status, name string) {
	_, id, _ := strings.Cut(status, "://")
	if raw, ok := parseID(id); ok && name != "" && len(n.containers) < maxContainers && n.container(raw) == "" {
		n.containers = append(n.containers, container{raw, name})
	}
}

func (n *pod) container(id [32]byte) string {
	for i := range n.containers {
		if n.containers[i].id == id {
			return n.containers[i].name
		}
	}
	return ""
}

func parseID(id string) (raw [32]byte, ok bool) {
	if len(id) != 2*len(raw) {
		return raw, false
	}
	_, err := hex.Decode(raw[:], []byte(id))
	return raw, err == nil
}

// Identify implements workload.PodNames.
func (p *Pods) Identify(uid, containerID string) workload.PodIdentity {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := p.pods[uid]
	if n == nil {
		n = p.hashes[uid]
	}
	if n == nil {
		return workload.PodIdentity{}
	}
	identity := workload.PodIdentity{Namespace: n.namespace, Pod: n.name, Extra: n.extra}
	if id, ok := parseID(containerID); ok {
		identity.Container = n.container(id)
	}
	return identity
}

// Labels returns the namespace and the labels of a pod, which must not be changed.
func (p *Pods) Labels(uid string) (namespace string, labels map[string]string, known bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	n := p.pods[uid]
	if n == nil {
		n = p.hashes[uid]
	}
	if n == nil {
		return "", nil, false
	}
	return n.namespace, n.labels, true
}

// Listed tells whether all pods of the node were told once.
func (p *Pods) Listed() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.listed
}

// Changed returns a channel that is closed when a pod comes or gets other labels, or all were told for the first time.
func (p *Pods) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

// ExtraLabels implements workload.PodNames.
func (p *Pods) ExtraLabels() []string { return p.names }

// Stats implements workload.PodNames.
func (p *Pods) Stats() []workload.PodStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bury(time.Now())
	s := p.stats
	s.Source, s.Retained = "api", len(p.graves)
	s.Pods = len(p.pods) - len(p.graves)
	s.Refused = apierrors.IsForbidden(p.failing) || apierrors.IsUnauthorized(p.failing)
	return []workload.PodStats{s}
}

// tell wakes those who wait for changes.
func (p *Pods) tell() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// put enters what is known of a pod now.
func (p *Pods) put(from *corev1.Pod) {
	n := p.newPod(from, p.pods[string(from.UID)])
	old := p.pods[n.uid]
	if old == nil || !maps.Equal(old.labels, n.labels) {
		p.tell()
	}
	if old != nil {
		if old.gone {
			p.graves = slices.DeleteFunc(p.graves, func(g grave) bool { return g.pod == old })
		}
		p.forgetHash(old)
	}
	p.pods[n.uid] = n
	if n.hash == "" {
		return
	}
	// The first keeps its name: another pod that says so, too, is not the kubelet's.
	if old := p.hashes[n.hash]; old == nil || old.gone || old.uid == n.uid {
		p.hashes[n.hash] = n
	}
}

// remove keeps a pod's names for some time.
func (p *Pods) remove(uid string, now time.Time) {
	if n := p.pods[uid]; n != nil && !n.gone {
		n.gone = true
		p.graves = append(p.graves, grave{n, now})
	}
}

// bury forgets the pods that were deleted too long ago, or that are too many.
func (p *Pods) bury(now time.Time) {
	n := max(0, len(p.graves)-p.options.MaxRetained)
	for n < len(p.graves) && now.Sub(p.graves[n].died) > p.options.Retain {
		n++
	}
	for _, g := range p.graves[:n] {
		delete(p.pods, g.pod.uid)
		p.forgetHash(g.pod)
	}
	p.graves = slices.Delete(p.graves, 0, n)
}

func (p *Pods) forgetHash(n *pod) {
	if p.hashes[n.hash] == n {
		delete(p.hashes, n.hash)
	}
}

// store takes in what the API server tells. It implements cache.ReflectorStore and its extensions.
type store struct{ *Pods }

// change makes one change.
func (s *store) change(f func(now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.stats.Events++
	s.stats.LastSync = now
	f(now)
	s.bury(now)
}

func (s *store) Add(object any) error { return s.Update(object) }

func (s *store) Update(object any) error {
	from, ok := object.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("%T is no pod", object)
	}
	s.change(func(time.Time) { s.put(from) })
	return nil
}

// Delete takes in a pod's last state, too: that of one that ended at once may come with it.
func (s *store) Delete(object any) error {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	from, ok := object.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("%T is no pod", object)
	}
	s.change(func(now time.Time) {
		if old := s.pods[string(from.UID)]; old != nil && old.gone {
			return
		}
		s.put(from)
		s.remove(string(from.UID), now)
	})
	return nil
}

// Replace takes in all pods that there are.
func (s *store) Replace(objects []any, _ string) error {
	s.change(func(now time.Time) {
		there := make(map[string]bool, len(objects))
		for _, object := range objects {
			if from, ok := object.(*corev1.Pod); ok {
				there[string(from.UID)] = true
				s.put(from)
			}
		}
		for uid := range s.pods {
			if !there[uid] {
				s.remove(uid, now)
			}
		}
		if !s.listed {
			s.listed = true
			s.tell()
		}
	})
	s.once.Do(func() { close(s.answered) })
	return nil
}

func (s *store) Resync() error { return nil }

// Bookmark says that nothing happened up to now.
func (s *store) Bookmark(string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.LastSync = time.Now()
	return nil
}

// Transformer cuts pods down before the library keeps them, as it does until it has seen all.
func (s *store) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if from, ok := object.(*corev1.Pod); ok {
			from.ManagedFields, from.Spec = nil, corev1.PodSpec{}
			from.Status.Conditions = nil
		}
		return object, nil
	}
}
