package manifest

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/api/v1alpha1"
)

func TestParseResource(t *testing.T) {
	object, err := os.ReadFile("testdata/shop.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string][]byte{"ConfigMap shop x.o": object, "Secret shop x.o": object, "ConfigMap broken x.o": []byte("?"), "ConfigMap large x.o": make([]byte, MaxReferenced+1)}
	asResource := options(t)
	asResource.Objects = func(kind, name, key string) ([]byte, error) {
		value, ok := values[kind+" "+name+" "+key]
		if !ok {
			return nil, errors.New("there is none")
		}
		return value, nil
	}
	encoded := base64.StdEncoding.EncodeToString(object)
	const digest = "0000000000000000000000000000000000000000000000000000000000000000"

	f := func(spec, want string) {
		t.Helper()
		s, err := ParseResource("mine", []byte(spec), asResource)
		switch {
		case want == "" && err != nil:
			t.Errorf("%.100s: %v", spec, err)
		case want == "" && (s.Name != "mine" || len(s.Origin.Files) > 0):
			t.Errorf("%.100s: called %s, made of the files %v", spec, s.Name, s.Origin.Files)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%.100s: %v, want %s", spec, err, want)
		}
	}
	f(`{"source": {"builtin": "shop"}, "nodeSelector": {"a": "b"}, "workloadSelector": {}}`, "")
	f(`{"source": {"object": {"configMapKeyRef": {"name": "shop", "key": "x.o"}}}}`, "")
	f(`{"source": {"object": {"secretKeyRef": {"name": "shop", "key": "x.o"}}}}`, "")
	f(fmt.Sprintf(`{"source": {"object": {"inline": %q}}}`, encoded), "")
	f(`{"metrics": [{"name": "a", "type": "gauge", "from": {"file": {"path": "/proc/loadavg"}}}]}`, "")
	f("", "spec.source: "+v1alpha1.WantSource)
	f(`{"source": {"object": {"configMapKeyRef": {"name": "shop", "key": "y.o"}}}}`, "spec.source.object.configMapKeyRef: there is none")
	f(`{"source": {"object": {"configMapKeyRef": {"name": "broken", "key": "x.o"}}}}`, "spec.source.object.configMapKeyRef: mine: not a usable eBPF object")
	f(`{"source": {"object": {"configMapKeyRef": {"name": "large", "key": "x.o"}}}}`, "the object has 1048577 bytes, more than 1048576")
	f(fmt.Sprintf(`{"source": {"object": {"inline": %q}}}`, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("a"), MaxInline+1))), "more than 262144")
	f(fmt.Sprintf(`{"source": {"object": {"inline": %q, "sha256": %q}}}`, encoded, digest), "spec.source.object.sha256: the object's digest is ")
	f(`{"source": {"builtin": "shop"}, "params": {"pid": 1}}`, "spec.params.pid: "+v1alpha1.WantNoProcess)
	f(`{"source": {"builtin": "shop"}}, "kind": {`, "not valid YAML")

	// What is meant for resources is refused in files, and the object may be inline there, too.
	for spec, want := range map[string]string{
		"{source: {builtin: shop}, nodeSelector: {a: b}}":                                                   v1alpha1.WantNoNodes,
		"{source: {builtin: shop}, workloadSelector: {}}":                                                   v1alpha1.WantNoWorkloads,
		"{source: {object: {configMapKeyRef: {name: shop, key: x.o}}}}":                                     v1alpha1.WantNoClusterRefs,
		"{source: {object: {inline: " + encoded + "}}}\nstatus: {nodes: {desired: 1, ready: 1, failed: 0}}": v1alpha1.WantNoStatus,
		"{source: {object: {inline: " + encoded + "}}}":                                                     "",
	} {
		_, err := Parse([]byte("apiVersion: kaon.dev/v1alpha1\nkind: Program\nspec: "+spec+"\n"), "x.yaml", options(t))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.100s: %v, want %s", spec, err, want)
		}
	}
}

// Which nodes run it does not change what runs there.
func TestNodeSelectorIsNotInDigest(t *testing.T) {
	o := options(t)
	o.Objects = func(string, string, string) ([]byte, error) { return nil, nil }
	digest := func(spec string) string {
		s, err := ParseResource("mine", []byte(spec), o)
		if err != nil {
			t.Fatal(err)
		}
		return string(s.Origin.Digest[:])
	}
	plain := digest(`{"source": {"builtin": "shop"}}`)
	if digest(`{"source": {"builtin": "shop"}, "nodeSelector": {"a": "b"}}`) != plain {
		t.Error("another node selector is another program")
	}
	if digest(`{"source": {"builtin": "shop"}, "workloadSelector": {"namespaces": ["a"]}}`) == plain {
		t.Error("another selection of pods is the same program")
	}
}
