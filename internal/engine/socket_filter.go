package engine

import (
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// packetSocket is an attachment of a socket filter: a socket that sees an
// interface's packets only so that the filter does. Nobody reads from it.
type packetSocket struct{ fd int }

func attachSocketFilter(r *attachRequest) (attachment, error) {
	// Protocol 0 receives nothing until the filter is set and the socket bound.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	s := &packetSocket{fd: fd}
	// What the filter lets pass has nowhere to go: hold as little of it as possible.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
	if err := s.Update(r.program); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: int(r.target.ID)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind a packet socket to %s: %w", r.target.Name, err)
	}
	return s, nil
}

// Update exchanges the filter.
func (s *packetSocket) Update(prog *ebpf.Program) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, prog.FD()); err != nil {
		return fmt.Errorf("set the socket's filter: %w", err)
	}
	return nil
}

func (s *packetSocket) Close() error { return unix.Close(s.fd) }
