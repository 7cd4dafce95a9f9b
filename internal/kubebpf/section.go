package kubebpf

import (
	"bytes"
	"debug/elf"
	"strings"
)

// sectionsOf returns, by the symbol of each map that is defined in a section maps/NAME, that name.
func sectionsOf(code []byte) map[string]string {
	names := map[string]string{}
	file, err := elf.NewFile(bytes.NewReader(code))
	if err != nil {
		return names // the object was parsed already
	}
	symbols, err := file.Symbols()
	if err != nil {
		return names
	}
	for _, s := range symbols {
		if int(s.Section) >= len(file.Sections) || s.Name == "" {
			continue
		}
		if name, ok := strings.CutPrefix(file.Sections[s.Section].Name, "maps/"); ok && name != "" {
			names[s.Name] = name
		}
	}
	return names
}
