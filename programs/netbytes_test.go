package programs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	trafficHost, trafficPeer = "10.99.0.1", "10.99.0.2"
	trafficPort              = 5000
)

// exchangeDatagrams receives 7 datagrams at trafficHost, and answers with 4 of 300 bytes and a large one to trafficPeer.
func exchangeDatagrams() {
	if err := func() error {
		in, err := openSocket(unix.SOCK_DGRAM, fmt.Sprint(trafficHost, ":", trafficPort), true)
		if err != nil {
			return err
		}
		out, err := openSocket(unix.SOCK_DGRAM, fmt.Sprint(trafficPeer, ":", trafficPort), false)
		if err != nil {
			return err
		}
		fmt.Println("ready")
		timeout := unix.Timeval{Sec: 20}
		if err := unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
			return err
		}
		for n := range 7 {
			if _, _, err := unix.Recvfrom(in, make([]byte, 2048), 0); err != nil {
				return fmt.Errorf("datagram %d: %w", n, err)
			}
		}
		for range 4 {
			if _, err := unix.Write(out, make([]byte, 300)); err != nil {
				return err
			}
		}
		// Two fragments on the wire, which the program sees whole.
		_, err = unix.Write(out, make([]byte, 2000))
		return err
	}(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// exchangeOnLoopback sends itself 5 datagrams of 100 bytes by IPv4, 3 by IPv6, and 100,000 bytes by TCP.
func exchangeOnLoopback() {
	if err := func() error {
		for address, times := range map[string]int{"127.0.0.1": 5, "[::1]": 3} {
			in, err := openSocket(unix.SOCK_DGRAM, address+":0", true)
			if err != nil {
				return err
			}
			port, err := localPort(in)
			if err != nil {
				return err
			}
			out, err := openSocket(unix.SOCK_DGRAM, fmt.Sprint(address, ":", port), false)
			if err != nil {
				return err
			}
			for range times {
				if _, err := unix.Write(out, make([]byte, 100)); err != nil {
					return err
				}
			}
			if n, err := readAll(in); n != times || err != nil {
				return fmt.Errorf("%d datagrams: %w", n, err)
			}
		}
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		client, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			return err
		}
		server, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			_, _ = client.Write(make([]byte, 100000))
			client.Close()
		}()
		n, err := io.Copy(io.Discard, server)
		if err == nil && n != 100000 {
			err = errors.New("TCP lost something")
		}
		return err
	}(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// addAddress gives an interface an IPv4 address, in its classful network.
func addAddress(t testing.TB, name, address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := ifreq.SetInet4Addr(net.ParseIP(address).To4()); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, ifreq); err != nil {
		t.Fatal(err)
	}
}

// addNeighbour makes an address known to be at a hardware address, so that nobody is asked.
func addNeighbour(t testing.TB, device, address string, mac net.HardwareAddr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const complete, permanent = 2, 4 // ATF_COM, ATF_PERM
	var request struct {
		protocol, hardware [16]byte
		flags              int32
		netmask            [16]byte
		device             [16]byte
	}
	binary.NativeEndian.PutUint16(request.protocol[:], unix.AF_INET)
	copy(request.protocol[4:], net.ParseIP(address).To4())
	binary.NativeEndian.PutUint16(request.hardware[:], unix.ARPHRD_ETHER)
	copy(request.hardware[2:], mac)
	request.flags = complete | permanent
	copy(request.device[:], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSARP, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatal(errno)
	}
}

// datagramFrame is an Ethernet frame with an IPv4 datagram of so many bytes of payload.
func datagramFrame(to net.HardwareAddr, source, destination string, port uint16, payload int) []byte {
	b := frame(unix.ETH_P_IP, unix.IPPROTO_UDP, 14+20+8+payload)
	copy(b, to)
	copy(b[26:], net.ParseIP(source).To4())
	copy(b[30:], net.ParseIP(destination).To4())
	sum := uint32(0)
	for i := 14; i < 34; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[24:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(b[34:], port)
	binary.BigEndian.PutUint16(b[36:], port)
	binary.BigEndian.PutUint16(b[38:], uint16(8+payload))
	return b
}

func TestNetbytes(t *testing.T) {
	inNetns(t)
	newVeth(t, "kaon0", "kaon1")
	addAddress(t, "kaon0", trafficHost)
	far, index := receiver(t, "kaon1")
	near, err := net.InterfaceByName("kaon0")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := net.InterfaceByName("kaon1")
	if err != nil {
		t.Fatal(err)
	}
	addNeighbour(t, "kaon0", trafficPeer, peer.HardwareAddr)
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "netbytes", group.dir)
	for _, c := range []cgroup{group, other} {
		h := c.start(t, "exchange")
		if line, err := h.out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("the helper said %q: %v", line, err)
		}
		for n := range 7 {
			data := datagramFrame(near.HardwareAddr, trafficPeer, trafficHost, trafficPort, 50+n)
			if err := unix.Sendto(far, data, 0, &unix.SockaddrLinklayer{Ifindex: index, Halen: 6}); err != nil {
				t.Fatal(err)
			}
		}
		if status := h.wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
	}
	families := r.collect()
	f := func(direction string, packets, bytes uint64) {
		t.Helper()
		labels := []string{"direction=" + direction, "cgroup=" + group.path, "ethertype=ipv4", "protocol=udp"}
		expect(t, families, "network_packets_total", packets, labels...)
		expect(t, families, "network_bytes_total", bytes, labels...)
		expect(t, families, "network_packets_total", packets, labels[:1]...)
	}
	f("receive", 7, 7*(28+50)+21)
	f("transmit", 5, 4*328+2028)
}

func TestNetbytesLoopback(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	group := newCgroup(t)
	f := func(counted bool, params ...string) {
		t.Helper()
		r := load(t, "netbytes", group.dir, params...)
		if status := group.start(t, "loopback").wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
		families := r.collect()
		if !counted {
			expect(t, families, "network_packets_total", 0)
			return
		}
		for _, direction := range []string{"direction=receive", "direction=transmit"} {
			expect(t, families, "network_packets_total", 5, direction, "ethertype=ipv4", "protocol=udp")
			expect(t, families, "network_bytes_total", 5*128, direction, "ethertype=ipv4", "protocol=udp")
			expect(t, families, "network_packets_total", 3, direction, "ethertype=ipv6", "protocol=udp")
			expect(t, families, "network_bytes_total", 3*148, direction, "ethertype=ipv6", "protocol=udp")
			sent := pick(families["network_bytes_total"], "cgroup="+group.path, direction, "protocol=tcp")
			packets := total(pick(families["network_packets_total"], direction, "protocol=tcp"))
			// Both ends: segments with the data one way, acknowledgements the other; on a slow machine some again.
			if len(sent) != 1 || sent[0].row[0] < 100000 || sent[0].row[0] > 300000 || packets < 5 {
				t.Errorf("100,000 bytes by TCP, %s: %v in %d packets", direction, sent, packets)
			}
		}
	}
	f(false)
	f(true, "loopback=true")
}
