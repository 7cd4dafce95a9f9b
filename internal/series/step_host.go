package series

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/workload"
)

// nameStep names numbers by a list of the machine.
type nameStep struct {
	names  *nameTable
	number func(in []byte) (n uint64, ok bool)
	// standIn stands for a number that has no name.
	standIn func(n uint64) []byte
}

func (s *nameStep) apply(in []byte) ([]byte, result) {
	n, ok := s.number(in)
	if !ok {
		return in, 0
	}
	name := s.names.name(n)
	if name == "" {
		name = s.names.look(n)
	}
	if name == "" {
		return s.standIn(n), unnamed
	}
	return []byte(name), 0
}

func (s *nameStep) generation(now time.Time) uint64 { return s.names.generation(now) }

func (*nameStep) late() {}

// firstUint32 reads the first 4 bytes.
func firstUint32(in []byte) (uint32, bool) {
	if len(in) < 4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(in), true
}

// newInterfaceStep names network interfaces, of the agent's network namespace, by index.
func newInterfaceStep(_ *program.Step, env environment) (step, error) {
	return &nameStep{
		names:   env.host.interfaces,
		number:  func(in []byte) (uint64, bool) { n, ok := firstUint32(in); return uint64(n), ok },
		standIn: func(n uint64) []byte { return fmt.Appendf(nil, "unknown:%d", n) },
	}, nil
}

// newDeviceStep names block devices by a device number as user space has it (new_encode_dev).
func newDeviceStep(_ *program.Step, env environment) (step, error) {
	return &nameStep{
		names: env.host.devices,
		number: func(in []byte) (uint64, bool) {
			n, ok := firstUint32(in)
			return uint64(unix.Major(uint64(n)))<<20 | uint64(unix.Minor(uint64(n))), ok
		},
		standIn: func(n uint64) []byte { return fmt.Appendf(nil, "unknown:%d:%d", n>>20, n&(1<<20-1)) },
	}, nil
}

// symbolStep names the kernel symbol that begins at an address.
type symbolStep struct{ symbols *symbolTable }

func newSymbolStep(_ *program.Step, env environment) (step, error) {
	return symbolStep{env.host.allSymbols}, nil
}

func (s symbolStep) apply(in []byte) ([]byte, result) {
	if len(in) != 8 {
		return in, 0
	}
	address := binary.LittleEndian.Uint64(in)
	if name, ok := s.symbols.look(address, true); ok {
		return []byte(name), 0
	}
	return fmt.Appendf(nil, "unknown_addr:0x%x", address), unnamed
}

func (s symbolStep) generation(now time.Time) uint64 { return s.symbols.generation(now) }

func (symbolStep) late() {}

// stackStep names the functions of a stack of kernel addresses, innermost first, one per line. A zero ends it.
type stackStep struct{ symbols *symbolTable }

func newStackStep(_ *program.Step, env environment) (step, error) {
	return stackStep{env.host.allSymbols}, nil
}

func (s stackStep) apply(in []byte) ([]byte, result) {
	var frames []string
	r := result(0)
	for ; len(in) >= 8; in = in[8:] {
		address := binary.LittleEndian.Uint64(in)
		if address == 0 {
			break
		}
		name, ok := s.symbols.look(address, false)
		if !ok {
			name, r = "??", unnamed
		}
		frames = append(frames, name)
	}
	return []byte(strings.Join(frames, "\n")), r
}

func (s stackStep) generation(now time.Time) uint64 { return s.symbols.generation(now) }

func (stackStep) late() {}

// cgroupStep turns the id of a cgroup v2, in decimal, into its directory.
type cgroupStep struct{ cgroups Directories }

func newCgroupStep(_ *program.Step, env environment) (step, error) {
	return cgroupStep{env.cgroups}, nil
}

func (s cgroupStep) apply(in []byte) ([]byte, result) {
	id, err := strconv.ParseUint(string(in), 10, 64)
	if err != nil {
		return in, 0
	}
	if s.cgroups != nil {
		if directory := s.cgroups.DirectoryOf(workload.ID(id)); directory != "" {
			return []byte(directory), 0
		}
	}
	return fmt.Appendf(nil, "unknown_cgroup_id:%d", id), unnamed
}

func (cgroupStep) late() {}
