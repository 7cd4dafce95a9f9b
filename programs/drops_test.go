package programs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// socketTo is a socket of a type that is connected to, or, with bound, bound to an address.
func socketTo(t testing.TB, kind int, address string, bound bool) int {
	t.Helper()
	fd, err := openSocket(kind, address, bound)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func openSocket(kind int, address string, bound bool) (int, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return -1, err
	}
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if bound {
		err = unix.Bind(fd, sa)
	} else {
		err = unix.Connect(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("%s: %w", address, err)
	}
	return fd, nil
}

func localPort(fd int) (int, error) {
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return sa.Port, err
	case *unix.SockaddrInet6:
		return sa.Port, err
	}
	return 0, fmt.Errorf("a socket of %T: %w", sa, err)
}

// portOf returns the local port of a socket.
func portOf(t testing.TB, fd int) int {
	t.Helper()
	port, err := localPort(fd)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// send writes a datagram, also after an earlier one was refused.
func send(t testing.TB, fd int, data []byte) {
	t.Helper()
	_, err := unix.Write(fd, data)
	if errors.Is(err, unix.ECONNREFUSED) { // of the one before
		_, err = unix.Write(fd, data)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readAll reads what a socket has, and returns how many datagrams that were.
func readAll(fd int) (int, error) {
	buffer := make([]byte, 65536)
	for n := 0; ; n++ {
		if _, _, err := unix.Recvfrom(fd, buffer, unix.MSG_DONTWAIT); errors.Is(err, unix.EAGAIN) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// overflow sends more than a socket takes, and returns how many datagrams were lost.
func overflow(address string, datagrams int) (lost int, err error) {
	in, err := openSocket(unix.SOCK_DGRAM, address+":0", true)
	if err != nil {
		return 0, err
	}
	defer unix.Close(in)
	if err := unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096); err != nil {
		return 0, err
	}
	port, err := localPort(in)
	if err != nil {
		return 0, err
	}
	out, err := openSocket(unix.SOCK_DGRAM, fmt.Sprint(address, ":", port), false)
	if err != nil {
		return 0, err
	}
	defer unix.Close(out)
	for range datagrams {
		if _, err := unix.Write(out, make([]byte, 1000)); err != nil {
			return 0, err
		}
	}
	received, err := readAll(in)
	if err == nil && (received == 0 || received == datagrams) {
		err = fmt.Errorf("%d of %d datagrams were received", received, datagrams)
	}
	return datagrams - received, err
}

// loseDatagrams is overflow as a process, which prints the number.
func loseDatagrams() {
	lost, err := overflow("127.0.0.1", 40)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(lost)
}

// number reads one from the helper, which must then end well.
func (h *helper) number() int {
	h.t.Helper()
	line, err := h.out.ReadString('\n')
	n, err2 := strconv.Atoi(strings.TrimSpace(line))
	if status := h.wait(); err != nil || err2 != nil || status.ExitStatus() != 0 {
		h.t.Fatalf("the helper said %q and ended with %v: %v", line, status, errors.Join(err, err2))
	}
	return n
}

// datagramBadChecksum makes an IPv4 packet for a raw socket.
func datagramBadChecksum(port uint16) []byte {
	b := make([]byte, 20+8+4)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], []byte{127, 0, 0, 1})
	copy(b[16:], []byte{127, 0, 0, 1})
	binary.BigEndian.PutUint16(b[20:], 4242)
	binary.BigEndian.PutUint16(b[22:], port)
	binary.BigEndian.PutUint16(b[24:], 12)
	binary.BigEndian.PutUint16(b[26:], 0x1234)
	return b
}

func sendBadChecksums(t testing.TB, port uint16, times int) {
	t.Helper()
	raw, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(raw)
	for range times {
		if err := unix.Sendto(raw, datagramBadChecksum(port), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			t.Fatal(err)
		}
	}
}

// netnsInode identifies this thread's network namespace.
func netnsInode(t testing.TB) string {
	t.Helper()
	var stat unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &stat); err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(stat.Ino, 10)
}

// tellsReasons reports whether this kernel says why it drops packets.
func tellsReasons(t testing.TB) bool {
	t.Helper()
	kernel, err := types().Kernel()
	if err != nil {
		t.Skip("needs the kernel's BTF:", err)
	}
	var enum *btf.Enum
	return kernel.TypeByName("skb_drop_reason", &enum) == nil
}

func TestDrops(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	netns := "netns=" + netnsInode(t)
	r := load(t, "drops", "", "netns=true")

	// What arrives and is read is not dropped.
	in := socketTo(t, unix.SOCK_DGRAM, "127.0.0.1:0", true)
	out := socketTo(t, unix.SOCK_DGRAM, fmt.Sprint("127.0.0.1:", portOf(t, in)), false)
	for range 50 {
		send(t, out, []byte("hello"))
	}
	if n, err := readAll(in); n != 50 || err != nil {
		t.Fatalf("%d of 50 datagrams were received: %v", n, err)
	}
	// Nor is what a process does not read of a unix socket.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	send(t, pair[0], []byte("hello"))
	unix.Close(pair[1])
	unix.Close(pair[0])

	closed := socketTo(t, unix.SOCK_DGRAM, "127.0.0.1:9", false)
	for range 5 {
		send(t, closed, []byte("hello"))
	}
	closed = socketTo(t, unix.SOCK_DGRAM, "[::1]:9", false)
	for range 3 {
		send(t, closed, []byte("hello"))
	}
	for range 2 {
		if _, err := openSocket(unix.SOCK_STREAM, "127.0.0.1:9", false); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatalf("connect to a closed port: %v", err)
		}
	}
	sendBadChecksums(t, 9, 4)
	lost, err := overflow("127.0.0.1", 40)
	if err != nil {
		t.Fatal(err)
	}
	lost6, err := overflow("[::1]", 30)
	if err != nil {
		t.Fatal(err)
	}

	families := r.collect()
	all := pick(families["packet_drops_total"], netns)
	f := func(reason string, want int, labels ...string) {
		t.Helper()
		if reason != "" && tellsReasons(t) {
			expect(t, map[string][]point{"packet_drops_total": all}, "packet_drops_total", uint64(want), append(labels, "reason="+reason)...)
		}
	}
	f("no_socket", 5, "protocol=udp", "ethertype=ipv4")
	f("no_socket", 3, "protocol=udp", "ethertype=ipv6")
	f("no_socket", 2, "protocol=tcp", "ethertype=ipv4")
	f("udp_csum", 4, "protocol=udp", "ethertype=ipv4")
	f("socket_rcvbuff", lost, "protocol=udp", "ethertype=ipv4")
	f("socket_rcvbuff", lost6, "protocol=udp", "ethertype=ipv6")
	only := map[string][]point{"packet_drops_total": all}
	expect(t, only, "packet_drops_total", uint64(5+4+lost), "protocol=udp", "ethertype=ipv4")
	expect(t, only, "packet_drops_total", uint64(3+lost6), "protocol=udp", "ethertype=ipv6")
	for _, p := range all {
		if !tellsReasons(t) && p.labels["reason"] != "" {
			t.Errorf("a reason from a kernel that tells none: %v", p.labels)
		}
		if p.labels["ethertype"] != "ipv4" && p.labels["ethertype"] != "ipv6" {
			t.Errorf("no packet: %v", p.labels)
		}
		if p.labels["protocol"] == "udp" && !strings.Contains(p.labels["location"], "udp") {
			t.Errorf("location: %v", p.labels)
		}
	}
}

// Without its params the Program tells neither where nor in which namespace.
func TestDropsParams(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	r := load(t, "drops", "", "location=false")
	closed := socketTo(t, unix.SOCK_DGRAM, "127.0.0.1:9", false)
	for range 5 {
		send(t, closed, []byte("hello"))
	}
	points := pick(r.collect()["packet_drops_total"], "ethertype=ipv4", "protocol=udp")
	if total(points) < 5 { // the machine may drop others
		t.Errorf("5 packets: %v", points)
	}
	for _, p := range points {
		if p.labels["location"] != "" || p.labels["netns"] != "" {
			t.Errorf("labels that were not asked for: %v", p.labels)
		}
	}
}

// sendRefused sends datagrams that the kernel drops on their way out.
func sendRefused() {
	fd, err := openSocket(unix.SOCK_DGRAM, "127.0.0.1:"+os.Getenv("PORT"), false)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for range 6 {
		if _, err := unix.Write(fd, []byte("hello")); !errors.Is(err, unix.EPERM) {
			fmt.Fprintln(os.Stderr, "a datagram was not refused:", err)
			os.Exit(1)
		}
	}
}

// What a workload does not read in time is its own drop, where the kernel tells whose it was.
func TestDropsOfAReceiver(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	group := newCgroup(t)
	r := load(t, "drops", group.dir)
	lost := group.start(t, "udploss").number()
	newCgroup(t).start(t, "udploss").number()
	families := r.collect()
	if !r.attached("packet_dropped_receiver") {
		t.Log("needs Linux 6.11 to know whom a packet was for")
		expect(t, families, "packet_drops_total", 0)
		return
	}
	expect(t, families, "packet_drops_total", uint64(lost))
	expect(t, families, "packet_drops_total", uint64(lost), "cgroup="+group.path, "reason=socket_rcvbuff", "protocol=udp")
}

// What a workload's socket sends is its own drop, and that of others is not counted.
func TestDropsOfAWorkload(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	group, other := newCgroup(t), newCgroup(t)
	refuse, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer refuse.Close()
	for _, c := range []cgroup{group, other} {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: c.dir, Attach: ebpf.AttachCGroupInetEgress, Program: refuse})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	in := socketTo(t, unix.SOCK_DGRAM, "127.0.0.1:0", true)
	r := load(t, "drops", group.dir)
	for _, c := range []cgroup{group, other} {
		if status := c.start(t, "refused", fmt.Sprint("PORT=", portOf(t, in))).wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
	}
	families := r.collect()
	labels := []string{"cgroup=" + group.path, "ethertype=ipv4", "protocol=udp"}
	expect(t, families, "packet_drops_total", 6)
	expect(t, families, "packet_drops_total", 6, labels...)
	if tellsReasons(t) {
		expect(t, families, "packet_drops_total", 6, append(labels, "reason=bpf_cgroup_egress")...)
	}
}
