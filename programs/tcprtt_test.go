package programs_test

import (
	"fmt"
	"testing"
)

// What is observed is what the kernel tells the program that has the connection.
func TestTCPRTT(t *testing.T) {
	inLoopback(t)
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "tcprtt", group.dir)
	h, peer := group.talker(t), other.talker(t)
	port := peer.number("listen", "l", 10)
	const connections = 5
	least := 0
	for i := range connections {
		name := fmt.Sprint("c", i)
		h.tell("connect", name, port)
		peer.tell("accept", name, 1)
		for range 2 * i {
			h.tell("send", name, 100)
			peer.tell("receive", name+"0", 100)
			h.until(func(n int) bool { return n == 0 }, "unacked", name)
		}
		least += h.number("rtt", name)
		h.tell("close", name)
	}
	missed := r.missed("connection_ends")
	observed := pick(r.collect()["tcp_rtt_seconds"], "cgroup="+group.path)
	if len(observed) != 1 || observed[0].count() > connections || observed[0].count()+missed < connections {
		t.Fatalf("%d connections ended: %v", connections, observed)
	}
	if got := int(observed[0].row[0]); missed == 0 && (got < least*1000 || got > (least+connections)*1000) {
		t.Errorf("%d ns observed, the kernel says at least %d us", got, least)
	}
}

func TestTCPRTTMeanwhile(t *testing.T) {
	inLoopback(t)
	group, other := newCgroup(t), newCgroup(t)
	each, some := load(t, "tcprtt", group.dir, "every=1", "ports=true"), load(t, "tcprtt", group.dir, "every=5")
	h, peer := group.talker(t), other.talker(t)
	port := peer.number("listen", "l", 10)
	h.tell("connect", "c", port)
	peer.tell("accept", "c", 1)
	for range 30 {
		peer.tell("send", "c0", 100)
		h.tell("receive", "c", 100)
	}
	segments := uint64(h.number("segments", "c"))
	f := func(r *running, want uint64, labels ...string) {
		t.Helper()
		missed := r.missed("segment_received")
		observed := pick(r.collect()["tcp_rtt_seconds"], append(labels, "cgroup="+group.path)...)
		if len(observed) != 1 || observed[0].count() > want || observed[0].count()+missed < want {
			t.Errorf("%d segments were received, want %d (missed %d): %v", segments, want, missed, observed)
		}
	}
	// Not the first, which answers the request for the connection.
	f(each, segments-1, fmt.Sprint("port=", min(port, h.number("port", "c"))))
	f(some, segments/5, "port=")
}
