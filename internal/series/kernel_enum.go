package series

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// enumTable names the values of the running kernel's enums, whose numbers differ between versions. What
// the object was compiled with is never asked: a wrong name would be worse than a number.
type enumTable struct {
	// read returns the enumerators of an enum; an error that is btf.ErrNotFound if the kernel does not have it.
	read func(name string) ([]program.State, error)

	mu    sync.Mutex
	enums map[string]kernelEnum
}

type kernelEnum struct {
	names map[int64]string
	// missing: the kernel has no such enum, so that its numbers mean nothing.
	missing bool
}

func (t *enumTable) appendLabel(dst []byte, l *program.Label, data []byte) ([]byte, bool) {
	if l.Field.Bytes(data) == nil {
		return dst, true
	}
	enum := t.find(l.EnumType)
	if enum.missing {
		return dst, true
	}
	if name := enum.names[int64(l.Field.Number(data))]; name != "" {
		return AppendLabel(dst, l.Name, name), true
	}
	return decodeInteger(dst, l, data), true
}

// find reads each enum once: the kernel's types do not change while it runs.
func (t *enumTable) find(name string) kernelEnum {
	t.mu.Lock()
	defer t.mu.Unlock()
	enum, ok := t.enums[name]
	if ok {
		return enum
	}
	states, err := t.read(name)
	enum = kernelEnum{names: make(map[int64]string, len(states)), missing: errors.Is(err, btf.ErrNotFound)}
	for _, s := range states {
		enum.names[s.Value] = s.Name
	}
	if t.enums == nil {
		t.enums = map[string]kernelEnum{}
	}
	t.enums[name] = enum
	return enum
}

// readKernelEnum reads an enum from the running kernel's BTF.
func readKernelEnum(name string) ([]program.State, error) {
	types, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's types: %w", err)
	}
	var enum *btf.Enum
	if err := types.TypeByName(name, &enum); err != nil {
		return nil, fmt.Errorf("enum %s of the kernel: %w", name, err)
	}
	return program.EnumStates(enum), nil
}
