package object

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"

	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// simplify returns the object without what libbpf takes and the ELF reader does not: weak symbols of what the object defines become
// global ones; hidden functions static ones, which are verified where they are called; kernel variables (__ksym) lose their types,
// and typed are those that had one; the section .kconfig gets another name, and config are its variables. What can't be read is
// returned as it is.
func simplify(data []byte) (out []byte, typed kernelVariables, config configVariables) {
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil || file.Class != elf.ELFCLASS64 || file.ByteOrder != binary.LittleEndian {
		return data, nil, nil
	}
	out = slices.Clone(data)
	types := &rawBTF{}
	if s := file.Section(".BTF"); s != nil {
		if types = rawTypes(within(out, s.Offset, s.FileSize)); types == nil {
			return data, nil, nil
		}
	}
	config = configVariables{}
	for _, name := range types.rename(configSection, renamedConfig) {
		config[name] = false
	}
	typed = kernelVariables{}
	for _, name := range types.dropTypes(".ksyms") {
		typed[name] = false
	}
	symbols, err := file.Symbols()
	table := file.SectionByType(elf.SHT_SYMTAB)
	if err != nil || table == nil {
		return out, typed, config
	}
	hidden := map[string]bool{}
	entries := within(out, table.Offset, table.FileSize)
	for i, s := range symbols {
		if v := elf.ST_VISIBILITY(s.Other); elf.ST_TYPE(s.Info) == elf.STT_FUNC && (v == elf.STV_HIDDEN || v == elf.STV_INTERNAL) {
			hidden[s.Name] = true
		}
		weak := elf.ST_BIND(s.Info) == elf.STB_WEAK
		if _, is := typed[s.Name]; is && s.Section == elf.SHN_UNDEF {
			typed[s.Name] = weak
		}
		if _, is := config[s.Name]; is && s.Section == elf.SHN_UNDEF {
			config[s.Name] = weak
		}
		at := (i+1)*elf.Sym64Size + 4 // st_info; the first symbol is none
		if !weak || s.Section == elf.SHN_UNDEF || at >= len(entries) {
			continue
		}
		entries[at] = elf.ST_INFO(elf.STB_GLOBAL, elf.ST_TYPE(s.Info))
	}
	types.makeStatic(hidden)
	return out, typed, config
}

// kernelVariables are variables of the kernel (__ksym) that are declared with a type, by name. The value says that the kernel may lack it.
type kernelVariables map[string]bool

// mark makes loads of them instructions of program.KernelVariable: the verifier knows the type of such a pointer.
func (k kernelVariables) mark(insns asm.Instructions) {
	for i := range insns {
		ins := &insns[i]
		weak, is := k[ins.Reference()]
		if !is || ins.OpCode != asm.LoadImmOp(asm.DWord) || ins.Src != asm.R0 {
			continue
		}
		load := asm.LoadImm(ins.Dst, 0, asm.DWord).WithReference(ins.Reference())
		load.Src = program.KernelVariable
		if weak {
			load.Constant = program.WeakVariable
		}
		replaceLoad(ins, load)
	}
}

// replaceLoad puts another load where ins is. The library's own note of the address does not go with it.
func replaceLoad(ins *asm.Instruction, load asm.Instruction) {
	load = load.WithSymbol(ins.Symbol())
	if source := ins.Source(); source != nil {
		load = load.WithSource(source)
	}
	if f := btf.FuncMetadata(ins); f != nil {
		load = btf.WithFuncMetadata(load, f)
	}
	*ins = load
}

// within returns size bytes from offset, nil if they are not all there.
func within(data []byte, offset, size uint64) []byte {
	if offset > uint64(len(data)) || size > uint64(len(data))-offset {
		return nil
	}
	return data[offset : offset+size]
}

// rawBTF is a BTF section. Changes go to the bytes that it was made of.
type rawBTF struct {
	strings []byte
	types   [][]byte // by id - 1, each with what belongs to it
}

const (
	btfMagic      = 0xeb9f
	btfHeaderSize = 24
	btfTypeSize   = 12
)

// Kinds of types, and the bytes that come after each or, with vlen, after each of its members.
const (
	btfKindFunc    = 12
	btfKindVar     = 14
	btfKindDatasec = 15
)

func btfTail(kind, vlen uint32) (size uint32, known bool) {
	switch kind {
	case 1, 14, 17: // INT, VAR, DECL_TAG
		return 4, true
	case 3: // ARRAY
		return 12, true
	case 4, 5, 15, 19: // STRUCT, UNION, DATASEC, ENUM64
		return 12 * vlen, true
	case 6, 13: // ENUM, FUNC_PROTO
		return 8 * vlen, true
	}
	return 0, kind >= 2 && kind <= 18
}

// rawTypes returns nil for what it does not understand.
func rawTypes(section []byte) *rawBTF {
	if len(section) < btfHeaderSize || binary.LittleEndian.Uint16(section) != btfMagic {
		return nil
	}
	word := func(at int) uint64 { return uint64(binary.LittleEndian.Uint32(section[at:])) }
	header := word(4)
	types, text := within(section, header+word(8), word(12)), within(section, header+word(16), word(20))
	if types == nil || text == nil {
		return nil
	}
	b := &rawBTF{strings: text}
	for len(types) > 0 {
		if len(types) < btfTypeSize {
			return nil
		}
		info := binary.LittleEndian.Uint32(types[4:])
		tail, known := btfTail(info>>24&0x1f, info&0xffff)
		if size := btfTypeSize + int(tail); known && size <= len(types) {
			b.types, types = append(b.types, types[:size]), types[size:]
			continue
		}
		return nil
	}
	return b
}

func (b *rawBTF) name(t []byte) string {
	offset := binary.LittleEndian.Uint32(t)
	if uint64(offset) >= uint64(len(b.strings)) {
		return ""
	}
	name, _, _ := strings.Cut(string(b.strings[offset:min(uint64(len(b.strings)), uint64(offset)+512)]), "\x00")
	return name
}

func (b *rawBTF) kind(t []byte) uint32 { return binary.LittleEndian.Uint32(t[4:]) >> 24 & 0x1f }

// each calls f with the variables of a section.
func (b *rawBTF) each(section string, f func(variable []byte)) {
	for _, t := range b.types {
		if b.kind(t) != btfKindDatasec || b.name(t) != section {
			continue
		}
		for member := t[btfTypeSize:]; len(member) >= 12; member = member[12:] {
			id := binary.LittleEndian.Uint32(member)
			if id > 0 && uint64(id) <= uint64(len(b.types)) && b.kind(b.types[id-1]) == btfKindVar {
				f(b.types[id-1])
			}
		}
	}
}

// rename gives a section that has no bytes a name as long as its own and a size: then the library does not look for its bytes.
// It returns the names of the section's variables.
func (b *rawBTF) rename(section, name string) (variables []string) {
	b.each(section, func(v []byte) { variables = append(variables, b.name(v)) })
	for _, t := range b.types {
		if b.kind(t) == btfKindDatasec && b.name(t) == section {
			copy(b.strings[binary.LittleEndian.Uint32(t):], name)
			binary.LittleEndian.PutUint32(t[8:], 1)
		}
	}
	return variables
}

// dropTypes makes the variables of a section void, and returns the names of those that were not, whatever its qualifiers.
func (b *rawBTF) dropTypes(section string) (names []string) {
	b.each(section, func(v []byte) {
		id := binary.LittleEndian.Uint32(v[8:])
		for range len(b.types) {
			// CONST, VOLATILE
			if id == 0 || uint64(id) > uint64(len(b.types)) || b.kind(b.types[id-1]) != 10 && b.kind(b.types[id-1]) != 9 {
				break
			}
			id = binary.LittleEndian.Uint32(b.types[id-1][8:])
		}
		if id != 0 {
			names = append(names, b.name(v))
		}
		binary.LittleEndian.PutUint32(v[8:], 0)
	})
	return names
}

// makeStatic makes functions static.
func (b *rawBTF) makeStatic(functions map[string]bool) {
	for _, t := range b.types {
		if b.kind(t) == btfKindFunc && functions[b.name(t)] {
			t[4], t[5] = 0, 0 // the linkage
		}
	}
}
