package programs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	typeA, typeNS, typePTR, typeAAAA, typeHTTPS = 1, 2, 12, 28, 65
	nxdomain, servfail, refused                 = 3, 2, 5
)

// dnsName is a name as in a message, without what ends it.
func dnsName(name string) []byte {
	var b []byte
	for part := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(part))), part...)
	}
	return b
}

// dnsQuery is a message with one question; an empty name is the root.
func dnsQuery(id uint16, name string, kind uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, id)
	b = append(b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	if name != "" {
		b = append(b, dnsName(name)...)
	}
	b = append(b, 0)
	return append(binary.BigEndian.AppendUint16(b, kind), 0, 1)
}

// dnsResponse answers a query; successes with a record that points back to the name.
func dnsResponse(query []byte, rcode byte) []byte {
	b := append([]byte(nil), query...)
	b[2], b[3] = 0x81, 0x80|rcode
	if rcode == 0 {
		b[7] = 1
		b = append(b, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
	}
	return b
}

// answers returns what the test's server sends for a query. The first part of the name tells.
func answers(query []byte, earlier [][]byte) [][]byte {
	if len(query) < 17 {
		return nil
	}
	name, ok := strings.CutPrefix(strings.ToLower(string(query[13:])), "")
	if !ok || len(name) < int(query[12]) {
		return nil
	}
	answer := dnsResponse(query, 0)
	switch name[:min(int(query[12]), len(name))] {
	case "missing":
		return [][]byte{dnsResponse(query, nxdomain)}
	case "broken":
		return [][]byte{dnsResponse(query, servfail)}
	case "refused":
		return [][]byte{dnsResponse(query, refused)}
	case "silent":
		return nil
	case "pair", "twice": // both when the second came, the later one first; or only that
		if len(earlier)%2 == 0 {
			return nil
		}
		if name[0] == 't' {
			return [][]byte{answer}
		}
		return [][]byte{answer, dnsResponse(earlier[len(earlier)-1], 0)}
	case "garbage":
		stranger := append([]byte(nil), answer...)
		stranger[0] ^= 0xff
		return [][]byte{{1, 2, 3}, query, stranger, answer, answer}
	}
	return [][]byte{answer}
}

// serveDNS answers at an address of this network namespace, by UDP and TCP, until the test ends.
func serveDNS(t testing.TB, address string) {
	t.Helper()
	fd := socketTo(t, unix.SOCK_DGRAM, address+":53", true)
	done := make(chan bool)
	go func() {
		defer close(done)
		buffer := make([]byte, 4096)
		earlier := map[string][][]byte{}
		for {
			n, from, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil || n == 0 {
				return
			}
			query := append([]byte(nil), buffer[:n]...)
			key := fmt.Sprint(from)
			for _, answer := range answers(query, earlier[key]) {
				_ = unix.Sendto(fd, answer, 0, from)
			}
			earlier[key] = append(earlier[key], query)
		}
	}()
	t.Cleanup(func() {
		end, err := openSocket(unix.SOCK_DGRAM, address+":53", false)
		if err == nil {
			_, err = unix.Write(end, nil)
			unix.Close(end)
		}
		if err != nil {
			t.Error(err)
			return
		}
		<-done
	})
	listener := socketTo(t, unix.SOCK_STREAM, address+":53", true)
	if err := unix.Listen(listener, 5); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan bool)
	go func() {
		defer close(stopped)
		for {
			conn, _, err := unix.Accept(listener)
			if err != nil {
				return
			}
			buffer := make([]byte, 4096)
			if n, err := unix.Read(conn, buffer); err == nil && n > 2 {
				for _, answer := range answers(buffer[2:n], nil) {
					_, _ = unix.Write(conn, append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
				}
				_, _ = unix.Read(conn, buffer) // until the client closes
			}
			unix.Close(conn)
		}
	}()
	t.Cleanup(func() {
		_ = unix.Shutdown(listener, unix.SHUT_RDWR)
		<-stopped
	})
}

// dnsClient is what the helper does.
type dnsClient struct{ id uint16 }

// ask sends messages from one socket and waits for so many answers.
func (c *dnsClient) ask(address string, wait int, messages ...[]byte) error {
	fd, err := openSocket(unix.SOCK_DGRAM, address+":53", false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	timeout := unix.Timeval{Sec: 20}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return err
	}
	for _, m := range messages {
		if _, err := unix.Write(fd, m); err != nil {
			return err
		}
	}
	for range wait {
		if _, err := unix.Read(fd, make([]byte, 4096)); err != nil {
			return fmt.Errorf("an answer to %q: %w", messages[0], err)
		}
	}
	return nil
}

func (c *dnsClient) query(name string, kind uint16) []byte {
	c.id += 257
	return dnsQuery(c.id, name, kind)
}

// times asks a question so often, each time from a new socket.
func (c *dnsClient) times(n int, name string, kind uint16, wait int) error {
	for range n {
		if err := c.ask("127.0.0.1", wait, c.query(name, kind)); err != nil {
			return err
		}
	}
	return nil
}

// stream asks by TCP, once.
func (c *dnsClient) stream(name string) error {
	fd, err := openSocket(unix.SOCK_STREAM, "127.0.0.1:53", false)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	query := c.query(name, typeA)
	if _, err := unix.Write(fd, append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 4096))
	return err
}

const reverseName = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"

func askDNS() {
	c := &dnsClient{}
	pad := func(n int) string { return strings.Repeat("x", n) }
	longest := strings.Join([]string{pad(63), pad(63), pad(63), pad(61)}, ".") // 255 bytes in a message
	// Broken ones, which the server does not answer either.
	pointer := append(dnsQuery(1, "silent", typeA)[:19], 0xc0, 12, 0, 1, 0, 1)
	tooLong := dnsQuery(2, "silent."+longest, typeA)
	two := dnsQuery(3, "silent", typeA)
	two[5] = 2
	open := dnsQuery(4, "silent.example.org", typeA)
	open = open[:len(open)-7]
	many := make([][]byte, 11)
	for i := range many {
		many[i] = c.query("silent.flood", typeA)
	}
	twice := c.query("twice.example.org", typeA)
	update := dnsQuery(5, "silent.update", typeA)
	update[2] = 5 << 3
	if err := errors.Join(
		c.times(5, "www.Example.ORG", typeA, 1),
		c.times(4, "www.example.org", typeAAAA, 1),
		c.times(3, "missing.example.org", typeA, 1),
		c.times(2, "broken.example.org", typeAAAA, 1),
		c.times(1, "refused.example.org", 65280, 1),
		c.times(1, "", typeNS, 1),
		c.times(1, reverseName, typePTR, 1),
		c.times(1, longest, typeA, 1),
		c.times(1, "w\x00w\xff", typeHTTPS, 1),
		c.times(2, "silent.example.org", typeA, 0),
		c.ask("127.0.0.1", 2, c.query("pair.example.org", typeA), c.query("pair.example.org", typeAAAA)),
		c.ask("127.0.0.1", 1, twice, twice),
		c.ask("127.0.0.1", 5, c.query("garbage.example.org", typeA)),
		c.ask("127.0.0.1", 0, many...),
		c.ask("127.0.0.1", 0, []byte{1, 2, 3}, make([]byte, 12), pointer, tooLong, two, open),
		c.ask("127.0.0.1", 0, update),
		c.ask("[::1]", 1, c.query("www.example.org", typeA)),
		c.stream("www.example.org"),
	); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestDNS(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	serveDNS(t, "127.0.0.1")
	serveDNS(t, "[::1]")
	group, other := newCgroup(t), newCgroup(t)
	f := func(names bool, params ...string) {
		t.Helper()
		r := load(t, "dns", group.dir, params...)
		for _, c := range []cgroup{group, other} {
			if status := c.start(t, "dns").wait(); status.ExitStatus() != 0 {
				t.Fatalf("the helper ended with %v", status)
			}
		}
		families := r.collect()
		count := func(metric string, want uint64, labels ...string) {
			t.Helper()
			expect(t, families, metric, want, append(labels, "cgroup="+group.path)...)
		}
		responses := func(want uint64, labels ...string) {
			t.Helper()
			count("dns_responses_total", want, labels...)
			var observed uint64
			for _, p := range pick(families["dns_latency_seconds"], append(labels, "cgroup="+group.path)...) {
				observed += p.count()
			}
			if observed != want {
				t.Errorf("%v: %d latencies of %d responses", labels, observed, want)
			}
		}
		total := uint64(5 + 4 + 3 + 2 + 1 + 1 + 1 + 1 + 1 + 2 + 2 + 2 + 1 + 11 + 1 + 1)
		expect(t, families, "dns_queries_total", total)
		count("dns_queries_total", total)
		count("dns_queries_total", 6+1, "type=aaaa")
		count("dns_queries_total", 1, "type=other")
		count("dns_queries_total", 1, "type=ns")
		count("dns_queries_total", 1, "type=ptr")
		count("dns_queries_total", 1, "type=https")
		count("dns_queries_total", 1, "type=a", "protocol=tcp")
		count("dns_unanswered_total", 2+1+11)
		count("dns_unanswered_total", 2+1+11, "type=a", "protocol=udp")
		responses(total - 2 - 1 - 11)
		responses(3, "rcode=nxdomain")
		responses(3, "rcode=nxdomain", "type=a")
		responses(2, "rcode=servfail", "type=aaaa")
		responses(1, "rcode=refused", "type=other")
		responses(5, "rcode=noerror", "type=aaaa")
		count("dns_responses_total", 1, "rcode=noerror", "protocol=tcp")
		expect(t, families, "dns_problems_total", 6+2+2)
		count("dns_problems_total", 6, "problem=malformed_query")
		count("dns_problems_total", 2, "problem=malformed_response")
		count("dns_problems_total", 2, "problem=unexpected_response")
		if !names {
			for _, p := range append(families["dns_queries_total"], families["dns_responses_total"]...) {
				if p.labels["name"] != "" {
					t.Errorf("a name that was not asked for: %v", p.labels)
				}
			}
			return
		}
		count("dns_queries_total", 5+2, "type=a", "name=www.example.org")
		count("dns_responses_total", 4, "type=aaaa", "name=www.example.org")
		count("dns_queries_total", 1, "name=.")
		count("dns_queries_total", 1, "name="+reverseName)
		count("dns_queries_total", 1, "name="+strings.Repeat(strings.Repeat("x", 63)+".", 2))
		count("dns_queries_total", 1, "name=w", "type=https")
		count("dns_unanswered_total", 11, "name=silent.flood")
		count("dns_unanswered_total", 1, "name=twice.example.org")
	}
	f(false)
	f(true, "names=true")
}
