package kube

import (
	"encoding/json"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

// groupVersion is that of Kaon's own kinds.
var groupVersion = schema.GroupVersion{Group: "kaon.dev", Version: "v1alpha1"}

// resource is a Program as the API server has it. Its spec is read by package manifest.
type resource struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage         `json:"spec,omitempty"`
	Status            *v1alpha1.ProgramStatus `json:"status,omitempty"`
}

type resourceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []resource `json:"items"`
}

// DeepCopyObject copies what may be changed: the library copies objects before it changes their metadata.
func (r *resource) DeepCopyObject() runtime.Object {
	c := *r
	r.ObjectMeta.DeepCopyInto(&c.ObjectMeta)
	return &c
}

func (l *resourceList) DeepCopyObject() runtime.Object {
	c := *l
	l.ListMeta.DeepCopyInto(&c.ListMeta)
	c.Items = make([]resource, len(l.Items))
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopyObject().(*resource)
	}
	return &c
}

// api has a client for each API group that is used.
type api struct {
	core, coordination, authentication, programs *rest.RESTClient
	codec                                        runtime.ParameterCodec
}

// newAPI prepares clients; it does not talk to the API server. The typed client set of client-go would
// add the types of all of Kubernetes to the binary.
func newAPI(config *rest.Config) (*api, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("prepare to talk to the API server: %w", err)
		}
	}
	scheme.AddKnownTypeWithName(groupVersion.WithKind("Program"), &resource{})
	scheme.AddKnownTypeWithName(groupVersion.WithKind("ProgramList"), &resourceList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	a := &api{codec: runtime.NewParameterCodec(scheme)}
	shared, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("prepare to talk to the API server: %w", err)
	}
	codecs := serializer.NewCodecFactory(scheme).WithoutConversion()
	for _, c := range []struct {
		client      **rest.RESTClient
		path        string
		version     schema.GroupVersion
		contentType string
	}{
		{&a.core, "/api", corev1.SchemeGroupVersion, runtime.ContentTypeProtobuf},
		{&a.coordination, "/apis", coordinationv1.SchemeGroupVersion, runtime.ContentTypeJSON},
		{&a.authentication, "/apis", schema.GroupVersion{Group: "authentication.k8s.io", Version: "v1"}, runtime.ContentTypeJSON},
		{&a.programs, "/apis", groupVersion, runtime.ContentTypeJSON},
	} {
		own := rest.CopyConfig(config)
		own.APIPath, own.GroupVersion, own.NegotiatedSerializer = c.path, &c.version, codecs
		own.ContentType, own.AcceptContentTypes = c.contentType, c.contentType+","+runtime.ContentTypeJSON
		if own.UserAgent == "" {
			own.UserAgent = "kaon"
		}
		client, err := rest.RESTClientForConfigAndClient(own, shared)
		if err != nil {
			return nil, fmt.Errorf("prepare to talk to the API server: %w", err)
		}
		*c.client = client
	}
	return a, nil
}
