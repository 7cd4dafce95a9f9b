package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/program"
)

// SourcePrefix begins the source of Programs that come from custom resources; the resource's name follows.
const SourcePrefix = "programs.kaon.dev/"

// referenceWait bounds how long a ConfigMap or Secret is waited for that was not read before.
const referenceWait = 5 * time.Second

// ErrNoNamespace says that references can't be resolved.
var ErrNoNamespace = errors.New("the agent's namespace is not known: set POD_NAMESPACE from the field metadata.namespace, or --namespace")

// ProgramsOptions say for whom Program resources are followed.
type ProgramsOptions struct {
	// Node on which the agent runs.
	Node string
	// Namespace of the agent, in which references are resolved.
	Namespace string
	// Allow are the kinds of hooks and helpers that objects may use although they can act.
	Allow []string
	// Pods tells pods' labels, for selectors; nil: resources with selectors are refused.
	Pods PodLabels
	// Manifest says what resources can refer to.
	Manifest manifest.Options
	Logger   *slog.Logger
}

// Programs follows the Program resources that are meant for a node, and the ConfigMaps and Secrets that they name.
type Programs struct {
	options ProgramsOptions
	log     *slog.Logger
	api     *api
	changed chan struct{}

	programs, node *follower

	// mu guards what follows.
	mu sync.Mutex
	// ctx is Run's.
	ctx        context.Context
	references map[reference]*followed
	parsed     map[string]parsed
}

// reference names a ConfigMap or Secret.
type reference struct{ kind, name string }

// followed is an object that some Program names.
type followed struct {
	*follower
	stop context.CancelFunc
}

// parsed is what was made of a resource. It is as good as long as nothing changed.
type parsed struct {
	uid        string
	generation int64
	// version of the referenced object.
	version string
	result  Resource
}

// A Resource is a Program resource and what became of it.
type Resource struct {
	Name, UID  string
	Generation int64
	// Elsewhere says that it is meant for other nodes: all that follows is empty.
	Elsewhere bool
	// Builtin is the built-in Program that it names, if it names one.
	Builtin string
	// Config runs it.
	Config agent.ProgramConfig
}

// NewPrograms prepares to follow resources; Run does it.
func NewPrograms(config *rest.Config, options ProgramsOptions) (*Programs, error) {
	if options.Node == "" {
		return nil, ErrNoNode
	}
	if options.Namespace == "" {
		return nil, ErrNoNamespace
	}
	if err := CheckPermissions(options.Allow); err != nil {
		return nil, err
	}
	client, err := newAPI(config)
	if err != nil {
		return nil, err
	}
	p := &Programs{options: options, log: options.Logger, api: client, changed: make(chan struct{}, 1),
		references: map[reference]*followed{}, parsed: map[string]parsed{}}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.programs = newFollower(followOptions{client: client.programs, codec: client.codec, resource: "programs", changed: p.signal, log: p.log,
		object: func() runtime.Object { return &resource{} }, list: func() runtime.Object { return &resourceList{} },
		trim: func(o any) { r := o.(*resource); r.ManagedFields, r.Status = nil, nil },
		same: func(a, b any) bool {
			a1, b1 := a.(*resource), b.(*resource)
			return a1.UID == b1.UID && a1.Generation == b1.Generation
		}})
	p.node = newFollower(followOptions{client: client.core, codec: client.codec, resource: "nodes", name: options.Node, metadata: true, changed: p.signal, log: p.log,
		object: func() runtime.Object { return &metav1.PartialObjectMetadata{} }, list: func() runtime.Object { return &metav1.PartialObjectMetadataList{} },
		trim: func(o any) { o.(*metav1.PartialObjectMetadata).ManagedFields = nil },
		same: func(a, b any) bool {
			return maps.Equal(a.(*metav1.PartialObjectMetadata).Labels, b.(*metav1.PartialObjectMetadata).Labels)
		}})
	return p, nil
}

// signal says that something changed.
func (p *Programs) signal() {
	select {
	case p.changed <- struct{}{}:
	default: // it was said already
	}
}

// Changed receives after something changed: then Resources may return something else.
func (p *Programs) Changed() <-chan struct{} { return p.changed }

// Undefined tells whether the cluster does not know what a Program is.
func (p *Programs) Undefined() bool {
	return !p.programs.isSynced() && apierrors.IsNotFound(p.programs.why())
}

// Run follows the resources until the context ends.
func (p *Programs) Run(ctx context.Context) {
	p.mu.Lock()
	p.ctx = ctx
	p.mu.Unlock()
	var wait sync.WaitGroup
	wait.Go(func() { p.programs.run(ctx) })
	wait.Go(func() { p.node.run(ctx) })
	wait.Wait()
}

// WaitForSync waits until the resources and the node's labels are known.
func (p *Programs) WaitForSync(ctx context.Context) error {
	return errors.Join(p.programs.wait(ctx), p.node.wait(ctx))
}

// Resources returns the resources by name, and follows what those refer to that are meant for this node. A resource of which
// no Program can be made has a config that says why. Until the API server was reached, the only entry, which has no name, says that.
func (p *Programs) Resources(ctx context.Context) []Resource {
	for _, f := range []*follower{p.programs, p.node} {
		if !f.isSynced() {
			return []Resource{{Config: agent.ProgramConfig{Source: SourcePrefix + "*", Optional: true, Resolved: &agent.Resolved{Name: SourcePrefix + "*", Err: f.why()}}}}
		}
	}
	var labels map[string]string
	if node, ok := p.node.get(p.options.Node).(*metav1.PartialObjectMetadata); ok {
		labels = node.Labels
	}
	all := p.programs.all()
	slices.SortFunc(all, func(a, b any) int { return cmp.Compare(a.(*resource).Name, b.(*resource).Name) })
	p.mu.Lock()
	defer p.mu.Unlock()
	used, before := map[reference]bool{}, p.parsed
	p.parsed = map[string]parsed{}
	resources := make([]Resource, 0, len(all))
	for _, o := range all {
		r := o.(*resource)
		if !selects(r, labels) {
			resources = append(resources, Resource{Name: r.Name, UID: string(r.UID), Generation: r.Generation, Elsewhere: true})
			continue
		}
		resources = append(resources, p.resolve(ctx, r, before[r.Name], used))
	}
	for ref, f := range p.references {
		if !used[ref] {
			f.stop()
			delete(p.references, ref)
		}
	}
	return resources
}

// selects tells whether a resource is meant for a node with these labels.
func selects(r *resource, labels map[string]string) bool {
	var spec struct {
		NodeSelector map[string]string `json:"nodeSelector"`
	}
	// What is no selector is reported by whoever reads all of the spec.
	_ = json.Unmarshal(r.Spec, &spec)
	for name, value := range spec.NodeSelector {
		if v, ok := labels[name]; !ok || v != value {
			return false
		}
	}
	return true
}

// resolve makes a Program of a resource. p.mu is held.
func (p *Programs) resolve(ctx context.Context, r *resource, before parsed, used map[reference]bool) Resource {
	var spec v1alpha1.ProgramSpec
	_ = json.Unmarshal(r.Spec, &spec) // only to see what it refers to
	now := parsed{uid: string(r.UID), generation: r.Generation}
	onNode := false
	result := Resource{Name: r.Name, UID: string(r.UID), Generation: r.Generation}
	if s := spec.Source; s != nil {
		result.Builtin = s.Builtin
		onNode = s.Object != nil && s.Object.Path != ""
		if ref, ok := refersTo(s); ok {
			used[ref] = true
			now.version = p.follow(ctx, ref)
		}
	}
	if before.uid == now.uid && before.generation == now.generation && before.version == now.version && !onNode {
		p.parsed[r.Name] = before
		return before.result
	}
	options := p.options.Manifest
	options.Objects = func(kind, name, key string) ([]byte, error) { return p.object(reference{kind, name}, key) }
	made, err := manifest.ParseResource(r.Name, r.Spec, options)
	if err == nil && result.Builtin == "" {
		err = permit(made, p.options.Allow)
	}
	var selected agent.Selection
	if err == nil {
		selected, err = newSelection(spec.WorkloadSelector, made, p.options.Pods)
	}
	// Whether the agent is ready is about its own configuration.
	result.Config = agent.ProgramConfig{Source: SourcePrefix + r.Name, Optional: true, Resolved: &agent.Resolved{Name: r.Name, Spec: made, Err: err, Selection: selected}}
	now.result = result
	if version := p.version(spec.Source); version == now.version {
		p.parsed[r.Name] = now
	}
	return result
}

func refersTo(s *v1alpha1.Source) (reference, bool) {
	switch {
	case s == nil || s.Object == nil:
		return reference{}, false
	case s.Object.ConfigMapKeyRef != nil:
		return reference{"ConfigMap", s.Object.ConfigMapKeyRef.Name}, true
	case s.Object.SecretKeyRef != nil:
		return reference{"Secret", s.Object.SecretKeyRef.Name}, true
	}
	return reference{}, false
}

// follow sees to it that an object is followed, waits a moment for it if it is new, and returns its version.
func (p *Programs) follow(ctx context.Context, ref reference) string {
	f := p.references[ref]
	if f == nil {
		options := followOptions{client: p.api.core, codec: p.api.codec, resource: "configmaps", namespace: p.options.Namespace, name: ref.name, changed: p.signal, log: p.log,
			object: func() runtime.Object { return &corev1.ConfigMap{} }, list: func() runtime.Object { return &corev1.ConfigMapList{} }}
		if ref.kind == "Secret" {
			options.resource = "secrets"
			options.object, options.list = func() runtime.Object { return &corev1.Secret{} }, func() runtime.Object { return &corev1.SecretList{} }
		}
		parent := p.ctx
		if parent == nil {
			parent = ctx
		}
		following, stop := context.WithCancel(parent)
		f = &followed{newFollower(options), stop}
		p.references[ref] = f
		go f.run(following)
		waiting, cancel := context.WithTimeout(ctx, referenceWait)
		defer cancel()
		// Why it is not there is told when it is asked for.
		_ = f.wait(waiting)
	}
	return f.version(ref.name)
}

func (p *Programs) version(s *v1alpha1.Source) string {
	ref, ok := refersTo(s)
	if f := p.references[ref]; ok && f != nil {
		return f.version(ref.name)
	}
	return ""
}

func (f *follower) version(name string) string {
	if o, ok := f.get(name).(metav1.Object); ok {
		return o.GetResourceVersion()
	}
	return ""
}

// object returns the value of a key of an object that is followed.
func (p *Programs) object(ref reference, key string) ([]byte, error) {
	f := p.references[ref]
	if f == nil {
		return nil, fmt.Errorf("%s %s is not followed", ref.kind, ref.name)
	}
	where := fmt.Sprintf("%s %s/%s", ref.kind, p.options.Namespace, ref.name)
	var data map[string][]byte
	var text map[string]string
	switch o := f.get(ref.name).(type) {
	case *corev1.ConfigMap:
		data, text = o.BinaryData, o.Data
	case *corev1.Secret:
		data = o.Data
	default:
		if !f.isSynced() {
			return nil, fmt.Errorf("%s: %w", where, f.why())
		}
		return nil, &program.Problem{Where: where, What: "there is none", Fix: "create it, in the agent's namespace"}
	}
	if value, ok := data[key]; ok {
		return value, nil
	}
	if value, ok := text[key]; ok {
		return []byte(value), nil
	}
	keys := make([]string, 0, len(data)+len(text))
	for name := range data {
		keys = append(keys, name)
	}
	for name := range text {
		keys = append(keys, name)
	}
	slices.Sort(keys)
	fix := fmt.Sprintf("it has %v", keys)
	if near := program.Nearest(key, keys); near != "" {
		fix = fmt.Sprintf("did you mean %q?", near)
	}
	return nil, &program.Problem{Where: where, What: fmt.Sprintf("it has no key %q", key), Fix: fix}
}
