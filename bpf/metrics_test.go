package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
)

func TestCountersAndGauges(t *testing.T) {
	collection := load(t, "metrics.bpf.o", nil)
	key := key64(7, 3) // workload 7, uid 3
	for range 10 {
		run(t, collection.Programs["observe"], 3, 5)
	}
	f := func(name string, key []byte, want ...uint64) {
		t.Helper()
		if got := numbers(t, collection.Maps[name], key); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	index := func(i uint32) []byte { return binary.NativeEndian.AppendUint32(nil, i) }
	f("plain_total", key, 50)
	f("small_total", key64(3), 10)
	f("none_total", index(0), 10)
	f("percpu_none_total", index(0), 10)
	f("percpu_total", key, 10)
	f("array_total", index(3), 50)
	f("mmap_total", index(3), 50)
	minus := int64(-5)
	f("level", key, uint64(minus))
	f("lru_level", key, 40)
	f("plain_total", key64(8, 3))

	// The uid -1 is an ordinary key: KAON_WIDE keeps it apart from the overflow entry.
	run(t, collection.Programs["observe"], 0xffffffff, 1)
	f("small_total", key64(0xffffffff), 1)
	f("small_total", allOnes(8), 0)
	if n := lost(t, collection); n != 0 {
		t.Errorf("lost %d", n)
	}
}

func TestDistributions(t *testing.T) {
	collection := load(t, "metrics.bpf.o", nil)
	key := key64(7, 3)
	values := []uint64{0, 1, 10, 11, 999, 1000, 1001, 954, 1e6, 123456789, 64e9, 64e9 + 1, 1 << 40, 1 << 63}
	one, ns := newReference(1), newReference(1e9)
	var sum uint64
	want := map[string][]uint64{
		"duration_seconds": make([]uint64, 107), "size_bytes": make([]uint64, 43), "fine_seconds": make([]uint64, 26<<5+3),
		"percpu_seconds": make([]uint64, 107), "bounded": make([]uint64, 5), "queue": make([]uint64, 13),
	}
	for _, v := range values {
		run(t, collection.Programs["distribute"], 3, v)
		sum += v
		want["duration_seconds"][1+ns.slot(v, 2, -20, 6)]++
		want["percpu_seconds"][1+ns.slot(v, 2, -20, 6)]++
		want["size_bytes"][1+one.slot(v, 1, 0, 20)]++
		want["fine_seconds"][1+ns.slot(v, 5, -20, 6)]++
		want["queue"][1+one.slot(v+1, 0, 0, 10)]++
		slot, found := slices.BinarySearch([]uint64{1, 10, 1000}, v)
		_ = found
		want["bounded"][1+slot]++
	}
	for name, row := range want {
		row[0] = sum
		k := key
		switch name {
		case "queue":
			row[0] += uint64(len(values)) // what is left was one more than what was taken back
		case "fine_seconds":
			k = make([]byte, 4)
		}
		if got := numbers(t, collection.Maps[name], k); !slices.Equal(got, row) {
			t.Errorf("%s:\n got %v\nwant %v", name, got, row)
		}
	}
	if got := numbers(t, collection.Maps["work_seconds"], key); !slices.Equal(got, []uint64{uint64(len(values)), sum}) {
		t.Errorf("summary: got %v", got)
	}
	// The exemplar is of the first observation: the others came within a second.
	got := numbers(t, collection.Maps["traced_seconds"], key)
	if !slices.Equal(got[:107], want["duration_seconds"]) {
		t.Errorf("traced: got %v", got[:107])
	}
	if value, stamp, labels := got[107], got[108], got[109]; value != values[0] || stamp == 0 || labels != 42|values[0]<<32 {
		t.Errorf("exemplar: value %d, timestamp %d, labels %#x", value, stamp, labels)
	}
	if n := lost(t, collection); n != 0 {
		t.Errorf("lost %d", n)
	}
}

func TestInfoStateStructAndElapsed(t *testing.T) {
	collection := load(t, "metrics.bpf.o", nil)
	run(t, collection.Programs["describe"], 3, 5e6)
	key := key64(7, 3)
	if got := numbers(t, collection.Maps["build_info"], key); !slices.Equal(got, []uint64{1}) {
		t.Errorf("info: %v", got)
	}
	if got := numbers(t, collection.Maps["build_info"], key64(8, 3)); got != nil {
		t.Errorf("a forgotten info is still there: %v", got)
	}
	var state uint32
	if err := collection.Maps["phase"].Lookup(key, &state); err != nil || state != 1 {
		t.Errorf("state %d, %v", state, err)
	}
	got := numbers(t, collection.Maps["file"], key)
	if got[0] != 3 || got[1] != 5e6 || got[2+newReference(1e9).slot(5e6, 3, -20, 6)] != 1 {
		t.Errorf("struct: %v", got)
	}
	var elapsed, unknown uint64
	collection.Variables["elapsed"].Get(&elapsed)
	collection.Variables["unknown"].Get(&unknown)
	if elapsed == 0 || unknown != 0 {
		t.Errorf("elapsed %d, want some; of what was not started %d, want 0", elapsed, unknown)
	}
}

func TestStreamCountsLosses(t *testing.T) {
	collection := load(t, "metrics.bpf.o", nil)
	reader, err := ringbuf.NewReader(collection.Maps["events"])
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	run(t, collection.Programs["emit"], 0, 99) // discarded
	run(t, collection.Programs["emit"], 1, 100)
	record, err := reader.Read()
	if err != nil {
		t.Fatal(err)
	}
	if len(record.RawSample) != 24 || binary.NativeEndian.Uint64(record.RawSample) != 100 {
		t.Errorf("record %x", record.RawSample)
	}
	// A ring of one page (or more: its size is rounded up to pages) overflows.
	const runs = 5000
	for range runs {
		run(t, collection.Programs["emit"], 1, 1)
	}
	var lostRecords, read uint64
	if err := collection.Variables["kaon_lost_events"].Get(&lostRecords); err != nil {
		t.Fatal(err)
	}
	for reader.AvailableBytes() > 0 {
		if _, err := reader.Read(); err != nil {
			t.Fatal(err)
		}
		read++
	}
	if lostRecords == 0 || read+lostRecords != runs {
		t.Errorf("%d read + %d lost != %d", read, lostRecords, runs)
	}
}

func TestIteratorEmitsPackedRecords(t *testing.T) {
	collection := load(t, "metrics.bpf.o", nil)
	if collection.Programs["copy"] == nil {
		t.Skip("needs iterators over maps' elements")
	}
	for uid := range uint64(500) {
		run(t, collection.Programs["observe"], uid, uid+1)
	}
	iterator, err := link.AttachIter(link.IterOptions{Program: collection.Programs["copy"], Map: collection.Maps["plain_total"]})
	if err != nil {
		t.Fatal(err)
	}
	defer iterator.Close()
	file, err := iterator.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(data)%24 != 0 {
		t.Fatalf("%d bytes are no whole number of records", len(data))
	}
	seen := map[uint64]uint64{}
	for r := range slices.Chunk(data, 24) {
		if !bytes.Equal(r[:16], allOnes(16)[:16]) && binary.NativeEndian.Uint64(r) == 7 {
			seen[binary.NativeEndian.Uint64(r[8:])] = binary.NativeEndian.Uint64(r[16:])
		}
	}
	for uid := range uint64(500) {
		if seen[uid] != uid+1 {
			t.Errorf("uid %d: got %d", uid, seen[uid])
		}
	}
}

// TestTags checks what sources read: the tags of maps, members, params, functions and the license.
func TestTags(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpec("testdata/metrics.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, got []string, want ...string) {
		t.Helper()
		got = slices.Sorted(slices.Values(got))
		for i := range want {
			want[i] = "kaon:" + want[i]
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: tags %q, want %q", what, got, want)
		}
	}
	m := func(name string, want ...string) {
		t.Helper()
		f(name, spec.Maps[name].Tags, want...)
	}
	m("plain_total", "type=counter", "help=A counter.", "overflow")
	m("small_total", "type=counter", "help=A counter with a short key.", "overflow", "limit=50")
	m("none_total", "type=counter", "help=A counter without labels.")
	m("percpu_total", "type=counter", "help=A counter.", "overflow", "cpu")
	m("level", "type=gauge", "help=A gauge.")
	m("phase", "type=stateset", "help=A phase.")
	m("file", "overflow", "help=")
	m("lru_level", "type=gauge", "help=A gauge.")
	m("size_bytes", "type=histogram", "help=A histogram of sizes.", "overflow", "unit=bytes")
	m("work_seconds", "type=summary", "help=Work.", "overflow", "scale=1/1000000000")
	m("events", "stream", "help=Values, one by one.")
	m("copied", "iterator=copy", "type=gauge", "help=What plain_total holds.")
	m("starts")

	value := func(name, want string) {
		t.Helper()
		s := spec.Maps[name].Value.(*btf.Struct)
		f(name+"'s value", s.Tags, want)
	}
	value("duration_seconds", "histogram=ns,2,-20,6")
	value("size_bytes", "histogram=one,1,0,20")
	value("bounded", "bounds=1, 10, 1000")
	value("work_seconds", "summary")
	file := spec.Maps["file"].Value.(*btf.Struct)
	f("reads", file.Members[0].Tags, "type=counter", "help=Reads.")
	f("latency", file.Members[1].Type.(*btf.Struct).Tags, "histogram=ns,3,-20,6")
	f("kaon_wide", spec.Maps["plain_total"].Key.(*btf.Struct).Members[2].Tags, "skip")

	f("minimum", spec.Variables["minimum"].Type.Tags, "param", "unit=ns", "help=Shorter times are left out.")
	f("filter", spec.Variables["filter"].Type.Tags, "param", "help=A name.")
	for name, want := range map[string][]string{
		"observe":    {"alternative=observe,2", "optional", "when=enabled"},
		"distribute": {"alternative=observe,1"},
		"describe":   {"unless=enabled"},
	} {
		f(name, btf.FuncMetadata(&spec.Programs[name].Instructions[0]).Tags, want...)
	}
	var license *btf.Var
	if err := spec.Types.TypeByName("kaon_license", &license); err != nil {
		t.Fatal(err)
	}
	f("license", license.Tags, "program=Holds one of everything.", "name=everything")
	if got := spec.Programs["observe"].License; got != "Dual BSD/GPL" {
		t.Errorf("license %q", got)
	}
	if got := spec.Maps["small_total"].MaxEntries; got != 10001 {
		t.Errorf("a hash has %d entries, want the default and one for overflow", got)
	}
	if got := spec.Maps["level"].MaxEntries; got != 10000 {
		t.Errorf("a gauge's map has %d entries, want 10000", got)
	}
	if got := spec.Maps["array_total"].MaxEntries; got != 64 {
		t.Errorf("an array has %d entries, want 64", got)
	}
}

func TestFullMapsOverflowExactly(t *testing.T) {
	collection := load(t, "full.bpf.o", nil)
	const keys, room = 500, 64
	var sum uint64
	for id := uint64(1); id <= keys; id++ {
		run(t, collection.Programs["fill"], id, id)
		if _, _, err := collection.Programs["fill_demand"].Test(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
		sum += id
	}
	for _, name := range []string{"counts_total", "percpu_total", "demand_total", "times_seconds"} {
		m := collection.Maps[name]
		var total, slots, entries uint64
		for id := uint64(1); id <= keys; id++ {
			if row := numbers(t, m, key64(id)); row != nil {
				entries++
				total += row[0]
				for _, n := range row[1:] {
					slots += n
				}
			}
		}
		overflow := numbers(t, m, allOnes(8))
		for _, n := range overflow[1:] {
			slots += n
		}
		if entries < room {
			t.Errorf("%s: only %d keys found room, want %d", name, entries, room)
		}
		if overflow[0] == 0 || total+overflow[0] != sum {
			t.Errorf("%s: %d in %d keys + %d in overflow, want %d together", name, total, entries, overflow[0], sum)
		}
		if name == "times_seconds" && slots != keys {
			t.Errorf("%s: %d events counted, want %d", name, slots, keys)
		}
	}
	if n := lost(t, collection); n != 0 {
		t.Errorf("lost %d", n)
	}
}

// TestWithoutOverflowEntryLossesAreCounted: a loader that makes no overflow entry still learns what was lost.
func TestWithoutOverflowEntryLossesAreCounted(t *testing.T) {
	spec := specOf(t, "full.bpf.o")
	for _, m := range spec.Maps {
		if slices.Contains(m.Tags, "kaon:overflow") {
			m.Contents = nil
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	const keys = 500
	for id := uint64(1); id <= keys; id++ {
		run(t, collection.Programs["fill"], id, 1)
	}
	var found uint64
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		if name != "raced_total" && name != "naive_total" && name != "demand_total" && slices.Contains(spec.Maps[name].Tags, "kaon:overflow") {
			for id := uint64(1); id <= keys; id++ {
				if numbers(t, collection.Maps[name], key64(id)) != nil {
					found++
				}
			}
		}
	}
	if n := lost(t, collection); found+n != 3*keys || n == 0 {
		t.Errorf("%d found + %d lost, want %d", found, n, 3*keys)
	}
}

// A gauge can't be summed: what finds no room is counted as lost.
func TestFullGaugeIsCounted(t *testing.T) {
	spec := specOf(t, "metrics.bpf.o")
	spec.Maps["level"].MaxEntries = 2
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer collection.Close()
	const uids = 100 // a small map holds some more than asked for, by CPU
	for uid := range uint64(uids) {
		run(t, collection.Programs["observe"], uid, 1)
	}
	found := uint64(0)
	for uid := range uint64(uids) {
		if numbers(t, collection.Maps["level"], key64(7, uid)) != nil {
			found++
		}
	}
	// array_total and mmap_total have room for the indexes that these uids make.
	if n := lost(t, collection); n == 0 || found+n != uids {
		t.Errorf("%d found + %d lost, want %d", found, n, uids)
	}
}

func TestArrayIndexOutOfRangeIsCounted(t *testing.T) {
	spec := specOf(t, "metrics.bpf.o")
	spec.Maps["array_total"].MaxEntries = 2
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		if errors.Is(err, ebpf.ErrNotSupported) {
			t.Skip("needs ", err)
		}
		t.Fatal(err)
	}
	defer collection.Close()
	run(t, collection.Programs["observe"], 5, 1)
	if n := lost(t, collection); n != 1 {
		t.Errorf("lost %d, want 1", n)
	}
}
