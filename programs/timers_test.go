package programs_test

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const timersSet = 30

// setTimers lets as many interval timers of its process expire, one after the other, and reports each alarm that came.
func setTimers() {
	alarms := make(chan os.Signal, 1)
	signal.Notify(alarms, syscall.SIGALRM)
	for range timersSet {
		if _, err := unix.Setitimer(unix.ItimerReal, unix.Itimerval{Value: unix.Timeval{Usec: 1000}}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		<-alarms
	}
	fmt.Println(timersSet)
	waitForInput()
}

// waitInVain lets n timers of the wheel expire: those of reads that get nothing.
func waitInVain(t testing.TB, n int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 4000}); err != nil {
		t.Fatal(err)
	}
	for expired := 0; expired < n; {
		_, err := unix.Read(fd, make([]byte, 1))
		switch {
		case errors.Is(err, unix.EAGAIN):
			expired++
		case !errors.Is(err, unix.EINTR):
			t.Fatal("read:", err)
		}
	}
}

// Functions of timers are the whole machine's. The first is called for hardly anything else. Some kernels leave the tracepoint
// out a few times (see TestRunqueue).
func TestTimers(t *testing.T) {
	group := newCgroup(t)
	r := load(t, "timers", "")
	count := func(family string, labels ...string) uint64 {
		var n uint64
		for _, p := range pick(r.collect()[family], labels...) {
			if family == "timer_latency_seconds" {
				n += p.count()
			} else {
				n += p.row[0]
			}
		}
		return n
	}
	// The length of a jiffy is known after some of them.
	for range 200 {
		if count("timer_latency_seconds", "kind=wheel") > 0 {
			break
		}
		waitInVain(t, 2)
	}

	alarm := []string{"function=it_real_fn", "kind=hrtimer"}
	before := count("timer_expirations_total", alarm...)
	if n := group.start(t, "alarms").reported(); n != timersSet {
		t.Fatal(n)
	}
	missed := r.missed(r.chosen("hrtimer_expire_entry", "hrtimer_expire_entry_raw"))
	if got := count("timer_expirations_total", alarm...) - before; got > timersSet || got+missed+timersSet/10 < timersSet {
		t.Errorf("%d interval timers expired, want %d less %d", got, timersSet, missed)
	}
	if got := count("timer_latency_seconds", alarm...); got != count("timer_expirations_total", alarm...) {
		t.Errorf("%d of the expirations have a latency", got)
	}

	wheel := []string{"function=process_timeout", "kind=wheel"}
	before, late := count("timer_expirations_total", wheel...), count("timer_latency_seconds", wheel...)
	const n = 20
	waitInVain(t, n)
	missed = r.missed("timer_expire_entry")
	if got := count("timer_expirations_total", wheel...) - before; got+missed+n/10 < n {
		t.Errorf("%d timers of the wheel expired, want at least %d less %d", got, n, missed)
	}
	if got := count("timer_latency_seconds", wheel...) - late; got+missed+n/10 < n {
		t.Errorf("%d timers of the wheel have a latency, want at least %d less %d", got, n, missed)
	}
	// A latency is within what went by since the Program began, and a jiffy's length a sensible one.
	for _, p := range r.collect()["timer_latency_seconds"] {
		if p.row[0] > p.count()*uint64(time.Minute) {
			t.Errorf("%v: %d timers were late by %d ns in all", p.labels, p.count(), p.row[0])
		}
	}
}

// chosen returns which of these alternatives this kernel took.
func (r *running) chosen(functions ...string) string {
	r.t.Helper()
	stats, err := r.instance.Stats()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range stats {
		if slices.Contains(functions, s.Function) {
			return s.Function
		}
	}
	r.t.Fatalf("none of %v was loaded", functions)
	return ""
}
