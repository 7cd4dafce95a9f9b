package engine

import (
	"bufio"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
)

// Limits of what is read of a binary's symbols: it may be made to take all memory and all time. Names stay where they are: a table
// without zero bytes would be copied once for each symbol.
const (
	// maxSymbolTable is how many bytes of symbols are read.
	maxSymbolTable = 128 << 20
	// maxSymbolName is the length of a name; longer ones are passed over.
	maxSymbolName = 4096
	// maxMatched is how many bytes of names a pattern is compared with.
	maxMatched = 512 << 20
	// maxFunctions and maxFunctionNames bound what a pattern may match, the latter in bytes.
	maxFunctions     = 1 << 16
	maxFunctionNames = 16 << 20
	// maxSuggestions is among how many bytes of names the one is looked for that was meant; who wants a longer name than
	// maxSuggestible gets no suggestion.
	maxSuggestions = 8 << 20
	maxSuggestible = 256
)

// functions returns the file offsets of the functions whose names match: a name, or a pattern of path.Match.
func (b *binaryFile) functions(pattern string) (found map[string]uint64, near string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: malformed symbol table: %v", b.path, r)
		}
	}()
	exact := !isPattern(pattern)
	if !exact {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, "", fmt.Errorf("pattern %q: %w", pattern, err)
		}
	}
	found = make(map[string]uint64)
	var names []string
	read, matched, kept, suggestible := 0, 0, 0, 0
	visit := func(name []byte, address uint64) error {
		read++
		if exact {
			switch difference := len(name) - len(pattern); {
			case string(name) == pattern:
			case suggestible < maxSuggestions && len(pattern) <= maxSuggestible && max(difference, -difference) < suggestionDistance(pattern):
				suggestible += len(name) + 16 // and what holds a string
				names = append(names, string(name))
				return nil
			default:
				return nil
			}
		} else {
			if matched += len(name); matched > maxMatched {
				return fmt.Errorf("the names of its functions take more than %s: give one name instead of a pattern", formatBytes(maxMatched))
			}
			if match, _ := path.Match(pattern, string(name)); !match {
				return nil
			}
		}
		offset, ok := b.fileOffset(address, elf.PF_X)
		if !ok {
			return nil
		}
		if _, known := found[string(name)]; !known {
			if kept += len(name); kept > maxFunctionNames || len(found) == maxFunctions {
				return fmt.Errorf("%s matches more than %d functions, or names of more than %s", pattern, maxFunctions, formatBytes(maxFunctionNames))
			}
		}
		found[string(name)] = offset
		return nil
	}
	for _, kind := range [...]elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		if err := b.eachFunction(kind, visit); err != nil {
			return nil, "", fmt.Errorf("symbols of %s: %w", b.path, err)
		}
	}
	if len(found) > 0 {
		return found, "", nil
	}
	if read == 0 {
		return nil, "", fmt.Errorf("%w: %s is stripped: it has no symbols; give an address as PATH:0xOFFSET", ErrNoTarget, b.path)
	}
	return found, suggest(pattern, names), nil
}

// eachFunction calls visit with the name and the virtual address of each function that a table of symbols defines, if there is such a table.
// The name is valid until visit returns.
func (b *binaryFile) eachFunction(kind elf.SectionType, visit func(name []byte, address uint64) error) error {
	table := b.file.SectionByType(kind)
	if table == nil {
		return nil
	}
	if table.FileSize > maxSymbolTable {
		return fmt.Errorf("they take more than %s: give an address as PATH:0xOFFSET", formatBytes(maxSymbolTable))
	}
	if uint64(table.Link) >= uint64(len(b.file.Sections)) {
		return errors.New("their names are in a section that does not exist")
	}
	strs := b.file.Sections[table.Link]
	if table.ReaderAt == nil || strs.ReaderAt == nil || strs.Type != elf.SHT_STRTAB {
		return errors.New("they, or their names, are compressed or no such table")
	}
	names := stringTable{r: strs, size: strs.FileSize}
	size := elf.Sym64Size
	if b.file.Class == elf.ELFCLASS32 {
		size = elf.Sym32Size
	}
	r := bufio.NewReaderSize(io.NewSectionReader(table, 0, int64(table.FileSize)), 64<<10)
	entry := make([]byte, size)
	for {
		if _, err := io.ReadFull(r, entry); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		order := b.file.ByteOrder
		info, section, address := entry[4], order.Uint16(entry[6:]), uint64(0)
		if b.file.Class == elf.ELFCLASS32 {
			info, section, address = entry[12], order.Uint16(entry[14:]), uint64(order.Uint32(entry[4:]))
		} else {
			address = order.Uint64(entry[8:])
		}
		if elf.ST_TYPE(info) != elf.STT_FUNC || elf.SectionIndex(section) == elf.SHN_UNDEF {
			continue
		}
		name, ok := names.at(uint64(order.Uint32(entry)))
		if !ok {
			continue
		}
		if err := visit(name, address); err != nil {
			return err
		}
	}
}

// stringTable reads strings that end with a zero byte, a few at a time: neighbours are often asked for one after the other.
type stringTable struct {
	r    io.ReaderAt
	size uint64
	// window is what was read, at start.
	start  uint64
	window []byte
	buffer [2 * maxSymbolName]byte
}

// at returns the string at an offset, which is valid until the next call; false if there is none, or too long a one.
func (t *stringTable) at(offset uint64) ([]byte, bool) {
	if offset >= t.start && offset-t.start < uint64(len(t.window)) {
		rest := t.window[offset-t.start:]
		if name, ok := firstString(rest); ok || len(rest) > maxSymbolName {
			return name, ok
		}
	}
	if offset >= t.size {
		return nil, false
	}
	n, err := t.r.ReadAt(t.buffer[:min(uint64(len(t.buffer)), t.size-offset)], int64(offset))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, false
	}
	t.start, t.window = offset, t.buffer[:n]
	return firstString(t.window)
}

func firstString(data []byte) ([]byte, bool) {
	data = data[:min(len(data), maxSymbolName+1)]
	end := bytes.IndexByte(data, 0)
	return data[:max(end, 0)], end >= 0
}
