package stream

import (
	"errors"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
)

// perfBufferSize is the memory of each CPU's buffer, in bytes.
const perfBufferSize = 256 << 10

// perfBuffers reads what programs send by bpf_perf_event_output. The kernel may append padding to a record.
type perfBuffers struct {
	reader *perf.Reader
	record perf.Record
}

func openPerfBuffers(m *ebpf.Map) (source, error) {
	reader, err := perf.NewReader(m, perfBufferSize)
	if err != nil {
		return nil, err
	}
	return &perfBuffers{reader: reader}, nil
}

func (b *perfBuffers) next() ([]byte, uint64, error) {
	err := b.reader.ReadInto(&b.record)
	if errors.Is(err, perf.ErrFlushed) {
		err = errFlushed
	}
	return b.record.RawSample, b.record.LostSamples, err
}

func (b *perfBuffers) flush() error { return b.reader.Flush() }

// available: each round of reading ends with what was there when it began.
func (b *perfBuffers) available() int  { return math.MaxInt }
func (b *perfBuffers) tellsLost() bool { return true }
func (b *perfBuffers) close() error    { return b.reader.Close() }
