// Package docs tests the documentation: what it tells to type is typed, what it says must be there is looked for.
package docs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/series"
	"github.com/kaon-project/kaon/programs"
)

const root = ".."

// pages returns the path of every page of the repository.
func pages(t *testing.T) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && (entry.Name() == "testdata" || entry.Name() == "node_modules" || strings.HasPrefix(entry.Name(), ".") && path != root) {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, ".md") {
			all = append(all, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("%d pages", len(all))
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// block is one fenced block of a page.
type block struct {
	language string
	// name is what follows the language: the name of a file.
	name string
	text string
	// start and end are where the text stands in the page.
	start, end int
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*) ?([^\n]*)\n(.*?)^```$")

func blocks(page string) []block {
	var all []block
	for _, m := range fence.FindAllStringSubmatchIndex(page, -1) {
		all = append(all, block{page[m[2]:m[3]], page[m[4]:m[5]], page[m[6]:m[7]], m[6], m[7]})
	}
	return all
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	code    = regexp.MustCompile("`[^`\n]*`")
)

// anchors are what the page's headings are called in links.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		slug := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		all[slug] = true
	}
	return all
}

func TestLinks(t *testing.T) {
	for _, path := range pages(t) {
		page := code.ReplaceAllString(fence.ReplaceAllString(read(t, path), ""), "")
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
				continue
			}
			if anchor != "" && !anchors(read(t, target))[anchor] {
				t.Errorf("%s links to %s: there is no such heading", path, m[1])
			}
		}
	}
}

// Every page under docs can be found from the index.
func TestIndex(t *testing.T) {
	index := read(t, "README.md")
	for _, path := range pages(t) {
		if relative, ok := strings.CutPrefix(path, root+"/docs/"); ok && relative != "README.md" && !strings.Contains(index, "("+relative+")") {
			t.Errorf("docs/README.md does not link to %s", relative)
		}
	}
}

// checkYAML reads a block as what it is.
func checkYAML(t *testing.T, b block) error {
	var top map[string]any
	if err := yaml.Unmarshal([]byte(b.text), &top); err != nil {
		return err
	}
	switch {
	case b.name == "kaon.yaml":
		path := filepath.Join(t.TempDir(), b.name)
		if err := os.WriteFile(path, []byte(b.text), 0o644); err != nil {
			return err
		}
		config, err := agent.ReadConfig(path)
		if err != nil {
			return err
		}
		for _, p := range config.Programs {
			if !strings.ContainsAny(p.Source, "/.*?[") {
				spec, err := programs.Load(p.Source)
				if err != nil {
					return err
				}
				for name, value := range p.Params {
					if err := spec.SetParam(name, string(value)); err != nil {
						return err
					}
				}
			}
		}
		return nil
	case top["apiVersion"] == "kaon.dev/v1alpha1":
		// What the manifest is about must be built in: others are made by the page's own commands.
		if !strings.Contains(b.text, "builtin:") || b.name == "typo.yaml" {
			return nil
		}
		_, err := manifest.Parse([]byte(b.text), "page.yaml", manifest.Options{Builtin: programs.Load, Decoders: series.Decoders()})
		return err
	case top["apiVersion"] == "rbac.authorization.k8s.io/v1" || top["apiVersion"] == "admissionregistration.k8s.io/v1":
		scheme := runtime.NewScheme()
		if err := errors.Join(rbacv1.AddToScheme(scheme), admissionv1.AddToScheme(scheme)); err != nil {
			return err
		}
		_, _, err := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer().Decode([]byte(b.text), nil, nil)
		return err
	case b.name == "prometheus.yml" || b.name == "web.yaml":
		return nil
	}
	return fmt.Errorf("nobody knows what this is: name its file after ```yaml")
}

func TestYAML(t *testing.T) {
	found := 0
	for _, path := range pages(t) {
		if strings.HasSuffix(path, "reference/manifest.md") {
			continue // internal/manifest reads it
		}
		for _, b := range blocks(read(t, path)) {
			if b.language != "yaml" {
				continue
			}
			found++
			if err := checkYAML(t, b); err != nil {
				t.Errorf("%s: %v in\n%s", path, err, b.text)
			}
		}
	}
	if found < 8 {
		t.Errorf("%d blocks of YAML", found)
	}
}

var selector = regexp.MustCompile(`([a-z_]+[a-z])(?:\{[^}]*\})?(?:\[|\{)`)

// Queries must name metrics that exist.
func TestQueries(t *testing.T) {
	// Prometheus' own, and the agent's of client_golang, of which self-metrics.md tells in one word.
	known := map[string]bool{"up": true, "process_cpu_seconds_total": true, "process_start_time_seconds": true}
	for _, name := range programs.Names() {
		spec, err := programs.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range spec.Readers {
			for _, m := range r.Metrics {
				known[m.Name] = true
			}
		}
	}
	for _, m := range regexp.MustCompile("`(kaon_[a-z_]+)`").FindAllStringSubmatch(read(t, "reference/self-metrics.md"), -1) {
		known[m[1]] = true
	}
	found := 0
	for _, path := range pages(t) {
		for _, b := range blocks(read(t, path)) {
			if b.language != "promql" {
				continue
			}
			for _, m := range selector.FindAllStringSubmatch(b.text, -1) {
				found++
				name := m[1]
				for _, suffix := range []string{"_bucket", "_count", "_sum"} {
					name = strings.TrimSuffix(name, suffix)
				}
				if !known[m[1]] && !known[name] && !strings.HasPrefix(name, "hello_") && !strings.HasPrefix(name, "kick_") {
					t.Errorf("%s: there is no metric %s", path, m[1])
				}
			}
		}
	}
	if found < 8 {
		t.Errorf("%d selectors", found)
	}
}

// Fields of kaon.yaml must stand in its reference.
func TestReferenceNamesEveryField(t *testing.T) {
	page := read(t, "reference/kaon.yaml.md")
	var schema struct {
		Properties  map[string]any
		Definitions map[string]struct {
			Properties map[string]any
		} `yaml:"$defs"`
	}
	if err := yaml.Unmarshal([]byte(read(t, "reference/kaon.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	prefixes := map[string]string{"Limits": "limits.", "WebConfig": "web.", "ProgramConfig": "programs[].", "TracesConfig": "traces.", "KubernetesConfig": "kubernetes."}
	fields := map[string]bool{}
	for field := range schema.Properties {
		fields[field] = true
	}
	for name, definition := range schema.Definitions {
		prefix, ok := prefixes[name]
		if !ok {
			t.Errorf("say here where %s stands in kaon.yaml", name)
		}
		for field := range definition.Properties {
			fields[prefix+field] = true
		}
	}
	if len(fields) < 15 {
		t.Fatalf("%d fields", len(fields))
	}
	for field := range fields {
		if !strings.Contains(page, "| `"+field+"` |") && field != "limits" && field != "web" && field != "traces" && field != "kubernetes" {
			t.Errorf("the reference does not have a row for %s", field)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]*)` \\|").FindAllStringSubmatch(page, -1) {
		if !fields[m[1]] {
			t.Errorf("the reference has a row for %s, which does not exist", m[1])
		}
	}
}

// No page tells about the machine that it was written on.
func TestPagesAreNeutral(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range pages(t) {
		page := []byte(strings.ReplaceAll(read(t, path), "/proc/1/root/", ""))
		for _, word := range []string{"/root/", "/home/", "kaon-test-"} {
			if bytes.Contains(page, []byte(word)) {
				t.Errorf("%s names %s", path, word)
			}
		}
		if len(host) > 7 && bytes.Contains(page, []byte(host)) {
			t.Errorf("%s names this machine", path)
		}
	}
}
