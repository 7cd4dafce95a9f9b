package manifest_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/series"
)

type mapsOnly map[string]*ebpf.Map

func (m mapsOnly) Map(name string) *ebpf.Map { return m[name] }

func (mapsOnly) OpenIterator(string) (io.ReadCloser, error) { return nil, errors.New("no iterators") }

// What a manifest makes of maps without tags, on real maps: the numbers of the right members, under
// the right labels, summed where labels are dropped.
func TestSeriesOfUntaggedMaps(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to create maps")
	}
	_ = rlimit.RemoveMemlock() // kernels before 5.11
	dir := t.TempDir()
	object, err := os.ReadFile("testdata/shop.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	lines := filepath.Join(dir, "lines")
	text := `apiVersion: kaon.dev/v1alpha1
kind: Program
spec:
  metrics:
  - {metric: serve_seconds, disabled: true}
  - {metric: answer_bytes, disabled: true}
  - metric: requests_total
    labels:
      keep: [code]
      values: {code: {200: fine}}
    staticLabels: {tier: front}
  - from: {map: traffic, member: bytes}
    type: counter
    labels: {keep: [address], decode: {address: ipv4}}
  - from: {map: traffic, member: state}
    type: stateset
    labels: {keep: [name]}
  - from: {map: traffic, summary: {count: latency_count, sum: latency_sum}}
    type: summary
    name: latency
    labels: {keep: []}
  - from:
      map: traffic
      histogram: {sum: total, slots: slots, bounds: [1, 2, 4, 8]}
    type: histogram
    name: sizes
    labels: {keep: []}
  - from:
      map: opaque
      key: [{name: id, size: 4, type: uint, bigEndian: true}, {name: tag, offset: 4, size: 4, type: string}]
      value: [{name: depth, offset: 8, size: 4, type: int}]
    type: gauge
    name: depth
  - from: {map: single}
    type: unknown
  - from:
      file: {path: ` + lines + `, prefix: "b", labels: [{name: word, column: 3}], value: 2}
    type: counter
    name: lines
  - from:
      file: {path: ` + lines + `, prefix: "b", value: 2}
    type: counter
    name: all_lines
`
	for name, content := range map[string]string{"lines": "a 1 x\nb 2 x\nb 3 y\nb none y\n", "shop.bpf.o": string(object), "shop.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	specs, err := manifest.Load(filepath.Join(dir, "shop.yaml"), manifest.Options{Decoders: series.Decoders()})
	if err != nil {
		t.Fatal(err)
	}
	spec := specs[0]
	maps := mapsOnly{}
	for _, r := range spec.Readers {
		if m := spec.Collection.Maps[r.Name]; m != nil {
			m = m.Copy()
			m.MaxEntries = min(m.MaxEntries, 16)
			if maps[r.Name], err = ebpf.NewMap(m); err != nil {
				t.Fatal(err)
			}
			defer maps[r.Name].Close()
		}
	}
	put := func(name string, key, value any) {
		t.Helper()
		if err := maps[name].Put(key, value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	le := binary.LittleEndian
	request := func(workload uint64, code, shard uint16) []byte {
		key := le.AppendUint64(nil, workload)
		return le.AppendUint16(le.AppendUint16(le.AppendUint32(key, 7), code), shard)
	}
	put("requests", request(1, 200, 1), uint64(5))
	put("requests", request(2, 200, 2), uint64(6))
	put("requests", request(1, 404, 1), uint64(1))
	put("single", uint32(0), uint64(99))
	put("opaque", []byte{0, 0, 1, 0, 't', 'a', 0, 'x'}, append(make([]byte, 8), 0xfe, 0xff, 0xff, 0xff, 9, 9, 9, 9))
	// packets, bytes, state, pad, latency (count, sum), total, slots[5]
	value := le.AppendUint64(le.AppendUint64(nil, 3), 1000)
	value = le.AppendUint32(le.AppendUint32(value, 1), 0xffffffff)
	for _, n := range []uint64{4, 44, 50, 1, 0, 2, 0, 3} {
		value = le.AppendUint64(value, n)
	}
	cpus := make([][]byte, ebpf.MustPossibleCPU())
	for i := range cpus {
		cpus[i] = make([]byte, len(value))
	}
	cpus[0] = value
	for kind := range byte(2) { // the same address and name twice
		key := append([]byte{10, 0, 0, 1, 'l', 'o'}, make([]byte, 18)...)
		key[20] = kind
		put("traffic", key, cpus)
	}

	collector, err := series.NewCollector(spec, maps, series.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer collector.Close()
	snapshot, err := collector.Collect(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer snapshot.Release()
	for _, e := range snapshot.Errors {
		t.Error(e)
	}
	var got []string
	for i := range snapshot.Families {
		f := &snapshot.Families[i]
		for j := range f.Points {
			got = append(got, fmt.Sprintf("%s{%s} %d", f.Metric.Name, f.Points[j].Labels, f.Row(j)))
		}
	}
	slices.Sort(got)
	want := []string{
		`all_lines_total{} [5]`,
		`depth{id="256",tag="ta"} [18446744073709551614]`,
		`latency{} [8 88]`,
		`lines_total{word="x"} [2]`,
		`lines_total{word="y"} [3]`,
		`requests_total{code="404",tier="front"} [1]`,
		`requests_total{code="fine",tier="front"} [11]`,
		`single{} [99]`,
		`sizes{} [100 2 0 4 0 6]`,
		`traffic_bytes_total{address="10.0.0.1"} [2000]`,
		`traffic_state{name="lo"} [1]`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
