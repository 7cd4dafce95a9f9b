package object

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// The section of variables that the loader sets by the kernel's configuration, and what it is called while the library reads it:
// of the original name the library makes a map that nobody else can fill.
const (
	configSection = ".kconfig"
	renamedConfig = ".Kconfig"
)

// maxConfigSize is how many bytes all of these variables may have.
const maxConfigSize = 64 << 10

// configVariables are variables that the loader sets by the kernel's configuration (__kconfig), by name. The value says that
// the kernel may lack it.
type configVariables map[string]bool

// place puts the variables into a map of the collection and lets the code load them from there.
func (c configVariables) place(collection *ebpf.CollectionSpec) ([]program.ConfigVariable, error) {
	if len(c) == 0 {
		return nil, nil
	}
	var section *btf.Datasec
	if err := collection.Types.TypeByName(renamedConfig, &section); err != nil {
		return nil, fmt.Errorf("look for the variables of %s: %w", configSection, err)
	}
	var placed []program.ConfigVariable
	offsets := map[string]uint32{}
	size := uint32(0)
	for _, v := range section.Vars {
		variable, ok := v.Type.(*btf.Var)
		if !ok {
			continue
		}
		n, err := btf.Sizeof(variable.Type)
		if err != nil {
			return nil, fmt.Errorf("the variable %s of %s: %w", variable.Name, configSection, err)
		}
		if n > maxConfigSize-int(size) {
			return nil, fmt.Errorf("the variables of %s have more than %d bytes", configSection, maxConfigSize)
		}
		offsets[variable.Name] = size
		placed = append(placed, program.ConfigVariable{Name: variable.Name, Offset: size, Type: variable.Type, Weak: c[variable.Name]})
		size += (uint32(n) + 7) &^ 7
	}
	collection.Maps[program.ConfigMap] = &ebpf.MapSpec{
		Name: program.ConfigMap, Type: ebpf.Array, KeySize: 4, ValueSize: max(size, 8), MaxEntries: 1, Flags: unix.BPF_F_RDONLY_PROG,
	}
	for _, function := range collection.Programs {
		for i := range function.Instructions {
			ins := &function.Instructions[i]
			offset, is := offsets[ins.Reference()]
			if is && ins.OpCode == asm.LoadImmOp(asm.DWord) && ins.Src == asm.R0 {
				replaceLoad(ins, asm.LoadMapValue(ins.Dst, 0, offset).WithReference(program.ConfigMap))
			}
		}
	}
	return placed, nil
}
