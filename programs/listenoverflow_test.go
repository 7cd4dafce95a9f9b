package programs_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// listenDrops returns what the kernel counts in this network namespace.
func listenDrops(t *testing.T) uint64 {
	t.Helper()
	text, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	for i, name := range names {
		if name == "ListenDrops" {
			var n uint64
			if _, err := fmt.Sscan(values[i], &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Skip("needs ListenDrops in /proc/net/netstat")
	return 0
}

func TestListenOverflow(t *testing.T) {
	inLoopback(t)
	group, other := newCgroup(t), newCgroup(t)
	other.hurry(t)
	r := load(t, "listenoverflow", group.dir)
	h, peer := group.talker(t), other.talker(t)
	h.number("listen", "outside", 7)
	port := h.number("listen", "l", 2)
	h.tell("dup", "l")
	peer.number("listen", "other", 3)
	for i := range 3 {
		peer.tell("connect", fmt.Sprint("c", i), port)
	}
	for i := range 2 {
		peer.say("begin", fmt.Sprint("d", i), port)
	}
	for i := range 2 {
		if answer := peer.say("end", fmt.Sprint("d", i)); answer != "ETIMEDOUT" {
			t.Fatal(answer)
		}
	}
	label := fmt.Sprint("port=", port)
	families := r.collect()
	drops := listenDrops(t)
	if drops < 2*2 {
		t.Errorf("the kernel dropped %d, want two connections, each several times", drops)
	}
	expect(t, families, "tcp_listen_drops_total", drops, label, "cgroup="+group.path)
	expect(t, families, "tcp_listen_drops_total", drops)
	expect(t, families, "tcp_listen_queue_length", 3, label)
	expect(t, families, "tcp_listen_queue_limit", 2, label)
	expect(t, families, "tcp_listen_queue_limit", 9)
	h.tell("accept", "a", 2)
	expect(t, r.collect(), "tcp_listen_queue_length", 1)
}

// inNetnsOfProcess runs the rest of the test where the process's first thread is, which may be in a network namespace of its own.
func inNetnsOfProcess(t *testing.T) {
	t.Helper()
	fd, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("needs network namespaces: ", err)
	}
	defer unix.Close(fd)
	runtime.LockOSThread()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		t.Skip("needs root: ", err)
	}
	if os.Getenv("KAON_VM") != "" {
		up(t, "lo")
	}
}

// Files below /proc/net tell of the namespace of the process.
func TestListenOverflowOfNamespace(t *testing.T) {
	inNetnsOfProcess(t)
	group := newCgroup(t)
	r := load(t, "listenoverflow", group.dir)
	h := group.talker(t)
	before := r.collect()
	port := h.fullPort("")
	for i := range 3 {
		h.say("begin", fmt.Sprint("c", i), port)
	}
	after := r.collect()
	// Others of the machine may overflow meanwhile.
	for _, name := range []string{"tcp_netns_listen_overflows_total", "tcp_netns_listen_drops_total"} {
		if len(after[name]) != 1 || total(after[name])-total(before[name]) < 3 {
			t.Errorf("%s was %v and is %v, want three more", name, before[name], after[name])
		}
	}
	expect(t, after, "tcp_listen_drops_total", 3, fmt.Sprint("port=", port))
	if _, ok := after["tcp_netns_syn_drops_total"]; !ok {
		t.Errorf("there is no tcp_netns_syn_drops_total: %v", after)
	}
}
