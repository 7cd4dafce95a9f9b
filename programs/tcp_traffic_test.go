package programs_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// speakTCP obeys the lines of its standard input, "VERB NAME ARGUMENT", and answers each by one: "ok", a number, or
// the name of an errno. The names are those of sockets. It does not use Go's net package, whose
// sockets may be those of MPTCP.
func speakTCP() {
	sockets := map[string]int{}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var verb, name string
		var argument int
		_, _ = fmt.Sscan(in.Text(), &verb, &name, &argument)
		answer, err := obeyTCP(sockets, verb, name, argument)
		switch number := unix.Errno(0); {
		case errors.As(err, &number):
			fmt.Println(unix.ErrnoName(number))
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(answer)
		}
	}
}

func obeyTCP(sockets map[string]int, verb, name string, argument int) (any, error) {
	loopback := &unix.SockaddrInet4{Port: argument, Addr: [4]byte{127, 0, 0, 1}}
	made := func(domain, kind int) (int, error) {
		fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			sockets[name] = fd
			_ = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_SYNCNT, 2)
			_ = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_NODELAY, 1)
		}
		return fd, err
	}
	fd := sockets[name]
	switch verb {
	case "listen": // argument: the backlog; answer: the port
		fd, err := made(unix.AF_INET, unix.SOCK_STREAM)
		if err != nil {
			return nil, err
		}
		loopback.Port = 0
		if err := errors.Join(unix.Bind(fd, loopback), unix.Listen(fd, argument)); err != nil {
			return nil, err
		}
		return boundPort(fd)
	case "connect", "begin": // argument: the port; begin does not wait
		kind := unix.SOCK_STREAM
		if verb == "begin" {
			kind |= unix.SOCK_NONBLOCK
		}
		fd, err := made(unix.AF_INET, kind)
		if err != nil {
			return nil, err
		}
		return "ok", uninterrupted(func() error { return unix.Connect(fd, loopback) })
	case "begin6", "mapped": // IPv6; IPv4 by a socket of IPv6
		fd, err := made(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_NONBLOCK)
		if err != nil {
			return nil, err
		}
		to := &unix.SockaddrInet6{Port: argument, Addr: [16]byte{15: 1}}
		if verb == "mapped" {
			to.Addr = [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}
		}
		return "ok", unix.Connect(fd, to)
	case "listen6":
		fd, err := made(unix.AF_INET6, unix.SOCK_STREAM)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}), unix.Listen(fd, argument)); err != nil {
			return nil, err
		}
		return boundPort(fd)
	case "accept": // from the socket "l"; argument: how many
		for i := range argument {
			err := uninterrupted(func() error {
				fd, _, err := unix.Accept4(sockets["l"], unix.SOCK_CLOEXEC)
				sockets[fmt.Sprint(name, i)] = fd
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return "ok", nil
	case "end": // waits until a connection that was begun is made or has failed
		if err := uninterrupted(func() error {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 60000)
			return err
		}); err != nil {
			return nil, err
		}
		number, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && number != 0 {
			err = unix.Errno(number)
		}
		return "ok", err
	case "send": // argument: bytes
		return "ok", uninterrupted(func() error { _, err := unix.Write(fd, make([]byte, argument)); return err })
	case "receive": // argument: bytes
		for argument > 0 {
			err := uninterrupted(func() error {
				n, err := unix.Read(fd, make([]byte, argument))
				if err == nil && n == 0 {
					return unix.ENOTCONN
				}
				argument -= n
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return "ok", nil
	case "udp":
		_, err := made(unix.AF_INET, unix.SOCK_DGRAM)
		return "ok", err
	case "dup":
		_, err := unix.Dup(fd)
		return "ok", err
	case "port":
		return boundPort(fd)
	case "close":
		return "ok", unix.Close(fd)
	case "reset":
		return "ok", errors.Join(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), unix.Close(fd))
	case "retransmits", "rtt", "unacked", "segments", "state": // of a connection, as the kernel has it
		info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_TCP, unix.TCP_INFO)
		if err != nil {
			return nil, err
		}
		return map[string]uint32{"retransmits": info.Total_retrans, "rtt": info.Rtt, "unacked": info.Unacked,
			"segments": info.Segs_in, "state": uint32(info.State)}[verb], nil
	}
	return nil, fmt.Errorf("no verb %q", verb)
}

func uninterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func boundPort(fd int) (int, error) {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch name := name.(type) {
	case *unix.SockaddrInet4:
		return name.Port, nil
	case *unix.SockaddrInet6:
		return name.Port, nil
	}
	return 0, unix.EAFNOSUPPORT
}

// talker is a process that does with TCP what it is told.
type talker struct{ *helper }

func (c cgroup) talker(t testing.TB) talker { return talker{c.start(t, "tcp")} }

// say gives it a line and returns its answer.
func (h talker) say(words ...any) string {
	h.t.Helper()
	if _, err := fmt.Fprintln(h.in, words...); err != nil {
		h.t.Fatal(err)
	}
	answer, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatalf("%v: %v", words, err)
	}
	return strings.TrimSpace(answer)
}

// tell is say, if "ok" is expected.
func (h talker) tell(words ...any) {
	h.t.Helper()
	if answer := h.say(words...); answer != "ok" {
		h.t.Fatalf("%v: %s", words, answer)
	}
}

// number is say, if a number is expected.
func (h talker) number(words ...any) int {
	h.t.Helper()
	answer, n := h.say(words...), 0
	if _, err := fmt.Sscan(answer, &n); err != nil {
		h.t.Fatalf("%v: %s", words, answer)
	}
	return n
}

// until says something until it is answered by a number that is right.
func (h talker) until(right func(int) bool, words ...any) int {
	h.t.Helper()
	for range 3000 {
		if n := h.number(words...); right(n) {
			return n
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Fatalf("%v: never", words)
	return 0
}

// inLoopback runs the rest of the test in a network namespace of its own that has nothing but a loopback interface.
func inLoopback(t testing.TB) {
	t.Helper()
	inNetns(t)
	up(t, "lo")
}

// closedPort returns a port on which nobody listens.
func (h talker) closedPort() int {
	h.t.Helper()
	port := h.number("listen", "closed", 1)
	h.tell("close", "closed")
	return port
}

// fullPort returns the port of a listener that drops whatever comes: its queue is full.
func (h talker) fullPort(family string) int {
	h.t.Helper()
	port := h.number("listen"+family, "full"+family, 0)
	h.say("begin"+family, "filling"+family, port)
	h.tell("end", "filling"+family)
	return port
}

// hurry makes connections of a cgroup send SYN and SYN-ACK again after a fraction of a second.
func (c cgroup) hurry(t testing.TB) {
	t.Helper()
	c.attach(t, ebpf.SockOps, ebpf.AttachCGroupSockOps, asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // op
		asm.Mov.Imm(asm.R3, 5),                   // jiffies
		asm.JNE.Imm(asm.R2, 1, "other"),          // BPF_SOCK_OPS_TIMEOUT_INIT
		asm.StoreMem(asm.R1, 4, asm.R3, asm.Word),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("other"),
		asm.Return(),
	})
}

// losses decides what the sockets of a cgroup don't receive.
type losses struct {
	t   testing.TB
	set *ebpf.Map
}

// lossy makes the sockets of a cgroup lose packets, none at first.
func (c cgroup) lossy(t testing.TB) *losses {
	t.Helper()
	set, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 12, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { set.Close() })
	c.attach(t, ebpf.CGroupSKB, ebpf.AttachCGroupInetIngress, asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.Word), // length
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, set.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JLT.Reg(asm.R6, asm.R1, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 4, asm.Word),
		asm.JGT.Reg(asm.R6, asm.R1, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 8, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "pass"),
		asm.Sub.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 8, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"),
		asm.Return(),
	})
	return &losses{t: t, set: set}
}

// lose makes the next packets of this length, in bytes with the IP header, disappear.
func (l *losses) lose(least, most, packets uint32) {
	l.t.Helper()
	if err := l.set.Put(uint32(0), []uint32{least, most, packets}); err != nil {
		l.t.Fatal(err)
	}
}

func (c cgroup) attach(t testing.TB, kind ebpf.ProgramType, attach ebpf.AttachType, instructions asm.Instructions) {
	t.Helper()
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, AttachType: attach, Instructions: instructions, License: "MIT"})
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	l, err := link.AttachCgroup(link.CgroupOptions{Path: c.dir, Attach: attach, Program: program})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
}
