package programs_test

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// interruptCounts reads /proc/softirqs or /proc/interrupts: what the lines begin and end with, and the sum over the CPUs.
func interruptCounts(t testing.TB, file string) map[string]uint64 {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines, cpus := bufio.NewScanner(f), -1
	counts := map[string]uint64{}
	for lines.Scan() {
		columns := strings.Fields(lines.Text())
		if cpus < 0 {
			cpus = len(columns)
			continue
		}
		name, ok := strings.CutSuffix(columns[0], ":")
		if !ok || len(columns) < cpus+1 {
			continue
		}
		for _, column := range columns[1 : cpus+1] {
			n, err := strconv.ParseUint(column, 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			counts[name] += n
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return counts
}

// sandwich compares counts of the whole machine with the kernel's own, which go on meanwhile: ours are read between two of its.
type sandwich struct {
	read         func() map[string]uint64
	kernel       func() map[string]uint64
	before, from map[string]uint64 // the kernel's, before and after ours
	ours         map[string]uint64
}

func (s *sandwich) begin() {
	s.before = s.kernel()
	s.ours = s.read()
	s.from = s.kernel()
}

// end checks every count, and that at least one of these names was seen.
func (s *sandwich) end(t testing.TB, missed uint64, names ...string) {
	t.Helper()
	to := s.kernel()
	ours := s.read()
	after := s.kernel()
	// The kernel counts when a handler begins, we when it ends.
	inFlight := uint64(runtime.NumCPU())
	for name := range after {
		got := ours[name] - s.ours[name]
		least, most := to[name]-s.from[name], after[name]-s.before[name]
		if got+missed+inFlight < least || got > most+inFlight {
			t.Errorf("%s: %d, the kernel says %d to %d", name, got, least, most)
		}
	}
	for _, name := range names {
		if ours[name] == s.ours[name] {
			t.Errorf("no %s was seen", name)
		}
	}
}

func TestSoftIRQ(t *testing.T) {
	inNetns(t)
	up(t, "lo")
	r := load(t, "softirq", "")
	s := sandwich{
		read: func() map[string]uint64 {
			counts := map[string]uint64{}
			for _, p := range r.collect()["softirq_duration_seconds"] {
				counts[strings.ToUpper(p.labels["vector"])] = p.count()
			}
			return counts
		},
		kernel: func() map[string]uint64 { return interruptCounts(t, "/proc/softirqs") },
	}
	s.begin()
	net := s.ours["NET_RX"]
	const packets = 500
	sendToMyself(t, packets)
	s.end(t, r.missed("softirq_entry")+r.missed("softirq_exit"), "NET_RX")
	if got := s.read()["NET_RX"] - net; got < packets {
		t.Errorf("%d softirqs for %d packets", got, packets)
	}
	for _, p := range r.collect()["softirq_duration_seconds"] {
		if p.count() > 0 && p.row[0] < p.count() {
			t.Errorf("%d softirqs of %v took %d ns in all", p.count(), p.labels, p.row[0])
		}
	}
}

func sendToMyself(t testing.TB, n int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	address := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(fd, address); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	buffer := []byte("interrupt")
	for range n {
		if err := unix.Sendto(fd, buffer, 0, bound); err != nil {
			t.Fatal(err)
		}
		if _, _, err := unix.Recvfrom(fd, buffer, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// The kernel does not count by handler but by line, and some of its handlers are not called for each.
func TestHardIRQ(t *testing.T) {
	r := load(t, "hardirq", "")
	s := sandwich{
		read: func() map[string]uint64 {
			counts := map[string]uint64{}
			for _, p := range r.collect()["hardirq_duration_seconds"] {
				if p.labels["name"] == "" {
					t.Errorf("a handler without a name: %v", p.labels)
				}
				counts[p.labels["irq"]] += p.count()
			}
			return counts
		},
		kernel: func() map[string]uint64 {
			counts := interruptCounts(t, "/proc/interrupts")
			for name := range counts {
				if _, err := strconv.Atoi(name); err != nil {
					delete(counts, name)
				}
			}
			return counts
		},
	}
	sum := func(counts map[string]uint64) uint64 {
		var n uint64
		for _, count := range counts {
			n += count
		}
		return n
	}
	s.begin()
	before := sum(s.ours)
	for attempt := 0; sum(s.read()) == before; attempt++ {
		if attempt == 50 {
			t.Skip("needs a device that interrupts")
		}
		interruptDevice(t, 10)
	}
	s.end(t, r.missed("irq_handler_entry")+r.missed("irq_handler_exit"))
}

// interruptDevice makes a device interrupt, if there is one: the disk below the temporary directory, or else the console.
func interruptDevice(t testing.TB, n int) {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range n {
		if _, err := file.WriteString("interrupt"); err != nil {
			t.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(os.Stderr)
	}
}
