package programs_test

import (
	"fmt"
	"testing"
)

// What is counted is what the kernel itself says of each connection. Some kernels leave the tracepoint out now and then (the
// native one does, and tells nobody): where the figures differ it is tried again, with other connections.
func TestTCPRetransmit(t *testing.T) {
	inLoopback(t)
	for attempt := range 3 {
		wrong := retransmit(t)
		if len(wrong) == 0 {
			return
		}
		if attempt == 2 {
			t.Error(wrong)
		}
		t.Log(wrong)
	}
}

// retransmit makes segments be sent again in all the ways that there are, and returns what is not as it should be.
func retransmit(t *testing.T) (wrong []string) {
	t.Helper()
	group, other := newCgroup(t), newCgroup(t)
	group.hurry(t)
	losses := other.lossy(t)
	r := load(t, "tcpretransmit", group.dir)
	h, peer := group.talker(t), other.talker(t)
	cgroup := "cgroup=" + group.path
	f := func(what string, want uint64, labels ...string) uint64 {
		t.Helper()
		points := r.collect()["tcp_retransmits_total"]
		missed := r.missed("retransmit") + r.missed("retransmit_synack")
		got := total(pick(points, append(labels, cgroup)...))
		if got > want || got+missed < want {
			wrong = append(wrong, fmt.Sprintf("%s: %d, want %d, less at most %d that were skipped: %v", what, got, want, missed, points))
		}
		return got
	}

	// Listeners that answer nothing.
	full, full6 := peer.fullPort(""), peer.fullPort("6")
	h.say("begin", "c", full)
	h.say("mapped", "d", full)
	h.say("begin6", "e", full6)
	again := map[string]uint64{}
	for _, name := range []string{"c", "d", "e"} {
		if answer := h.say("end", name); answer != "ETIMEDOUT" {
			t.Fatal(answer)
		}
		if again[name] = uint64(h.number("retransmits", name)); again[name] == 0 {
			t.Fatalf("%s was tried once", name)
		}
	}
	f("IPv4", again["c"]+again["d"], "state=syn_sent", "kind=syn", "family=ipv4")
	f("IPv6", again["e"], "state=syn_sent", "kind=syn", "family=ipv6")

	// The answer to the listener's answer is lost.
	own := group.lossy(t)
	port := h.number("listen", "l", 10)
	own.lose(52, 52, 1)
	peer.tell("connect", "a", port)
	h.tell("accept", "a", 1)
	f("answers", 1, "state=syn_recv", "kind=synack", "family=ipv4")

	// One of several segments is lost: its successors tell.
	port = peer.number("listen", "l", 10)
	h.tell("connect", "s", port)
	peer.tell("accept", "s", 1)
	losses.lose(1000, 2000, 1)
	for range 6 {
		h.tell("send", "s", 1000)
	}
	peer.tell("receive", "s0", 6000)
	first := h.until(func(n int) bool { return n > 0 }, "retransmits", "s")
	f("first", uint64(first), "state=established")

	// All are lost for a while: a probe, then the timer.
	losses.lose(1000, 2000, 1000)
	h.tell("send", "s", 1000)
	h.until(func(n int) bool { return n >= first+2 }, "retransmits", "s")
	losses.lose(0, 0, 0)
	peer.tell("receive", "s0", 1000)
	h.until(func(n int) bool { return n == 0 }, "unacked", "s")
	sum := uint64(h.number("retransmits", "s"))
	got := f("all of the connection", sum, "state=established")
	f("all", again["c"]+again["d"]+again["e"]+1+sum)

	points := r.collect()["tcp_retransmits_total"]
	fast, timeouts, probes := total(pick(points, "kind=fast")), total(pick(points, "kind=timeout")), total(pick(points, "kind=probe"))
	if fast == 0 || timeouts == 0 || fast+timeouts+probes != got {
		wrong = append(wrong, fmt.Sprintf("%d fast, %d after timeouts, %d probes of %d: %v", fast, timeouts, probes, got, points))
	}
	return wrong
}
