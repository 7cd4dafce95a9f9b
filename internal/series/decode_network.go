package series

import (
	"net/netip"

	"github.com/kaon-project/kaon/internal/program"
)

func decodeIPv4(dst []byte, l *program.Label, data []byte) []byte {
	b := l.Field.Bytes(data)
	if len(b) != 4 {
		return decodeHex(dst, l, data)
	}
	return appendAddr(dst, l.Name, netip.AddrFrom4([4]byte(b)))
}

func decodeIPv6(dst []byte, l *program.Label, data []byte) []byte {
	b := l.Field.Bytes(data)
	if len(b) != 16 {
		return decodeHex(dst, l, data)
	}
	return appendAddr(dst, l.Name, netip.AddrFrom16([16]byte(b)))
}

// decodeIP writes IPv4-mapped addresses as IPv4.
func decodeIP(dst []byte, l *program.Label, data []byte) []byte {
	b := l.Field.Bytes(data)
	if len(b) != 16 {
		return decodeIPv4(dst, l, data)
	}
	return appendAddr(dst, l.Name, netip.AddrFrom16([16]byte(b)).Unmap())
}

func appendAddr(dst []byte, name string, a netip.Addr) []byte {
	var b [64]byte
	return appendPlain(dst, name, a.AppendTo(b[:0]))
}

func decodeMAC(dst []byte, l *program.Label, data []byte) []byte {
	b := l.Field.Bytes(data)
	if len(b) != 6 {
		return decodeHex(dst, l, data)
	}
	var text [17]byte
	out := text[:0]
	for i, c := range b {
		if i > 0 {
			out = append(out, ':')
		}
		out = append(out, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
	}
	return appendPlain(dst, l.Name, out)
}

// decodeProtocol names IP protocols as /etc/protocols does, in lower case; others are numbers. 0xffff in
// a wider field is none: no label.
func decodeProtocol(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Bytes(data) == nil {
		return dst
	}
	name := ""
	switch l.Field.Number(data) {
	case 0xffff:
		return dst
	case 0:
		name = "ip"
	case 1:
		name = "icmp"
	case 2:
		name = "igmp"
	case 4:
		name = "ipencap"
	case 6:
		name = "tcp"
	case 17:
		name = "udp"
	case 33:
		name = "dccp"
	case 41:
		name = "ipv6"
	case 47:
		name = "gre"
	case 50:
		name = "esp"
	case 51:
		name = "ah"
	case 58:
		name = "icmpv6"
	case 89:
		name = "ospf"
	case 103:
		name = "pim"
	case 112:
		name = "vrrp"
	case 115:
		name = "l2tp"
	case 132:
		name = "sctp"
	case 136:
		name = "udplite"
	case 262:
		name = "mptcp"
	default:
		return decodeInteger(dst, l, data)
	}
	return AppendLabel(dst, l.Name, name)
}

// decodeEthertype names the common ones; others are 0x....
func decodeEthertype(dst []byte, l *program.Label, data []byte) []byte {
	if l.Field.Bytes(data) == nil {
		return dst
	}
	name := ""
	switch l.Field.Number(data) {
	case 0x0800:
		name = "ipv4"
	case 0x0806:
		name = "arp"
	case 0x86dd:
		name = "ipv6"
	case 0x8100:
		name = "vlan"
	case 0x88a8:
		name = "qinq"
	case 0x8847:
		name = "mpls"
	case 0x8863:
		name = "pppoe-discovery"
	case 0x8864:
		name = "pppoe"
	case 0x88cc:
		name = "lldp"
	case 0x888e:
		name = "eapol"
	default:
		return decodeHex(dst, l, data)
	}
	return AppendLabel(dst, l.Name, name)
}
