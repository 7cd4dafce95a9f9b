package check

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/object"
	"github.com/kaon-project/kaon/internal/program"
)

var update = flag.Bool("update", false, "write the golden files anew")

func resolve(arg string) ([]*program.Spec, error) {
	spec, err := object.Load(arg)
	if err != nil {
		return nil, err
	}
	return []*program.Spec{spec}, nil
}

// The deliberately bad objects, as a user sees them.
func TestGolden(t *testing.T) {
	f := func(golden string, failed bool, options Options, args ...string) {
		t.Helper()
		result := All(args, resolve, options)
		var b bytes.Buffer
		if err := result.Write(&b, "text"); err != nil {
			t.Fatal(err)
		}
		golden = filepath.Join("testdata", golden)
		if *update {
			if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil || b.String() != string(want) {
			t.Errorf("%s: %v, got:\n%s", golden, err, b.String())
		}
		if result.Failed() != failed {
			t.Errorf("%s: failed is %t", golden, result.Failed())
		}
	}
	f("labels.txt", true, Options{CPUs: 2}, "testdata/labels.bpf.o")
	f("doubtful.txt", true, Options{CPUs: 2}, "testdata/doubtful.bpf.o")
	f("doubtful.btf.txt", true, Options{CPUs: 2, Types: kernelTypes(t)}, "testdata/doubtful.bpf.o")
	f("several.txt", true, Options{CPUs: 2}, "testdata/absent.bpf.o", "testdata/labels.bpf.o", "testdata/doubtful.bpf.o", "testdata/doubtful.bpf.o")
}

// kernelTypes is the BTF of a very small kernel.
func kernelTypes(t *testing.T) *btf.Spec {
	t.Helper()
	void := &btf.FuncProto{Return: &btf.Void{}}
	builder, err := btf.NewBuilder([]btf.Type{
		&btf.Func{Name: "vfs_read", Type: void, Linkage: btf.StaticFunc},
		&btf.Func{Name: "bpf_iter_task", Type: void, Linkage: btf.StaticFunc},
		&btf.Func{Name: "bpf_lsm_file_open", Type: void, Linkage: btf.StaticFunc},
		&btf.Typedef{Name: "btf_trace_sched_switch", Type: &btf.Pointer{Target: void}},
		&btf.Typedef{Name: "vfs_type", Type: &btf.Pointer{Target: void}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := builder.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	types, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return types
}

// good is a spec without a finding.
func good() *program.Spec {
	key := program.Label{Name: "state", Member: "state", Decoder: "enum", Enum: []program.State{{Name: "on", Value: 1}}, Field: program.Field{Size: 4}}
	return &program.Spec{
		Name: "good", Help: "Is good.",
		Collection: &ebpf.CollectionSpec{
			Maps:     map[string]*ebpf.MapSpec{"m": {Name: "m", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 101}},
			Programs: map[string]*ebpf.ProgramSpec{"f": {Name: "f"}, "g": {Name: "g"}},
		},
		Hooks: []program.Hook{{Function: "f", Kind: program.TracepointBTF, Target: "sched_switch"}},
		Readers: []program.Reader{{Name: "m", Kind: program.MapReader, KeySize: 8, ValueSize: 8, Overflow: true, Key: []program.Label{key},
			Metrics: []program.Metric{{Name: "switches_total", Help: "Switches.", Type: program.Counter, Labels: []program.Label{key}}}}},
	}
}

func TestRules(t *testing.T) {
	f := func(want string, change func(s *program.Spec, r *program.Reader, m *program.Metric, kernel *ebpf.MapSpec)) {
		t.Helper()
		s := good()
		change(s, &s.Readers[0], &s.Readers[0].Metrics[0], s.Collection.Maps["m"])
		findings := CheckWithOptions(s, Options{CPUs: 2, Types: kernelTypes(t)})
		var texts []string
		for _, finding := range findings {
			texts = append(texts, finding.String())
		}
		got := strings.Join(texts, "\n")
		if want == "" && got != "" || !strings.Contains(got, want) || want != "" && len(texts) != 1 {
			t.Errorf("got:\n%s\nwant one with: %s", got, want)
		}
	}
	type S = *program.Spec
	type R = *program.Reader
	type M = *program.Metric
	type K = *ebpf.MapSpec
	f("", func(S, R, M, K) {})

	// Names.
	f("error: metric : its name is empty", func(_ S, _ R, m M, _ K) { m.Name, m.Type = "", program.Gauge })
	f("warning: metric queue-length: its name has other characters", func(_ S, _ R, m M, _ K) { m.Name, m.Type = "queue-length", program.Gauge })
	f("error: metric switches: the name of a counter must end in _total", func(_ S, _ R, m M, _ K) { m.Name = "switches" })
	f("error: metric x_total: the ending _total belongs to other samples than those of a gauge", func(_ S, _ R, m M, _ K) { m.Name, m.Type = "x_total", program.Gauge })
	f("the ending _bucket belongs", func(_ S, _ R, m M, _ K) { m.Name, m.Type = "x_bucket", program.Gauge })
	f("the ending _count belongs", func(_ S, _ R, m M, _ K) { m.Name = "x_count_total" })
	f("must end in _info", func(_ S, _ R, m M, _ K) { m.Name, m.Type = "x", program.Info })
	f("'snake_case' not 'camelCase'", func(_ S, _ R, m M, _ K) { m.Name = "taskSwitches_total" })
	f(`use base unit "bytes" instead of "kilobytes"`, func(_ S, _ R, m M, _ K) { m.Name = "io_kilobytes_total" })
	f("abbreviated units", func(_ S, _ R, m M, _ K) { m.Name, m.Type = "wait_ms", program.Gauge })
	f("should not include type 'gauge'", func(_ S, _ R, m M, _ K) { m.Name, m.Type = "run_gauge", program.Gauge })
	f("its unit is seconds, which its name must end in: rename it to switches_seconds_total", func(_ S, _ R, m M, _ K) { m.Unit = "seconds" })
	f("", func(_ S, _ R, m M, _ K) { m.Unit, m.Name = "seconds", "run_seconds_total" })
	f("its name ends in bytes, but it has no unit", func(_ S, _ R, m M, _ K) { m.Name = "io_bytes_total" })
	f("it has no help", func(_ S, _ R, m M, _ K) { m.Help = " " })
	f("does not end with a period", func(_ S, _ R, m M, _ K) { m.Help = "Switches" })
	f("program good: it does not say what it tells", func(s S, _ R, _ M, _ K) { s.Help = "" })
	f("it exports nothing", func(s S, _ R, _ M, _ K) { s.Readers = nil })
	f("param p: it has no help", func(s S, _ R, _ M, _ K) { s.Params = []program.Param{{Name: "p"}} })

	// Clashes.
	add := func(name string, typ program.Type, when, unless string) func(S, R, M, K) {
		return func(_ S, r R, m M, _ K) {
			m.Unless = "p"
			r.Metrics = append(r.Metrics, program.Metric{Name: name, Type: typ, Help: "Other.", Labels: m.Labels, When: when, Unless: unless})
		}
	}
	f("it is made from both m and m", add("switches_total", program.Counter, "", ""))
	f("", add("switches_total", program.Counter, "p", ""))
	f("its samples and those of counter switches_total are both called switches: ", add("switches", program.Histogram, "", ""))
	f("are both called switches: rename", add("switches", program.Gauge, "", ""))
	f("", add("switching", program.Gauge, "", ""))

	// Labels.
	label := func(name, decoder string) func(S, R, M, K) {
		return func(_ S, r R, m M, _ K) {
			l := program.Label{Name: name, Decoder: decoder, Field: program.Field{Size: 4}}
			r.Key, m.Labels = append(r.Key, l), append(m.Labels, l)
		}
	}
	f(`the label name "le" has a meaning of its own`, label("le", "uint"))
	f(`the label name "overflow" has a meaning of its own`, label("overflow", "uint"))
	f(`"__name" begins with two underscores`, label("__name", "uint"))
	f(`"a-b" is not a label's name`, label("a-b", "uint"))
	f(`it has two labels called "state"`, label("state", "uint"))
	f(`unknown decoder "ipv5": did you mean "ipv4"?`, label("address", "ipv5"))
	f("", label("address", "ipv4"))
	f("should be written in 'snake_case'", label("localAddress", "ipv4"))
	f(`it has two labels called "pod"`, func(s S, r R, m M, k K) {
		label("w", "workload")(s, r, m, k)
		m.StaticLabels = []program.StaticLabel{{Name: "pod", Value: "x"}}
	})
	f("", func(s S, r R, m M, k K) {
		label("w", "workload")(s, r, m, k)
		label("sender", "workload")(s, r, m, k)
	})
	f(`it has two labels called "sender_pod"`, func(s S, r R, m M, k K) {
		label("w", "workload")(s, r, m, k)
		label("sender", "workload")(s, r, m, k)
		m.StaticLabels = []program.StaticLabel{{Name: "sender_pod", Value: "x"}}
	})
	f(`the label "state" has the name of the stateset`, func(_ S, _ R, m M, _ K) { m.Type, m.Name = program.StateSet, "state" })

	// Cardinality.
	f("its labels allow 131072 series, its limit is 10000: what goes over is folded into one series", func(s S, r R, m M, k K) {
		l := program.Label{Name: "port", Decoder: "uint", Field: program.Field{Size: 2}}
		r.Key, m.Labels = append(r.Key, l), append(m.Labels, l)
		k.MaxEntries = 20001
	})
	f("left out", func(s S, r R, m M, k K) {
		l := program.Label{Name: "port", Decoder: "uint", Field: program.Field{Size: 4, BitSize: 14}}
		r.Key, m.Labels = append(r.Key, l), append(m.Labels, l)
		m.Type, m.Name = program.Gauge, "ports"
	})
	f("it has room for 100 keys, but the labels of switches_total allow 512 series: raise max_entries to 513", label("protocol", "protocol"))
	f("it has room for 100 keys, but the limit of switches_total is 500", func(s S, r R, m M, k K) {
		label("address", "ipv4")(s, r, m, k)
		m.Limit = 500
	})
	f("it has room for 100000 keys, but only 10000 series are shown", func(_ S, _ R, _ M, k K) { k.MaxEntries = 100001 })
	f("", func(_ S, r R, _ M, k K) { // several keys make one series
		k.MaxEntries = 100001
		r.Key = append(r.Key, program.Label{Name: "address", Decoder: "ipv4"})
	})

	// Maps.
	f("it is an LRU map", func(_ S, r R, _ M, k K) { k.Type, r.Overflow = ebpf.LRUHash, false })
	f("", func(_ S, r R, m M, k K) {
		k.Type, r.Overflow, m.Type, m.Name = ebpf.LRUHash, false, program.Gauge, "switching"
	})
	f("it has no overflow entry", func(_ S, r R, _ M, _ K) { r.Overflow = false })
	f("can't have an overflow entry", func(_ S, _ R, _ M, k K) { k.Type = ebpf.Array })
	f("all of which may be ones", func(_ S, r R, _ M, _ K) { r.KeySize = 4 })
	f("error: map m: it has no max_entries", func(_ S, _ R, _ M, k K) { k.MaxEntries = 0 })
	f("error: map m: type TaskStorage: the kernel lists no keys", func(_ S, _ R, _ M, k K) { k.Type = ebpf.TaskStorage })
	f("error: map m: type Queue", func(_ S, _ R, _ M, k K) { k.Type = ebpf.Queue })
	f("the object has no such map", func(s S, _ R, _ M, _ K) { delete(s.Collection.Maps, "m") })
	f("a per-CPU value may have 32 KiB", func(_ S, _ R, _ M, k K) { k.Type, k.ValueSize = ebpf.PerCPUHash, 40000 })
	f("warning: map big: it takes up to", func(s S, _ R, _ M, _ K) {
		s.Collection.Maps["big"] = &ebpf.MapSpec{Name: "big", Type: ebpf.Array, KeySize: 4, ValueSize: 1024, MaxEntries: 1 << 19}
	})
	f("on 64 CPUs", func(s S, _ R, _ M, _ K) {
		s.Collection.Maps["big"] = &ebpf.MapSpec{Name: "big", Type: ebpf.PerCPUHash, KeySize: 8, ValueSize: 856, MaxEntries: 10000}
	})
	f("error: map big: it takes", func(s S, _ R, _ M, _ K) {
		s.Collection.Maps["big"] = &ebpf.MapSpec{Name: "big", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 4294967295}
	})
	f("", func(s S, r R, _ M, _ K) { // only declares an iterator's records
		r.Kind, r.Function, r.Overflow = program.IteratorReader, "f", false
		s.Collection.Maps["m"].MaxEntries = 4294967295
	})

	// Hooks.
	hook := func(hooks ...program.Hook) func(S, R, M, K) {
		return func(s S, _ R, _ M, _ K) { s.Hooks = hooks }
	}
	fentry := program.Hook{Function: "f", Kind: program.Fentry, Target: "vfs_read"}
	f("fentry is refused by kernels under lockdown", hook(fentry))
	f("", func(s S, _ R, _ M, _ K) { h := fentry; h.Optional = true; s.Hooks = []program.Hook{h} })
	f("", hook(program.Hook{Function: "f", Kind: program.Fentry, Target: "vfs_read", Group: "r", Rank: 1},
		program.Hook{Function: "g", Kind: program.Kprobe, Target: "vfs_read", Group: "r", Rank: 2}))
	f("has the same rank", hook(program.Hook{Function: "f", Kind: program.Kprobe, Target: "vfs_read", Group: "r", Rank: 1},
		program.Hook{Function: "g", Kind: program.Kprobe, Target: "vfs_write", Group: "r", Rank: 1}))
	f("it is the only one of group r", hook(program.Hook{Function: "f", Kind: program.Kprobe, Target: "vfs_read", Group: "r", Rank: 1}))
	f("the object has no such function", hook(program.Hook{Function: "h", Kind: program.TracepointBTF, Target: "sched_switch"}))
	f(`the tracepoint "sched_switch" is not GROUP/NAME`, hook(program.Hook{Function: "f", Kind: program.Tracepoint, Target: "sched_switch"}))
	f("error: function f: that kernel has no tracepoint sched_swtich: did you mean sched_switch?", hook(program.Hook{Function: "f", Kind: program.TracepointBTF, Target: "sched_swtich"}))
	f("warning: function f: that kernel has no tracepoint sched_swtich", hook(program.Hook{Function: "f", Kind: program.RawTracepoint, Target: "sched_swtich", Optional: true}))
	f("error: function f: that kernel has no iterator task_vma: did you mean task?", hook(program.Hook{Function: "f", Kind: program.Iterator, Target: "task_vma"}))
	f("", hook(program.Hook{Function: "f", Kind: program.LSM, Target: "file_open", Optional: true}))
	f("that kernel has no function vfs_type", hook(program.Hook{Function: "f", Kind: program.Fexit, Target: "vfs_type", Optional: true}))
}

func TestTogether(t *testing.T) {
	f := func(want int, change func(second *program.Spec)) {
		t.Helper()
		second := good()
		second.Name = "second"
		change(second)
		if got := Together([]*program.Spec{good(), second}); len(got) != want {
			t.Errorf("got %v, want %d findings", got, want)
		}
	}
	f(1, func(*program.Spec) {})
	f(0, func(s *program.Spec) { s.Readers[0].Metrics[0].Name = "others_total" })
	f(1, func(s *program.Spec) {
		s.Readers[0].Metrics[0].StaticLabels = []program.StaticLabel{{Name: "a", Value: "b"}}
	})
}

// What only one of two Programs has as a static label still may collide: the other may have it by its key.
func TestToldApart(t *testing.T) {
	f := func(a, b []program.StaticLabel, want bool) {
		t.Helper()
		x := program.Metric{Name: "x", Type: program.Gauge, StaticLabels: a}
		y := program.Metric{Name: "x", Type: program.Gauge, StaticLabels: b}
		if got := program.Compatible(&x, &y) == nil; got != want {
			t.Errorf("%v and %v: %t", a, b, got)
		}
	}
	f(nil, nil, false)
	f([]program.StaticLabel{{Name: "a", Value: "1"}}, []program.StaticLabel{{Name: "a", Value: "1"}}, false)
	f([]program.StaticLabel{{Name: "a", Value: "1"}}, []program.StaticLabel{{Name: "a", Value: "2"}}, true)
	f([]program.StaticLabel{{Name: "a", Value: "1"}}, []program.StaticLabel{{Name: "b", Value: "2"}}, false)
}

func TestJSON(t *testing.T) {
	result := All([]string{"testdata/doubtful.bpf.o"}, resolve, Options{CPUs: 2})
	var b bytes.Buffer
	if err := result.Write(&b, "json"); err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Programs) != 1 || !slices.Equal(back.Programs[0].Findings, result.Programs[0].Findings) || back.Programs[0].Bytes == 0 {
		t.Errorf("%s", b.String())
	}
	if err := result.Write(&b, "xml"); err == nil {
		t.Error("xml is accepted")
	}
}
