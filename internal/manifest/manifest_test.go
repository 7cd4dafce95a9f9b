package manifest

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

var update = flag.Bool("update", false, "write golden files anew")

// options know one built-in Program, shop.
func options(t testing.TB) Options {
	data, err := os.ReadFile("testdata/shop.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	return Options{Builtin: func(name string) (*program.Spec, error) {
		if name != "shop" {
			return nil, fmt.Errorf("%w: there is no built-in program %q", fs.ErrNotExist, name)
		}
		return object.Parse(data, "shop.bpf.o")
	}}
}

func TestGolden(t *testing.T) {
	specs, err := Load("testdata/shop.yaml", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(specs) != 1 {
		t.Fatalf("%d specs", len(specs))
	}
	spec := specs[0]
	if spec.Origin.Source != "manifest" || spec.Origin.Path != "testdata/shop.yaml" {
		t.Errorf("origin %s %s", spec.Origin.Source, spec.Origin.Path)
	}
	var functions []string
	for name := range spec.Collection.Programs {
		functions = append(functions, name)
	}
	slices.Sort(functions)
	if got := strings.Join(functions, " "); got != "each_task on_packet on_readline on_switch" {
		t.Errorf("functions %s", got)
	}
	if got := spec.Collection.Programs["on_switch"].AttachTo; got != "sched_waking" {
		t.Errorf("on_switch would be loaded for %q", got)
	}
	got, err := json.MarshalIndent(struct {
		Name, Help string
		Pin        bool
		Hooks      []program.Hook
		Params     []program.Param
		Readers    []program.Reader
	}{spec.Name, spec.Help, spec.Pin, spec.Hooks, spec.Params, spec.Readers}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/shop.golden.json"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s differs; after a wanted change run `go test ./internal/manifest -update`\n%s", golden, got)
	}
}

// The base must stay as it was: several Programs may be made of one built-in.
func TestApplyChangesACopy(t *testing.T) {
	base, err := object.Load("testdata/shop.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := json.Marshal(base.Readers)
	o := Options{Builtin: func(string) (*program.Spec, error) { return base, nil }}
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "spec:\n", "spec:\n  source: {builtin: shop}\n", 1)
	specs, err := Parse([]byte(text), "x.yaml", o)
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := json.Marshal(base.Readers); string(after) != string(before) {
		t.Errorf("the base's readers changed:\n%s\n%s", before, after)
	}
	if len(base.Collection.Programs) != 5 || len(base.Hooks) != 5 || len(specs[0].Hooks) != 4 || base.Pin {
		t.Error("the base's hooks changed")
	}
	if got := base.Collection.Programs["on_switch"].AttachTo; got != "sched_switch" {
		t.Errorf("the base's on_switch attaches to %q", got)
	}
}

const head = "apiVersion: kaon.dev/v1alpha1\nkind: Program\n"

func TestDigest(t *testing.T) {
	o := options(t)
	digests := map[[32]byte]string{}
	f := func(spec string, o Options) {
		t.Helper()
		specs, err := Parse([]byte(head+"spec:\n  source: {builtin: shop}\n"+spec), "x.yaml", o)
		if err != nil {
			t.Fatal(err)
		}
		digest := specs[0].Origin.Digest
		if other, twice := digests[digest]; twice {
			t.Errorf("%q has the digest of %q", spec, other)
		}
		digests[digest] = spec
	}
	f("", o)
	f("  help: x\n", o)
	f("  params: {minimum: 1s}\n", o)
	f("  metrics: [{metric: requests_total, labels: {keep: []}}]\n", o)
	f("  metrics: [{metric: requests_total, labels: {}}]\n", o)
	f("  hooks: [{function: on_packet, interfaces: []}]\n", o)
	f("  hooks: [{function: on_packet}]\n", o)
	other := Options{Builtin: func(name string) (*program.Spec, error) {
		spec, err := o.Builtin(name)
		spec.Origin.Digest[0]++ // another object
		return spec, err
	}}
	f(" ", other)
	// What changes nothing is no change.
	specs, err := Parse([]byte("# comment\n"+head+"spec: {source: {builtin: shop}}\n"), "x.yaml", o)
	if err != nil || digests[specs[0].Origin.Digest] != "" || len(digests) != 8 {
		t.Errorf("a comment changed the digest (%v)", err)
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	data, err := os.ReadFile("testdata/shop.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	objectPath := write("shop.bpf.o", string(data))
	write("plain.o", string(data))
	f := func(name, spec, wantName string) {
		t.Helper()
		specs, err := Load(write(name, head+spec), options(t))
		if err != nil || len(specs) != 1 || specs[0].Name != wantName {
			t.Errorf("%s: %v, %v", spec, specs, err)
		}
	}
	f("shop.yaml", "", "shop")
	f("plain.yml", "spec:\n", "plain")
	f("other/a.yaml", "spec: {source: {object: {path: ../shop.bpf.o}}}", "shop")
	f("other/a.yaml", "metadata: {name: renamed}\nspec: {source: {object: {path: "+objectPath+"}}}", "renamed")
	f("b.yaml", "spec: {source: {builtin: shop}}", "shop")
}

// One Program's mistake must not hide the others, nor their mistakes.
func TestSeveralDocuments(t *testing.T) {
	document := func(name, spec string) string {
		return head + "metadata: {name: " + name + "}\nspec:\n  source: {builtin: shop}\n" + spec
	}
	text := strings.Join([]string{
		"# only a comment\n",
		document("one", ""),
		document("two", "  metrics: [{metric: nothing}]\n"),
		document("three", "  limt: 5\n"),
		document("four", ""),
		document("one", ""),
	}, "---\n")
	specs, err := Parse([]byte(text), "x.yaml", options(t))
	if len(specs) != 2 || specs[0].Name != "one" || specs[1].Name != "four" {
		t.Errorf("specs %v", specs)
	}
	problems := program.Problems(err)
	want := []string{"x.yaml:14: spec.metrics[0].metric: two has no metric", `x.yaml:21: spec.limt: unknown field`, "x.yaml:31: metadata.name: the Program beginning in line 3"}
	if len(problems) != len(want) {
		t.Fatalf("%d problems: %v", len(problems), err)
	}
	for i := range want {
		if !strings.HasPrefix(problems[i].Error(), want[i]) {
			t.Errorf("problem %d: %v, want %s", i, problems[i], want[i])
		}
		if _, ok := errors.AsType[*program.Problem](problems[i]); !ok {
			t.Errorf("problem %d is a %T", i, problems[i])
		}
	}
}

// Programs whose metrics all come from files need no object.
func TestWithoutCode(t *testing.T) {
	const metrics = `spec:
  metrics:
    - {name: a, type: gauge, from: {cgroup: {file: memory.stat, field: anon, v1: {controller: memory, field: total_rss}}}}
    - {name: b, type: counter, from: {cgroup: {file: cpu.stat, field: usage_usec, multiply: 1000, v1: {controller: cpuacct, file: cpuacct.usage}}}}
    - {name: c, type: gauge, from: {cgroup: {file: cpu.stat, field: nr_periods, own: true}}}
    - {name: d, type: gauge, from: {cgroup: {file: memory.stat, field: anon, v1: {controller: memory, field: total_rss}}}}
    - {name: e, type: gauge, from: {file: {path: /proc/net/netstat, field: "TcpExt: A"}}}
    - {name: f, type: gauge, from: {file: {path: /proc/net/netstat, field: TcpExt B}}}
    - {name: g, type: gauge, from: {file: {path: /a/*/b, field: B, labels: [{name: l, component: 2}, {name: m, file: c}]}}}
    - {name: h, type: gauge, from: {file: {path: /a/*/b}}}
`
	specs, err := Parse([]byte(head+metrics), "/none/files.yaml", Options{})
	if err != nil {
		t.Fatal(err)
	}
	spec := specs[0]
	if spec.Name != "files" || len(spec.Hooks) != 0 || spec.Origin.Files != nil {
		t.Errorf("got %+v", spec)
	}
	type reader struct {
		kind    program.ReaderKind
		metrics string
		fields  program.Fields
	}
	unified := func(field string) program.FieldNumber {
		return program.FieldNumber{Unified: program.FieldPlace{Field: field}}
	}
	want := []reader{
		{program.FieldReader, "a b_total d", program.Fields{Numbers: []program.FieldNumber{
			{Unified: program.FieldPlace{File: "memory.stat", Field: "anon"}, Legacy: program.FieldPlace{Controller: "memory", File: "memory.stat", Field: "total_rss"}},
			{Unified: program.FieldPlace{File: "cpu.stat", Field: "usage_usec", Multiply: 1000}, Legacy: program.FieldPlace{Controller: "cpuacct", File: "cpuacct.usage"}}}}},
		{program.FieldReader, "c", program.Fields{Own: true, Numbers: []program.FieldNumber{{Unified: program.FieldPlace{File: "cpu.stat", Field: "nr_periods"}}}}},
		{program.FieldReader, "e f", program.Fields{Path: "/proc/net/netstat", Numbers: []program.FieldNumber{unified("TcpExt A"), unified("TcpExt B")}}},
		{program.FieldReader, "g", program.Fields{Path: "/a/*/b", Keys: []program.FileKey{{Component: 2}, {File: "c"}}, Numbers: []program.FieldNumber{unified("B")}}},
		{program.FileReader, "h", program.Fields{}},
	}
	if len(spec.Readers) != len(want) {
		t.Fatalf("%d readers, want %d", len(spec.Readers), len(want))
	}
	for i, w := range want {
		r := &spec.Readers[i]
		got := reader{kind: r.Kind}
		for _, m := range r.Metrics {
			got.metrics = strings.TrimSpace(got.metrics + " " + m.Name)
		}
		if r.Fields != nil {
			got.fields = *r.Fields
		}
		if !reflect.DeepEqual(got, w) {
			t.Errorf("reader %d\ngot  %+v\nwant %+v", i, got, w)
		}
	}

	base := &program.Spec{Name: "built_in"}
	if specs, err := Parse([]byte(head+metrics), "builtin:x", Options{Base: base}); err != nil || specs[0].Name != "built_in" || len(base.Readers) != 0 {
		t.Errorf("with a base: %+v, %v", specs, err)
	}
	f := func(path, text, want string) {
		t.Helper()
		if _, err := Parse([]byte(head+text), path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	f("/none/Not A Name.yaml", metrics, "can't be a program's")
	f("/none/files.yaml", metrics+"    - {from: {map: m}, type: gauge}\n", "spec.source: it is missing")
	f("/none/files.yaml", metrics+"  hooks: [{function: f}]\n", "spec.source: it is missing")
}

func TestProblemsOfFiles(t *testing.T) {
	dir := t.TempDir()
	f := func(text, want string) {
		t.Helper()
		path := filepath.Join(dir, "x.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		specs, err := Load(path, options(t))
		if err == nil || len(specs) != 0 || !strings.Contains(strings.ReplaceAll(err.Error(), dir+"/", ""), want) {
			t.Errorf("%.60q: %d specs, error %v\nwant %s", text, len(specs), err, want)
		}
	}
	f("", "x.yaml: it holds no Program: begin with apiVersion")
	f("# nothing\n---\n", "it holds no Program")
	f("a: [1\n", "x.yaml:1: not valid YAML")
	f("a:\n\t- b\n", "indent with spaces, not with tabs")
	f("kind: Pod\nspec: {containers: []}\n", `x.yaml:1: kind: the kind "Pod" is not known here: write Program`)
	f("kind: Program\napiVersion: v1\n", `x.yaml:2: apiVersion: "v1" is not known here: write kaon.dev/v1alpha1`)
	f("kind: Program\n", "x.yaml:1: apiVersion: it is missing")
	f("hello\n", `x.yaml:1: want a mapping, not the text "hello"`)
	f(head, "spec.source: it is missing, and there is no object beside the file: write source: {builtin: NAME}")
	f(head+"spec: {source: {}}", "x.yaml:3: spec.source: want exactly one of builtin and object")
	f(head+"spec: {source: {builtin: a, object: {path: b}}}", "want exactly one of builtin and object")
	f(head+"spec: {source: {script: x}}", `spec.source.script: unknown field: the fields here are builtin, object`)
	f(head+"spec: {source: {builtin: nope}}", `spec.source.builtin: file does not exist: there is no built-in program "nope"`)
	f(head+"spec: {source: {object: {}}}", "want exactly one of path, configMapKeyRef, secretKeyRef and inline")
	f(head+"spec: {source: {object: {path: nope.o}}}", "no such file")
	f(head+"spec: {source: {object: {path: x.yaml}}}", "not a usable eBPF object")
	f(head+"spec:\n  source:\n    object:\n      configMapKeyRef: {name: a, key: b}", "x.yaml:6: spec.source.object.configMapKeyRef: only custom resources")
	f(head+"spec: {source: {object: {secretKeyRef: {name: a, key: b}}}}", "only custom resources")
	f(head+"spec: {source: {object: {secretKeyRef: {name: a}}}}", "spec.source.object.secretKeyRef.key: it is missing")
	f(head+"metadata: {name: Bad Name}\nspec: {source: {builtin: shop}}", `metadata.name: "Bad Name" can't be a program's name`)
	f(strings.Repeat("#", MaxSize+1), "file is too large")
	f(strings.Repeat(head+"---\n", MaxDocuments+1), "more than 100 documents")

	if _, err := Load(dir, Options{}); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Load(filepath.Join(dir, "missing"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Parse([]byte(head+"spec: {source: {builtin: shop}}"), "x.yaml", Options{}); err == nil || !strings.Contains(err.Error(), "not available here") {
		t.Errorf("no built-ins: %v", err)
	}
}

func TestProblemsOfSpecs(t *testing.T) {
	o := options(t)
	// The spec's lines begin at line 5 of the file.
	f := func(spec, want string) {
		t.Helper()
		specs, err := Parse([]byte(head+"spec:\n  source: {builtin: shop}\n"+spec), "f", o)
		if err == nil {
			t.Errorf("%s: no error: %v", spec, specs)
			return
		}
		problems := program.Problems(err)
		if len(problems) != 1 || !strings.Contains(problems[0].Error(), want) {
			t.Errorf("%s:\ngot  %v\nwant %s", spec, err, want)
		}
	}
	metric := func(text, want string) {
		t.Helper()
		f("  metrics:\n  - "+strings.ReplaceAll(text, "\n", "\n    ")+"\n", want)
	}
	// Params and hooks.
	f("  params: {minimun: 1s}", `f:5: spec.params.minimun: shop has no such param: did you mean "minimum"?`)
	f("  params:\n    minimum: fast", "f:6: spec.params.minimum: param minimum of shop: not a valid value")
	f("  params: {minimum: {a: b}}", "want text, a number, a boolean, or a list")
	f("  params: {interfaces: [[a]]}", "want a list of text without commas")
	f("  hooks: [{function: on_swich}]", `f:5: spec.hooks[0].function: there is no function "on_swich": did you mean "on_switch"?`)
	f("  hooks: [{target: x}]", "spec.hooks[0].function: it is missing")
	f("  hooks: [{function: on_switch}, {function: on_switch}]", "spec.hooks[1]: the function on_switch is already changed by spec.hooks[0]")
	f("  hooks: [{function: on_switch, interfaces: [lo]}]", "a tp_btf hook does not attach to interfaces")
	f("  hooks: [{function: on_switch, cgroups: [a]}]", "a tp_btf hook does not attach to cgroups")
	f("  hooks: [{function: on_switch, pid: 1}]", "a tp_btf hook can't be limited to one process")
	f("  hooks: [{function: on_readline, pid: -1}]", "-1 is too small")
	f("  hooks: [{function: on_packet, interfaces: ['[']}]", `spec.hooks[0].interfaces[0]: "[" is not a name or pattern`)

	// Which metric.
	metric("name: x", "want exactly one of metric and from: write metric: FAMILY")
	metric("name: requests_total", "write metric: requests_total")
	metric("metric: requests_total\nfrom: {map: traffic}", "want exactly one of metric and from")
	metric("metric: request_total", `f:6: spec.metrics[0].metric: shop has no metric "request_total": did you mean "requests_total"?`)
	f("  metrics: [{metric: requests_total}, {metric: requests_total}]", "already changed by spec.metrics[0]")
	f("  metrics: [{metric: requests_total, name: answer_bytes, type: gauge}]", "the metric answer_bytes is also made from answer_bytes")
	f("  metrics: ["+strings.Repeat("{metric: requests_total},", 1001)+"]", "it has 1001 entries, at most 1000 are allowed")

	// Plain properties.
	metric("metric: requests_total\nlimt: 5", `f:7: spec.metrics[0].limt: unknown field: did you mean "limit"?`)
	metric("metric: requests_total\nLimit: 5", `did you mean "limit"?`)
	metric("metric: requests_total\nlimit: 0", "0 is too small: the least is 1")
	metric("metric: requests_total\nlimit: many", `f:7: spec.metrics[0].limit: want a whole number, not the text "many"`)
	metric("metric: requests_total\nlimit: 1\nlimit: 2", "f:8: spec.metrics[0].limit: it is already set in line 7")
	metric("metric: requests_total\nhelp:", "it has no value: give it one, or remove it")
	metric("metric: requests_total\nhelp: 5", `want text, not the number 5: write "5", with quotes`)
	metric("metric: requests_total\nname: a-b", `"a-b" can't be a metric's name`)
	metric("metric: requests_total\ntype: histogram", "a counter can't become a histogram")
	metric("metric: requests_total\ntype: count", `"count" is not known here: it is one of counter, gauge`)
	metric("metric: requests_total\nunit: bytes", "the unit is bytes, but the name requests_total does not end in it: call it requests_bytes_total")
	metric("metric: answer_bytes\nname: answers", "call it answers_bytes")
	metric("metric: requests_total\nscale: 1/0", `the scale "1/0" is not a ratio above 0`)
	metric("metric: requests_total\nscale: -1", "is not a ratio above 0")
	metric("metric: requests_total\nscale: 1e999999999", "is not a ratio above 0")
	metric("metric: requests_total\nscale: 0.1234567890123456789012", "does not fit")
	metric("metric: requests_total\nscale: "+strings.Repeat("1", 99), "too long")
	metric("metric: serve_seconds\nscale: 5", "the program counts its buckets in the unit already")
	metric("metric: requests_total\ncpuLabel: true", "requests is no per-CPU map")
	metric("metric: requests_total\ncpuLabel: yes", "want true or false, not the text \"yes\"")
	metric("metric: requests_total\nstates: {0: a}", "only new metrics can be given states")

	// Labels.
	metric("metric: requests_total\nlabels: {keep: [code], drop: [client]}", "want at most one of keep and drop")
	metric("metric: requests_total\nlabels: {keep: [cod]}", `spec.metrics[0].labels.keep[0]: there is no label "cod": did you mean "code"?`)
	metric("metric: requests_total\nlabels: {drop: [zzzzzzzz]}", "there are client, code, shard, workload")
	metric("metric: requests_total\nlabels: {rename: {code: __x}}", "begins with an underscore")
	metric("metric: requests_total\nlabels: {rename: {code: le}}", "has a meaning of its own")
	file := func(fields, want string) {
		t.Helper()
		metric("from: {file: {"+fields+"}}\ntype: gauge\nname: x", want)
	}
	file(`path: "/a/[", value: 1`, "is no pattern")
	file("path: /a, field: b, value: 2", "neither prefix nor column")
	file("path: /a, field: b, prefix: c", "neither prefix nor column")
	file("path: /a, field: a b c", `"a b c" is no name of a number`)
	file("path: /a, field: ' a'", "is no name of a number")
	file("path: /a, labels: [{name: b}]", "want exactly one of column, component and file")
	file("path: /a, labels: [{name: b, column: 1, file: c}]", "want exactly one of column, component and file")
	file("path: /a, labels: [{name: b, file: ../c}]", `"../c" is no name of a file`)
	file("path: /a/b, labels: [{name: b, component: 3}]", "/a/b has 2 components")
	file("path: /a, field: c, labels: [{name: b, column: 1}]", "a number with a name has no columns")
	group := func(fields, want string) {
		t.Helper()
		metric("from: {cgroup: {"+fields+"}}\ntype: gauge\nname: x", want)
	}
	group("own: true", "it names no file")
	group("file: a/b", `"a/b" is no name of a file`)
	group("file: ..", `".." is no name of a file`)
	group("file: a, field: b c d", "is no name of a number")
	group("v1: {controller: memory}", `"" is no name of a file`)
	group("file: a, v1: {controller: ''}", "it names no controller")
	group("file: a, v1: {controller: cpu, file: b/c}", "is no name of a file")
	group("file: a, multiply: 0", "0 is too small")
	metric("from: {cgroup: {file: a}}\ntype: gauge", "the metric needs a name")
	metric("from: {cgroup: {file: a}}\ntype: info\nname: x", "can't be a info")
	metric("metric: requests_total\nlabels: {rename: {code: a b}}", "can't be a label's name")
	metric("metric: requests_total\nlabels: {rename: {code: shard}}", "two labels are called shard: the key's code and the key's shard")
	metric("metric: requests_total\nlabels: {rename: {code: pod}}", "two labels are called pod")
	metric("metric: requests_total\nlabels: {rename: {workload: who}}", "a workload has labels of its own: namespace, pod")
	metric("metric: requests_total\nlabels: {decode: {code: ipv5}}", `there is no decoder "ipv5": did you mean "ipv4"?`)
	metric("metric: requests_total\nlabels: {decode: {code: ipv4}}", "ipv4 decodes 4 bytes, and code has 2")
	metric("metric: requests_total\nlabels: {decode: {code: enum}}", "the numbers of an enum need names")
	metric("metric: requests_total\nlabels: {decode: {code: kernel_enum}}", "code is no enum")
	metric("metric: requests_total\nlabels: {decode: {cod: hex}}", "there is no label")
	metric("metric: requests_total\nlabels: {values: {code: {x: y}}}", `"x" is not a whole number`)
	metric("metric: requests_total\nlabels: {values: {code: {1: a, 0x1: b}}}", "1 is named twice")
	metric("metric: requests_total\nlabels: {values: {code: {1: ''}}}", "the name is empty")
	metric("metric: requests_total\nlabels: {values: {cod: {1: a}}}", "there is no label")
	metric("metric: requests_total\nstaticLabels: {code: a}", "two labels are called code: the key's code and a static one")
	metric("metric: requests_total\nstaticLabels: {__a: a}", "begins with an underscore")
	metric("metric: requests_total\nstaticLabels: {a: ''}", "it is empty, which is the same as no label")
	metric("metric: requests_total\nstaticLabels: {a: [b]}", "spec.metrics[0].staticLabels.a: want text, not a list")

	metric("from: {map: traffic, member: bytes}\ntype: counter\nlabels: {values: {name: {1: a}}}", "name is no number: only numbers can be given names")

	// Buckets.
	metric("metric: requests_total\nbuckets: {max: 5}", "spec.metrics[0].buckets: requests_total is a counter, which has no buckets")
	metric("metric: requests_total\nnative: {disabled: true}", "spec.metrics[0].native: requests_total is a counter")
	metric("metric: serve_seconds\nbuckets: {}", "want exactly one of max and bounds")
	metric("metric: serve_seconds\nbuckets: {max: 3, bounds: [1]}", "want exactly one of max and bounds")
	metric("metric: serve_seconds\nbuckets:\n  bounds:\n  - 1\n  - 1.5", "f:10: spec.metrics[0].buckets.bounds[1]: the program does not count by the bound 1.5: the nearest are 1.41421 and 1.68179")
	metric("metric: serve_seconds\nbuckets: {bounds: [0.001]}", "the nearest are 0.0625")
	metric("metric: serve_seconds\nbuckets: {bounds: [100]}", "the nearest are 16")
	metric("metric: serve_seconds\nbuckets: {bounds: [2, 1]}", "bounds must ascend")
	metric("metric: serve_seconds\nbuckets: {bounds: [.inf]}", "want a number, not the number .inf")
	metric("metric: answer_bytes\nbuckets: {bounds: [500]}", "the nearest are 100 and 1000")
	metric("metric: answer_bytes\nnative: {schema: 1}", "by explicit bounds, which are no native buckets")
	metric("metric: serve_seconds\nnative: {schema: 3}", "the program counts with schema 2; 3 would be finer: write at most 2")
	metric("metric: serve_seconds\nnative: {schema: 1, disabled: true}", "it is disabled, so the rest has no meaning")
	metric("metric: serve_seconds\nnative:\n  # a block's line is its key's\n  schema: 1\n  disabled: true", "f:7: spec.metrics[0].native: it is disabled")
	metric("metric: serve_seconds\nnative: off", "want a mapping, not the text \"off\": its fields are disabled, schema, maxBuckets")

	// New metrics from maps.
	metric("from: {map: traffic, member: bytes}", "a new metric needs a type")
	metric("from: {}\ntype: counter", "want exactly one of map, iterator, file, cgroup and stream")
	metric("from: {map: a, iterator: b}\ntype: counter", "want exactly one of map, iterator, file, cgroup and stream")
	metric("from: {map: traffik}\ntype: counter", `spec.metrics[0].from.map: shop has no map "traffik": did you mean "traffic"?`)
	metric("from: {map: waiting}\ntype: gauge", "waiting is a Queue and can't be a metric: reading it would empty it")
	metric("from: {map: events}\ntype: gauge", "use from: {stream: ...}")
	metric("from: {map: traffic}\ntype: gauge", "the value has several members: choose one of bytes, latency_count")
	metric("from: {map: traffic, member: byte}\ntype: gauge", `the value has no member "byte": did you mean "bytes"?`)
	metric("from: {map: traffic, member: slots}\ntype: gauge", "slots is no number")
	metric("from: {map: traffic, member: packets}\ntype: stateset", `"packets" is no enum: give its states`)
	metric("from: {map: traffic, member: packets}\ntype: gauge\nstates: {1: a}", "spec.metrics[0].states: only a stateset has states")
	metric("from: {map: opaque}\ntype: gauge", "opaque: BTF does not know its key and value")
	metric("from: {map: opaque, key: [{name: a, size: 8, type: uint}], value: [{name: b, size: 3, type: uint}]}\ntype: gauge", "a number can't have 3 bytes")
	metric("from: {map: opaque, key: [{name: a, size: 8, type: uint}], value: [{name: b, size: 8, offset: 12, type: uint}]}\ntype: gauge", "it ends at byte 20 of 16")
	metric("from: {map: opaque, key: [{name: a, size: 4, type: uint, count: 2}], value: [{name: b, size: 8, type: uint}]}\ntype: gauge", "an array of numbers can't be a label")
	metric("from: {map: opaque, key: [{name: le, size: 4, type: uint}], value: [{name: b, size: 8, type: uint}]}\ntype: gauge", "has a meaning of its own")
	metric("from: {map: opaque, key: [{name: a, size: 4, type: uint}, {name: a, size: 4, offset: 4, type: uint}], value: [{name: b, size: 8, type: uint}]}\ntype: gauge", `"a" is empty or used twice`)
	metric("from: {map: opaque, key: [{name: a, size: 4, type: string, bigEndian: true}], value: [{name: b, size: 8, type: uint}]}\ntype: gauge", "a string has neither count nor byte order")
	metric("from: {map: requests, key: [{name: a, size: 4, type: uint}]}\ntype: gauge\nname: other", "the key of requests is already described in another way")
	metric("from: {map: traffic}\ntype: histogram", "a histogram needs its slots described")
	metric("from: {map: traffic, histogram: {bounds: [1], schema: 1}}\ntype: histogram", "want either bounds, or schema, low and high")
	metric("from: {map: traffic, histogram: {low: 4, high: 3}}\ntype: histogram", "low must be below high")
	metric("from: {map: traffic, histogram: {bounds: [2, 1]}}\ntype: histogram", "spec.metrics[0].from.histogram.bounds[1]: bounds must ascend")
	metric("from: {map: traffic, histogram: {sum: total, slots: slots, bounds: [1, 2]}}\ntype: histogram", "slots has 5 elements of 8 bytes; these bounds need 3 slots")
	metric("from: {map: traffic, histogram: {bounds: [1]}}\ntype: gauge", "histogram and summary do not belong to a gauge")
	metric("from: {map: traffic}\ntype: summary", "a summary needs the members count and sum")
	metric("from: {map: traffic, summary: {count: latency_count, sum: nope}}\ntype: summary", `no member "nope"`)
	metric("from: {map: single}\ntype: info\nscale: 5", "metrics of type info have no number to scale")
	metric("from: {map: single}\ntype: counter\nname: requests", "the metric requests_total is also made from requests")

	// New metrics from elsewhere.
	metric("from: {iterator: each_tas}\ntype: gauge", `no iterator "each_tas": did you mean "each_task"?`)
	metric("from: {iterator: on_packet}\ntype: gauge", "no iterator \"on_packet\"")
	metric("from: {iterator: each_task}\ntype: gauge", "an iterator's records are not described by the object")
	metric("from: {file: {path: proc, value: 1}}\ntype: gauge\nname: x", `"proc" is not a clean absolute path`)
	metric("from: {file: {path: /proc/../etc, value: 1}}\ntype: gauge\nname: x", "is not a clean absolute path")
	metric("from: {file: {path: /proc/stat, value: 1}}\ntype: gauge", "the metric needs a name")
	metric("from: {file: {path: /proc/stat, value: 0}}\ntype: gauge\nname: x", "0 is too small")
	metric("from: {file: {path: /proc/stat, value: 1}}\ntype: histogram\nname: x", "a number in a file can't be a histogram")
	metric("from: {file: {path: /proc/stat, value: 1}, member: x}\ntype: gauge\nname: x", "member, key and value belong to a map")
	metric("from: {file: {path: /proc/stat, value: 1, labels: [{name: le, column: 2}]}}\ntype: gauge\nname: x", "has a meaning of its own")
	metric("from: {stream: {name: event}}\ntype: counter", `shop has no stream "event": did you mean "events"?`)
	metric("from: {stream: {name: events, labels: [com]}}\ntype: counter", `the records of events have no field "com": did you mean "comm"?`)
	metric("from: {stream: {name: events, value: comm}}\ntype: counter", "comm is no number")
	metric("from: {stream: {name: events, value: size}}\ntype: gauge", "records can't make a gauge")
	metric("from: {stream: {name: events}}\ntype: summary", "a summary needs a field to observe")
	metric("from: {stream: {name: events, value: size}, summary: {count: a, sum: b}}\ntype: summary", "members belong to maps")

	// A hook that something needs.
	f("  hooks: [{function: each_task, enabled: false}]\n  metrics: [{from: {iterator: each_task, key: [{name: a, size: 4, type: uint}], value: [{name: b, size: 4, type: uint}]}, type: gauge}]",
		`no iterator "each_task": there are none`)
}

// Every problem is listed, not only the first.
func TestAllProblems(t *testing.T) {
	spec := `  params: {minimum: fast, nope: 1}
  hooks: [{function: nope}]
  metrics:
  - metric: requests_total
    labels: {keep: [nope], rename: {code: le}}
    unit: bytes
  - metric: serve_seconds
    buckets: {bounds: [0.3, 0.7]}
`
	_, err := Parse([]byte(head+"spec:\n  source: {builtin: shop}\n"+spec), "f", options(t))
	if n := len(program.Problems(err)); n != 8 {
		t.Errorf("%d problems:\n%v", n, err)
	}
}

// A metric that is disabled leaves its name to another.
func TestNameOfDisabledMetric(t *testing.T) {
	specs, err := Parse([]byte(head+"spec: {source: {builtin: shop}, metrics: [{metric: requests_total, name: requests_all}, {metric: answer_bytes, disabled: true}, "+
		"{from: {map: traffic, member: bytes}, type: gauge, name: answer_bytes}, {from: {map: single}, type: counter, name: requests}]}"), "f", options(t))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range specs[0].Readers {
		for _, m := range r.Metrics {
			names = append(names, r.Name+":"+m.Name)
		}
	}
	if got := strings.Join(names, " "); got != "requests:requests_all_total serve_seconds:serve_seconds traffic:answer_bytes single:requests_total" {
		t.Errorf("metrics %s", got)
	}
}

func TestPinIsRefusedForWhatCanAct(t *testing.T) {
	o := options(t)
	acting := Options{Builtin: func(name string) (*program.Spec, error) {
		spec, err := o.Builtin(name)
		spec.Hooks[0].Kind = program.LSM
		return spec, err
	}}
	_, err := Parse([]byte(head+"spec: {source: {builtin: shop}, pin: true}"), "f", acting)
	if err == nil || !strings.Contains(err.Error(), "f:3: spec.pin: the function each_task (lsm) can act") {
		t.Errorf("error %v", err)
	}
}

func TestWhatIsNeededStays(t *testing.T) {
	o := options(t)
	f := func(spec string, change func(*program.Spec), want string) {
		t.Helper()
		changed := Options{Builtin: func(name string) (*program.Spec, error) {
			s, err := o.Builtin(name)
			change(s)
			return s, err
		}}
		_, err := Parse([]byte(head+"spec: {source: {builtin: shop}, "+spec+"}"), "f", changed)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v\nwant %s", spec, err, want)
		}
	}
	f("hooks: [{function: each_task, enabled: false}]", func(s *program.Spec) {
		s.Readers[0].Kind, s.Readers[0].Function = program.IteratorReader, "each_task"
	}, "f:3: spec.hooks[0].enabled: the metrics of answer_bytes are read by the function each_task")
	f("hooks: [{function: on_packet, enabled: false}]", func(s *program.Spec) {
		s.Collection.Maps["single"].Contents = []ebpf.MapKV{{Key: uint32(0), Value: "on_packet"}}
	}, "the map single calls the function on_packet")
	single := "metrics: [{from: {map: single}, type: gauge}]"
	for typ, want := range map[ebpf.MapType]string{
		ebpf.TaskStorage: "use an iterator", ebpf.StackTrace: "call stacks", ebpf.ProgramArray: "no numbers", ebpf.Stack: "would empty it",
	} {
		f(single, func(s *program.Spec) { s.Collection.Maps["single"].Type = typ }, want)
	}
	// A source may have no code at all.
	f(single, func(s *program.Spec) { s.Collection = nil }, `shop has no map "single": there are none`)
}

func TestDecodersOfOptions(t *testing.T) {
	o := options(t)
	text := head + "spec: {source: {builtin: shop}, metrics: [{metric: requests_total, labels: {decode: {code: colour}}}]}"
	if _, err := Parse([]byte(text), "f", o); err == nil {
		t.Error("no error for an unknown decoder")
	}
	o.Decoders = []string{"colour"}
	specs, err := Parse([]byte(text), "f", o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range specs[0].Readers {
		for _, m := range r.Metrics {
			if m.Name == "requests_total" && m.Labels[2].Decoder != "colour" {
				t.Errorf("decoder %q", m.Labels[2].Decoder)
			}
		}
	}
}

func TestScale(t *testing.T) {
	f := func(text string, num, den uint64) {
		t.Helper()
		got, err := parseScale(text)
		if err != "" || got != (program.Scale{Num: num, Den: den}) {
			t.Errorf("%s: %v %s", text, got, err)
		}
	}
	f("1/1000000000", 1, 1e9)
	f("1e-9", 1, 1e9)
	f("0.001", 1, 1000)
	f("2/4", 1, 2)
	f("4096", 4096, 1)
	f("1.5", 3, 2)
}

func FuzzParse(f *testing.F) {
	data, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		f.Fatal(err)
	}
	text := strings.Replace(string(data), "spec:\n", "spec:\n  source: {builtin: shop}\n", 1)
	f.Add([]byte(text))
	// Smaller seeds mutate better.
	for _, part := range strings.Split(text, "\n    - ")[1:] {
		f.Add([]byte(head + "spec:\n  source: {builtin: shop}\n  metrics:\n    - " + part))
	}
	o := options(f)
	base, err := o.Builtin("shop")
	if err != nil {
		f.Fatal(err)
	}
	o.Builtin = func(string) (*program.Spec, error) { return base, nil }
	f.Fuzz(func(t *testing.T, data []byte) {
		specs, err := Parse(data, "fuzz.yaml", o)
		if err == nil && len(specs) == 0 {
			t.Error("neither specs nor an error")
		}
		for _, s := range specs {
			for _, r := range s.Readers {
				for _, m := range r.Metrics {
					for _, c := range m.Cells {
						if c.Size > 8 || uint64(c.Offset)+uint64(c.Size)*uint64(max(c.Count, 1)) > uint64(r.ValueSize) {
							t.Errorf("%s: a cell outside of the value: %+v of %d", m.Name, c, r.ValueSize)
						}
					}
					for _, l := range m.Labels {
						if uint64(l.Field.Offset)+uint64(l.Field.Size)*uint64(max(l.Field.Count, 1)) > uint64(r.KeySize) {
							t.Errorf("%s: a label outside of the key: %+v of %d", m.Name, l, r.KeySize)
						}
					}
				}
			}
		}
	})
}
