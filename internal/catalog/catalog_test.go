package catalog

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/programs"
)

func TestList(t *testing.T) {
	var text, encoded bytes.Buffer
	if err := List(&text, "text"); err != nil {
		t.Fatal(err)
	}
	if err := List(&encoded, "json"); err != nil {
		t.Fatal(err)
	}
	var entries []Entry
	if err := json.Unmarshal(encoded.Bytes(), &entries); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name)
		mark := "  "
		if e.Default {
			mark = "* "
		}
		if e.Help == "" || !strings.Contains(text.String(), mark+e.Name) || !strings.Contains(text.String(), e.Help) {
			t.Errorf("%+v is not in\n%s", e, text.String())
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, programs.Names()) {
		t.Errorf("got %q, want %q", names, programs.Names())
	}
	for _, name := range programs.Default() {
		if !slices.Contains(names, name) {
			t.Errorf("%s runs by default, but is not there", name)
		}
	}
	if err := List(&text, "xml"); err == nil {
		t.Error("-o xml is taken")
	}
}

func TestDescribe(t *testing.T) {
	for _, name := range programs.Names() {
		var text bytes.Buffer
		if err := Describe(&text, name, "text"); err != nil {
			t.Fatal(err)
		}
		specs, err := agent.Resolve(name)
		if err != nil {
			t.Fatal(err)
		}
		d := New(specs[0])
		for _, m := range d.Metrics {
			if m.Name == "" || m.Help == "" || m.Limit <= 0 || !strings.Contains(text.String(), "  "+m.Name+" (") {
				t.Errorf("%s: %+v is not in\n%s", name, m, text.String())
			}
		}
		for _, h := range d.Hooks {
			if h.Since == "" || len(h.Capabilities) == 0 {
				t.Errorf("%s: what %s needs is not known", name, h.Kind)
			}
		}
		for _, p := range d.Params {
			if p.Help == "" {
				t.Errorf("%s: the param %s has no help", name, p.Name)
			}
		}
	}
	var out bytes.Buffer
	if err := Describe(&out, "no-such-program", "text"); err == nil || out.Len() > 0 {
		t.Errorf("%v, %q", err, out.String())
	}
}

func TestDescribeText(t *testing.T) {
	spec := &program.Spec{Name: "mine", Help: "All of mine.", Origin: program.Origin{Path: "mine.bpf.o"},
		Hooks: []program.Hook{
			{Function: "first", Kind: program.TracepointBTF, Target: "sched_switch", Group: "switch", Rank: 1},
			{Function: "second", Kind: program.XDP, Optional: true, When: "fast", Unless: "slow"},
		},
		Params: []program.Param{{Name: "fast", Type: program.ParamBool, Default: "false", Help: "Faster."}},
		Readers: []program.Reader{{Metrics: []program.Metric{
			{Name: "switches_total", Type: program.Counter, Help: "Switches.", Labels: []program.Label{{Name: "workload", Decoder: "workload"}, {Name: "cpu"}},
				StaticLabels: []program.StaticLabel{{Name: "by", Value: "me"}}},
			{Name: "wait_seconds", Type: program.Histogram, Unit: "seconds", Help: "Waiting.", Limit: 5, Unless: "fast"},
		}}}}
	d := New(spec)
	var out bytes.Buffer
	if err := d.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"mine: All of mine.\nsource: mine.bpf.o\n",
		"  switches_total (counter)\n      Switches.\n      labels: namespace, pod, container, runtime, unit, cgroup (of the workload); cpu; by=\"me\"\n      at most 10000 series\n",
		"  wait_seconds (histogram, seconds), only with not fast\n      Waiting.\n      labels: none\n      at most 5 series\n",
		"  fast (bool, default \"false\")\n      Faster.\n",
		"  tp_btf/sched_switch (first), alternative switch, 1\n",
		"  xdp (second), only with fast and not slow, optional\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	d = New(&program.Spec{Name: "bare"})
	out.Reset()
	if err := d.write(&out); err != nil || !strings.Contains(out.String(), "write a manifest") {
		t.Errorf("%v: %s", err, out.String())
	}
	if encoded, err := json.Marshal(d); err != nil || !strings.Contains(string(encoded), `"name":"bare"`) {
		t.Errorf("%s, %v", encoded, err)
	}
}
