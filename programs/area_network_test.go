package programs_test

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

func networkArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"packets": {"packets_total": program.Counter, "packet_bytes_total": program.Counter},
			"dns": {"dns_queries_total": program.Counter, "dns_unanswered_total": program.Counter, "dns_responses_total": program.Counter,
				"dns_latency_seconds": program.Histogram, "dns_problems_total": program.Counter},
			"udperrors": {"udp_receive_drops_total": program.Counter, "udp_send_errors_total": program.Counter, "udp_socket_errors_total": program.Counter,
				"udp_no_port_total": program.Counter, "udp_checksum_errors_total": program.Counter,
				"udp_receive_buffer_errors_total": program.Counter, "udp_send_buffer_errors_total": program.Counter,
				"udp6_no_port_total": program.Counter, "udp6_checksum_errors_total": program.Counter,
				"udp6_receive_buffer_errors_total": program.Counter, "udp6_send_buffer_errors_total": program.Counter},
			"netbytes": {"network_packets_total": program.Counter, "network_bytes_total": program.Counter},
			"drops":    {"packet_drops_total": program.Counter},
		},
		helpers: map[string]func(){
			"refused":   sendRefused,
			"udploss":   loseDatagrams,
			"udperrors": failUDP,
			"dns":       askDNS,
			"exchange":  exchangeDatagrams,
			"loopback":  exchangeOnLoopback,
		},
		costs: []cost{
			{program: "udperrors", event: "datagram sent and received", prepare: inNewNetns, cause: sendOnLoopback},
			{program: "udperrors", event: "datagram lost", prepare: inNewNetns, cause: loseOnLoopback,
				bpftrace: `tracepoint:udp:udp_fail_queue_rcv_skb { @[args->rc] = count(); }`},
			{program: "dns", event: "packet of something else sent and received", prepare: inNewNetns, cause: sendOnLoopback},
			{program: "dns", params: []string{"names=true"}, event: "query and response", prepare: inNewNetns, cause: askNames},
			{program: "netbytes", params: []string{"loopback=true"}, event: "packet sent and received", prepare: inNewNetns, cause: sendOnLoopback},
			{program: "drops", event: "packet dropped", prepare: inNewNetns, cause: sendToClosedPort,
				bpftrace: `tracepoint:skb:kfree_skb { @[args->location, args->reason] = count(); }`},
			{program: "packets", params: []string{"xdp=false", "interfaces=kaon0,kaon1"}, event: "packet sent and received",
				prepare: inNewVeth, cause: sendPackets},
			{program: "packets", params: []string{"xdp=true", "interfaces=kaon0,kaon1"}, event: "packet sent and received",
				prepare: inNewVeth, cause: sendPackets},
		},
	}
}

func inNewNetns(b *testing.B) {
	inNetns(b)
	up(b, "lo")
}

func sendToClosedPort(b *testing.B) {
	fd := socketTo(b, unix.SOCK_DGRAM, "127.0.0.1:9", false)
	for range b.N {
		send(b, fd, []byte("hello"))
	}
}

func sendOnLoopback(b *testing.B) {
	in := socketTo(b, unix.SOCK_DGRAM, "127.0.0.1:0", true)
	out := socketTo(b, unix.SOCK_DGRAM, fmt.Sprint("127.0.0.1:", portOf(b, in)), false)
	buffer := make([]byte, 100)
	b.ResetTimer()
	for range b.N {
		send(b, out, buffer)
		if _, err := unix.Read(in, buffer); err != nil {
			b.Fatal(err)
		}
	}
}

func askNames(b *testing.B) {
	serveDNS(b, "127.0.0.1")
	c := &dnsClient{}
	b.ResetTimer()
	if err := c.times(b.N, "www.example.org", typeA, 1); err != nil {
		b.Fatal(err)
	}
}

func loseOnLoopback(b *testing.B) {
	in := socketTo(b, unix.SOCK_DGRAM, "127.0.0.1:0", true)
	if err := unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_RCVBUF, 1); err != nil {
		b.Fatal(err)
	}
	out := socketTo(b, unix.SOCK_DGRAM, fmt.Sprint("127.0.0.1:", portOf(b, in)), false)
	b.ResetTimer()
	for range b.N {
		send(b, out, make([]byte, 2000))
	}
}

func inNewVeth(b *testing.B) {
	inNetns(b)
	newVeth(b, "kaon0", "kaon1")
}

func sendPackets(b *testing.B) {
	out, index := receiver(b, "kaon0")
	data := frame(unix.ETH_P_IP, unix.IPPROTO_UDP, 342)
	for range b.N {
		if err := unix.Sendto(out, data, 0, &unix.SockaddrLinklayer{Ifindex: index, Halen: 6}); err != nil {
			b.Fatal(err)
		}
	}
}
