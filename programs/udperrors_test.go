package programs_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// failUDP makes errors that a UDP socket can have, and prints how many datagrams full buffers lost, of IPv4 and of IPv6.
func failUDP() {
	if err := func() error {
		refused, err := openSocket(unix.SOCK_DGRAM, "127.0.0.1:9", false)
		if err != nil {
			return err
		}
		for range 3 {
			if _, err := unix.Write(refused, []byte("hello")); err != nil {
				return err
			}
			if _, err := unix.Read(refused, make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
				return fmt.Errorf("a closed port: %w", err)
			}
		}
		four, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		six, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		to4 := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}
		to6 := &unix.SockaddrInet6{Port: 9, Addr: [16]byte{15: 1}}
		mapped := &unix.SockaddrInet6{Port: 9, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}}
		nowhere := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 1}}
		for _, fail := range []struct {
			times, fd, size int
			to              unix.Sockaddr
			want            error
		}{
			{4, four, 70000, to4, unix.EMSGSIZE},
			{1, six, 70000, to6, unix.EMSGSIZE},
			{1, six, 70000, mapped, unix.EMSGSIZE},
			{5, four, 10, nowhere, unix.ENETUNREACH},
		} {
			for range fail.times {
				if err := unix.Sendto(fail.fd, make([]byte, fail.size), 0, fail.to); !errors.Is(err, fail.want) {
					return fmt.Errorf("want %q, got %w", fmt.Sprint(fail.want), err)
				}
			}
		}
		if err := unix.Sendto(four, []byte("hello"), 0, to4); err != nil { // not an error of the sender, who is not connected
			return err
		}
		lost, err := overflow("127.0.0.1", 40)
		if err != nil {
			return err
		}
		lost6, err := overflow("[::1]", 30)
		fmt.Println(lost, lost6)
		return err
	}(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestUDPErrors(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "udperrors", group.dir)
	var lost, lost6 uint64
	for _, c := range []cgroup{other, group} {
		h := c.start(t, "udperrors")
		_, err := fmt.Fscan(h.out, &lost, &lost6)
		if status := h.wait(); err != nil || status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v: %v", status, err)
		}
	}
	families := r.collect()
	cgroup := "cgroup=" + group.path
	f := func(metric string, want uint64, labels ...string) {
		t.Helper()
		expect(t, families, metric, want, append(labels, cgroup)...)
	}
	f("udp_send_errors_total", 4+1+1, "errno=EMSGSIZE")
	f("udp_send_errors_total", 5, "errno=ENETUNREACH")
	expect(t, families, "udp_send_errors_total", 4+1+1+5)
	f("udp_socket_errors_total", 3, "errno=ECONNREFUSED")
	expect(t, families, "udp_socket_errors_total", 3)
	f("udp_receive_drops_total", lost+lost6, "reason=receive_buffer")
	expect(t, families, "udp_receive_drops_total", lost+lost6)
}

// What is read of files is of the process' network namespace: this runs in a process with one of its own.
func TestUDPErrorsOfTheNamespace(t *testing.T) {
	const child = "KAON_TEST_IN_NETNS"
	if os.Getenv(child) == "" {
		inNetns(t)
		up(t, "lo")
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestUDPErrorsOfTheNamespace$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	r := load(t, "udperrors", "")
	lost := map[string]int{}
	for _, address := range []string{"127.0.0.1", "[::1]"} {
		fd := socketTo(t, unix.SOCK_DGRAM, address+":9", false)
		for range 5 {
			send(t, fd, []byte("hello"))
		}
		n, err := overflow(address, 40)
		if err != nil {
			t.Fatal(err)
		}
		lost[address] = n
	}
	sendBadChecksums(t, 9, 4)
	families := r.collect()
	f := func(metric string, want int) {
		t.Helper()
		if points := families[metric]; len(points) != 1 || points[0].row[0] != uint64(want) {
			t.Errorf("%s is %v, want %d", metric, points, want)
		}
	}
	f("udp_no_port_total", 5)
	f("udp6_no_port_total", 5)
	f("udp_receive_buffer_errors_total", lost["127.0.0.1"])
	f("udp6_receive_buffer_errors_total", lost["[::1]"])
	f("udp_checksum_errors_total", 4)
	f("udp6_checksum_errors_total", 0)
	f("udp_send_buffer_errors_total", 0)
	f("udp6_send_buffer_errors_total", 0)
}
