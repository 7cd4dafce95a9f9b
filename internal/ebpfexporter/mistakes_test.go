package ebpfexporter_test

import (
	"os"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/internal/ebpfexporter"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

func parse(t testing.TB, text, object string) (*program.Spec, error) {
	t.Helper()
	code, err := os.ReadFile("testdata/" + object + ".bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	return ebpfexporter.Parse([]byte(text), "x.yaml", code, "x.bpf.o", ebpfexporter.Options{Steps: series.Steps()})
}

// Every mistake is found before anything runs, and says where, what and how to mend it.
func TestMistakes(t *testing.T) {
	counters := func(text string) string { return "metrics:\n  counters:\n" + text }
	histograms := func(text string) string { return "metrics:\n  histograms:\n" + text }
	f := func(object, text, want string) {
		t.Helper()
		_, err := parse(t, text, object)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
	index := ", labels: [{name: index, size: 4, decoders: [{name: uint}]}]}"
	f("counters", "", "x.yaml: the configuration is empty")
	f("counters", "metrics: [", "x.yaml: not valid YAML: line 1")
	f("counters", "metrics: 5", "x.yaml:1: metrics: want a mapping")
	f("counters", counters("    - {help: x}"), "x.yaml:3: metrics.counters[0]: it has no name")
	f("counters", counters("    - {name: no_map, help: x}"), "x.yaml:3: metrics.counters[0].name: the object has no map no_map")
	f("counters", counters("    - {name: alon, help: x}"), "did you mean alone?")
	f("counters", counters("    - {name: a-b, help: x}"), `"ebpf_exporter_a-b" is no metric's name`)
	f("counters", counters("    - {name: in_array_total, help: x"+index+"\n    - {name: in_array_total, help: x"+index),
		"x.yaml:4: metrics.counters[1]: the metric in_array_total exists already, at x.yaml:3: metrics.counters[0]")
	f("counters", counters("    - {name: in_hash_total, help: x}"), "without labels the key must be a u32, but the map's keys have 24 bytes")
	f("counters", counters("    - name: in_hash_total\n      help: x\n      labels:\n        - {name: operation, size: 1, decoders: [{name: uint}]}\n        - {name: id, size: 8, decoders: [{name: uint}]}\n"),
		"x.yaml:3: metrics.counters[0].labels: they take 9 bytes, but the keys of the map in_hash_total have 24: make the sizes and paddings of the labels those of the key's members: "+
			"operation size 1 padding 7, id size 8, port size 2, address size 4 padding 2")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: index, size: 4, decoders: [{name: unit}]}]}"),
		`metrics.counters[0].labels[0].decoders[0]: there is no decoder "unit": did you mean uint?`)
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: index, size: 4}]}"), "it has no decoders")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: index, padding: 4, decoders: [{name: uint}]}]}"), "it has no size")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{size: 4, decoders: [{name: uint}]}]}"), "it has no name")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a b, size: 4, decoders: [{name: uint}]}]}"), `"a b" is no label's name`)
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a, size: 2, decoders: [{name: uint}]}, {name: a, size: 2, decoders: [{name: uint}]}]}"), "there are two labels a")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a, size: 3, padding: 1, decoders: [{name: uint}]}]}"), "a number has no 3 bytes")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a, size: 4, decoders: [{name: ksym}]}]}"), "a kernel address has 8 bytes, not 4")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a, size: 4, decoders: [{name: kstack}]}]}"), "multiple of 8")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a, size: 4, decoders: [{name: errno}]}]}"), "errno reads a decimal number, but here are the key's bytes: write uint before it")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a, size: 4, decoders: [{name: regexp}]}]}"), "it has no regexps")
	f("counters", counters(`    - {name: in_array_total, help: x, labels: [{name: a, size: 4, decoders: [{name: regexp, regexps: ["("]}]}]}`), "missing closing )")
	f("counters", counters("    - {name: in_array_total, help: x, labels: [{name: a, size: x}]}"), `"x": want a number of bytes`)
	f("counters", counters("    - {name: in_array_total, help: x, perf_event_array: maybe}"), "want true or false")
	f("counters", counters("    - {name: in_array_total, help: x, perf_event_array: true"+index), "the map in_array_total is of type Array")
	f("counters", counters("    - {name: by_cpu_array_total, help: x, labels: [{name: i, size: 4, decoders: [{name: uint}]}, {name: cpu, size: 4, decoders: [{name: uint}]}]}"), "the label cpu of a per-CPU map is the CPU's number")
	f("events", counters("    - {name: events_total, help: x"+index), "write perf_event_array: true")
	f("spans", counters("    - {name: trigger_spans, help: x"+index), "is of type RingBuf, which is no metric")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: exp2, bucket_max: 5}"), "it has no labels, but the last one is the number of the bucket")
	bucket := ", labels: [{name: bucket, size: 4, decoders: [{name: uint}]}]}"
	f("histograms", histograms("    - {name: backlog, help: x, bucket_max: 5"+bucket), "it has no bucket_type: write exp2, exp2zero, linear or fixed")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: exp3, bucket_max: 5"+bucket), `"exp3" is unknown`)
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: exp2"+bucket), "there are no buckets from bucket_min 0 to bucket_max 0")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: linear, bucket_max: 1e9"+bucket), "there are more than 16384 buckets")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: exp2, bucket_max: 3000"+bucket), "the bucket 1024 ends at +Inf")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: exp2, bucket_max: 3, bucket_multiplier: -1"+bucket), "it is negative")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: fixed"+bucket), "fixed buckets need bucket_keys")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: fixed, bucket_keys: [2, 1]"+bucket), "the keys don't ascend")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: fixed, bucket_keys: [1, 1]"+bucket), "not above the one before it")
	f("histograms", histograms("    - {name: backlog, help: x, bucket_type: exp2, bucket_max: 5, labels: [{name: bucket, size: 4, decoders: [{name: hex}]}]}"), "the last label is the number of the bucket")
	f("counters", "kaddrs: [vfs_read]", "the object has no variable kaddr_vfs_read to take the address")
	f("cgroups", "cgroup_id_map: {regexps: [x]}", "it names no map")
	f("cgroups", "cgroup_id_map: {name: wanted, type: cgrp_storage, regexps: [x]}", "the map wanted is of type Hash")
	f("cgroups", "cgroup_id_map: {name: wanted, type: other, regexps: [x]}", `"other" is unknown`)
	f("cgroups", "cgroup_id_map: {name: wanted, regexps: ['(']}", "missing closing )")
	f("storage", "cgroup_id_map: {name: wanted, regexps: [x]}", "write type: cgrp_storage")
	f("spans", "tracing: {spans: [{name: x}]}", "it names no ring buffer")
	f("counters", "tracing: {spans: [{ringbuf: alone}]}", "the map alone is of type Array")
	f("spans", "tracing: {spans: [{ringbuf: trigger_spans, labels: [{name: span_id, size: 8, decoders: [{name: uint}]}]}]}", "span_id is an identifier of 8 bytes")
	f("counters", "a: &a [*a]\nmetrics: *a", "x.yaml")
}

// What ebpf_exporter passes over in silence is told, but does not keep a configuration from running.
func TestDoubts(t *testing.T) {
	f := func(object, text, want string) {
		t.Helper()
		spec, err := parse(t, text, object)
		if err != nil {
			t.Errorf("%s\n%v", text, err)
			return
		}
		var all []string
		for _, d := range spec.Doubts {
			all = append(all, d.Error())
		}
		if got := strings.Join(all, "\n"); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
	index := ", labels: [{name: index, size: 4, decoders: [{name: uint}]}]}"
	one := "metrics:\n  counters:\n    - {name: in_array_total, help: x"
	f("counters", one+index, "")
	f("counters", "name: ignored\n"+one+index, "")
	f("counters", "x: &anchor {a: b}\n"+one+index, "")
	f("counters", "metric: x\n"+one+index, `x.yaml:1: metric: the field "metric" is unknown, so it does nothing: did you mean metrics?`)
	f("counters", one+", lables: []"+index, `metrics.counters[0].lables: the field "lables" is unknown, so it does nothing: did you mean labels?`)
	f("counters", one+", flush_interval: 5m"+index, "it does nothing without perf_event_array: true")
	f("counters", "metrics:\n  counters:\n    - {name: in_array_total"+index, "it has no help")
	f("counters", "metrics: {}", "it exports nothing")
	f("counters", one+", labels: [{name: a, size: 2, decoders: [{name: uint}]}, {name: b, size: 2, decoders: [{name: uint}]}]}",
		"x.yaml:3: metrics.counters[0].labels[0]: it takes the bytes 0 to 1, but the key takes 0 to 3")
	f("counters", one+", labels: [{name: a, size: 4, decoders: [{name: static_map}]}]}", "it has no static_map")
	f("counters", one+", labels: [{name: a, size: 4, decoders: [{name: uint, static_map: {1: a}}]}]}", "do nothing here")
	f("counters", "base: &l {name: index, size: 4}\n"+one+", labels: [{<<: *l, decoders: [{name: uint}]}]}", "")
}

func TestIs(t *testing.T) {
	f := func(text string, want bool) {
		t.Helper()
		if got := ebpfexporter.Is([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	f("metrics:\n  counters: []\n", true)
	f("# comment\n\"tracing\":\n", true)
	f("cgroup_id_map: {}", true)
	f("apiVersion: kaon.dev/v1alpha1\nkind: Program\nspec:\n  metrics: []\n", false)
	f("programs:\n- x\nmetrics: x", false)
	f("spec:\n  metrics: []", false)
	f("#metrics: x", false)
	f("", false)
	f(":\n: :", false)
}

func TestPrefix(t *testing.T) {
	code, err := os.ReadFile("testdata/counters.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	text := []byte("metrics: {counters: [{name: alone, help: x}]}")
	digests := map[[32]byte]bool{}
	for prefix, want := range map[string]string{"": "alone", "mine_": "mine_alone", "ebpf_exporter_": "ebpf_exporter_alone"} {
		spec, err := ebpfexporter.Parse(text, "dir/Some.Thing.yaml", code, "x.bpf.o", ebpfexporter.Options{Prefix: &prefix, Steps: series.Steps()})
		if err != nil {
			t.Fatal(err)
		}
		if got := spec.Readers[0].Metrics[0].Name; got != want || spec.Name != "some-thing" {
			t.Errorf("metric %s of %s", got, spec.Name)
		}
		digests[spec.Origin.Digest] = true
	}
	if len(digests) != 3 {
		t.Error("another prefix is no change")
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"counters", "histograms", "cgroups", "spans", "events"} {
		data, err := os.ReadFile("testdata/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a, *a]\nmetrics: {<<: *a, counters: *a}"))
	code, err := os.ReadFile("testdata/counters.bpf.o")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ebpfexporter.Is(data)
		spec, err := ebpfexporter.Parse(data, "x.yaml", code, "x.bpf.o", ebpfexporter.Options{Steps: series.Steps()})
		if (spec == nil) == (err == nil) {
			t.Fatalf("spec %v, error %v", spec, err)
		}
		if spec == nil {
			return
		}
		maps := mapsOnly{}
		if _, err := series.NewCollector(spec, maps, series.Options{}); err != nil {
			// What can't be read is to be found by Parse.
			if !strings.Contains(err.Error(), "stream can't be read here") {
				t.Fatalf("%s\n%v", data, err)
			}
		}
	})
}
