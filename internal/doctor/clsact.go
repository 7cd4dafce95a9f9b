package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Numbers of linux/pkt_sched.h.
const (
	handleClsact  = 0xffff0000
	parentClsact  = 0xfffffff1
	attributeKind = 1 // TCA_KIND
)

// tryClsact adds a clsact qdisc to an interface of the calling thread's (scratch) network namespace
// and removes it: the way to attach to traffic control before tcx.
func tryClsact(interfaceIndex int) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer unix.Close(fd)
	timeout := unix.Timeval{Sec: 1}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	if err := qdisc(fd, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, interfaceIndex); err != nil {
		return fmt.Errorf("add clsact: %w", err)
	}
	if err := qdisc(fd, unix.RTM_DELQDISC, 0, interfaceIndex); err != nil {
		return fmt.Errorf("remove clsact: %w", err)
	}
	return nil
}

func qdisc(fd int, message, flags uint16, interfaceIndex int) error {
	native := binary.NativeEndian
	kind := append([]byte("clsact"), 0, 0)
	b := make([]byte, unix.SizeofNlMsghdr+20+4+len(kind))
	native.PutUint32(b[0:], uint32(len(b)))
	native.PutUint16(b[4:], message)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|flags)
	native.PutUint32(b[8:], 1) // sequence number
	// struct tcmsg: family and padding, interface, handle, parent, info.
	native.PutUint32(b[20:], uint32(interfaceIndex))
	native.PutUint32(b[24:], handleClsact)
	native.PutUint32(b[28:], parentClsact)
	// struct rtattr: length without padding, type.
	native.PutUint16(b[36:], 4+7)
	native.PutUint16(b[38:], attributeKind)
	copy(b[40:], kind)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || native.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("netlink: unexpected answer")
	}
	if code := int32(native.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}
