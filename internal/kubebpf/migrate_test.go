package kubebpf

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/program"
)

// example is what kube-bpf's own tool writes: a ConfigMap with the object, and the resource that names it.
func example(t *testing.T) string {
	t.Helper()
	code, err := os.ReadFile("testdata/packets.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	return `apiVersion: v1
kind: ConfigMap
metadata: {name: packets-config, namespace: default}
binaryData:
  packets.o: ` + base64.StdEncoding.EncodeToString(code) + `
---
apiVersion: bpf.sh/v1alpha1
kind: BPF
metadata: {name: packets-bpf}
spec:
  program: {valueFrom: {configMapKeyRef: {name: packets-config, key: packets.o}}}
`
}

func run(t *testing.T, text string) (out, report string, err error) {
	t.Helper()
	var o, r bytes.Buffer
	err = Migrate("-", strings.NewReader(text), &o, &r, Options{})
	return o.String(), r.String(), err
}

func TestMigrate(t *testing.T) {
	out, report, err := run(t, example(t))
	if err != nil {
		t.Fatal(err, report)
	}
	documents := strings.Split(out, "---\n")
	if len(documents) != 3 {
		t.Fatalf("%d documents:\n%s", len(documents), out)
	}
	var m configMap
	if err := yaml.Unmarshal([]byte(documents[0]), &m); err != nil || m.Metadata.Namespace != "kaon" || m.Metadata.Name != "packets-config" {
		t.Errorf("%v: %+v", err, m.Metadata)
	}
	code, err := base64.StdEncoding.DecodeString(m.BinaryData["packets.o"])
	if err != nil {
		t.Fatal(err)
	}
	specs, err := manifest.Parse([]byte(documents[1]), "", manifest.Options{Objects: func(kind, name, key string) ([]byte, error) {
		if kind != "ConfigMap" || name != "packets-config" || key != "packets.o" {
			t.Errorf("%s %s %s", kind, name, key)
		}
		return code, nil
	}})
	if err != nil {
		t.Fatalf("%v in\n%s", err, documents[1])
	}
	s := specs[0]
	if s.Name != "packets-bpf" || len(s.Hooks) != 1 || s.Hooks[0].Kind != program.SocketFilter || len(s.Hooks[0].Interfaces) != 1 {
		t.Errorf("%+v", s.Hooks)
	}
	if len(s.Readers) != 1 || len(s.Readers[0].Metrics) != 1 || s.Readers[0].Metrics[0].Name != "bpf_packets_total" || s.Readers[0].KeySize != 4 {
		t.Errorf("%+v", s.Readers)
	}
	if !strings.Contains(report, `bpf_packets{key="00006"} is now bpf_packets_total{key="6"}`) {
		t.Error(report)
	}
}

func TestMigrateLists(t *testing.T) {
	var items []any
	for document := range strings.SplitSeq(example(t), "---\n") {
		var item any
		if err := yaml.Unmarshal([]byte(document), &item); err != nil {
			t.Fatal(err)
		}
		items = append(items, item)
	}
	text, err := yaml.Marshal(map[string]any{"apiVersion": "v1", "kind": "List", "items": items})
	if err != nil {
		t.Fatal(err)
	}
	out, report, err := run(t, string(text))
	if err != nil || !strings.Contains(out, "bpf_packets") {
		t.Error(err, out, report)
	}
}

func TestMigrateMistakes(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, report, err := run(t, text)
		if err == nil || !strings.Contains(err.Error()+report, want) {
			t.Errorf("%.200s\n%v\n%s\nwant %s", text, err, report, want)
		}
	}
	whole := example(t)
	first, second, _ := strings.Cut(whole, "---\n")
	f("", "there is no resource of kind BPF")
	f(first, "there is no resource of kind BPF")
	f(second, "the ConfigMap default/packets-config is not in the file: append it: `kubectl get configmap -n default packets-config -o yaml`")
	f(strings.Replace(whole, "key: packets.o", "key: packet.o", 1), "has no key packet.o: it has [packets.o]")
	f(strings.Replace(whole, "packets.o: f0V", "packets.o: !0V", 1), "packets")
	f(strings.Replace(whole, "packets.o: f0VMRg", "packets.o: f0VMRw", 1), "not a usable eBPF object")
	f("kind: [", "not valid YAML")
	if err := Migrate(filepath.Join(t.TempDir(), "none"), nil, nil, nil, Options{}); err == nil {
		t.Error("a file that is not there")
	}
}
