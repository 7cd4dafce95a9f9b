package programs_test

import (
	"fmt"
	"os"
	"testing"
)

func TestTCPConnect(t *testing.T) {
	inLoopback(t)
	group, other := newCgroup(t), newCgroup(t)
	group.hurry(t)
	r := load(t, "tcpconnect", group.dir)
	near, far := group.talker(t), other.talker(t)

	port := near.number("listen", "l", 10)
	for i := range 3 {
		near.tell("connect", fmt.Sprint("near", i), port)
	}
	for i := range 2 {
		far.tell("connect", fmt.Sprint("far", i), port)
	}
	near.tell("accept", "a", 5)
	connects := 3

	refusing := near.closedPort()
	for i := range 2 {
		if answer := near.say("connect", fmt.Sprint("refused", i), refusing); answer != "ECONNREFUSED" {
			t.Fatal(answer)
		}
	}
	far.say("connect", "refused", refusing)
	connects += 2

	full := far.fullPort("")
	if answer := near.say("begin", "silence", full); answer != "EINPROGRESS" {
		t.Fatal(answer)
	}
	near.tell("close", "silence")
	near.say("begin", "silence", full)
	if answer := near.say("end", "silence"); answer != "ETIMEDOUT" {
		t.Fatal(answer)
	}
	connects += 2

	// One local port, and two connections to the same place.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("64999 64999"), 0); err != nil {
		t.Fatal(err)
	}
	near.tell("connect", "last", port)
	if answer := near.say("connect", "none", port); answer != "EADDRNOTAVAIL" {
		t.Fatal(answer)
	}
	connects += 2

	families, missed := r.collect(), r.missed("tcp_state")
	cgroup := "cgroup=" + group.path
	expectUpTo(t, families, "tcp_connects_total", uint64(connects), missed, cgroup)
	expectUpTo(t, families, "tcp_accepts_total", 6, missed, cgroup)
	expectUpTo(t, families, "tcp_connect_failures_total", 2, missed, cgroup, "error=ECONNREFUSED", "port=")
	expectUpTo(t, families, "tcp_connect_failures_total", 1, missed, cgroup, "error=ECANCELED")
	expectUpTo(t, families, "tcp_connect_failures_total", 1, missed, cgroup, "error=ETIMEDOUT")
	expectUpTo(t, families, "tcp_connect_failures_total", 1, missed, cgroup, "error=EADDRNOTAVAIL")
	expectUpTo(t, families, "tcp_connect_failures_total", 5, missed)
	if made := pick(families["tcp_connect_latency_seconds"], cgroup); len(made) != 1 || made[0].count() > 4 || made[0].count()+missed < 4 ||
		made[0].row[0] == 0 {
		t.Errorf("four connections were made: %v", made)
	}
	for _, name := range []string{"tcp_connects_total", "tcp_accepts_total"} {
		expect(t, families, name, 0, "cgroup="+other.path)
	}
}

func TestTCPConnectPorts(t *testing.T) {
	inLoopback(t)
	group := newCgroup(t)
	r := load(t, "tcpconnect", group.dir, "ports=true")
	h := group.talker(t)
	first, second := h.number("listen", "l", 10), h.number("listen", "m", 10)
	refusing := h.closedPort()
	h.tell("connect", "a", first)
	h.tell("connect", "b", first)
	h.tell("connect", "c", second)
	h.say("connect", "d", refusing)

	families, missed := r.collect(), r.missed("tcp_state")
	for port, times := range map[int]uint64{first: 2, second: 1} {
		label := fmt.Sprint("port=", port)
		expectUpTo(t, families, "tcp_connects_total", times, missed, label)
		expectUpTo(t, families, "tcp_accepts_total", times, missed, label)
		if made := pick(families["tcp_connect_latency_seconds"], label); len(made) != 1 || made[0].count() > times || made[0].count()+missed < times {
			t.Errorf("port %d: %v", port, made)
		}
	}
	expectUpTo(t, families, "tcp_connect_failures_total", 1, missed, fmt.Sprint("port=", refusing), "error=ECONNREFUSED")
}
