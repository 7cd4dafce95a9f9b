package series

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

// stepUint writes an unsigned number in the machine's byte order; bytes that are none stay as they are.
func stepUint(in []byte) ([]byte, result) {
	n, ok := number(in)
	if !ok {
		return in, 0
	}
	return strconv.AppendUint(nil, n, 10), 0
}

func number(in []byte) (uint64, bool) {
	switch len(in) {
	case 1:
		return uint64(in[0]), true
	case 2:
		return uint64(binary.LittleEndian.Uint16(in)), true
	case 4:
		return uint64(binary.LittleEndian.Uint32(in)), true
	case 8:
		return binary.LittleEndian.Uint64(in), true
	}
	return 0, false
}

func stepHex(in []byte) ([]byte, result) { return hex.AppendEncode(nil, in), 0 }

// stepString takes what is before the first NUL.
func stepString(in []byte) ([]byte, result) {
	if i := bytes.IndexByte(in, 0); i >= 0 {
		in = in[:i]
	}
	return in, 0
}

// stepDomainName makes dots of the length bytes of a DNS name; what is no such name stays as it is.
func stepDomainName(in []byte) ([]byte, result) {
	if len(in) == 0 {
		return []byte{'.'}, 0
	}
	out := bytes.Clone(in)
	for at := 0; at < len(in); {
		length := int(in[at])
		out[at] = '.'
		if at += 1 + length; at > len(in) {
			return in, 0
		}
	}
	return out[1:], 0
}

// stepIP writes an address of 4 or 16 bytes in network order; IPv4 in IPv6 as IPv4.
func stepIP(in []byte) ([]byte, result) { return []byte(net.IP(in).String()), 0 }

func stepErrno(in []byte) ([]byte, result) {
	n, err := strconv.ParseUint(string(in), 10, 64)
	if err != nil {
		return in, 0
	}
	if name := unix.ErrnoName(syscall.Errno(n)); name != "" {
		return []byte(name), 0
	}
	return fmt.Appendf(nil, "unknown:%d", n), 0
}

func stepSyscall(in []byte) ([]byte, result) {
	n, err := strconv.ParseUint(string(in), 10, 64)
	if err != nil {
		return in, 0
	}
	if n < uint64(len(syscallNames)) && syscallNames[n] != "" {
		return []byte(syscallNames[n]), 0
	}
	return fmt.Appendf(nil, "unknown_syscall:%d", n), 0
}

func newMapStep(s *program.Step, _ environment) (step, error) {
	names, allowUnknown := s.Map, s.AllowUnknown
	return stepFunc(func(in []byte) ([]byte, result) {
		name, ok := names[string(in)]
		switch {
		case names == nil:
			return []byte("empty mapping"), 0
		case ok:
			return []byte(name), 0
		case allowUnknown:
			return in, 0
		}
		return append([]byte("unknown:"), in...), 0
	}), nil
}

func newRegexpStep(s *program.Step, _ environment) (step, error) {
	if len(s.Regexps) == 0 {
		return nil, errors.New("it has no regular expressions")
	}
	var all []*regexp.Regexp
	for _, text := range s.Regexps {
		r, err := regexp.Compile(text)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return stepFunc(func(in []byte) ([]byte, result) {
		for _, r := range all {
			match := r.FindSubmatch(in)
			switch {
			case match == nil:
			case len(match) == 2:
				return match[1], 0
			default:
				return match[0], 0
			}
		}
		return nil, skipped
	}), nil
}
