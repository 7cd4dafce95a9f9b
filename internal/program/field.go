package program

import "encoding/binary"

// Bytes returns the bytes of the field, nil if it lies outside of b.
func (f *Field) Bytes(b []byte) []byte {
	size := uint64(f.Size)
	if f.Count > 1 {
		size *= uint64(f.Count)
	}
	end := uint64(f.Offset) + size
	if end > uint64(len(b)) {
		return nil
	}
	return b[f.Offset:end]
}

// Number returns the field as a number; signed ones as the bits of an int64. 0 if it lies outside of b.
func (f *Field) Number(b []byte) uint64 {
	end := uint64(f.Offset) + uint64(f.Size)
	if f.Size == 0 || f.Size > 8 || end > uint64(len(b)) {
		return 0
	}
	return integer(b[f.Offset:end], f)
}

// integer decodes raw, of 1 to 8 bytes, as f says.
func integer(raw []byte, f *Field) uint64 {
	var v uint64
	bits := uint32(len(raw)) * 8
	switch {
	case f.BigEndian:
		for _, c := range raw {
			v = v<<8 | uint64(c)
		}
	case len(raw) == 8:
		v = binary.LittleEndian.Uint64(raw)
	case len(raw) == 4:
		v = uint64(binary.LittleEndian.Uint32(raw))
	default:
		for i, c := range raw {
			v |= uint64(c) << (8 * i)
		}
	}
	if f.BitSize > 0 && f.BitSize < 64 && f.BitOffset < 64 {
		v = v >> f.BitOffset & (1<<f.BitSize - 1)
		bits = f.BitSize
	}
	if f.Signed && bits < 64 && v>>(bits-1)&1 != 0 {
		v |= ^uint64(0) << bits
	}
	return v
}
