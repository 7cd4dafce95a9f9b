package program

import (
	"encoding/binary"
	"testing"
)

func TestEncodeParam(t *testing.T) {
	enum := map[string]int64{"READ": 0, "WRITE": 1, "NONE": -1}
	f := func(kind ParamType, text string, size uint32, want uint64) {
		t.Helper()
		data, err := (&Param{Type: kind, Variable: "v", Size: size, Enum: enum}).Encode(text)
		if err != nil {
			t.Errorf("%s %q: %v", kind, text, err)
			return
		}
		full := make([]byte, 8)
		copy(full, data)
		if got := binary.LittleEndian.Uint64(full); got != want || len(data) != int(size) {
			t.Errorf("%s %q: %#x in %d bytes, want %#x in %d", kind, text, got, len(data), want, size)
		}
	}
	f(ParamBool, "true", 1, 1)
	f(ParamBool, "off", 1, 0)
	f(ParamInt, "-1", 4, 0xffffffff)
	f(ParamInt, "127", 1, 127)
	f(ParamUint, "18446744073709551615", 8, 1<<64-1)
	f(ParamUint, "0x10", 2, 16)
	f(ParamEnum, "WRITE", 4, 1)
	f(ParamEnum, "NONE", 4, 0xffffffff)
	f(ParamEnum, "1", 4, 1)
	f(ParamDuration, "10ms", 8, 10_000_000)
	f(ParamDuration, "0", 4, 0)
	f(ParamSize, "64KiB", 4, 65536)
	f(ParamSize, "2K", 8, 2000)
	f(ParamSize, "2Gi", 8, 2<<30)
	f(ParamSize, "7", 8, 7)
	f(ParamString, "abc", 8, 0x636261)
	f(ParamString, "", 4, 0)

	bad := func(kind ParamType, text string, size uint32) {
		t.Helper()
		if data, err := (&Param{Type: kind, Variable: "v", Size: size, Enum: enum}).Encode(text); err == nil {
			t.Errorf("%s %q in %d bytes is accepted as %x", kind, text, size, data)
		}
	}
	bad(ParamBool, "maybe", 1)
	bad(ParamInt, "128", 1)
	bad(ParamInt, "x", 4)
	bad(ParamUint, "-1", 4)
	bad(ParamUint, "256", 1)
	bad(ParamUint, "18446744073709551616", 8)
	bad(ParamUint, "1", 3)
	bad(ParamEnum, "ERASE", 4)
	bad(ParamEnum, "7", 4)
	bad(ParamDuration, "soon", 8)
	bad(ParamDuration, "-5ms", 8)
	bad(ParamSize, "many", 8)
	bad(ParamSize, "-1", 8)
	bad(ParamSize, "5GiB", 4)
	bad(ParamString, "too long", 8)
	bad(ParamString, "a\x00b", 8)
	bad(ParamDuration, "1234", 8)
	bad("colour", "1", 8)
}

func FuzzEncodeParam(f *testing.F) {
	f.Add("1.5KiB", "size", uint8(8))
	f.Add("10ms", "duration", uint8(4))
	f.Fuzz(func(t *testing.T, text, kind string, size uint8) {
		p := &Param{Type: ParamType(kind), Variable: "v", Size: uint32(size), Enum: map[string]int64{"A": -5}}
		data, err := p.Encode(text)
		if err == nil && size != 0 && p.Type != ParamList && len(data) != int(size) {
			t.Errorf("%d bytes, want %d", len(data), size)
		}
	})
}
