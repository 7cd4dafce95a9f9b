package programs_test

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// receiveSignals says when SIGUSR2 has come. When its input ends, it has the kernel send SIGALRM and
// sends SIGWINCH, which does nothing, to itself and to its parent.
func receiveSignals() {
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGUSR2, unix.SIGALRM)
	fmt.Println("ready")
	ended := make(chan bool)
	go func() {
		waitForInput()
		close(ended)
	}()
	for done := false; !done; {
		select {
		case <-got:
			fmt.Println("got")
		case <-ended:
			done = true
		}
	}
	if _, err := unix.Setitimer(unix.ITIMER_REAL, unix.Itimerval{Value: unix.Timeval{Usec: 1}}); err != nil {
		os.Exit(101)
	}
	<-got
	for range 5 {
		_ = unix.Kill(os.Getpid(), unix.SIGWINCH)
	}
	for range 4 {
		_ = unix.Kill(os.Getppid(), unix.SIGWINCH)
	}
}

// sayReady waits for its input's end, with the signal handlers that every Go process has.
func sayReady() {
	fmt.Println("ready")
	waitForInput()
}

// killTarget sends SIGKILL to the process TARGET, five times.
func killTarget() {
	pid, err := strconv.Atoi(os.Getenv("TARGET"))
	if err != nil || pid < 2 {
		os.Exit(101)
	}
	for range 5 { // the parent waits for this process first: there is a zombie until then
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			os.Exit(102)
		}
	}
}

func TestSignals(t *testing.T) {
	scope, outside := newCgroup(t), newCgroup(t)
	group, sender := scope.child(t, "receiver"), scope.child(t, "sender")
	r := load(t, "signals", scope.dir, "child_exits=true")
	send := func(h *helper, signal unix.Signal, answer string) {
		t.Helper()
		if err := h.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if answer != "" {
			h.expectLine(answer)
		}
	}
	// Signals of the group and of a neighbour.
	for _, c := range []cgroup{group, outside} {
		h := c.start(t, "signals")
		h.expectLine("ready")
		for range 2 {
			send(h, unix.SIGUSR2, "got")
		}
		if status := h.wait(); status.ExitStatus() != 0 {
			t.Fatalf("the helper ended with %v", status)
		}
	}
	h := group.start(t, "ready")
	h.expectLine("ready")
	for range 30 { // it isn't stopped, and rarely blocks signals
		send(h, unix.SIGCONT, "")
	}
	if status := sender.start(t, "kill", fmt.Sprint("TARGET=", h.cmd.Process.Pid)).wait(); status.ExitStatus() != 0 {
		t.Fatalf("the helper ended with %v", status)
	}
	h.wait()
	// With a child that ends.
	if status := group.start(t, "fileless", "DIRECTORY="+t.TempDir()).wait(); status.ExitStatus() != 0 {
		t.Fatalf("the helper ended with %v", status)
	}

	families := r.collect()
	missed := r.missed("signal_generate")
	f := func(want uint64, labels ...string) {
		t.Helper()
		expectUpTo(t, families, "signals_total", want, missed, append(labels, "cgroup="+group.path)...)
	}
	f(30, "signal=SIGCONT", "origin=process")
	if len(pick(families["signals_total"], "signal=SIGCONT", "result=ignored")) == 0 {
		t.Error("no signal was ignored")
	}
	f(2, "signal=SIGUSR2", "origin=process", "result=delivered")
	f(5, "signal=SIGKILL", "origin=process", "sender_cgroup="+sender.path)
	f(1, "signal=SIGALRM", "origin=kernel", "sender_cgroup=")
	f(5, "signal=SIGWINCH", "sender_cgroup="+group.path)
	f(9, "signal=SIGCHLD", "origin=kernel", "sender_cgroup=")
	for _, p := range families["signals_total"] {
		if cgroup := p.labels["cgroup"]; cgroup != group.path && cgroup != sender.path {
			t.Errorf("a signal to somebody else: %v", p.labels)
		}
	}
}
