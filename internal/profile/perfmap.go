package profile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
)

const maxPerfMapBytes = 256 << 20

// readPerfMap names addresses, which must be sorted, by the list that a compiler at run time leaves: lines of "START SIZE NAME",
// in hexadecimal. What comes later in the file counts. An address without a name has the empty one.
func readPerfMap(ctx context.Context, r io.Reader, addresses []uint64) ([]string, error) {
	names := make([]string, len(addresses))
	lines := bufio.NewReaderSize(io.LimitReader(r, maxPerfMapBytes), 64<<10)
	for n := 0; ; n++ {
		line, err := lines.ReadSlice('\n')
		if start, end, name, ok := parsePerfLine(line); ok && (err == nil || errors.Is(err, io.EOF)) {
			i, _ := slices.BinarySearch(addresses, start)
			for ; i < len(addresses) && addresses[i] < end; i++ {
				names[i] = string(name)
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return names, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return names, err
		case n%1024 == 0 && ctx.Err() != nil:
			return names, ctx.Err()
		}
	}
}

func parsePerfLine(line []byte) (start, end uint64, name []byte, ok bool) {
	first, rest, ok1 := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte{' '})
	second, name, ok2 := bytes.Cut(rest, []byte{' '})
	start, err1 := strconv.ParseUint(string(bytes.TrimPrefix(first, []byte("0x"))), 16, 64)
	size, err2 := strconv.ParseUint(string(bytes.TrimPrefix(second, []byte("0x"))), 16, 64)
	name = bytes.TrimSpace(name)
	if !ok1 || !ok2 || err1 != nil || err2 != nil || len(name) == 0 || start+size < start {
		return 0, 0, nil, false
	}
	return start, start + size, name[:min(len(name), maxName)], true
}
