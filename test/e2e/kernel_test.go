package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/test/sandbox"
)

// objects are the kernel's ids of what a process has open.
type objects struct{ programs, links, maps []uint32 }

// held lists the BPF objects that an agent has open. Other processes of the machine may use BPF at the same time,
// so what is left behind can only be told by what was held.
func held(t *testing.T, a *sandbox.Agent) objects {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", a.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var o objects
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		isLink := strings.Contains(string(data), "link_id:")
		for line := range strings.Lines(string(data)) {
			name, value, _ := strings.Cut(line, ":")
			id, err := strconv.ParseUint(strings.TrimSpace(value), 10, 32)
			if err != nil {
				continue
			}
			switch {
			case name == "link_id":
				o.links = append(o.links, uint32(id))
			case name == "prog_id":
				o.programs = append(o.programs, uint32(id))
			case name == "map_id" && !isLink:
				o.maps = append(o.maps, uint32(id))
			}
		}
	}
	if len(o.programs) == 0 {
		t.Fatal("the agent holds no programs")
	}
	return o
}

// gone demands that the kernel knows none of the objects any more.
func (o objects) gone(t *testing.T) {
	t.Helper()
	// The kernel frees after a grace period.
	eventually(t, fmt.Sprintf("that links %v, programs %v, maps %v are gone", o.links, o.programs, o.maps), func() bool {
		for _, id := range o.links {
			if l, err := link.NewFromID(link.ID(id)); !errors.Is(err, os.ErrNotExist) {
				if err == nil {
					l.Close()
				}
				return false
			}
		}
		for _, id := range o.programs {
			if p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id)); !errors.Is(err, os.ErrNotExist) {
				if err == nil {
					p.Close()
				}
				return false
			}
		}
		for _, id := range o.maps {
			if m, err := ebpf.NewMapFromID(ebpf.MapID(id)); !errors.Is(err, os.ErrNotExist) {
				if err == nil {
					m.Close()
				}
				return false
			}
		}
		return true
	})
}

const etherType = 0x88b5 // for experiments

// send sends frames from one end of the cable to the other.
func send(t *testing.T, from string, n int) {
	t.Helper()
	i, err := net.InterfaceByName(from)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	frame := make([]byte, 60)
	for j := range 6 {
		frame[j] = 0xff
	}
	copy(frame[6:], i.HardwareAddr)
	frame[12], frame[13] = etherType>>8, etherType&0xff
	for range n {
		if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: 0xb588}); err != nil {
			t.Fatal(err)
		}
	}
}
