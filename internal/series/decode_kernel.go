package series

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

//go:generate go run gen_syscalls.go

// decodeSyscall names a system call of this machine's architecture; one that has no name is its number.
func decodeSyscall(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Bytes(data) == nil {
		return dst
	}
	if n := l.Field.Number(data); n < uint64(len(syscallNames)) && syscallNames[n] != "" {
		return AppendLabel(dst, l.Name, syscallNames[n])
	}
	return decodeInteger(dst, l, data)
}

// decodeErrno names an error number, positive or negative; 0 stays "0".
func decodeErrno(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Bytes(data) == nil {
		return dst
	}
	n := int64(l.Field.Number(data))
	if l.Field.Size == 4 && l.Field.BitSize == 0 {
		n = int64(int32(n))
	}
	if n < 0 && n >= -4095 {
		n = -n
	}
	if n <= 0 || n > 4095 {
		return decodeInteger(dst, l, data)
	}
	name := ""
	switch n { // The kernel's own, that no header for programs has.
	case 512:
		name = "ERESTARTSYS"
	case 513:
		name = "ERESTARTNOINTR"
	case 514:
		name = "ERESTARTNOHAND"
	case 515:
		name = "ENOIOCTLCMD"
	case 516:
		name = "ERESTART_RESTARTBLOCK"
	case 517:
		name = "EPROBE_DEFER"
	case 524:
		name = "ENOTSUPP"
	default:
		name = unix.ErrnoName(syscall.Errno(n))
	}
	if name == "" {
		return appendInt(dst, l.Name, n)
	}
	return AppendLabel(dst, l.Name, name)
}

// decodeSignal names a signal; real-time signals are their numbers.
func decodeSignal(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Bytes(data) == nil {
		return dst
	}
	if n := l.Field.Number(data); n < 65 {
		if name := unix.SignalName(syscall.Signal(n)); name != "" {
			return AppendLabel(dst, l.Name, name)
		}
	}
	return decodeInteger(dst, l, data)
}
