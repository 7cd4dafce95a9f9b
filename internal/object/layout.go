package object

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// Limits of a layout.
const (
	maxMembers = 256
	maxDepth   = 16
)

// ErrUnion and the others say what a key or value may not be made of.
var (
	ErrUnion   = errors.New("unions have no single meaning")
	ErrPointer = errors.New("a pointer means nothing outside of the kernel")
	ErrType    = errors.New("this type can't be decoded")
	ErrTooDeep = errors.New("too many or too deeply nested members")
)

// Member is one number or byte array in a struct, flattened: nested names are joined by _.
type Member struct {
	Name  string
	Field program.Field
	// Type without typedefs; TypeName is the outermost typedef's, or "".
	Type     btf.Type
	TypeName string
	Tags     []string
}

// Flatten lists the members of a key or a value in order. A type that is no
// struct yields one member without a name. Zero-length arrays, which some macros
// use to carry constants, are left out; so is padding.
func Flatten(typ btf.Type) ([]Member, error) {
	var members []Member
	err := flatten(&members, typ, "", 0, nil, 0)
	return members, err
}

func flatten(members *[]Member, typ btf.Type, name string, offset uint32, tags []string, depth int) error {
	if depth > maxDepth || len(*members) >= maxMembers {
		return ErrTooDeep
	}
	typeName := ""
	if td, ok := skipQualifiers(typ).(*btf.Typedef); ok {
		typeName = td.Name
	}
	underlying := btf.UnderlyingType(typ)
	size, err := btf.Sizeof(underlying)
	if err != nil {
		return fmt.Errorf("member %s: %w", name, err)
	}
	add := func() {
		*members = append(*members, Member{Name: name, Type: underlying, TypeName: typeName, Tags: tags,
			Field: program.Field{Offset: offset, Size: uint32(size)}})
	}
	switch t := underlying.(type) {
	case *btf.Int:
		if size > 8 && decoderOf(typeName) == "" {
			return fmt.Errorf("member %s: %w: integers have at most 64 bits", name, ErrType)
		}
		add()
		(*members)[len(*members)-1].Field.Signed = t.Encoding == btf.Signed
	case *btf.Enum:
		add()
		(*members)[len(*members)-1].Field.Signed = t.Signed
	case *btf.Array:
		if t.Nelems == 0 || size == 0 {
			return nil
		}
		add()
		if !isByte(t.Type) {
			elem, err := btf.Sizeof(t.Type)
			if err != nil {
				return fmt.Errorf("member %s: %w", name, err)
			}
			f := &(*members)[len(*members)-1].Field
			f.Size, f.Count = uint32(elem), t.Nelems
		}
	case *btf.Struct:
		if decoderOf(typeName) != "" { // a struct with a meaning of its own
			add()
			return nil
		}
		for _, m := range t.Members {
			if err := flattenMember(members, m, name, offset, depth); err != nil {
				return err
			}
		}
	case *btf.Union:
		return fmt.Errorf("member %s: %w: use one member per meaning", name, ErrUnion)
	case *btf.Pointer:
		return fmt.Errorf("member %s: %w: store what it points to", name, ErrPointer)
	default:
		return fmt.Errorf("member %s: %w: %T", name, ErrType, t)
	}
	return nil
}

func flattenMember(members *[]Member, m btf.Member, prefix string, offset uint32, depth int) error {
	name := m.Name
	switch {
	case prefix != "" && name != "":
		name = prefix + "_" + name
	case name == "":
		name = prefix // anonymous structs add nothing to the name
	}
	tags := slices.Clone(m.Tags)
	if m.BitfieldSize == 0 {
		return flatten(members, m.Type, name, offset+m.Offset.Bytes(), tags, depth+1)
	}
	if m.Name == "" { // padding
		return nil
	}
	// The smallest aligned unit of up to 8 bytes that holds all of the bits.
	first, last := uint32(m.Offset), uint32(m.Offset+m.BitfieldSize)-1
	for size := uint32(1); size <= 8; size *= 2 {
		unit := first / (size * 8)
		if last/(size*8) != unit {
			continue
		}
		signed := false
		switch t := btf.UnderlyingType(m.Type).(type) {
		case *btf.Int:
			signed = t.Encoding == btf.Signed
		case *btf.Enum:
			signed = t.Signed
		default:
			return fmt.Errorf("member %s: %w: a bitfield of %T", name, ErrType, t)
		}
		typeName := ""
		if td, ok := skipQualifiers(m.Type).(*btf.Typedef); ok {
			typeName = td.Name
		}
		*members = append(*members, Member{Name: name, Type: btf.UnderlyingType(m.Type), TypeName: typeName, Tags: tags,
			Field: program.Field{Offset: offset + unit*size, Size: size, Signed: signed,
				BitOffset: first - unit*size*8, BitSize: uint32(m.BitfieldSize)}})
		return nil
	}
	return fmt.Errorf("member %s: %w: a bitfield that crosses eight bytes", name, ErrType)
}

func skipQualifiers(typ btf.Type) btf.Type {
	for {
		switch t := typ.(type) {
		case *btf.Const:
			typ = t.Type
		case *btf.Volatile:
			typ = t.Type
		case *btf.Restrict:
			typ = t.Type
		case *btf.TypeTag:
			typ = t.Type
		default:
			return typ
		}
	}
}

func isByte(typ btf.Type) bool {
	t, ok := btf.UnderlyingType(typ).(*btf.Int)
	return ok && t.Size == 1
}

func isCharacter(typ btf.Type) bool {
	t, ok := btf.UnderlyingType(typ).(*btf.Int)
	return ok && t.Size == 1 && (t.Encoding == btf.Char || t.Name == "char")
}

// States lists the names of an enum-valued member, nil for others.
func (m *Member) States() []program.State {
	if enum, ok := m.Type.(*btf.Enum); ok {
		return program.EnumStates(enum)
	}
	return nil
}

// Label makes a label of a member of a key or a record.
func (m *Member) Label() (program.Label, error) { return m.label() }

// typedefs maps the typedefs that have a meaning to decoders. Those of kaon.h follow
// from their names; here are the aliases.
var typedefs = map[string]struct {
	decoder   string
	bigEndian bool
}{
	"__be16": {"uint", true}, "__be32": {"uint", true}, "__be64": {"uint", true},
	"kaon_port_be_t": {"port", true},
}

// kaonDecoders are the decoders that typedefs of kaon.h name: kaon_NAME_t.
var kaonDecoders = []string{"workload", "ipv4", "ipv6", "ip", "port", "device", "ifindex", "syscall", "errno", "signal",
	"uid", "gid", "ksym", "comm", "mac", "protocol", "ethertype", "cpu", "pid", "hex", "netns"}

// decoderOf returns the decoder that a typedef's name calls for, "" if it has no meaning.
func decoderOf(typedef string) string {
	if alias, ok := typedefs[typedef]; ok {
		return alias.decoder
	}
	name, ok := strings.CutPrefix(typedef, "kaon_")
	if !ok {
		return ""
	}
	if name, ok = strings.CutSuffix(name, "_t"); ok && slices.Contains(kaonDecoders, name) {
		return name
	}
	return ""
}

// label makes a label of a member of a key, from its member: decoder, byte order, enum names.
func (m *Member) label() (program.Label, error) {
	label := program.Label{Name: m.Name, Member: m.Name, Field: m.Field}
	if alias := typedefs[m.TypeName]; alias.bigEndian {
		label.Field.BigEndian = true
	}
	if label.Decoder = decoderOf(m.TypeName); label.Decoder != "" {
		return label, nil
	}
	switch t := m.Type.(type) {
	case *btf.Int:
		switch {
		case t.Encoding == btf.Bool:
			label.Decoder = "bool"
		case label.Field.Signed && label.Field.BitSize == 0 || t.Encoding == btf.Signed:
			label.Decoder = "int"
		default:
			label.Decoder = "uint"
		}
	case *btf.Enum:
		label.Decoder, label.Enum, label.EnumType = "enum", program.EnumStates(t), t.Name
	case *btf.Array:
		if m.Field.Count > 1 {
			return label, fmt.Errorf("%w: an array of numbers can't be a label: use one member per number", ErrType)
		}
		label.Decoder = "string"
	default:
		return label, fmt.Errorf("%w: %T", ErrType, t)
	}
	return label, nil
}

// memberNames lists the names for a message.
func memberNames(members []Member) string {
	names := map[string]bool{}
	for _, m := range members {
		names[m.Name] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}
