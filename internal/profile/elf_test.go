package profile

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// image returns this test's own binary, and for some functions the name that Go's runtime knows and the address in the file.
func image(t testing.TB) (data []byte, addresses []uint64, names []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	f, err := openELF(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer maps.Close()
	mappings, err := parseMaps(maps)
	if err != nil {
		t.Fatal(err)
	}
	type function struct {
		address uint64
		name    string
	}
	var all []function
	for _, value := range []any{image, parseMaps, TestFunctions, strings.Fields, slices.Contains[[]string], (*elfFile).functions, os.ReadFile} {
		pc := reflect.ValueOf(value).Pointer() + 8
		m := find(mappings, uint64(pc))
		a, ok := address(f.segments, uint64(pc)-m.start+m.offset)
		if !ok {
			t.Fatalf("%#x is in no segment", pc)
		}
		all = append(all, function{a, runtime.FuncForPC(pc).Name()})
	}
	slices.SortFunc(all, func(a, b function) int { return int(int64(a.address) - int64(b.address)) })
	for _, f := range all {
		addresses, names = append(addresses, f.address), append(names, f.name)
	}
	return data, addresses, names
}

// without returns the file with sections of these types made unreadable, as if it was stripped of them.
func without(t testing.TB, data []byte, types ...elf.SectionType) []byte {
	t.Helper()
	data = bytes.Clone(data)
	offset, n := binary.LittleEndian.Uint64(data[40:]), binary.LittleEndian.Uint16(data[60:])
	for i := range uint64(n) {
		section := data[offset+64*i:]
		if slices.Contains(types, elf.SectionType(binary.LittleEndian.Uint32(section[4:]))) {
			binary.LittleEndian.PutUint32(section[4:], uint32(elf.SHT_NULL))
		}
	}
	return data
}

func TestFunctions(t *testing.T) {
	data, addresses, names := image(t)
	check := func(what string, data []byte, want []string) {
		t.Helper()
		f, err := openELF(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.functions(context.Background(), addresses)
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			// Instances of generic functions have the shape in their symbol.
			if got[i] != want[i] && !(strings.Contains(want[i], "[...]") && strings.HasPrefix(got[i], strings.TrimSuffix(want[i], "...]"))) {
				t.Errorf("%s: %#x is %q, want %q", what, addresses[i], got[i], want[i])
			}
		}
	}
	check("whole", data, names)
	check("stripped", without(t, data, elf.SHT_SYMTAB, elf.SHT_DYNSYM), names)
	f, err := openELF(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	table := f.section(".gopclntab")
	if table == nil {
		t.Fatal("no .gopclntab")
	}
	ruined := without(t, data, elf.SHT_SYMTAB, elf.SHT_DYNSYM)
	ruined[table.Off] = 0
	check("without any", ruined, make([]string, len(names)))
}

// symbolFile makes a file of one segment, at its own offsets, with these symbols.
func symbolFile(symbols ...elf.Sym64) []byte {
	const texts = "\x00first\x00second\x00third\x00_ZN3foo3barEi\x00"
	const table, at = 64, 56
	size := uint64(len(symbols) * elf.Sym64Size)
	h := elf.Header64{Phoff: table, Phentsize: at, Phnum: 1, Shoff: table + at, Shentsize: 64, Shnum: 2, Shstrndx: 1}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	begin := uint64(table + at + 2*64)
	var b bytes.Buffer
	for _, part := range []any{
		h,
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X), Off: 0, Vaddr: 0x1000, Filesz: 1 << 20},
		elf.Section64{Type: uint32(elf.SHT_SYMTAB), Off: begin, Size: size, Link: 1},
		elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: begin + size, Size: uint64(len(texts))},
		symbols, []byte(texts),
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil
		}
	}
	return b.Bytes()
}

func symbol(name uint32, bind elf.SymBind, kind elf.SymType, address, size uint64) elf.Sym64 {
	return elf.Sym64{Name: name, Info: elf.ST_INFO(bind, kind), Shndx: 1, Value: address, Size: size}
}

func TestSymbols(t *testing.T) {
	const first, second, third, mangled = 1, 7, 14, 20
	f := func(address uint64, want string, symbols ...elf.Sym64) {
		t.Helper()
		file, err := openELF(bytes.NewReader(symbolFile(symbols...)))
		if err != nil {
			t.Fatal(err)
		}
		got, err := file.functions(context.Background(), []uint64{address})
		if err != nil || got[0] != want {
			t.Errorf("%#x is %q, want %q: %v", address, got[0], want, err)
		}
	}
	outer, inner := symbol(first, elf.STB_GLOBAL, elf.STT_FUNC, 0x2000, 0x100), symbol(second, elf.STB_LOCAL, elf.STT_FUNC, 0x2010, 0x10)
	f(0x1fff, "", outer, inner)
	f(0x2000, "first", outer, inner)
	f(0x2010, "second", outer, inner)
	f(0x201f, "second", inner, outer)
	f(0x2020, "first", inner, outer)
	f(0x2100, "", outer, inner)
	// The same place twice: what others may call it by.
	f(0x2000, "first", symbol(third, elf.STB_WEAK, elf.STT_FUNC, 0x2000, 0x100), outer, symbol(second, elf.STB_LOCAL, elf.STT_FUNC, 0x2000, 0x100))
	// Without a size: up to the next function.
	open := symbol(third, elf.STB_LOCAL, elf.STT_FUNC, 0x3000, 0)
	f(0x3500, "third", open, outer)
	f(0x3500, "", open, symbol(first, elf.STB_GLOBAL, elf.STT_FUNC, 0x3400, 0x10))
	f(0x3405, "first", open, symbol(first, elf.STB_GLOBAL, elf.STT_FUNC, 0x3400, 0x10))
	// Not functions, not here, not in the table of texts.
	f(0x2000, "", symbol(first, elf.STB_GLOBAL, elf.STT_OBJECT, 0x2000, 0x100))
	f(0x2000, "", elf.Sym64{Name: first, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC), Value: 0x2000, Size: 0x100})
	f(0x2000, "", symbol(9999, elf.STB_GLOBAL, elf.STT_FUNC, 0x2000, 0x100))
	f(0xfffffffffffffff0, "first", symbol(first, elf.STB_GLOBAL, elf.STT_FUNC, 0xffffffffffffff00, ^uint64(0)))
	f(0x2000, "_ZN3foo3barEi", symbol(mangled, elf.STB_GLOBAL, elf.STT_FUNC, 0x2000, 0x100))

	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	file, err := openELF(bytes.NewReader(symbolFile(outer)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.functions(canceled, []uint64{0x2000}); err == nil {
		t.Error("it went on after its time")
	}
}

func TestDemangled(t *testing.T) {
	f := func(symbol, want string) {
		t.Helper()
		if got := demangled(symbol); got != want {
			t.Errorf("%q is %q, want %q", symbol, got, want)
		}
	}
	f("_ZN3foo3barEi", "foo::bar")
	f("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt")
	f("_RNvCs1234_7mycrate3foo", "mycrate::foo")
	f("main.main", "main.main")
	f("_Zgarbage", "_Zgarbage")
	f("", "")
}

func TestBuildID(t *testing.T) {
	note := func(name string, kind uint32, description string) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(description)))
		b = binary.LittleEndian.AppendUint32(b, kind)
		b = append(b, name...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		b = append(b, description...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	f := func(notes []byte, want string) {
		t.Helper()
		if got := gnuBuildID(notes); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	id := note("GNU\x00", 3, "\xde\xad\xbe")
	f(id, "deadbe")
	f(append(note("Go\x00\x00", 4, "x/y"), id...), "deadbe")
	f(append(note("GNU\x00", 1, "abi"), id...), "deadbe")
	f(id[:10], "")
	f(id[:14], "")
	f(note("Go\x00\x00", 4, "x"), "")
	f([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00\x00\x00GNU\x00"), "")
}

func FuzzELF(f *testing.F) {
	f.Add(symbolFile(symbol(1, elf.STB_GLOBAL, elf.STT_FUNC, 0x2000, 0x100), symbol(7, elf.STB_LOCAL, elf.STT_FUNC, 0x2010, 0)), uint64(0x2010))
	f.Add([]byte(elf.ELFMAG+"\x02\x01"), uint64(0))
	f.Add(goFile(), uint64(0x2010))
	f.Fuzz(func(t *testing.T, data []byte, at uint64) {
		file, err := openELF(bytes.NewReader(data))
		if err != nil {
			return
		}
		if a, ok := address(file.segments, at); ok {
			at = a
		}
		names, err := file.functions(context.Background(), []uint64{at, at})
		if err != nil || len(names) != 2 || len(names[0]) > maxName {
			t.Fatal(names, err)
		}
	})
}

// goFile is a small file with a Go function table: one function, from 0x2000 on.
func goFile() []byte {
	var table bytes.Buffer
	for _, part := range []any{uint32(go120), uint16(0), uint8(1), uint8(8),
		[]uint64{1, 0, 0x2000, 72, 0, 0, 0, 88}, []byte("main.main\x00      "),
		[]uint32{0, 12, 0x100}, []uint32{0, 0}} {
		if err := binary.Write(&table, binary.LittleEndian, part); err != nil {
			return nil
		}
	}
	const names = "\x00.gopclntab\x00.text\x00"
	h := elf.Header64{Shoff: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	begin := uint64(64 + 3*64)
	var b bytes.Buffer
	for _, part := range []any{
		h,
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: begin, Size: uint64(table.Len())},
		elf.Section64{Name: 12, Type: uint32(elf.SHT_PROGBITS), Addr: 0x2000, Size: 0x1000},
		elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: begin + uint64(table.Len()), Size: uint64(len(names))},
		table.Bytes(), []byte(names),
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil
		}
	}
	return b.Bytes()
}

func TestGoFunctions(t *testing.T) {
	f, err := openELF(bytes.NewReader(goFile()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.functions(context.Background(), []uint64{0x1fff, 0x2000, 0x20ff, 0x2100})
	if want := []string{"", "main.main", "main.main", ""}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, want %q: %v", got, want, err)
	}
}
