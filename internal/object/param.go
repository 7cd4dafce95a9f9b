package object

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/cilium/ebpf/btf"

	"github.com/kaon-project/kaon/internal/program"
)

// paramType derives the type of a param from its variable's BTF type and the unit tag.
func paramType(param *program.Param, typ btf.Type, unit string) error {
	switch t := btf.UnderlyingType(typ).(type) {
	case *btf.Int:
		switch {
		case unit == "ns":
			param.Type = program.ParamDuration
		case unit == "bytes":
			param.Type = program.ParamSize
		case t.Encoding == btf.Bool:
			param.Type = program.ParamBool
		case t.Encoding == btf.Signed:
			param.Type = program.ParamInt
		default:
			param.Type = program.ParamUint
		}
	case *btf.Enum:
		param.Type = program.ParamEnum
		param.Enum = map[string]int64{}
		for _, s := range program.EnumStates(t) {
			param.Enum[s.Name] = s.Value
		}
	case *btf.Array:
		if !isCharacter(t.Type) {
			return fmt.Errorf("an array of %v can't be a param: use numbers, bool, an enum or char[]", t.Type)
		}
		param.Type = program.ParamString
	default:
		return fmt.Errorf("a %T can't be a param: use numbers, bool, an enum or char[]", t)
	}
	return nil
}

// decodeDefault turns the bytes that were compiled in into the text that would set them.
func decodeDefault(param *program.Param, value []byte) string {
	if param.Type == program.ParamString {
		text, _, _ := bytes.Cut(value, []byte{0})
		return string(text)
	}
	var b [8]byte
	copy(b[:], value)
	unsigned := binary.LittleEndian.Uint64(b[:])
	if len(value) == 0 || len(value) > 8 {
		return "0"
	}
	shift := 64 - 8*len(value)
	signed := int64(unsigned) << shift >> shift
	switch param.Type {
	case program.ParamBool:
		return strconv.FormatBool(unsigned != 0)
	case program.ParamInt:
		return strconv.FormatInt(signed, 10)
	case program.ParamEnum:
		for name, v := range param.Enum {
			if v == signed || uint64(v) == unsigned {
				return name
			}
		}
		return strconv.FormatInt(signed, 10)
	case program.ParamDuration:
		return time.Duration(unsigned).String()
	}
	return strconv.FormatUint(unsigned, 10)
}
