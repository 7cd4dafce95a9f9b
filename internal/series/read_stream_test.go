package series

import (
	"errors"
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/stream"
)

// streamSource has one ring that nobody sends to.
type streamSource struct {
	fakeSource
	*stream.Set
}

// A reader whose sizes are not those of its aggregate must be refused: its keys would be cut out of nothing.
func TestStreamReaderOfOtherSizes(t *testing.T) {
	m := newMap(t, &ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())})
	f := func(change func(*program.Reader), want error) {
		t.Helper()
		key := label("a", "uint", 0, 4)
		spec := &program.Spec{Name: "test", Streams: []program.Stream{{Name: "events", RecordSize: 8}},
			Readers: []program.Reader{{Name: "r", Kind: program.StreamReader, Stream: "events", KeySize: 4, ValueSize: 8, Key: []program.Label{key},
				Aggregate: &program.Aggregate{Keys: []program.Field{key.Field}},
				Metrics:   []program.Metric{{Name: "test_total", Type: program.Counter, Labels: []program.Label{key}, Cells: []program.Field{u64(0)}}}}}}
		change(&spec.Readers[0])
		source := &streamSource{fakeSource: fakeSource{maps: map[string]*ebpf.Map{"events": m}}}
		source.Set = stream.NewSet(spec, &source.fakeSource)
		defer source.Close()
		c, err := NewCollector(spec, source, Options{})
		if !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if err == nil {
			values(t, (&fixture{t: t, collector: c}).collect(), nil)
		}
	}
	f(func(*program.Reader) {}, nil)
	f(func(r *program.Reader) { r.KeySize = 8 }, ErrUnreadable)
	f(func(r *program.Reader) { r.ValueSize = 16 }, ErrUnreadable)
	f(func(r *program.Reader) { r.Aggregate.Keys = nil }, ErrUnreadable)
	f(func(r *program.Reader) { r.Metrics[0].Cells = nil }, stream.ErrMetric)
}
