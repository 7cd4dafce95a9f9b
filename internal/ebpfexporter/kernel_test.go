package ebpfexporter_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/kaon-project/kaon/internal/ebpfexporter"
	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

var update = flag.Bool("update", false, "write what is shown now to testdata")

type mapsOnly map[string]*ebpf.Map

func (m mapsOnly) Map(name string) *ebpf.Map { return m[name] }

func (mapsOnly) OpenIterator(string) (io.ReadCloser, error) { return nil, errors.New("no iterators") }

func load(t testing.TB, name string) *program.Spec {
	t.Helper()
	spec, err := ebpfexporter.Load(filepath.Join("testdata", name+".yaml"), ebpfexporter.Options{Steps: series.Steps()})
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// createMaps makes the maps of a configuration in the kernel, without its functions.
func createMaps(t testing.TB, spec *program.Spec) mapsOnly {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to create maps")
	}
	_ = rlimit.RemoveMemlock() // kernels before 5.11
	maps := mapsOnly{}
	for _, r := range spec.Readers {
		declared := spec.Collection.Maps[r.Name].Copy()
		m, err := ebpf.NewMap(declared)
		if err != nil {
			t.Fatalf("create map %s: %v", r.Name, err)
		}
		t.Cleanup(func() { m.Close() })
		maps[r.Name] = m
	}
	return maps
}

// put sets the value of a key; of a per-CPU map on each CPU to n times its number plus one.
func put(t testing.TB, m *ebpf.Map, key []byte, n uint64) {
	t.Helper()
	var value any = n
	switch m.Type() {
	case ebpf.PerCPUArray, ebpf.PerCPUHash, ebpf.LRUCPUHash:
		values := make([]uint64, ebpf.MustPossibleCPU())
		for i := range 2 {
			values[i%len(values)] += n * uint64(i+1)
		}
		value = values
	}
	if err := m.Put(key, value); err != nil {
		t.Fatalf("put into %v: %v", m, err)
	}
}

// key joins numbers, by their size, and texts, which are as long as they are.
func key(parts ...any) []byte {
	var b []byte
	for _, p := range parts {
		switch p := p.(type) {
		case uint8:
			b = append(b, p)
		case uint16:
			b = binary.LittleEndian.AppendUint16(b, p)
		case uint32:
			b = binary.LittleEndian.AppendUint32(b, p)
		case int32:
			b = binary.LittleEndian.AppendUint32(b, uint32(p))
		case uint64:
			b = binary.LittleEndian.AppendUint64(b, p)
		case string:
			b = append(b, p...)
		}
	}
	return b
}

func fill(n int, text string) string { return text + strings.Repeat("\x00", n-len(text)) }

// scrape returns an exposition with the series of each family sorted.
func scrape(t testing.TB, collector *series.Collector, format exposition.Format) string {
	t.Helper()
	snapshot, err := collector.Collect(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Release()
	for _, e := range snapshot.Errors {
		t.Error(e)
	}
	var families []*series.Family
	for i := range snapshot.Families {
		families = append(families, &snapshot.Families[i])
	}
	slices.SortFunc(families, func(a, b *series.Family) int { return strings.Compare(a.Metric.Name, b.Metric.Name) })
	groups, err := exposition.Group(families)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := exposition.NewWriter(&out, format, exposition.Options{})
	for _, g := range groups {
		if err := w.Write(g); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return sortSeries(out.String())
}

// sortSeries sorts the samples of each family by their labels, and leaves buckets in their order.
func sortSeries(text string) string {
	var out, samples []string
	flush := func() {
		slices.SortStableFunc(samples, func(a, b string) int { return strings.Compare(seriesOf(a), seriesOf(b)) })
		out = append(out, samples...)
		samples = nil
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			flush()
			out = append(out, line)
			continue
		}
		samples = append(samples, line)
	}
	flush()
	return strings.Join(out, "")
}

func seriesOf(line string) string {
	name, rest, ok := strings.Cut(line, "{")
	if !ok {
		return ""
	}
	_ = name
	if before, _, isBucket := strings.Cut(rest, `le="`); isBucket {
		return strings.TrimSuffix(before, ",")
	}
	labels, _, _ := strings.Cut(rest, "} ")
	return labels
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s", path, got)
	}
}

func fillCounters(t *testing.T, maps mapsOnly) {
	t.Helper()
	in := func(name string, key []byte, n uint64) { put(t, maps[name], key, n) }
	in("in_hash_total", key(uint8(1), fill(7, ""), uint64(7), "\x1f\x90", "\x7f\x00\x00\x01", fill(2, "")), 5)
	in("in_hash_total", key(uint8(2), fill(7, ""), uint64(1<<63), "\x00\x50", "\x0a\x01\x02\xff", fill(2, "")), 6)
	in("in_hash_total", key(uint8(3), fill(7, ""), uint64(0), "\xff\xff", "\x00\x00\x00\x00", fill(2, "")), 7)
	in("in_lru_total", key(fill(16, "plain"), uint32(10)), 1)
	in("in_lru_total", key(fill(16, "quote\"back\\new\n"), uint32(20)), 2)
	in("in_lru_total", key("\xff\xfebad\x00after\x00\x00\x00\x00\x00", uint32(30)), 3)
	in("in_lru_total", key("sixteen bytes ok", uint32(4294967295)), 4)
	in("in_lru_total", key(fill(16, ""), uint32(0)), 5)
	in("in_array_total", key(uint32(2)), 1234567890123)
	in("alone", key(uint32(0)), 42)
	in("alone", key(uint32(1)), 4242)
	in("per_cpu_total", key(uint32(3)), 10)
	in("per_cpu_lru_total", key(uint32(3)), 100)
	values := make([]uint64, ebpf.MustPossibleCPU())
	values[0] = 1000
	if err := maps["by_cpu_total"].Put(key(uint32(4)), values); err != nil {
		t.Fatal(err)
	}
	in("merged_total", key(fill(16, "kworker/0:1"), uint32(11)), 1)
	in("merged_total", key(fill(16, "kworker/1:0"), uint32(11)), 2)
	in("merged_total", key(fill(16, "sshd: root"), uint32(11)), 4)
	in("merged_total", key(fill(16, "ssh: other"), uint32(11)), 8)
	in("merged_total", key(fill(16, "cats12"), uint32(133)), 16)
	in("merged_total", key(fill(16, "bash"), uint32(11)), 32)
	in("merged_total", key(fill(16, "kworker"), uint32(0)), 64)
	in("merged_total", key(fill(16, "kworker"), uint32(524)), 128)
	in("wires_total", key("\x20\x01\x0d\xb8"+fill(12, "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"), fill(32, "\x07example\x03com")), 1)
	in("wires_total", key(fill(10, "")+"\xff\xff\xc0\x00\x02\x01", fill(32, "\x03org")), 2)
	in("wires_total", key(fill(16, ""), fill(32, "")), 3)
	in("wires_total", key(fill(16, ""), fill(32, "\x1fshort")), 4)
	in("numbers_total", key(uint8(255), uint8(9), uint16(65535), uint32(1), uint64(18446744073709551615)), 1)
	in("numbers_total", key(uint8(0), uint8(0), uint16(0), uint32(4294967295), uint64(0)), 2)
	in("errors_total", key(uint8(10), uint8(1), uint16(2), uint32(0xfff00), uint64(0)), 1)
	in("errors_total", key(uint8(0), uint8(0), uint16(32), uint32(0xfff00), uint64(99999)), 2)
}

// Counters of each type of map with each decoder that needs nothing of the machine, as they are exposed.
func TestCounters(t *testing.T) {
	spec := load(t, "counters")
	maps := createMaps(t, spec)
	fillCounters(t, maps)
	collector, err := series.NewCollector(spec, maps, series.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		text := scrape(t, collector, exposition.Format{Syntax: exposition.Text})
		// How many CPUs there are is the machine's: each has its series, also while it has counted nothing.
		if got, want := strings.Count(text, `ebpf_exporter_by_cpu_total{cell="4",cpu="`), ebpf.MustPossibleCPU(); got != want {
			t.Errorf("%d series for %d CPUs", got, want)
		}
		golden(t, "counters.txt", cutCPUs(text))
	}
	// A counter without _total is never renamed: it is another type.
	text := scrape(t, collector, exposition.Format{Syntax: exposition.OpenMetrics})
	for _, want := range []string{"# TYPE ebpf_exporter_alone unknown\n", "\nebpf_exporter_alone 42\n", "# TYPE ebpf_exporter_per_cpu counter\n", "\nebpf_exporter_per_cpu_total{cell=\"3\"} 30\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

// cutCPUs leaves of per-CPU series those of the first.
func cutCPUs(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if _, rest, ok := strings.Cut(line, `cpu="`); !ok || strings.HasPrefix(rest, `0"`) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func fillHistograms(t *testing.T, maps mapsOnly) {
	t.Helper()
	in := func(name string, key []byte, n uint64) { put(t, maps[name], key, n) }
	device := func(device uint32, operation uint8, bucket uint64, n uint64) {
		in("latency_seconds", key(device, operation, fill(3, ""), bucket), n)
	}
	device(8, 0, 0, 1)
	device(8, 0, 10, 5)
	device(8, 0, 26, 2)  // what the program cut off
	device(8, 0, 27, 77) // the sum
	device(8, 0, 30, 3)  // what the program did not cut off
	device(8, 1, 27, 0)
	device(9, 2, 1, 1)
	for bucket, n := range []uint64{4, 3, 2, 0, 0, 1, 33, 0} {
		in("backlog", key(uint32(bucket)), n)
	}
	in("depth", key(uint32(0)), 1)
	in("depth", key(uint32(2)), 1)
	in("depth", key(uint32(6)), 20)
	in("offset_ratio", key(uint32(1), int32(-3)), 1)
	in("offset_ratio", key(uint32(1), int32(-1)), 2)
	in("offset_ratio", key(uint32(1), int32(0)), 4)
	in("offset_ratio", key(uint32(1), int32(3)), 8)
	in("offset_ratio", key(uint32(1), int32(4)), 5)
	in("offset_ratio", key(uint32(1), int32(-9)), 16)
	in("offset_ratio", key(uint32(1), int32(9)), 32)
	in("fixed_bytes", key(uint8(1), uint8(1)), 1)
	in("fixed_bytes", key(uint8(1), uint8(10)), 2)
	in("fixed_bytes", key(uint8(1), uint8(50)), 4)
	in("fixed_bytes", key(uint8(1), uint8(51)), 700)
	in("fixed_bytes", key(uint8(3), uint8(1)), 1)
}

func TestHistograms(t *testing.T) {
	spec := load(t, "histograms")
	maps := createMaps(t, spec)
	fillHistograms(t, maps)
	collector, err := series.NewCollector(spec, maps, series.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		golden(t, "histograms.txt", scrape(t, collector, exposition.Format{Syntax: exposition.Text}))
	}
	put(t, maps["latency_seconds"], key(uint32(8), uint8(0), fill(3, ""), uint64(10)), 6)
	if text := scrape(t, collector, exposition.Format{Syntax: exposition.Text}); !strings.Contains(text, `ebpf_exporter_latency_seconds_count{device="8",operation="read"} 12`) {
		t.Errorf("a bucket that grew: %s", text)
	}
}
