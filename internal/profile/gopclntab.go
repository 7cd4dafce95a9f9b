package profile

import (
	"debug/elf"
	"encoding/binary"
	"sort"
)

// What a Go binary's table of functions begins with, since Go 1.18 and since Go 1.20. Older ones are laid out otherwise.
const (
	go118 = 0xfffffff0
	go120 = 0xfffffff1
)

// goFunctions names addresses that have no name by the table that Go's runtime needs for its own traces, which
// stripping leaves in place. The layout is that of package debug/gosym, which reads all of a table.
func (f *elfFile) goFunctions(addresses []uint64, names []string) {
	table := f.section(".gopclntab")
	if table == nil {
		table = f.section(".data.rel.ro.gopclntab")
	}
	text := f.section(".text")
	if table == nil || text == nil || elf.SectionFlag(table.Flags)&elf.SHF_COMPRESSED != 0 {
		return
	}
	// magic, two zeros, quantum of instructions, size of pointers; then numbers of that size.
	var h struct {
		Magic                                      uint32
		Zero                                       uint16
		Quantum, PointerSize                       uint8
		Functions, Files, TextStart, Names         uint64
		CompilationUnits, FileTable, PCs, FuncData uint64
	}
	if err := readStruct(f.r, table.Off, &h); err != nil || h.Magic != go118 && h.Magic != go120 || h.PointerSize != 8 {
		return
	}
	start := h.TextStart
	if start == 0 {
		// Since Go 1.26 the linker leaves it out. With C in the same program Go's code does not begin where the section does.
		if f.section(".init") != nil {
			return
		}
		start = text.Addr
	}
	if start < text.Addr || start-text.Addr > text.Size || h.Functions > table.Size/8 || h.FuncData > table.Size || h.Names > table.Size {
		return
	}
	functions := table.Off + h.FuncData
	// The function table: pairs of 4 bytes, where a function begins and where its data is, and where the last one ends.
	entry := func(n int) (begin, data uint32) {
		var pair [8]byte
		if n, _ := readAt(f.r, pair[:], functions+uint64(n)*8); n < 4 {
			return ^uint32(0), 0
		}
		return binary.LittleEndian.Uint32(pair[:]), binary.LittleEndian.Uint32(pair[4:])
	}
	last, _ := entry(int(h.Functions))
	for i, address := range addresses {
		if names[i] != "" || address < start || address-start >= uint64(last) {
			continue
		}
		n := sort.Search(int(h.Functions), func(n int) bool {
			begin, _ := entry(n)
			return uint64(begin) > address-start
		})
		if n == 0 {
			continue
		}
		_, data := entry(n - 1)
		var function [8]byte // where it begins, where its name is
		if got, _ := readAt(f.r, function[:], functions+uint64(data)); got < len(function) {
			continue
		}
		names[i] = f.text(table.Off+h.Names, table.Size-h.Names, uint64(binary.LittleEndian.Uint32(function[4:])))
	}
}
