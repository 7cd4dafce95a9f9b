// Package kubebpf turns resources of kube-bpf (kind BPF of bpf.sh/v1alpha1) into Programs.
package kubebpf

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"go.yaml.in/yaml/v3"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

// ErrMigrate is returned if a resource could not be migrated; the report says why.
var ErrMigrate = errors.New("not every resource could be migrated")

// maxFile is the size in bytes up to which a file is read: several ConfigMaps.
const maxFile = 64 << 20

// Options of Migrate. The zero value is usable.
type Options struct {
	// Namespace of Kaon's agents, in which they look for ConfigMaps. Default: kaon.
	Namespace string
}

// bpf is kube-bpf's resource.
type bpf struct {
	Metadata struct{ Name, Namespace string }
	Spec     struct {
		Program struct {
			ValueFrom struct {
				ConfigMapKeyRef struct{ Name, Key string } `yaml:"configMapKeyRef"`
			} `yaml:"valueFrom"`
		}
	}
}

// configMap is as much of a ConfigMap as is needed.
type configMap struct {
	Metadata   struct{ Name, Namespace string }
	Data       map[string]string
	BinaryData map[string]string `yaml:"binaryData"`
}

// document tells which kind something is of.
type document struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Items      []yaml.Node
}

// Migrate reads BPF resources and the ConfigMaps that they name from the YAML file at path (- is in), and writes Programs and ConfigMaps
// to out and what somebody should know to report.
func Migrate(path string, in io.Reader, out, report io.Writer, options Options) error {
	if options.Namespace == "" {
		options.Namespace = "kaon"
	}
	data, err := read(path, in)
	if err != nil {
		return err
	}
	resources, configMaps, err := parse(data, path)
	if err != nil {
		return err
	}
	if len(resources) == 0 {
		return &program.Problem{Where: path, What: "there is no resource of kind BPF (bpf.sh/v1alpha1) in it",
			Fix: "write it with `kubectl get bpfs,configmaps -o yaml`, or take the file that was applied"}
	}
	failed := false
	written := map[string]bool{}
	for _, r := range resources {
		fmt.Fprintf(report, "%s/%s\n", r.Metadata.Namespace, r.Metadata.Name)
		if err := migrate(r, configMaps, written, out, report, options); err != nil {
			failed = true
			for _, p := range program.Problems(err) {
				fmt.Fprintf(report, "  error: %v\n", p)
			}
		}
	}
	if failed {
		return ErrMigrate
	}
	return nil
}

func read(path string, in io.Reader) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFile {
		return nil, &program.Problem{Where: path, What: fmt.Sprintf("it has more than %d bytes", maxFile), Fix: "split it"}
	}
	return data, nil
}

// parse returns the resources of all documents, and the ConfigMaps by namespace/name.
func parse(data []byte, path string) (resources []bpf, configMaps map[string]configMap, err error) {
	// The parser is a library's: what a hostile file makes of it must not be ours to die of.
	defer func() {
		if r := recover(); r != nil {
			err = &program.Problem{Where: path, What: fmt.Sprintf("not readable as YAML (%v)", r)}
		}
	}()
	configMaps = map[string]configMap{}
	var take func(node *yaml.Node) error
	take = func(node *yaml.Node) error {
		var d document
		if err := node.Decode(&d); err != nil {
			return err
		}
		switch {
		case d.Kind == "List":
			for i := range d.Items {
				if err := take(&d.Items[i]); err != nil {
					return err
				}
			}
		case d.Kind == "BPF" && strings.HasPrefix(d.APIVersion, "bpf.sh/"):
			var r bpf
			if err := node.Decode(&r); err != nil {
				return err
			}
			r.Metadata.Namespace = namespace(r.Metadata.Namespace)
			resources = append(resources, r)
		case d.Kind == "ConfigMap":
			var m configMap
			if err := node.Decode(&m); err != nil {
				return err
			}
			configMaps[namespace(m.Metadata.Namespace)+"/"+m.Metadata.Name] = m
		}
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return resources, configMaps, nil
		}
		if err == nil && node.Kind == yaml.DocumentNode && len(node.Content) == 1 && node.Content[0].Kind == yaml.MappingNode {
			err = take(node.Content[0])
		}
		if err != nil {
			return nil, nil, &program.Problem{Where: path, What: "not valid YAML: " + err.Error()}
		}
	}
}

func namespace(name string) string {
	if name == "" {
		return "default"
	}
	return name
}

func migrate(r bpf, configMaps map[string]configMap, written map[string]bool, out, report io.Writer, options Options) error {
	note := func(format string, args ...any) { fmt.Fprintf(report, "  "+format+"\n", args...) }
	ref := r.Spec.Program.ValueFrom.ConfigMapKeyRef
	where := "spec.program.valueFrom.configMapKeyRef"
	if ref.Name == "" || ref.Key == "" {
		return &program.Problem{Where: where, What: "it names no key of a ConfigMap"}
	}
	m, ok := configMaps[r.Metadata.Namespace+"/"+ref.Name]
	if !ok {
		return &program.Problem{Where: where, What: fmt.Sprintf("the ConfigMap %s/%s is not in the file", r.Metadata.Namespace, ref.Name),
			Fix: fmt.Sprintf("append it: `kubectl get configmap -n %s %s -o yaml`", r.Metadata.Namespace, ref.Name)}
	}
	var code []byte
	if encoded, ok := m.BinaryData[ref.Key]; ok {
		var err error
		if code, err = base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded), "")); err != nil {
			return fmt.Errorf("ConfigMap %s, key %s: %w", ref.Name, ref.Key, err)
		}
	} else if code = []byte(m.Data[ref.Key]); len(code) == 0 {
		return &program.Problem{Where: where, What: fmt.Sprintf("the ConfigMap %s has no key %s", ref.Name, ref.Key),
			Fix: fmt.Sprintf("it has %v", slices.Sorted(maps.Keys(m.BinaryData)))}
	}
	name := strings.ReplaceAll(r.Metadata.Name, ".", "-")
	spec, err := object.Parse(code, name)
	if err != nil {
		return err
	}
	p := &v1alpha1.Program{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindProgram, Metadata: v1alpha1.Metadata{Name: name}}
	p.Spec.Source = &v1alpha1.Source{Object: &v1alpha1.ObjectSource{ConfigMapKeyRef: &v1alpha1.KeyRef{Name: ref.Name, Key: ref.Key}}}
	p.Spec.Help = fmt.Sprintf("Was the resource %s of kube-bpf.", r.Metadata.Name)
	hooks(p, spec, note)
	metrics(p, spec, code, note)
	text, err := manifest.Marshal(p)
	if err != nil {
		return err
	}
	if written[ref.Name] && r.Metadata.Namespace != options.Namespace {
		note("look at: another ConfigMap %s was written already: references resolve in the namespace %s only", ref.Name, options.Namespace)
	}
	written[ref.Name] = true
	fmt.Fprintf(out, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %s}\nbinaryData:\n  %s: %s\n---\n%s---\n",
		ref.Name, options.Namespace, ref.Key, base64.StdEncoding.EncodeToString(code), text)
	note("better: the label node is the scrape's business: it comes with the target (or kubernetes.node: true)")
	return nil
}

// hooks attaches what kube-bpf attached: tracepoints, and socket filters to all interfaces.
func hooks(p *v1alpha1.Program, spec *program.Spec, note func(string, ...any)) {
	for _, h := range spec.Hooks {
		switch h.Kind {
		case program.SocketFilter:
			p.Spec.Hooks = append(p.Spec.Hooks, v1alpha1.Hook{Function: h.Function, Interfaces: []string{"*"}})
		case program.Tracepoint:
		default:
			note("better: the function %s (%s) is attached, which kube-bpf only loaded", h.Function, h.Kind)
		}
	}
}

// metrics exports what kube-bpf exported: the maps whose section is maps/NAME, as counters bpf_NAME by key.
func metrics(p *v1alpha1.Program, spec *program.Spec, code []byte, note func(string, ...any)) {
	sections := sectionsOf(code)
	for _, symbol := range slices.Sorted(maps.Keys(spec.Collection.Maps)) {
		m := spec.Collection.Maps[symbol]
		name, legacy := sections[symbol]
		if !legacy {
			continue
		}
		switch m.Type {
		case ebpf.Hash:
		case ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.Array, ebpf.PerCPUArray:
			note("better: the map %s (%s), which kube-bpf could not read, is exported", symbol, m.Type)
		default:
			note("look at: the map %s (%s) is not exported, as before", symbol, m.Type)
			continue
		}
		from := &v1alpha1.From{Map: symbol}
		metric := v1alpha1.Metric{From: from, Name: "bpf_" + sanitize(name), Type: "counter", Help: fmt.Sprintf("Map %s.", symbol)}
		switch m.KeySize {
		case 1, 2, 4, 8:
			from.Key = []v1alpha1.Column{{Name: "key", Size: int(m.KeySize), Type: "uint"}}
			note("look at: bpf_%s{key=\"00006\"} is now %s_total{key=\"6\"}; if the key is a protocol, port, address, ..., write labels: {decode: {key: protocol}}", name, metric.Name)
		default:
			from.Key = []v1alpha1.Column{{Name: "key", Size: int(m.KeySize), Type: "string"}}
			metric.Labels = &v1alpha1.Labels{Decode: map[string]string{"key": "hex"}}
			note("look at: the key of %s has %d bytes, which kube-bpf misread: it is shown in hexadecimal digits until `key` lists its members", symbol, m.KeySize)
		}
		size := int(m.ValueSize)
		switch size {
		case 1, 2, 4, 8:
		default:
			size = min(size, 8)
			for size&(size-1) != 0 {
				size--
			}
			note("look at: the value of %s has %d bytes: its first %d are the number, as before, until `value` lists its members", symbol, m.ValueSize, size)
		}
		from.Value = []v1alpha1.Column{{Name: "value", Size: size, Type: "uint"}}
		p.Spec.Metrics = append(p.Spec.Metrics, metric)
	}
	if len(p.Spec.Metrics) == 0 {
		note("look at: no map is exported: kube-bpf knew them by their section, maps/NAME")
	}
}

// sanitize makes part of a metric's name of a section's.
func sanitize(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, name)
}
