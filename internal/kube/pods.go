package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/kaon-project/kaon/internal/workload"
)

// PodsOptions say which pods are followed and what is told of them. Zero values mean the defaults that are named.
type PodsOptions struct {
	// Node whose pods are followed.
	Node string
	// Labels of pods that become labels of series: label_NAME.
	Labels []string
	// Owner adds owner_kind and owner_name, NodeLabel adds node.
	Owner, NodeLabel bool
	// Retain (5 minutes) and MaxRetained (10,000) bound the names of pods that were deleted.
	Retain      time.Duration
	MaxRetained int
	Logger      *slog.Logger
}

// Pods follows the pods of one node and knows their names. It implements workload.PodNames.
//
// Of each pod it keeps a few hundred bytes. What it knew before the API server went away it still knows.
type Pods struct {
	options  PodsOptions
	extra    []extraLabel
	names    []string
	log      *slog.Logger
	client   *rest.RESTClient
	codec    runtime.ParameterCodec
	backoff  *wait.Backoff // between attempts to reach the API server; nil: the library's
	answered chan struct{} // closed once all pods of the node are known, or could not be asked for

	once sync.Once // closes it

	mu     sync.RWMutex
	pods   map[string]*pod // by UID
	hashes map[string]*pod // static ones by the hash of their configuration
	graves []grave
	stats  workload.PodStats
	// listed: all pods of the node were told once. Of what is not known since then there is no pod.
	listed bool
	// changed is closed when a pod comes or gets other labels, or all were told; nil if nobody waits for it.
	changed chan struct{}
	// failing is why the API server could not be asked last, nil if it could.
	failing error
}

// pod is what is kept of a Pod.
type pod struct {
	namespace, name, uid, hash string
	extra                      workload.Extra
	containers                 []container
	// labels are for selectors.
	labels map[string]string
	gone   bool
}

// grave is a pod that was deleted.
type grave struct {
	pod  *pod
	died time.Time
}

// NewPods prepares to follow a node's pods; Run does it.
func NewPods(config *rest.Config, options PodsOptions) (*Pods, error) {
	if options.Node == "" {
		return nil, ErrNoNode
	}
	if options.Retain == 0 {
		options.Retain = 5 * time.Minute
	}
	if options.MaxRetained == 0 {
		options.MaxRetained = 10_000
	}
	p := &Pods{options: options, log: options.Logger, answered: make(chan struct{}), pods: map[string]*pod{}, hashes: map[string]*pod{}}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if p.extra, p.names, err = extraLabels(options); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("prepare to follow pods: %w", err)
	}
	p.codec = runtime.NewParameterCodec(scheme)
	config = rest.CopyConfig(config)
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if config.UserAgent == "" {
		config.UserAgent = "kaon"
	}
	if p.client, err = rest.RESTClientFor(config); err != nil {
		return nil, fmt.Errorf("prepare to follow pods: %w", err)
	}
	return p, nil
}

// Run follows pods until the context ends. It tries again whenever the API server can't be reached.
func (p *Pods) Run(ctx context.Context) {
	// What the library would log at each attempt, asked logs once.
	var quiet klog.Logger
	reflector := cache.NewReflectorWithOptions(p.listWatch(), &corev1.Pod{}, &store{p}, cache.ReflectorOptions{
		Name: "pods of node " + p.options.Node, Logger: &quiet, Backoff: p.backoff,
	})
	reflector.RunWithContext(klog.NewContext(ctx, quiet))
}

// WaitForAnswer waits until all pods of the node are known or the API server could not be asked: the error says why.
func (p *Pods) WaitForAnswer(ctx context.Context) error {
	select {
	case <-p.answered:
		p.mu.RLock()
		defer p.mu.RUnlock()
		return p.failing
	case <-ctx.Done():
		return fmt.Errorf("list the pods of node %s: %w", p.options.Node, ctx.Err())
	}
}

// listWatch asks for the pods of one node, never for all of the cluster.
func (p *Pods) listWatch() *cache.ListWatch {
	selector := fields.OneTermEqualSelector("spec.nodeName", p.options.Node).String()
	request := func(options *metav1.ListOptions) *rest.Request {
		options.FieldSelector = selector
		return p.client.Get().Resource("pods").VersionedParams(options, p.codec)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := &corev1.PodList{}
			err := request(&options).Do(ctx).Into(list)
			p.asked(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch = true
			w, err := request(&options).Watch(ctx)
			if options.SendInitialEvents != nil && apierrors.IsInvalid(err) {
				return nil, err // a server that can't stream what there is: the library lists instead
			}
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				return nil, err // it answers, but events are too old: the library lists again
			}
			if err != nil {
				p.asked(err)
				return nil, err
			}
			return watchFor(w, p.asked), nil
		},
	}
}

// asked notes whether the API server answered, and logs what changed.
func (p *Pods) asked(err error) {
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.failing != nil {
			p.log.Info("pods are followed again", "node", p.options.Node)
		}
		p.failing, p.stats.Connected = nil, true
		return
	}
	if errors.Is(err, context.Canceled) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Errors++
	if p.failing == nil {
		p.log.Warn("pods can't be followed: those that are known keep their names, new ones have none", "node", p.options.Node, "error", err)
	}
	p.failing, p.stats.Connected = fmt.Errorf("list the pods of node %s: %w", p.options.Node, err), false
	p.once.Do(func() { close(p.answered) })
}
