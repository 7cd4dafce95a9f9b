package exposition

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestVarints(t *testing.T) {
	f := func(v uint64) {
		t.Helper()
		want := binary.AppendUvarint(nil, v)
		if got := appendVarint(nil, v); !bytes.Equal(got, want) || varintLen(v) != len(want) {
			t.Errorf("%#x: % x of length %d, want % x", v, got, varintLen(v), want)
		}
		if got := appendDelta(nil, v); !bytes.Equal(got, want) {
			t.Errorf("%#x as a delta: % x, want % x", v, got, want)
		}
	}
	f(0)
	for bit := range 64 {
		for _, v := range []uint64{1 << bit, 1<<bit - 1, 1<<bit + 1, ^uint64(0) >> bit, 0xa5a5_a5a5_a5a5_a5a5 >> bit} {
			f(v)
		}
	}
}
