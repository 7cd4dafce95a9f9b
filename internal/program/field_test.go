package program

import (
	"bytes"
	"testing"
)

func TestField(t *testing.T) {
	b := []byte{0x81, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88, 0xff}
	f := func(field Field, want uint64) {
		t.Helper()
		if got := field.Number(b); got != want {
			t.Errorf("%+v: got %#x, want %#x", field, got, want)
		}
	}
	minus := ^uint64(0)
	f(Field{Size: 1}, 0x81)
	f(Field{Size: 1, Signed: true}, minus-0x7e)
	f(Field{Offset: 1, Size: 2}, 0x0302)
	f(Field{Offset: 1, Size: 2, BigEndian: true}, 0x0203)
	f(Field{Size: 3}, 0x030281)
	f(Field{Size: 8}, 0x8807060504030281)
	f(Field{Size: 8, BigEndian: true}, 0x8102030405060788)
	f(Field{Offset: 8, Size: 1, Signed: true}, minus)
	f(Field{Size: 2, BitOffset: 7, BitSize: 3}, 5)
	f(Field{Size: 2, BitOffset: 7, BitSize: 3, Signed: true}, minus-2)
	f(Field{Size: 8, BitOffset: 63, BitSize: 1}, 1)
	// What can't be read is 0.
	f(Field{}, 0)
	f(Field{Size: 9}, 0)
	f(Field{Offset: 8, Size: 2}, 0)
	f(Field{Offset: 0xffffffff, Size: 8}, 0)

	if got := (&Field{Offset: 1, Size: 2, Count: 2}).Bytes(b); !bytes.Equal(got, b[1:5]) {
		t.Errorf("got %x", got)
	}
	if got := (&Field{Offset: 4, Size: 2, Count: 3}).Bytes(b); got != nil {
		t.Errorf("got %x", got)
	}
}
