package series

import (
	"context"
	"fmt"
	"slices"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/stream"
)

// Streams is what a Source offers whose Program has streams.
type Streams interface {
	Ring(name string) (*stream.Ring, error)
}

// streamReader yields what an aggregate in user space made of a stream's records.
type streamReader struct {
	reader    *program.Reader
	ring      *stream.Ring
	aggregate *stream.Aggregate
}

// streamKeyPadding is appended to keys, as zeros, so that none can be all ones.
const streamKeyPadding = 8

// streamKey returns the reader with keys as streamReader yields them.
func streamKey(r *program.Reader) *program.Reader {
	c := *r
	c.KeySize += streamKeyPadding
	c.Overflow = true
	return &c
}

func newStreamReader(_ *program.Spec, r *program.Reader, source Source, _ *buffer, _ *Options) (reader, readerInfo, error) {
	streams, ok := source.(Streams)
	if !ok || r.Aggregate == nil || len(r.Metrics) != 1 {
		return nil, readerInfo{}, fmt.Errorf("%w: %s: its stream can't be read here", ErrUnreadable, r.Name)
	}
	ring, err := streams.Ring(r.Stream)
	if err != nil {
		return nil, readerInfo{}, err
	}
	a, err := stream.NewAggregate(r.Aggregate, &r.Metrics[0])
	if err != nil {
		return nil, readerInfo{}, err
	}
	if key, value := a.Sizes(); key+streamKeyPadding != int(r.KeySize) || value != int(r.ValueSize) {
		return nil, readerInfo{}, fmt.Errorf("%w: %s: its keys and values have %d and %d bytes, the aggregate's %d and %d",
			ErrUnreadable, r.Name, r.KeySize-streamKeyPadding, r.ValueSize, key, value)
	}
	ring.Consume(a.Add)
	return &streamReader{r, ring, a}, readerInfo{}, nil
}

func (r *streamReader) open() (parts, error) {
	return parts{1, int(r.reader.ValueSize), int(r.reader.ValueSize)}, nil
}

func (r *streamReader) read(ctx context.Context, yield func(keys, values []byte, n int)) error {
	if err := r.ring.Sync(ctx); err != nil {
		return err
	}
	padding := make([]byte, streamKeyPadding)
	ones := slices.Repeat([]byte{0xff}, int(r.reader.KeySize))
	r.aggregate.Each(func(key, value []byte, overflow bool) {
		if overflow {
			yield(ones, value, 1)
			return
		}
		yield(append(key, padding...), value, 1)
	})
	return nil
}

func (r *streamReader) removes() bool { return true }

// remove never fails.
func (r *streamReader) remove(key []byte) ([]byte, error) { //nolint:unparam // remover's signature
	return r.aggregate.Remove(key[:len(key)-streamKeyPadding]), nil
}

func (r *streamReader) capacity() int { return r.aggregate.Capacity() }

// adopt goes on with what the reader counted before a reload.
func (r *streamReader) adopt(old reader) {
	if o, ok := old.(*streamReader); ok {
		r.aggregate.Adopt(o.aggregate)
	}
}
