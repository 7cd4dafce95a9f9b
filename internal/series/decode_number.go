package series

import (
	"bytes"
	"encoding/hex"
	"unsafe"

	"github.com/kaon-project/kaon/internal/program"
)

func decodeInteger(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Size > 8 || l.Field.Count > 1 {
		return decodeHex(dst, l, data)
	}
	if l.Field.Bytes(data) == nil {
		return dst
	}
	n := l.Field.Number(data)
	if l.Field.Signed {
		return appendInt(dst, l.Name, int64(n))
	}
	return appendUint(dst, l.Name, n)
}

func decodeBool(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Bytes(data) == nil {
		return dst
	}
	if l.Field.Number(data) != 0 {
		return AppendLabel(dst, l.Name, "true")
	}
	return AppendLabel(dst, l.Name, "false")
}

// decodeEnum names an enum's value; one that has no name is its number.
func decodeEnum(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Bytes(data) == nil {
		return dst
	}
	n := int64(l.Field.Number(data))
	for i := range l.Enum {
		if l.Enum[i].Value == n {
			return AppendLabel(dst, l.Name, l.Enum[i].Name)
		}
	}
	return decodeInteger(dst, l, data)
}

// decodeHex writes a number as 0x..., and bytes as hexadecimal digits.
func decodeHex(dst []byte, l *program.Label, data []byte) []byte {
	b := l.Field.Bytes(data)
	if len(b) == 0 {
		return dst
	}
	var text [2 + 2*MaxLabelValue]byte
	if l.Field.Count <= 1 && l.Field.Size <= 8 {
		n := l.Field.Number(data)
		out := append(text[:0], '0', 'x')
		digit := 15
		for digit > 0 && n>>(4*digit) == 0 {
			digit--
		}
		for ; digit >= 0; digit-- {
			out = append(out, "0123456789abcdef"[n>>(4*digit)&15])
		}
		return appendPlain(dst, l.Name, out)
	}
	return appendPlain(dst, l.Name, hex.AppendEncode(text[:0], b[:min(len(b), MaxLabelValue/2)]))
}

// decodeString takes the bytes up to the first NUL.
func decodeString(dst []byte, l *program.Label, data []byte) []byte {
	b := l.Field.Bytes(data)
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return AppendLabel(dst, l.Name, unsafe.String(unsafe.SliceData(b), len(b)))
}
