package series

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// hostFields reads fields of files of the host, each as a metric of its name's position.
func hostFields(path string, names ...string) *program.Spec {
	r := program.Reader{Name: "f", Kind: program.FieldReader, ValueSize: 8 * uint32(len(names)), Fields: &program.Fields{Path: path}}
	for i, name := range names {
		r.Fields.Numbers = append(r.Fields.Numbers, program.FieldNumber{Unified: program.FieldPlace{Field: name}})
		r.Metrics = append(r.Metrics, program.Metric{Name: fmt.Sprint("m", i), Type: program.Gauge, Cells: []program.Field{{Offset: uint32(8 * i), Size: 8, Signed: true}}})
	}
	return &program.Spec{Name: "test", Readers: []program.Reader{r}}
}

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFields(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := func(text, field string, want ...uint64) {
		t.Helper()
		write(t, path, text)
		c, err := NewCollector(hostFields(path, field), &fakeSource{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		wanted := map[string]uint64{}
		for _, n := range want {
			wanted[""] = n
		}
		t.Logf("%q of %q", field, text)
		values(t, (&fixture{t: t, collector: c}).collect(), wanted)
	}
	const stat = "anon 12\nfile 34\nanon_thp 56\n"
	f(stat, "anon", 12)
	f(stat, "file", 34)
	f(stat, "fil")
	f(stat, "")
	f("77\n", "", 77)
	f("88", "", 88)
	f("max\n", "")
	f("", "")
	f("-1\n", "", ^uint64(0))
	f("MemTotal:  1024 kB\nMemFree: 3 kB", "MemFree", 3)
	f("a 18446744073709551615\n", "a", 18446744073709551615)
	f("a 18446744073709551616\n", "a")
	f("a 1.5\n", "a")
	f("a\nb 1\n", "b", 1)
	f("a", "a")
	const pressure = "some avg10=0.00 avg60=1.50 total=123\nfull avg10=0.00 total=4\n"
	f(pressure, "some total", 123)
	f(pressure, "full total", 4)
	f(pressure, "full avg10")
	f(pressure, "half total")
	f("8:0 rbytes=1 wbytes=2\n", "8:0 wbytes", 2)
	const netstat = "TcpExt: A B C\nTcpExt: 1 -2 3\nIpExt: A\nIpExt: 9\n"
	f(netstat, "TcpExt B", ^uint64(1))
	f(netstat, "TcpExt C", 3)
	f(netstat, "IpExt A", 9)
	f(netstat, "TcpExt D")
	f("TcpExt: A B\nTcpExt: 1\n", "TcpExt B")
	f("TcpExt: A B\nIpExt: 1 2\n", "TcpExt B")
	f("TcpExt: A B", "TcpExt B")
}

func TestFieldsOfManyFiles(t *testing.T) {
	dir := t.TempDir()
	for zone, text := range map[string]string{"z0": "5", "z1": "7\n", "z2": "none"} {
		write(t, dir+"/"+zone+"/energy", text)
		write(t, dir+"/"+zone+"/name", "part "+zone+"\n")
	}
	write(t, dir+"/z3/energy", "1") // has no name
	components := len(strings.Split(dir, "/"))
	key := []program.Label{label("zone", "string", 0, 64), label("part", "string", 64, 64)}
	keys := []program.FileKey{{Component: components}, {File: "name"}}
	spec := hostFields(dir+"/*/energy", "")
	r := &spec.Readers[0]
	r.Key, r.KeySize, r.Fields.Keys, r.Metrics[0].Labels = key, 128, keys, key
	spec.Readers = append(spec.Readers, program.Reader{Name: "g", Kind: program.FileReader, KeySize: 128, ValueSize: 8, Key: key,
		File:    &program.File{Path: dir + "/*/energy", Keys: keys, Values: []int{0}},
		Metrics: []program.Metric{{Name: "columns", Type: program.Gauge, Cells: []program.Field{u64(0)}, Labels: key}}})
	c, err := NewCollector(spec, &fakeSource{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range (&fixture{t: t, collector: c}).collectAll() {
		values(t, family, map[string]uint64{`zone="z0",part="part z0"`: 5, `zone="z1",part="part z1"`: 7})
	}
}

// Files with the same labels are added up.
func TestFieldsAddUp(t *testing.T) {
	dir := t.TempDir()
	for i, text := range []string{"a 1\n", "a 2\nb 5\n"} {
		write(t, fmt.Sprint(dir, "/", i), text)
	}
	c, err := NewCollector(hostFields(dir+"/*", "a", "b"), &fakeSource{}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := (&fixture{t: t, collector: c}).collectAll()
	values(t, got[0], map[string]uint64{"": 3})
	values(t, got[1], map[string]uint64{"": 5})
}

func TestFileThatIsMissing(t *testing.T) {
	dir := t.TempDir()
	f := func(path string, failures int) {
		t.Helper()
		c, err := NewCollector(hostFields(path, ""), &fakeSource{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Collect(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		if len(s.Errors) != failures {
			t.Errorf("%s: %v", path, s.Errors)
		}
	}
	f(dir+"/none", 1)
	f(dir+"/none/*", 0)
	f(dir, 1) // a directory
}

// fakeCgroups are made of directories.
type fakeCgroups struct {
	dir    string
	groups []workload.Cgroup
	own    []workload.Cgroup
}

func (f *fakeCgroups) Workloads() []workload.Cgroup { return f.groups }
func (f *fakeCgroups) Cgroups() []workload.Cgroup   { return append(f.own, f.groups...) }
func (f *fakeCgroups) Directory(c workload.Cgroup, controller string) string {
	if controller == "none" {
		return ""
	}
	if !c.Unified() {
		return f.dir + "/" + controller + c.Path
	}
	return f.dir + c.Path
}

func (f *fakeCgroups) Resolve(id workload.ID) (workload.Workload, workload.State) {
	for _, c := range f.Cgroups() {
		if c.ID == id {
			return workload.Workload{Unit: strings.TrimPrefix(c.Path, "/")}, workload.Alive
		}
	}
	return workload.Workload{}, workload.Outside
}

func TestFieldsOfCgroups(t *testing.T) {
	legacy := workload.Hierarchy{Number: 4}
	cgroups := &fakeCgroups{dir: t.TempDir(), groups: []workload.Cgroup{{ID: 2, Path: "/a"}, {ID: 3, Path: "/b"}, {ID: 4, Path: "/c"}, {ID: legacy.ID(5), Path: "/d"}},
		own: []workload.Cgroup{{ID: 6, Path: "/e"}}}
	write(t, cgroups.dir+"/a/memory.stat", "anon 10\nfile 20\n")
	write(t, cgroups.dir+"/a/memory.max", "max\n")
	write(t, cgroups.dir+"/a/cpu.stat", "nr_periods 0\nthrottled_usec 0\n")
	write(t, cgroups.dir+"/b/memory.stat", "anon 30\n")
	write(t, cgroups.dir+"/b/memory.max", "1000\n")
	write(t, cgroups.dir+"/b/cpu.stat", "nr_periods 8\nthrottled_usec 3\n")
	write(t, cgroups.dir+"/c/other", "")
	write(t, cgroups.dir+"/memory/d/memory.stat", "total_rss 40\ntotal_cache 50\n")
	write(t, cgroups.dir+"/memory/d/memory.limit_in_bytes", "9223372036854771712\n")
	write(t, cgroups.dir+"/cpu/d/cpu.stat", "nr_periods 9\nthrottled_time 3000\n")
	write(t, cgroups.dir+"/e/cpu.stat", "nr_periods 1\nthrottled_usec 0\n")
	write(t, cgroups.dir+"/memory/d/quota", "-1\n")
	key := []program.Label{label("workload", "workload", 0, 8)}
	reader := func(name string, own bool, numbers ...program.FieldNumber) program.Reader {
		r := program.Reader{Name: name, Kind: program.FieldReader, KeySize: 8, Key: key, ValueSize: uint32(8 * len(numbers)), Fields: &program.Fields{Own: own, Numbers: numbers}}
		for i := range numbers {
			r.Metrics = append(r.Metrics, program.Metric{Name: fmt.Sprint(name, i), Type: program.Gauge, Labels: key, Cells: []program.Field{u64(uint32(8 * i))}})
		}
		return r
	}
	place := func(controller, file, field string, multiply uint64) program.FieldPlace {
		return program.FieldPlace{Controller: controller, File: file, Field: field, Multiply: multiply}
	}
	spec := &program.Spec{Name: "test", Readers: []program.Reader{
		reader("memory", false,
			program.FieldNumber{Unified: place("", "memory.stat", "anon", 0), Legacy: place("memory", "memory.stat", "total_rss", 0)},
			program.FieldNumber{Unified: place("", "memory.stat", "file", 0), Legacy: place("none", "memory.stat", "total_cache", 0)},
			program.FieldNumber{Unified: place("", "memory.max", "", 0), Legacy: place("memory", "memory.limit_in_bytes", "", 0)}),
		reader("cpu", true,
			program.FieldNumber{Unified: place("", "cpu.stat", "nr_periods", 0), Legacy: place("cpu", "cpu.stat", "nr_periods", 0)},
			program.FieldNumber{Unified: place("", "cpu.stat", "throttled_usec", 1000), Legacy: place("cpu", "cpu.stat", "throttled_time", 1)},
			program.FieldNumber{Unified: place("", "cpu.stat", "throttled_usec", 1<<63), Legacy: place("memory", "quota", "", 0)})}}
	if _, err := NewCollector(spec, &fakeSource{}, Options{Resolver: cgroups}); err == nil {
		t.Error("nobody knows the cgroups, and nobody says so")
	}
	c, err := NewCollector(spec, &fakeSource{}, Options{Resolver: cgroups, Cgroups: cgroups})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, collector: c}
	got := f.collectAll()
	values(t, got[0], map[string]uint64{`unit="a"`: 10, `unit="b"`: 30, `unit="d"`: 40})
	values(t, got[1], map[string]uint64{`unit="a"`: 20})
	values(t, got[2], map[string]uint64{`unit="b"`: 1000})
	values(t, got[3], map[string]uint64{`unit="b"`: 8, `unit="d"`: 9, `unit="e"`: 1})
	values(t, got[4], map[string]uint64{`unit="b"`: 3000, `unit="d"`: 3000, `unit="e"`: 0})
	values(t, got[5], map[string]uint64{`unit="e"`: 0}) // the others' are too large

	// A series ends with its cgroup, and one that had numbers keeps zeros.
	cgroups.groups = cgroups.groups[1:]
	write(t, cgroups.dir+"/b/cpu.stat", "nr_periods 0\nthrottled_usec 0\n")
	got = f.collectAll()
	values(t, got[0], map[string]uint64{`unit="b"`: 30, `unit="d"`: 40})
	values(t, got[3], map[string]uint64{`unit="b"`: 0, `unit="d"`: 9, `unit="e"`: 1})
}

func TestFieldsThatCanNotBeRead(t *testing.T) {
	f := func(change func(*program.Reader)) {
		t.Helper()
		spec := hostFields("/x", "a")
		change(&spec.Readers[0])
		if _, err := NewCollector(spec, &fakeSource{}, Options{}); err == nil {
			t.Errorf("accepted: %+v", spec.Readers[0].Fields)
		}
	}
	f(func(r *program.Reader) { r.Fields = nil })
	f(func(r *program.Reader) { r.ValueSize = 9 })
	f(func(r *program.Reader) { r.Fields.Path = "[" })
	f(func(r *program.Reader) { r.Fields.Path = "" })
	f(func(r *program.Reader) { r.Fields.Keys = []program.FileKey{{}} })
	f(func(r *program.Reader) { r.Metrics[0].Cells[0].Offset = 1 })
	f(func(r *program.Reader) { r.Metrics[0].Cells = nil })
}

func FuzzFields(f *testing.F) {
	f.Add("anon 12\nfile 34\n", "anon", "file x")
	f.Add("TcpExt: A B\nTcpExt: 1 2\n", "TcpExt B", "TcpExt")
	f.Add("some avg10=0.00 total=1\n", "some total", "")
	f.Fuzz(func(t *testing.T, text, one, two string) {
		var plans []fieldPlan
		for i, name := range []string{one, two} {
			plans = plan(plans, program.FieldPlace{File: "f", Field: name, Multiply: uint64(i) * 1000}, i, legacyUnlimited)
		}
		value, found := make([]byte, 16), make([]bool, 2)
		plans[0].parse([]byte(text), value, found)
		for i, name := range []string{one, two} {
			n := int64(binary.LittleEndian.Uint64(value[8*i:]))
			line, _, _ := strings.Cut(name, " ")
			switch {
			case !found[i] && n != 0:
				t.Errorf("%q is absent and %d", name, n)
			case found[i] && (i == 0 && !strings.Contains(text, fmt.Sprint(n)) || !strings.Contains(text, line)):
				t.Errorf("%q is %d in %q", name, n, text)
			}
		}
	})
}

// A cgroup's memory.stat as the kernel writes it, for five of its numbers.
func BenchmarkFields(b *testing.B) {
	var text strings.Builder
	for i := range 50 {
		fmt.Fprintf(&text, "some_field_%d %d\n", i, i*123456789)
	}
	dir := b.TempDir()
	cgroups := &fakeCgroups{dir: dir, groups: []workload.Cgroup{{ID: 2, Path: "/a"}}}
	write(b, dir+"/a/memory.stat", text.String())
	r := program.Reader{Kind: program.FieldReader, KeySize: 8, ValueSize: 40, Fields: &program.Fields{}}
	for i := range 5 {
		r.Fields.Numbers = append(r.Fields.Numbers, program.FieldNumber{Unified: program.FieldPlace{File: "memory.stat", Field: fmt.Sprintf("some_field_%d", 10*i)}})
	}
	read, _, err := newFieldReader(nil, &r, nil, nil, &Options{Cgroups: cgroups})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for range b.N {
		if err := read.read(b.Context(), func(_, _ []byte, _ int) {}); err != nil {
			b.Fatal(err)
		}
	}
}
