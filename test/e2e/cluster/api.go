package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// api are the cluster's own clients.
type api struct {
	client  kubernetes.Interface
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

func newAPI(config *rest.Config) (*api, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	resources, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &api{client: client, dynamic: resources, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))}, nil
}

// Client returns an administrator's client.
func (c *Cluster) Client() kubernetes.Interface { return c.api.client }

// Dynamic returns an administrator's client for any kind.
func (c *Cluster) Dynamic() dynamic.Interface { return c.api.dynamic }

// objects decodes the documents of a YAML or JSON text.
func objects(text string) ([]*unstructured.Unstructured, error) {
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096)
	var list []*unstructured.Unstructured
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return nil, fmt.Errorf("decode an object: %w", err)
		}
		if len(object.Object) > 0 {
			list = append(list, object)
		}
	}
}

// resource returns the client for an object's kind, in its namespace or "default".
func (c *Cluster) resource(object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	kind := object.GroupVersionKind()
	mapping, err := c.api.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		// It may be as new as the definition before it.
		c.api.mapper.Reset()
		mapping, err = c.api.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	}
	if err != nil {
		return nil, err
	}
	client := c.api.dynamic.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameRoot {
		return client, nil
	}
	namespace := object.GetNamespace()
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	return client.Namespace(namespace), nil
}

// Apply makes the API server have the objects of a YAML text, in their order, as kubectl apply --server-side does. A kind
// that was defined a moment ago is waited for.
func (c *Cluster) Apply(ctx context.Context, text string) error {
	list, err := objects(text)
	if err != nil {
		return err
	}
	for _, object := range list {
		var client dynamic.ResourceInterface
		err := wait(ctx, "the kind "+object.GetKind(), nil, func(context.Context) error {
			client, err = c.resource(object)
			if err != nil && !meta.IsNoMatchError(err) {
				c.api.mapper.Reset()
			}
			return err
		})
		if err != nil {
			return err
		}
		_, err = client.Apply(ctx, object.GetName(), object, metav1.ApplyOptions{FieldManager: "kaon-e2e", Force: true})
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// Delete deletes the objects of a YAML text, the last first. Their dependents go in the background.
func (c *Cluster) Delete(ctx context.Context, text string) error {
	list, err := objects(text)
	if err != nil {
		return err
	}
	var failures []error
	for i := len(list) - 1; i >= 0; i-- {
		client, err := c.resource(list[i])
		if err == nil {
			background := metav1.DeletePropagationBackground
			err = client.Delete(ctx, list[i].GetName(), metav1.DeleteOptions{PropagationPolicy: &background})
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("delete %s %s: %w", list[i].GetKind(), list[i].GetName(), err))
		}
	}
	return errors.Join(failures...)
}

// Kubectl runs kubectl as an administrator and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, arguments ...string) (string, error) {
	binary, err := Binary("kubectl")
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	command := exec.CommandContext(ctx, binary, append([]string{"--kubeconfig", c.Kubeconfig()}, arguments...)...)
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// WaitPodReady waits until a pod is ready, and returns it.
func (c *Cluster) WaitPodReady(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := wait(ctx, "the pod "+namespace+"/"+name, nil, func(ctx context.Context) error {
		var err error
		if pod, err = c.api.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		return podReady(pod)
	})
	return pod, err
}

// WaitPods waits until so many pods that a label selector chooses are ready and no others exist, and returns them by name.
func (c *Cluster) WaitPods(ctx context.Context, namespace, selector string, count int) ([]corev1.Pod, error) {
	var pods []corev1.Pod
	err := wait(ctx, fmt.Sprintf("%d pods %s in %s", count, selector, namespace), nil, func(ctx context.Context) error {
		list, err := c.api.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return err
		}
		pods = list.Items
		if len(pods) != count {
			return fmt.Errorf("there are %d", len(pods))
		}
		for i := range pods {
			if err := podReady(&pods[i]); err != nil {
				return err
			}
		}
		return nil
	})
	return pods, err
}

// WaitPodEnd waits until a pod has ended, well or not, and returns it.
func (c *Cluster) WaitPodEnd(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	var pod *corev1.Pod
	err := wait(ctx, "the end of the pod "+namespace+"/"+name, nil, func(ctx context.Context) error {
		var err error
		if pod, err = c.api.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("its phase is %s", pod.Status.Phase)
		}
		return nil
	})
	return pod, err
}

// podReady tells why a pod is not ready.
func podReady(pod *corev1.Pod) error {
	if pod.DeletionTimestamp != nil {
		return fmt.Errorf("pod %s is being deleted", pod.Name)
	}
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return nil
		}
	}
	reasons := []string{string(pod.Status.Phase), pod.Status.Reason, pod.Status.Message}
	for _, container := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if waiting := container.State.Waiting; waiting != nil {
			reasons = append(reasons, container.Name+": "+waiting.Reason, waiting.Message)
		}
		if ended := container.State.Terminated; ended != nil {
			reasons = append(reasons, fmt.Sprintf("%s: exit code %d", container.Name, ended.ExitCode), ended.Message)
		}
	}
	return fmt.Errorf("pod %s is not ready: %s", pod.Name, strings.Join(strings.Fields(strings.Join(reasons, " ")), " "))
}

// Logs returns what a container has written; the pod's only one, if container is empty.
func (c *Cluster) Logs(ctx context.Context, namespace, pod, container string) (string, error) {
	data, err := c.api.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
	return string(data), err
}
