package programs_test

import (
	"fmt"
	"testing"

	"github.com/kaon-project/kaon/internal/program"
)

func tcpArea() area {
	return area{
		metrics: map[string]map[string]program.Type{
			"tcpconnect": {"tcp_connects_total": program.Counter, "tcp_accepts_total": program.Counter,
				"tcp_connect_failures_total": program.Counter, "tcp_connect_latency_seconds": program.Histogram},
			"tcpretransmit": {"tcp_retransmits_total": program.Counter},
			"tcprtt":        {"tcp_rtt_seconds": program.Histogram},
			"tcpreset":      {"tcp_resets_sent_total": program.Counter, "tcp_resets_received_total": program.Counter},
			"listenoverflow": {"tcp_listen_queue_length": program.Gauge, "tcp_listen_queue_limit": program.Gauge,
				"tcp_listen_drops_total": program.Counter, "tcp_netns_listen_overflows_total": program.Counter,
				"tcp_netns_listen_drops_total": program.Counter, "tcp_netns_syn_drops_total": program.Counter},
			"sockets": {"sockets": program.Gauge, "socket_receive_memory_bytes": program.Gauge,
				"socket_send_memory_bytes": program.Gauge, "tcp_unowned_sockets": program.Gauge},
		},
		helpers: map[string]func(){"tcp": speakTCP},
		costs: []cost{
			{program: "tcpconnect", event: "connection made and accepted", prepare: prepareLoopback, cause: makeConnections,
				bpftrace: `tracepoint:sock:inet_sock_set_state /args->newstate == 2/ { @start[args->skaddr] = nsecs; @c[cgroup] = count(); }
					tracepoint:sock:inet_sock_set_state /args->oldstate == 2 && args->newstate == 1/
					{ @latency[cgroup] = hist(nsecs - @start[args->skaddr]); delete(@start[args->skaddr]); }`},
			{program: "tcpretransmit", event: "request for a connection that is repeated until it fails", prepare: prepareLoopback, cause: knockInVain,
				bpftrace: `tracepoint:tcp:tcp_retransmit_skb { @[args->state, args->family] = count(); }`},
			{program: "tcpreset", event: "connection that is reset", prepare: prepareLoopback, cause: makeConnections,
				bpftrace: `tracepoint:tcp:tcp_send_reset { @sent[args->state] = count(); } tracepoint:tcp:tcp_receive_reset { @received[cgroup] = count(); }`},
			{program: "tcprtt", event: "connection that ends", prepare: prepareLoopback, cause: makeConnections},
			{program: "tcprtt", params: []string{"every=16"}, event: "request and answer", prepare: prepareLoopback, cause: exchangeSegments,
				bpftrace: `tracepoint:tcp:tcp_probe { @[cgroup] = hist(args->srtt); }`},
			{program: "listenoverflow", event: "scrape", prepare: openThousandSockets},
			{program: "sockets", event: "scrape", prepare: openThousandSockets},
			{program: "sockets", params: []string{"unowned=true"}, event: "scrape", prepare: openThousandSockets},
		},
	}
}

func prepareLoopback(b *testing.B) { inLoopback(b) }

// makeConnections makes b.N connections on loopback and resets each.
func makeConnections(b *testing.B) {
	group := newCgroup(b)
	h, peer := group.talker(b), group.talker(b)
	port := peer.number("listen", "l", 10)
	b.ResetTimer()
	for range b.N {
		h.tell("connect", "c", port)
		peer.tell("accept", "c", 1)
		h.tell("reset", "c")
		peer.tell("close", "c0")
	}
}

// exchangeSegments sends a byte there and back b.N times.
func exchangeSegments(b *testing.B) {
	group := newCgroup(b)
	h, peer := group.talker(b), group.talker(b)
	h.tell("connect", "c", peer.number("listen", "l", 10))
	peer.tell("accept", "c", 1)
	b.ResetTimer()
	for range b.N {
		h.tell("send", "c", 1)
		peer.tell("receive", "c0", 1)
		peer.tell("send", "c0", 1)
		h.tell("receive", "c", 1)
	}
}

// knockInVain begins b.N connections that nobody answers, and waits until all have failed.
func knockInVain(b *testing.B) {
	group := newCgroup(b)
	group.hurry(b)
	h := group.talker(b)
	port := h.fullPort("")
	b.ResetTimer()
	const together = 100
	for done := 0; done < b.N; done += together {
		n := min(together, b.N-done)
		for i := range n {
			h.say("begin", fmt.Sprint("c", i), port)
		}
		for i := range n {
			h.say("end", fmt.Sprint("c", i))
			h.tell("close", fmt.Sprint("c", i))
		}
	}
}

func openThousandSockets(b *testing.B) {
	inLoopback(b)
	h := newCgroup(b).talker(b)
	for i := range 1000 {
		h.number("listen", fmt.Sprint("s", i), 1)
	}
}
