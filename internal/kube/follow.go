package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// followOptions say which objects are followed.
type followOptions struct {
	client    *rest.RESTClient
	codec     runtime.ParameterCodec
	resource  string
	namespace string
	// name of the one object that is followed; empty: all.
	name string
	// metadata asks for the objects' metadata only.
	metadata bool
	// object and list return empty ones.
	object, list func() runtime.Object
	// trim drops of an object what is not needed; nil: nothing.
	trim func(any)
	// same says whether nothing of interest changed; nil: everything is of interest.
	same func(before, now any) bool
	// changed is called after each change, without locks.
	changed func()
	log     *slog.Logger
}

// A follower keeps objects as the API server has them.
type follower struct {
	options followOptions
	// what names the objects in messages.
	what   string
	synced chan struct{}

	mu      sync.Mutex
	once    sync.Once
	objects map[string]any
	failing error
}

func newFollower(options followOptions) *follower {
	f := &follower{options: options, what: options.resource, synced: make(chan struct{}), objects: map[string]any{}}
	if options.name != "" {
		f.what += " " + options.name
	}
	if f.options.log == nil {
		f.options.log = slog.New(slog.DiscardHandler)
	}
	return f
}

// run follows until the context ends. It tries again whenever the API server can't be reached.
func (f *follower) run(ctx context.Context) {
	var quiet klog.Logger
	var expected any = f.options.object()
	reflector := cache.NewReflectorWithOptions(f.listWatch(), expected, f, cache.ReflectorOptions{Name: f.what, Logger: &quiet})
	reflector.RunWithContext(klog.NewContext(ctx, quiet))
}

func (f *follower) listWatch() *cache.ListWatch {
	request := func(options *metav1.ListOptions, kind string) *rest.Request {
		if f.options.name != "" {
			options.FieldSelector = fields.OneTermEqualSelector("metadata.name", f.options.name).String()
		}
		r := f.options.client.Get().Resource(f.options.resource).NamespaceIfScoped(f.options.namespace, f.options.namespace != "").VersionedParams(options, f.options.codec)
		if f.options.metadata {
			r.SetHeader("Accept", "application/vnd.kubernetes.protobuf;as="+kind+";g=meta.k8s.io;v=v1", "application/json;as="+kind+";g=meta.k8s.io;v=v1")
		}
		return r
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := f.options.list()
			err := request(&options, "PartialObjectMetadataList").Do(ctx).Into(list)
			f.asked(err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.Watch = true
			w, err := request(&options, "PartialObjectMetadata").Watch(ctx)
			f.asked(err)
			return w, err
		},
	}
}

// asked notes whether the API server answered, and logs what changed.
func (f *follower) asked(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	f.mu.Lock()
	before := f.failing
	f.failing = nil
	if err != nil {
		f.failing = fmt.Errorf("read %s: %w", f.what, err)
	}
	f.mu.Unlock()
	switch {
	case err == nil && before != nil:
		f.options.log.Info("the API server answers again", "about", f.what)
	case err != nil && before == nil:
		f.options.log.Warn("the API server can't be asked: what is known stays", "about", f.what, "error", err)
	}
}

// wait waits until the objects are known. The error says why they are not.
func (f *follower) wait(ctx context.Context) error {
	select {
	case <-f.synced:
		return nil
	case <-ctx.Done():
		return f.why()
	}
}

// get returns an object by name, nil if there is none.
func (f *follower) get(name string) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects[name]
}

func (f *follower) all() []any {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]any, 0, len(f.objects))
	for _, o := range f.objects {
		all = append(all, o)
	}
	return all
}

// change makes one change, and tells of it if it is of interest.
func (f *follower) change(apply func() (news bool, err error)) error {
	f.mu.Lock()
	news, err := apply()
	f.mu.Unlock()
	if news && f.options.changed != nil {
		f.options.changed()
	}
	return err
}

func (f *follower) put(object any) (news bool, err error) {
	named, ok := object.(metav1.Object)
	if !ok {
		return false, fmt.Errorf("%T has no name", object)
	}
	if f.options.trim != nil {
		f.options.trim(object)
	}
	before := f.objects[named.GetName()]
	f.objects[named.GetName()] = object
	return before == nil || f.options.same == nil || !f.options.same(before, object), nil
}

// Add implements cache.ReflectorStore.
func (f *follower) Add(object any) error { return f.Update(object) }

// Update implements cache.ReflectorStore.
func (f *follower) Update(object any) error {
	return f.change(func() (bool, error) { return f.put(object) })
}

// Delete implements cache.ReflectorStore.
func (f *follower) Delete(object any) error {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	if named, ok := object.(metav1.Object); ok {
		return f.change(func() (bool, error) {
			delete(f.objects, named.GetName())
			return true, nil
		})
	}
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *follower) Replace(objects []any, _ string) error {
	return f.change(func() (bool, error) {
		before := f.objects
		f.objects = make(map[string]any, len(objects))
		news := !f.isSynced()
		var errs []error
		for _, o := range objects {
			if named, ok := o.(metav1.Object); ok && before[named.GetName()] != nil {
				f.objects[named.GetName()] = before[named.GetName()]
				delete(before, named.GetName())
			}
			fresh, err := f.put(o)
			news, errs = news || fresh, append(errs, err)
		}
		f.once.Do(func() { close(f.synced) })
		return news || len(before) > 0, errors.Join(errs...)
	})
}

// Resync implements cache.ReflectorStore.
func (f *follower) Resync() error { return nil }

func (f *follower) isSynced() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}

// why says why the objects are not known.
func (f *follower) why() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing != nil {
		return f.failing
	}
	return fmt.Errorf("read %s: no answer yet", f.what)
}
