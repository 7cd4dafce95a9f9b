package engine

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// nlaTypeMask takes the flags off an attribute's type.
const nlaTypeMask = 0x3fff

// netlink is a route socket, just enough for traffic control.
type netlink struct {
	fd       int
	sequence uint32
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind a netlink socket: %w", err)
	}
	// An answer that never comes must not hang the agent.
	timeout := unix.Timeval{Sec: 5}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
	return &netlink{fd: fd}, nil
}

func (n *netlink) Close() { unix.Close(n.fd) }

// tcMessage is a struct tcmsg.
func tcMessage(ifindex int, handle, parent, info uint32) []byte {
	b := make([]byte, 4, 20)
	b = binary.NativeEndian.AppendUint32(b, uint32(ifindex))
	b = binary.NativeEndian.AppendUint32(b, handle)
	b = binary.NativeEndian.AppendUint32(b, parent)
	return binary.NativeEndian.AppendUint32(b, info)
}

// attribute is a struct nlattr with its payload, padded to four bytes.
func attribute(kind uint16, payload []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(payload)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, payload...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func cString(s string) []byte { return append([]byte(s), 0) }

func (n *netlink) send(kind, flags uint16, parts ...[]byte) error {
	n.sequence++
	length := unix.SizeofNlMsghdr
	for _, p := range parts {
		length += len(p)
	}
	b := binary.NativeEndian.AppendUint32(nil, uint32(length))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, n.sequence)
	b = binary.NativeEndian.AppendUint32(b, 0)
	for _, p := range parts {
		b = append(b, p...)
	}
	return unix.Sendto(n.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// do sends a request and waits for its acknowledgement.
func (n *netlink) do(kind, flags uint16, parts ...[]byte) error {
	if err := n.send(kind, flags|unix.NLM_F_ACK, parts...); err != nil {
		return err
	}
	return n.receive(func(uint16, []byte) {})
}

// receive passes the messages of an answer on until its end.
func (n *netlink) receive(each func(kind uint16, payload []byte)) error {
	buffer := make([]byte, 64<<10)
	for {
		length, _, err := unix.Recvfrom(n.fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("netlink answer: %w", err)
		}
		done, err := parseMessages(buffer[:length], n.sequence, each)
		if done || err != nil {
			return err
		}
	}
}

// parseMessages walks over the messages in a datagram. It is done at an acknowledgement or
// the end of a dump.
func parseMessages(b []byte, sequence uint32, each func(kind uint16, payload []byte)) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		length := int(binary.NativeEndian.Uint32(b))
		if length < unix.SizeofNlMsghdr || length > len(b) {
			return true, errors.New("malformed netlink message")
		}
		kind := binary.NativeEndian.Uint16(b[4:])
		payload := b[unix.SizeofNlMsghdr:length]
		if binary.NativeEndian.Uint32(b[8:]) == sequence {
			switch kind {
			case unix.NLMSG_DONE:
				return true, nil
			case unix.NLMSG_ERROR:
				if len(payload) < 4 {
					return true, errors.New("malformed netlink error")
				}
				if code := int32(binary.NativeEndian.Uint32(payload)); code != 0 {
					return true, unix.Errno(-code)
				}
				return true, nil
			default:
				each(kind, payload)
			}
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return false, nil
}

// parseAttributes calls back for each attribute; what is cut off is left out.
func parseAttributes(b []byte, each func(kind uint16, payload []byte)) {
	for len(b) >= 4 {
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			return
		}
		each(binary.NativeEndian.Uint16(b[2:])&nlaTypeMask, b[4:length])
		b = b[min((length+3)&^3, len(b)):]
	}
}

// filters lists the bpf filters at a parent of an interface.
func (n *netlink) filters(ifindex int, parent uint32) ([]*clsactFilter, error) {
	if err := n.send(unix.RTM_GETTFILTER, unix.NLM_F_DUMP, tcMessage(ifindex, 0, parent, 0)); err != nil {
		return nil, err
	}
	var filters []*clsactFilter
	err := n.receive(func(kind uint16, payload []byte) {
		if f := parseFilter(kind, payload); f != nil && f.ifindex == ifindex {
			f.parent = parent
			filters = append(filters, f)
		}
	})
	return filters, err
}

// parseFilter reads a bpf filter of our priority out of a message; nil if it is something else.
func parseFilter(kind uint16, payload []byte) *clsactFilter {
	if kind != unix.RTM_NEWTFILTER || len(payload) < 20 {
		return nil
	}
	f := &clsactFilter{
		ifindex: int(int32(binary.NativeEndian.Uint32(payload[4:]))),
		handle:  binary.NativeEndian.Uint32(payload[8:]),
		parent:  binary.NativeEndian.Uint32(payload[12:]),
	}
	if binary.NativeEndian.Uint32(payload[16:])>>16 != clsactPriority || f.handle == 0 {
		return nil
	}
	isBPF := false
	parseAttributes(payload[20:], func(kind uint16, value []byte) {
		switch kind {
		case tcaKind:
			isBPF = unix.ByteSliceToString(value) == "bpf"
		case tcaOptions:
			parseAttributes(value, func(kind uint16, value []byte) {
				if kind == tcaBPFName {
					f.name = unix.ByteSliceToString(value)
				}
			})
		}
	})
	if !isBPF || f.name == "" {
		return nil
	}
	return f
}

// htons returns a number in network order.
func htons(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}
