package series

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kaon-project/kaon/internal/program"
)

// iteratorReader runs an iterator program whose output are records, each a key
// followed by its value. Records with the same key are added up.
type iteratorReader struct {
	reader *program.Reader
	source Source
	buffer *buffer
}

// iteratorBuffer is more than the kernel returns at once (32 KiB).
const iteratorBuffer = 64 << 10

func newIteratorReader(_ *program.Spec, r *program.Reader, source Source, b *buffer, _ *Options) (reader, readerInfo, error) {
	if size := uint64(r.KeySize) + uint64(r.ValueSize); size == 0 || size > 32<<10 {
		return nil, readerInfo{}, fmt.Errorf("%w: %s: a record of %d bytes: an iterator can emit 32 KiB", ErrUnreadable, r.Name, size)
	}
	return &iteratorReader{r, source, b}, readerInfo{additive: true}, nil
}

func (r *iteratorReader) open() (parts, error) {
	return parts{1, int(r.reader.ValueSize), int(r.reader.ValueSize)}, nil
}

func (r *iteratorReader) read(ctx context.Context, yield func(keys, values []byte, n int)) (err error) {
	f, err := r.source.OpenIterator(r.reader.Function)
	if err != nil {
		return fmt.Errorf("open iterator %s: %w", r.reader.Function, err)
	}
	if f == nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	keySize := int(r.reader.KeySize)
	size := keySize + int(r.reader.ValueSize)
	r.buffer.grow(0, iteratorBuffer+size)
	b, have := r.buffer.values, 0
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read iterator %s: %w", r.reader.Function, err)
		}
		n, err := f.Read(b[have:])
		have += n
		at := 0
		for ; have-at >= size; at += size {
			yield(b[at:at+keySize], b[at+keySize:at+size], 1)
		}
		// A record may be split between two reads.
		copy(b, b[at:have])
		have -= at
		switch {
		case errors.Is(err, io.EOF) && have > 0:
			return fmt.Errorf("read iterator %s: %w: %d bytes remain of records of %d", r.reader.Function, ErrTornRecord, have, size)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read iterator %s: %w", r.reader.Function, err)
		}
	}
}
