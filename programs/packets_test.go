package programs_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// firstIndex is the number of the first interface of newVeth. Names are looked up in the agent's network
// namespace, which must have no interface of that number.
const firstIndex = 900001

// newVeth makes a pair of connected interfaces in this thread's network namespace, up and without
// addresses of their own.
func newVeth(t testing.TB, a, b string) {
	t.Helper()
	// Otherwise the kernel sends router solicitations.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	attribute := func(kind uint16, payload ...[]byte) []byte {
		data := []byte{0, 0, 0, 0}
		for _, p := range payload {
			data = append(data, p...)
		}
		binary.NativeEndian.PutUint16(data, uint16(len(data)))
		binary.NativeEndian.PutUint16(data[2:], kind)
		for len(data)%4 != 0 {
			data = append(data, 0)
		}
		return data
	}
	name := func(s string) []byte { return attribute(unix.IFLA_IFNAME, append([]byte(s), 0)) }
	const peer = 1 // VETH_INFO_PEER
	info := func(index uint32) []byte {
		b := make([]byte, unix.SizeofIfInfomsg)
		binary.NativeEndian.PutUint32(b[4:], index)
		return b
	}
	body := append(info(firstIndex), name(a)...)
	body = append(body, attribute(unix.IFLA_LINKINFO,
		attribute(unix.IFLA_INFO_KIND, []byte("veth")),
		attribute(unix.IFLA_INFO_DATA, attribute(peer, info(firstIndex+1), name(b))))...)
	header := make([]byte, unix.SizeofNlMsghdr)
	binary.NativeEndian.PutUint32(header, uint32(len(header)+len(body)))
	binary.NativeEndian.PutUint16(header[4:], unix.RTM_NEWLINK)
	binary.NativeEndian.PutUint16(header[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, append(header, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < unix.SizeofNlMsghdr+4 {
		t.Fatalf("answer of %d bytes: %v", n, err)
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		t.Skipf("needs veth: %v", unix.Errno(-code))
	}
	for _, i := range []string{a, b} {
		up(t, i)
	}
}

func up(t testing.TB, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		t.Fatal(err)
	}
}

// frame makes an Ethernet frame of a size, with an IP header of the protocol if the type is IP's.
func frame(ethertype uint16, protocol byte, size int) []byte {
	b := make([]byte, size)
	for i := range 6 {
		b[i] = 0xff // to everybody
	}
	copy(b[6:], []byte{2, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(b[12:], ethertype)
	switch ethertype {
	case unix.ETH_P_IP:
		b[14] = 0x45
		binary.BigEndian.PutUint16(b[16:], uint16(size-14))
		b[22], b[23] = 64, protocol
	case unix.ETH_P_IPV6:
		b[14] = 0x60
		binary.BigEndian.PutUint16(b[18:], uint16(size-54))
		b[20], b[21] = protocol, 64
	}
	return b
}

// receiver is a socket that gets everything which arrives at an interface.
func receiver(t testing.TB, name string) (fd, index int) {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	protocol := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(protocol), Ifindex: i.Index}); err != nil {
		t.Fatal(err)
	}
	timeout := unix.Timeval{Sec: 20}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	return fd, i.Index
}

func TestPackets(t *testing.T) {
	kinds := []struct {
		ethertype   uint16
		protocol    byte
		times, size int
		labels      []string
	}{
		{unix.ETH_P_IP, unix.IPPROTO_UDP, 7, 342, []string{"ethertype=ipv4", "protocol=udp"}},
		{unix.ETH_P_IP, unix.IPPROTO_TCP, 3, 60, []string{"ethertype=ipv4", "protocol=tcp"}},
		{unix.ETH_P_IPV6, unix.IPPROTO_UDP, 5, 142, []string{"ethertype=ipv6", "protocol=udp"}},
		{unix.ETH_P_ARP, 0, 2, 60, []string{"ethertype=arp", "protocol="}},
	}
	f := func(name string, transmitted bool, params ...string) {
		t.Run(name, func(t *testing.T) {
			inNetns(t)
			newVeth(t, "kaon0", "kaon1")
			out, outIndex := receiver(t, "kaon0")
			in, _ := receiver(t, "kaon1")
			r := load(t, "packets", "", append(params, "interfaces=kaon0,kaon1")...)
			sent := 0
			for _, kind := range kinds {
				for range kind.times {
					to := &unix.SockaddrLinklayer{Ifindex: outIndex, Halen: 6}
					if err := unix.Sendto(out, frame(kind.ethertype, kind.protocol, kind.size), 0, to); err != nil {
						t.Fatal(err)
					}
					sent++
				}
			}
			// Nothing may be dropped: all of it arrives behind the Program.
			buffer := make([]byte, 2048)
			for n := range sent {
				if _, _, err := unix.Recvfrom(in, buffer, 0); err != nil {
					t.Fatalf("packet %d of %d did not arrive: %v", n+1, sent, err)
				}
			}
			families := r.collect()
			direction := func(index int, direction string, times int) {
				t.Helper()
				for _, kind := range kinds {
					labels := append([]string{fmt.Sprint("interface=", index), "direction=" + direction}, kind.labels...)
					expect(t, families, "packets_total", uint64(times*kind.times), labels...)
					expect(t, families, "packet_bytes_total", uint64(times*kind.times*kind.size), labels...)
				}
			}
			direction(firstIndex+1, "receive", 1)
			direction(firstIndex, "receive", 0)
			if transmitted {
				direction(firstIndex, "transmit", 1)
			} else {
				direction(firstIndex, "transmit", 0)
			}
		})
	}
	f("tc", true)
	f("xdp", false, "xdp=true")
}
