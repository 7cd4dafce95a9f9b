package profile

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Bounds of what is read of one file, which may belong to somebody hostile. Nothing is read as a whole: the memory
// that a file takes depends on the addresses that are looked up.
const (
	maxSegments    = 256
	maxSections    = 1 << 16
	maxNames       = 1 << 20
	maxNoteBytes   = 64 << 10
	maxFileSymbols = 8 << 20
	// maxName is the length in bytes from which on a function's name is cut.
	maxName = 1024
)

var (
	errNotELF  = errors.New("not a 64-bit little-endian ELF file")
	errDamaged = errors.New("the ELF file is damaged")
)

// elfFile is as much of an ELF file as naming its functions takes.
type elfFile struct {
	r        io.ReaderAt
	segments []Segment
	sections []elf.Section64
	names    []byte // of sections
	buildID  string
}

// openELF reads the headers.
func openELF(r io.ReaderAt) (*elfFile, error) {
	var h elf.Header64
	if err := readStruct(r, 0, &h); err != nil {
		return nil, errNotELF
	}
	if string(h.Ident[:4]) != elf.ELFMAG || elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(h.Ident[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return nil, errNotELF
	}
	f := &elfFile{r: r}
	if h.Phnum > maxSegments {
		return nil, fmt.Errorf("%w: it has %d segments", errDamaged, h.Phnum)
	}
	programs := make([]elf.Prog64, h.Phnum)
	if h.Phentsize == uint16(binary.Size(elf.Prog64{})) {
		if err := readStruct(r, h.Phoff, programs); err != nil {
			return nil, fmt.Errorf("%w: segments: %w", errDamaged, err)
		}
	}
	for _, p := range programs {
		switch elf.ProgType(p.Type) {
		case elf.PT_LOAD:
			if elf.ProgFlag(p.Flags)&elf.PF_X != 0 && p.Off+p.Filesz >= p.Off && p.Vaddr+p.Filesz >= p.Vaddr {
				f.segments = append(f.segments, Segment{Offset: p.Off, Address: p.Vaddr, Size: p.Filesz})
			}
		case elf.PT_NOTE:
			f.note(p.Off, p.Filesz)
		}
	}
	if h.Shnum > 0 && h.Shentsize == uint16(binary.Size(elf.Section64{})) {
		f.sections = make([]elf.Section64, h.Shnum)
		if err := readStruct(r, h.Shoff, f.sections); err != nil {
			f.sections = nil // stripped of them
		}
	}
	if n := int(h.Shstrndx); n < len(f.sections) {
		f.names = make([]byte, min(f.sections[n].Size, maxNames))
		got, err := readAt(r, f.names, f.sections[n].Off)
		if err != nil {
			got = 0
		}
		f.names = f.names[:got]
	}
	for _, s := range f.sections {
		if elf.SectionType(s.Type) == elf.SHT_NOTE {
			f.note(s.Off, s.Size)
		}
	}
	return f, nil
}

func readStruct(r io.ReaderAt, offset uint64, to any) error {
	data := make([]byte, binary.Size(to))
	if n, err := readAt(r, data, offset); n < len(data) {
		return errors.Join(io.ErrUnexpectedEOF, err)
	}
	return binary.Read(bytes.NewReader(data), binary.LittleEndian, to)
}

// readAt is ReadAt for an offset that nobody checked. The end of the file is no error.
func readAt(r io.ReaderAt, data []byte, offset uint64) (int, error) {
	if int64(offset) < 0 {
		return 0, nil
	}
	n, err := r.ReadAt(data, int64(offset))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// note takes the build id from notes: GNU's, or Go's where there is no other.
func (f *elfFile) note(offset, size uint64) {
	data := make([]byte, min(size, maxNoteBytes))
	n, err := readAt(f.r, data, offset)
	if err != nil {
		return
	}
	if id := gnuBuildID(data[:n]); id != "" {
		f.buildID = id
	}
}

// gnuBuildID returns the id in a sequence of notes, in hexadecimal.
func gnuBuildID(notes []byte) string {
	const gnuBuildIDType = 3
	for len(notes) >= 12 {
		nameSize, size := uint64(binary.LittleEndian.Uint32(notes)), uint64(binary.LittleEndian.Uint32(notes[4:]))
		kind := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[12:]
		name, description := (nameSize+3)&^3, (size+3)&^3
		if name+size > uint64(len(notes)) {
			return ""
		}
		if kind == gnuBuildIDType && string(notes[:nameSize]) == "GNU\x00" && size <= 64 {
			return hex.EncodeToString(notes[name : name+size])
		}
		if name+description > uint64(len(notes)) {
			return ""
		}
		notes = notes[name+description:]
	}
	return ""
}

// address converts a place in the file to the address that the file's symbols use.
func address(segments []Segment, offset uint64) (uint64, bool) {
	for _, s := range segments {
		if offset >= s.Offset && offset-s.Offset < s.Size {
			return offset - s.Offset + s.Address, true
		}
	}
	return 0, false
}

func (f *elfFile) section(name string) *elf.Section64 {
	for i := range f.sections {
		if at := f.sections[i].Name; uint64(at) < uint64(len(f.names)) {
			if end := bytes.IndexByte(f.names[at:], 0); end >= 0 && string(f.names[at:int(at)+end]) == name {
				return &f.sections[i]
			}
		}
	}
	return nil
}

// functions names addresses, which must be sorted, by the file's symbol tables, or by the table that Go's
// runtime has for itself. An address without a name has the empty one.
func (f *elfFile) functions(ctx context.Context, addresses []uint64) ([]string, error) {
	names := make([]string, len(addresses))
	for _, table := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		for i := range f.sections {
			if elf.SectionType(f.sections[i].Type) != table || !slices.Contains(names, "") {
				continue
			}
			if err := f.symbols(ctx, &f.sections[i], addresses, names); err != nil {
				return names, err
			}
		}
	}
	if slices.Contains(names, "") {
		f.goFunctions(addresses, names)
	}
	return names, nil
}

// candidate is the best symbol so far for an address.
type candidate struct {
	address, size uint64
	name          uint32
	rank          int8 // 0: none
}

// symbols reads one symbol table, in pieces, and names the addresses that have no name yet.
func (f *elfFile) symbols(ctx context.Context, table *elf.Section64, addresses []uint64, names []string) error {
	const size = elf.Sym64Size
	if uint64(table.Link) >= uint64(len(f.sections)) || elf.SectionFlag(table.Flags)&elf.SHF_COMPRESSED != 0 {
		return nil
	}
	best := make([]candidate, len(addresses))
	// below has, for an address, the function without a size that begins last before it.
	below := make([]candidate, len(addresses))
	piece := make([]byte, 4096*size)
	end := table.Off + min(table.Size, maxFileSymbols*size)
	for at := table.Off; at < end; at += uint64(len(piece)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := readAt(f.r, piece[:min(uint64(len(piece)), end-at)], at)
		for symbol := piece[:n-n%size]; len(symbol) > 0; symbol = symbol[size:] {
			consider(symbol[:size], addresses, best, below)
		}
		if err != nil || n < len(piece) {
			break // what was read is good
		}
	}
	texts := &f.sections[table.Link]
	for i := range addresses {
		if i > 0 && below[i-1].address > below[i].address {
			below[i] = below[i-1]
		}
		c := best[i]
		if c.rank == 0 {
			c = below[i]
		}
		if c.rank != 0 && names[i] == "" {
			names[i] = f.text(texts.Off, texts.Size, uint64(c.name))
		}
	}
	return nil
}

// consider takes a symbol for the addresses that it covers.
func consider(symbol []byte, addresses []uint64, best, below []candidate) {
	info := symbol[4]
	if kind := elf.ST_TYPE(info); kind != elf.STT_FUNC && kind != elf.STT_GNU_IFUNC || binary.LittleEndian.Uint16(symbol[6:]) == uint16(elf.SHN_UNDEF) {
		return
	}
	c := candidate{
		name:    binary.LittleEndian.Uint32(symbol),
		address: binary.LittleEndian.Uint64(symbol[8:]), size: binary.LittleEndian.Uint64(symbol[16:]), rank: 1,
	}
	switch elf.ST_BIND(info) {
	case elf.STB_GLOBAL:
		c.rank = 3
	case elf.STB_WEAK:
		c.rank = 2
	}
	i, _ := slices.BinarySearch(addresses, c.address)
	if c.size == 0 {
		if i < len(addresses) && below[i].address <= c.address {
			below[i] = c
		}
		return
	}
	if i < len(addresses) && below[i].address <= c.address {
		below[i] = candidate{address: c.address} // ends what is without a size before it
	}
	for ; i < len(addresses) && addresses[i]-c.address < c.size; i++ {
		b := &best[i]
		if b.rank == 0 || c.address > b.address || c.address == b.address && c.rank > b.rank {
			*b = c
		}
	}
}

// text reads a string of a string table.
func (f *elfFile) text(table, size, at uint64) string {
	if at >= size || table+at < table {
		return ""
	}
	var buffer [maxName]byte
	n, err := readAt(f.r, buffer[:min(maxName, size-at)], table+at)
	if err != nil {
		return ""
	}
	if end := bytes.IndexByte(buffer[:n], 0); end >= 0 {
		n = end
	}
	return string(buffer[:n])
}
