package engine

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// newBinary writes an executable with that many symbols, all of the same name: the string at offset 1 of the names.
func newBinary(t testing.TB, symbols int, names []byte) string {
	t.Helper()
	const text = 0x1000
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	sectionNames := []byte("\x00.symtab\x00.strtab\x00")
	symtab := uint64(64 + 56)
	strtab := symtab + uint64(symbols)*elf.Sym64Size
	shstrtab := strtab + uint64(len(names))
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Shoff: shstrtab + uint64(len(sectionNames)),
		Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64, Shnum: 4, Shstrndx: 3,
	}, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_X), Off: text, Vaddr: text, Filesz: text, Memsz: text})
	put(bytes.Repeat(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64([]byte{1, 0, 0, 0, byte(elf.STT_FUNC), 0, 1, 0}, text+16), 1), symbols))
	put(names, sectionNames, elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_SYMTAB), Off: symtab, Size: uint64(symbols) * elf.Sym64Size, Link: 2, Entsize: elf.Sym64Size})
	put(elf.Section64{Name: 9, Type: uint32(elf.SHT_STRTAB), Off: strtab, Size: uint64(len(names))})
	put(elf.Section64{Name: 9, Type: uint32(elf.SHT_STRTAB), Off: shstrtab, Size: uint64(len(sectionNames))})
	path := filepath.Join(t.TempDir(), "binary")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func functionsOf(t testing.TB, path, pattern string) (map[string]uint64, string, error) {
	t.Helper()
	b, err := openBinary(path)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return b.functions(pattern)
}

func TestFunctionsOfBinary(t *testing.T) {
	path := newBinary(t, 3, []byte("\x00work\x00"))
	for _, pattern := range []string{"work", "w*"} {
		if found, _, err := functionsOf(t, path, pattern); err != nil || len(found) != 1 || found["work"] != 0x1010 {
			t.Errorf("%s: %v, %v", pattern, found, err)
		}
	}
	if found, near, err := functionsOf(t, path, "wark"); err != nil || len(found) != 0 || !strings.Contains(near, "did you mean work?") {
		t.Errorf("%v, %q, %v", found, near, err)
	}
	if _, _, err := functionsOf(t, newBinary(t, 0, []byte{0}), "work"); !errors.Is(err, ErrNoTarget) {
		t.Error(err)
	}
}

// What a binary's symbols say they are called is not copied for each of them.
func TestHostileSymbols(t *testing.T) {
	const symbols = 100000
	for what, names := range map[string][]byte{
		"one name without an end": bytes.Repeat([]byte{'a'}, 1<<20),
		"one very long name":      append(bytes.Repeat([]byte{'a'}, 1<<20), 0),
		"one long name":           append(bytes.Repeat([]byte{'a'}, maxSymbolName), 0),
	} {
		path := newBinary(t, symbols, names)
		for _, pattern := range []string{"work", strings.Repeat("a", maxSymbolName)} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			found, _, err := functionsOf(t, path, pattern)
			runtime.ReadMemStats(&after)
			if err != nil && !errors.Is(err, ErrNoTarget) || len(found) != 0 {
				t.Errorf("%s: %d found, %v", what, len(found), err)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
				t.Errorf("%s: looking for %d bytes took %d MB", what, len(pattern), took>>20)
			}
		}
	}
	// A pattern must look at the names, and gives up.
	path := newBinary(t, maxMatched/maxSymbolName+100, append(bytes.Repeat([]byte{'a'}, maxSymbolName), 0))
	if _, _, err := functionsOf(t, path, "b*"); err == nil || !strings.Contains(err.Error(), "give one name instead of a pattern") {
		t.Error(err)
	}
}

// The parser copies the name of each section.
func TestHostileSections(t *testing.T) {
	path := newBinary(t, 1, []byte("\x00work\x00"))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sections := binary.LittleEndian.Uint64(data[0x28:])
	binary.LittleEndian.PutUint64(data[sections+3*64+0x20:], maxSectionNames/4+1)
	if _, err := checkSectionNames(bytes.NewReader(data)); err == nil || !strings.Contains(err.Error(), "names of its 4 sections") {
		t.Error(err)
	}
	binary.LittleEndian.PutUint64(data[sections+3*64+0x20:], maxSectionNames/4)
	if _, err := checkSectionNames(bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
	binary.LittleEndian.PutUint64(data[sections+3*64+8:], uint64(elf.SHF_COMPRESSED))
	if _, err := checkSectionNames(bytes.NewReader(data)); err == nil {
		t.Error("it may be compressed")
	}
}

// Who writes to a file while it is read does not change what was checked.
func TestFrozenFile(t *testing.T) {
	data, err := os.ReadFile(newBinary(t, 1, []byte("\x00work\x00")))
	if err != nil {
		t.Fatal(err)
	}
	checked, err := checkSectionNames(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	before := bytes.Clone(data)
	clear(data)
	sections := int(binary.LittleEndian.Uint64(before[0x28:]))
	clear(before[64:sections])
	for _, size := range []int{1, 3, 70, len(data)} {
		for offset := 0; offset+size <= len(data); offset++ {
			got := make([]byte, size)
			if _, err := checked.ReadAt(got, int64(offset)); err != nil || !bytes.Equal(got, before[offset:offset+size]) {
				t.Fatalf("%d bytes at %d: %x, %v, want %x", size, offset, got, err, before[offset:offset+size])
			}
		}
	}
}

// Binaries are other people's: whatever is in them ends in an answer or an error.
func FuzzBinary(f *testing.F) {
	for _, names := range []string{"\x00work\x00", "\x00work"} {
		data, err := os.ReadFile(newBinary(f, 2, []byte(names)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "work")
		f.Add(data, "w*")
	}
	path := filepath.Join(f.TempDir(), "binary")
	f.Fuzz(func(t *testing.T, data []byte, pattern string) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := openBinary(path)
		if err != nil {
			return
		}
		defer b.Close()
		found, _, err := b.functions(pattern)
		if err == nil && !isPattern(pattern) && len(found) > 1 {
			t.Errorf("%d functions %q", len(found), pattern)
		}
		_, _ = b.usdtNotes()
	})
}

// The library would read all symbols by itself for what it takes for no address.
func TestNoProbeAtOffsetZero(t *testing.T) {
	path := newBinary(t, 1, []byte("\x00work\x00"))
	if _, err := setUprobe(nil, path, 0, 0, false, 0, 0); err == nil || !strings.Contains(err.Error(), "ELF header at the offset 0") {
		t.Error(err)
	}
}

func TestParseMaps(t *testing.T) {
	const line = "7f0000001000-7f0000003000 r-xp 00002000 08:01 77                         /usr/lib/lib x.so\n"
	got := parseMaps(strings.NewReader("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n" + line + "/nonsense\n" + strings.Repeat("/", 1<<20) + "\n" + line))
	want := mapping{start: 0x7f0000001000, end: 0x7f0000003000, offset: 0x2000, inode: 77, executable: true, path: "/usr/lib/lib x.so"}
	if len(got) != 1 || got[0] != want {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add("7f0000001000-7f0000003000 r-xp 00002000 08:01 77    /usr/lib/libx.so\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMaps(strings.NewReader(text)) {
			if !strings.HasPrefix(m.path, "/") {
				t.Errorf("%+v", m)
			}
		}
	})
}
