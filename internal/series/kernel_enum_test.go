package series

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

func TestKernelEnum(t *testing.T) {
	reads := 0
	table := &enumTable{read: func(name string) ([]program.State, error) {
		reads++
		switch name {
		case "skb_drop_reason":
			return []program.State{{Name: "no_socket", Value: 3}, {Name: "none", Value: -1}}, nil
		case "unknown":
			return nil, fmt.Errorf("enum: %w", btf.ErrNotFound)
		}
		return nil, errors.New("not permitted")
	}}
	f := func(enum string, signed bool, n uint32, want string) {
		t.Helper()
		// What the object was compiled with must not show through.
		l := program.Label{Name: "x", EnumType: enum, Enum: []program.State{{Name: "old", Value: 3}, {Name: "older", Value: 4}},
			Field: program.Field{Size: 4, Signed: signed}}
		for range 2 {
			if got, known := table.appendLabel(nil, &l, binary.LittleEndian.AppendUint32(nil, n)); string(got) != want || !known {
				t.Errorf("%s %d: got %s, %v, want %s", enum, n, got, known, want)
			}
		}
	}
	f("skb_drop_reason", false, 3, `x="no_socket"`)
	f("skb_drop_reason", false, 4, `x="4"`)
	f("skb_drop_reason", true, 1<<32-1, `x="none"`)
	f("unknown", false, 3, ``)
	f("secret", false, 3, `x="3"`)
	if reads != 3 {
		t.Errorf("%d reads of three enums", reads)
	}
}

func TestKernelEnumOfThisMachine(t *testing.T) {
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
		t.Skip("needs the kernel's BTF:", err)
	}
	l := program.Label{Name: "type", EnumType: "bpf_map_type", Field: program.Field{Size: 4}}
	if got, _ := NewHost().enums.appendLabel(nil, &l, []byte{1, 0, 0, 0}); string(got) != `type="hash"` {
		t.Errorf("got %s", got)
	}
	l.EnumType = "no_such_enum_of_the_kernel"
	if got, _ := NewHost().enums.appendLabel(nil, &l, []byte{1, 0, 0, 0}); string(got) != "" {
		t.Errorf("got %s", got)
	}
}
