package engine

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// xdpFlags reads the mode from a hook's target.
func xdpFlags(mode string) (link.XDPAttachFlags, error) {
	switch strings.TrimSpace(mode) {
	case "":
		// The driver's if it has one, else generic.
		return 0, nil
	case "generic", "skb":
		return link.XDPGenericMode, nil
	case "native", "driver":
		return link.XDPDriverMode, nil
	case "offload":
		return link.XDPOffloadMode, nil
	}
	return 0, fmt.Errorf("xdp mode %q: want generic, native or offload; interfaces are named by the hook's interfaces", mode)
}

func attachXDP(r *attachRequest) (attachment, error) {
	flags, err := xdpFlags(r.hook.Target)
	if err != nil {
		return nil, err
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: r.program, Interface: int(r.target.ID), Flags: flags})
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("interface %s has an XDP program already, and takes only one (ip link show %s): %w", r.target.Name, r.target.Name, err)
	case errors.Is(err, unix.EOPNOTSUPP) && flags != link.XDPGenericMode:
		return nil, fmt.Errorf("%w: the driver of %s can't do this mode of XDP, generic works everywhere: %w", ErrUnsupported, r.target.Name, err)
	case errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("%w: interface %s is gone: %w", ErrNoTarget, r.target.Name, err)
	}
	return l, err
}
