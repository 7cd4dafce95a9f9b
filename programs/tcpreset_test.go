package programs_test

import (
	"fmt"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestTCPReset(t *testing.T) {
	inLoopback(t)
	group, other := newCgroup(t), newCgroup(t)
	r, all := load(t, "tcpreset", group.dir), load(t, "tcpreset", "")
	h, peer := group.talker(t), other.talker(t)
	ownerless := total(pick(all.collect()["tcp_resets_sent_total"], "state="))

	port := peer.number("listen", "l", 10)
	for i := range 3 {
		h.tell("connect", fmt.Sprint("c", i), port)
	}
	peer.tell("accept", "c", 3)
	h.tell("reset", "c0")
	h.tell("reset", "c1")
	peer.tell("reset", "c2")
	// Nobody listens.
	closed := peer.closedPort()
	for i := range 2 {
		if answer := h.say("connect", fmt.Sprint("refused", i), closed); answer != "ECONNREFUSED" {
			t.Fatal(answer)
		}
	}

	families, sent, received := r.collect(), r.missed("reset_sent"), r.missed("reset_received")
	cgroup := "cgroup=" + group.path
	expectUpTo(t, families, "tcp_resets_sent_total", 2, sent, cgroup)
	expectUpTo(t, families, "tcp_resets_sent_total", 2, sent)
	expectUpTo(t, families, "tcp_resets_received_total", 1, received, cgroup, "state=established")
	expectUpTo(t, families, "tcp_resets_received_total", 2, received, cgroup, "state=syn_sent")
	expectUpTo(t, families, "tcp_resets_received_total", 3, received)

	families = all.collect()
	expectUpTo(t, families, "tcp_resets_sent_total", 1, all.missed("reset_sent"), "cgroup="+other.path)
	expectUpTo(t, families, "tcp_resets_received_total", 2, all.missed("reset_received"), "cgroup="+other.path, "state=established")
	kernel, err := types().Kernel()
	if err != nil {
		t.Fatal(err)
	}
	var reasons *btf.Enum
	if kernel.TypeByName("sk_rst_reason", &reasons) != nil {
		return // this kernel does not tell of resets that no socket sends
	}
	// Others of the machine may do the same meanwhile.
	points := pick(families["tcp_resets_sent_total"], "state=", "cgroup=", "reason=no_socket")
	if got := total(points) + all.missed("reset_sent"); got < ownerless+2 {
		t.Errorf("%d resets without a socket, want %d: %v", got, ownerless+2, families)
	}
}
