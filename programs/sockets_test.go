package programs_test

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestSockets(t *testing.T) {
	if os.Getenv("KAON_VM") != "" {
		up(t, "lo")
	}
	group, other := newCgroup(t), newCgroup(t)
	r := load(t, "sockets", group.dir, "unowned=true")
	h, peer := group.talker(t), other.talker(t)
	port := h.number("listen", "l", 10)
	h.number("listen6", "l6", 10)
	h.tell("dup", "l")
	for i := range 4 {
		peer.tell("connect", fmt.Sprint("c", i), port)
	}
	h.tell("accept", "c", 3)
	peer.tell("send", "c0", 5000)
	peer.tell("close", "c1")
	h.tell("udp", "u")
	const closeWait = 8
	h.until(func(state int) bool { return state == closeWait }, "state", "c1")

	families := r.collect()
	cgroup := "cgroup=" + group.path
	f := func(want uint64, labels ...string) {
		t.Helper()
		expect(t, families, "sockets", want, append(labels, cgroup)...)
	}
	f(1, "family=ipv4", "protocol=tcp", "state=listen")
	f(1, "family=ipv6", "protocol=tcp", "state=listen")
	f(2, "family=ipv4", "protocol=tcp", "state=established")
	f(1, "family=ipv4", "protocol=tcp", "state=close_wait")
	f(1, "family=ipv4", "protocol=udp", "state=close")
	expect(t, families, "sockets", 6)
	expect(t, families, "tcp_unowned_sockets", 1, "family=ipv4", "state=established", cgroup)
	expect(t, families, "tcp_unowned_sockets", 1)
	if n := total(pick(families["socket_receive_memory_bytes"], "protocol=tcp", "state=established")); n < 5000 || n > 50000 {
		t.Errorf("%d bytes of memory for 5000 bytes received", n)
	}

	h.tell("receive", "c0", 5000)
	h.wait()
	for range 200 {
		if families = r.collect(); len(families["sockets"]) == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("sockets of who is gone: %v", families["sockets"])
}
