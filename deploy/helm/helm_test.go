package helm

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

var update = flag.Bool("update", false, "write what is made of the chart's values, and the plain manifests, anew")

const (
	chart = "kaon"
	root  = "../.."
	// operatorKinds is how a cluster with the Prometheus operator looks to templates.
	operatorKinds = "monitoring.coreos.com/v1/PodMonitor,monitoring.coreos.com/v1/PrometheusRule"
)

// built is Helm's binary.
var built = sync.OnceValues(func() (string, error) {
	if testing.Short() {
		return Built()
	}
	return Build(context.Background())
})

// run runs Helm.
func run(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	binary, err := built()
	if err != nil {
		t.Skip("needs helm:", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	command := exec.CommandContext(ctx, binary, arguments...)
	home := t.TempDir() // nobody's own settings
	command.Env = append(os.Environ(), "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG=/dev/null")
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("helm %s: %w: %s", strings.Join(arguments, " "), err, complaints.String())
	}
	return out.String(), nil
}

// template renders the chart.
func template(t *testing.T, arguments ...string) string {
	t.Helper()
	out, err := run(t, append([]string{"template", "kaon", chart, "--namespace", "kaon"}, arguments...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// rendered are the objects of the chart.
type rendered struct {
	// typed has those of Kubernetes' own kinds, others those of other kinds; by KIND/NAME.
	typed  map[string]runtime.Object
	others map[string]map[string]any
}

var separator = regexp.MustCompile(`(?m)^---\n`)

// parse reads manifests. Unknown fields are errors.
func parse(t *testing.T, text string) rendered {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, rbacv1.AddToScheme, networkingv1.AddToScheme, admissionv1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	r := rendered{map[string]runtime.Object{}, map[string]map[string]any{}}
	for _, document := range separator.Split(text, -1) {
		raw, err := yaml.ToJSON([]byte(document))
		if err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if string(raw) == "null" {
			continue
		}
		var plain map[string]any
		if err := json.Unmarshal(raw, &plain); err != nil {
			t.Fatal(err)
		}
		metadata, _ := plain["metadata"].(map[string]any)
		id := fmt.Sprintf("%v/%v", plain["kind"], metadata["name"])
		if r.typed[id] != nil || r.others[id] != nil {
			t.Errorf("there are two objects %s", id)
		}
		object, kind, err := decoder.Decode([]byte(document), nil, nil)
		switch {
		case err == nil:
			r.typed[id] = object
		case runtime.IsNotRegisteredError(err):
			r.others[id] = plain
		default:
			t.Errorf("%s (%v): %v", id, kind, err)
		}
		if plain["kind"] == v1alpha1.KindProgram {
			strict := json.NewDecoder(bytes.NewReader(raw))
			strict.DisallowUnknownFields()
			if err := strict.Decode(new(v1alpha1.Program)); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
	return r
}

// get returns the object KIND/NAME.
func get[T runtime.Object](t *testing.T, r rendered, id string) T {
	t.Helper()
	object, ok := r.typed[id].(T)
	if !ok {
		t.Fatalf("there is no %s", id)
	}
	return object
}

func writeValues(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
