package engine

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// usdtNote is one place where a static probe of user space was compiled in.
type usdtNote struct {
	provider, name string
	// arguments is how the compiler says where the values are: "-4@%edi 8@-16(%rbp)".
	arguments string
	// location, base and semaphore are virtual addresses; semaphore is 0 if there is none.
	location, base, semaphore uint64
}

const (
	// usdtNoteType is the type of a note of the owner "stapsdt".
	usdtNoteType = 3
	// maxUSDTSection bounds what is read of a strange binary.
	maxUSDTSection = 16 << 20
)

// parseUSDTNotes reads the contents of a .note.stapsdt section of a 64-bit binary.
func parseUSDTNotes(data []byte, order binary.ByteOrder) ([]usdtNote, error) {
	var notes []usdtNote
	for len(data) >= 12 {
		nameSize, descSize, kind := order.Uint32(data), order.Uint32(data[4:]), order.Uint32(data[8:])
		data = data[12:]
		nameEnd, descEnd := align4(uint64(nameSize)), align4(uint64(descSize))
		if nameEnd > uint64(len(data)) {
			return notes, errors.New("a note's owner is cut off")
		}
		owner := data[:nameSize]
		data = data[nameEnd:]
		if uint64(descSize) > uint64(len(data)) {
			return notes, errors.New("a note is cut off")
		}
		desc := data[:descSize]
		data = data[min(descEnd, uint64(len(data))):]
		if kind != usdtNoteType || string(bytes.TrimRight(owner, "\x00")) != "stapsdt" {
			continue
		}
		if len(desc) < 24 {
			return notes, errors.New("a probe's note is too short")
		}
		n := usdtNote{location: order.Uint64(desc), base: order.Uint64(desc[8:]), semaphore: order.Uint64(desc[16:])}
		strs := bytes.SplitN(desc[24:], []byte{0}, 4)
		if len(strs) < 3 {
			return notes, errors.New("a probe's note lacks provider, name or arguments")
		}
		n.provider, n.name, n.arguments = string(strs[0]), string(strs[1]), string(strs[2])
		notes = append(notes, n)
	}
	return notes, nil
}

func align4(n uint64) uint64 { return (n + 3) &^ 3 }

// usdtNotes returns the probes of a binary, with addresses corrected for prelinking.
func (b *binaryFile) usdtNotes() ([]usdtNote, error) {
	if b.file.Class != elf.ELFCLASS64 {
		return nil, fmt.Errorf("%s is not a 64-bit binary", b.path)
	}
	section := b.file.Section(".note.stapsdt")
	if section == nil {
		return nil, fmt.Errorf("%w: %s has no static probes (no section .note.stapsdt)", ErrNoTarget, b.path)
	}
	data, err := io.ReadAll(io.LimitReader(section.Open(), maxUSDTSection))
	if err != nil {
		return nil, fmt.Errorf("read the probes of %s: %w", b.path, err)
	}
	notes, err := parseUSDTNotes(data, b.file.ByteOrder)
	if err != nil {
		return nil, fmt.Errorf("probes of %s: %w", b.path, err)
	}
	if base := b.file.Section(".stapsdt.base"); base != nil {
		for i := range notes {
			shift := base.Addr - notes[i].base
			notes[i].location += shift
			if notes[i].semaphore != 0 {
				notes[i].semaphore += shift
			}
		}
	}
	return notes, nil
}

// usdtArgument says where one argument of a probe is, as libbpf's usdt.bpf.h stores it.
type usdtArgument struct {
	// value is the constant, or the offset to the register's contents.
	value uint64
	kind  usdtArgumentKind
	// register is the offset in struct pt_regs.
	register int16
	signed   bool
	// shift is how many upper bits of 64 are not the argument's.
	shift uint8
}

type usdtArgumentKind uint32

// Kinds of arguments, numbered as in usdt.bpf.h.
const (
	usdtConstant usdtArgumentKind = iota
	usdtRegister
	usdtMemory
)

// maxUSDTArguments is BPF_USDT_MAX_ARG_CNT.
const maxUSDTArguments = 12

// usdtSpecSize is sizeof(struct __bpf_usdt_spec).
const usdtSpecSize = maxUSDTArguments*16 + 16

// parseUSDTArguments reads a probe's argument string for a machine.
func parseUSDTArguments(text string, machine elf.Machine) ([]usdtArgument, error) {
	var arguments []usdtArgument
	for _, field := range splitUSDTArguments(text) {
		if len(arguments) == maxUSDTArguments {
			return nil, fmt.Errorf("more than %d arguments", maxUSDTArguments)
		}
		a, err := parseUSDTArgument(field, machine)
		if err != nil {
			return nil, fmt.Errorf("argument %q: %w", field, err)
		}
		arguments = append(arguments, a)
	}
	return arguments, nil
}

// splitUSDTArguments splits at blanks outside of brackets: arm64 writes "8@[sp, 16]".
func splitUSDTArguments(text string) []string {
	var fields []string
	depth, start := 0, -1
	for i := range len(text) {
		switch c := text[i]; {
		case c == ' ' && depth == 0:
			if start >= 0 {
				fields = append(fields, text[start:i])
			}
			start = -1
			continue
		case c == '[' || c == '(':
			depth++
		case (c == ']' || c == ')') && depth > 0:
			depth--
		}
		if start < 0 {
			start = i
		}
	}
	if start >= 0 {
		fields = append(fields, text[start:])
	}
	return fields
}

func parseUSDTArgument(field string, machine elf.Machine) (usdtArgument, error) {
	var a usdtArgument
	size, where, ok := strings.Cut(field, "@")
	if !ok {
		return a, errors.New("no @ after the size")
	}
	// Some compilers mark floating point by an f after the size.
	n, err := strconv.ParseInt(strings.TrimSuffix(size, "f"), 10, 8)
	if err != nil {
		return a, errors.New("the size is not a number")
	}
	a.signed = n < 0
	if n < 0 {
		n = -n
	}
	switch n {
	case 1, 2, 4, 8:
		a.shift = uint8(64 - 8*n)
	default:
		return a, fmt.Errorf("a size of %d bytes", n)
	}
	switch machine {
	case elf.EM_X86_64:
		err = a.parseX86(where)
	case elf.EM_AARCH64:
		err = a.parseARM64(where)
	default:
		err = fmt.Errorf("%w: probes of %s", ErrUnsupported, machine)
	}
	return a, err
}

// parseX86 reads "$5", "%rax", "-8(%rbp)" and "8(%rip)" forms of the GNU assembler.
func (a *usdtArgument) parseX86(where string) error {
	if text, ok := strings.CutPrefix(where, "$"); ok {
		return a.constant(text)
	}
	if name, ok := strings.CutPrefix(where, "%"); ok {
		a.kind = usdtRegister
		return a.register86(name)
	}
	offset, rest, ok := strings.Cut(where, "(")
	inner, closed := strings.CutSuffix(rest, ")")
	if !ok || !closed {
		return errors.New("neither constant, register nor memory")
	}
	name, ok := strings.CutPrefix(inner, "%")
	if !ok || strings.Contains(name, ",") {
		return errors.New("memory that is not addressed by one register")
	}
	a.kind = usdtMemory
	if offset != "" {
		n, err := strconv.ParseInt(offset, 0, 64)
		if err != nil {
			return fmt.Errorf("the offset %q is not a number (symbols can't be followed)", offset)
		}
		a.value = uint64(n)
	}
	return a.register86(name)
}

// parseARM64 reads "5", "x0", "[x1]" and "[sp, 16]".
func (a *usdtArgument) parseARM64(where string) error {
	if inner, ok := strings.CutPrefix(where, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if !ok {
			return errors.New("a bracket is not closed")
		}
		name, offset, has := strings.Cut(inner, ",")
		a.kind = usdtMemory
		if has {
			n, err := strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(offset), "#"), 0, 64)
			if err != nil {
				return fmt.Errorf("the offset %q is not a number", offset)
			}
			a.value = uint64(n)
		}
		return a.registerARM64(strings.TrimSpace(name))
	}
	if where != "" && (where[0] == '-' || where[0] >= '0' && where[0] <= '9') {
		return a.constant(where)
	}
	a.kind = usdtRegister
	return a.registerARM64(where)
}

func (a *usdtArgument) constant(text string) error {
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		u, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			return fmt.Errorf("the constant %q is not a number", text)
		}
		n = int64(u)
	}
	a.kind, a.value = usdtConstant, uint64(n)
	return nil
}

// register86 finds a register of x86-64 in struct pt_regs.
func (a *usdtArgument) register86(name string) error {
	// In the order of struct pt_regs, each with its narrower names.
	names := [...]string{
		"r15 r15d r15w r15b", "r14 r14d r14w r14b", "r13 r13d r13w r13b", "r12 r12d r12w r12b",
		"rbp ebp bp bpl", "rbx ebx bx bl", "r11 r11d r11w r11b", "r10 r10d r10w r10b", "r9 r9d r9w r9b", "r8 r8d r8w r8b",
		"rax eax ax al", "rcx ecx cx cl", "rdx edx dx dl", "rsi esi si sil", "rdi edi di dil", "orig_rax",
		"rip eip ip", "cs", "eflags", "rsp esp sp spl",
	}
	for i, list := range names {
		for known := range strings.SplitSeq(list, " ") {
			if name == known {
				a.register = int16(i * 8)
				return nil
			}
		}
	}
	return fmt.Errorf("unknown register %q (vector registers can't be read)", name)
}

// registerARM64 finds a register of arm64 in struct pt_regs.
func (a *usdtArgument) registerARM64(name string) error {
	if name == "sp" || name == "wsp" {
		a.register = 31 * 8
		return nil
	}
	if len(name) > 1 && (name[0] == 'x' || name[0] == 'w') {
		if n, err := strconv.ParseUint(name[1:], 10, 8); err == nil && n <= 30 {
			a.register = int16(n * 8)
			return nil
		}
	}
	return fmt.Errorf("unknown register %q", name)
}

// encodeUSDT returns a struct __bpf_usdt_spec.
func encodeUSDT(arguments []usdtArgument) []byte {
	b := make([]byte, 0, usdtSpecSize)
	for _, a := range arguments {
		b = binary.NativeEndian.AppendUint64(b, a.value)
		b = binary.NativeEndian.AppendUint32(b, uint32(a.kind))
		b = binary.NativeEndian.AppendUint16(b, uint16(a.register))
		b = append(b, byte(boolInt(a.signed)), a.shift)
	}
	spec := make([]byte, usdtSpecSize)
	copy(spec, b)
	binary.NativeEndian.PutUint16(spec[maxUSDTArguments*16+8:], uint16(len(arguments)))
	return spec
}
