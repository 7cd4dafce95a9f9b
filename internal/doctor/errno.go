package doctor

import (
	"errors"
	"strings"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// enotsupp is the kernel's internal ENOTSUPP, which leaks to user space and has no name there.
const enotsupp = syscall.Errno(524)

// describe says what the kernel said, without the guesses that libraries add.
func describe(err error) string {
	if err == nil {
		return ""
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		if errors.Is(err, ebpf.ErrNotSupported) {
			return "not supported by this kernel"
		}
		return err.Error()
	}
	name := unix.ErrnoName(errno)
	text := errno.Error()
	if errno == enotsupp {
		name, text = "ENOTSUPP", "operation is not supported"
	}
	step := ""
	for _, s := range []string{"load", "attach", "perf_event_open", "packet socket"} {
		if strings.Contains(err.Error(), s+": ") {
			step = s
		}
	}
	if step != "" {
		text += ", at " + step
	}
	return name + " (" + text + ")"
}

func needs(capabilities []string) string {
	list := strings.Join(capabilities, " and ")
	systemd := strings.Join(capabilities, " ")
	return "needs " + list + ": run as root, or with ambient capabilities (systemd: AmbientCapabilities=" + systemd + ")"
}
