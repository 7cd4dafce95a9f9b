package doctor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// perfEvent is a program attached to a perf event.
type perfEvent struct {
	fd   int
	link *link.RawLink
}

func (p *perfEvent) Close() error {
	var err error
	if p.link != nil {
		err = p.link.Close()
	}
	return errors.Join(err, unix.Close(p.fd))
}

// attachPerf opens a perf event and attaches the program, by a bpf_link where the kernel has them (5.15).
func attachPerf(attr *unix.PerfEventAttr, pid, cpu int, prog *ebpf.Program) (io.Closer, error) {
	attr.Size = uint32(unsafe.Sizeof(*attr))
	fd, err := unix.PerfEventOpen(attr, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("perf_event_open: %w", err)
	}
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: prog, Attach: ebpf.AttachPerfEvent})
	if err == nil {
		return &perfEvent{fd: fd, link: l}, nil
	}
	if ioctl := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, prog.FD()); ioctl != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("attach to the perf event: %w", ioctl)
	}
	return &perfEvent{fd: fd}, nil
}

// attachTracepoint attaches to group/name by its number in tracefs.
func attachTracepoint(tracefs, group, name string, prog *ebpf.Program) (io.Closer, error) {
	text, err := os.ReadFile(filepath.Join(tracefs, "events", group, name, "id"))
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, err
	}
	attr := &unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Sample_type: unix.PERF_SAMPLE_RAW, Sample: 1, Wakeup: 1}
	return attachPerf(attr, -1, 0, prog)
}

// pmu reads the type of a dynamic perf event source (kprobe, uprobe) and its return-probe flag.
func pmu(name string) (typ uint32, returns uint64, err error) {
	dir := "/sys/bus/event_source/devices/" + name
	text, err := os.ReadFile(dir + "/type")
	if err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return 0, 0, err
	}
	// "config:0"
	format, err := os.ReadFile(dir + "/format/retprobe")
	if err != nil {
		return 0, 0, err
	}
	_, bit, _ := strings.Cut(strings.TrimSpace(string(format)), ":")
	shift, err := strconv.ParseUint(bit, 10, 6)
	if err != nil {
		return 0, 0, err
	}
	return uint32(n), 1 << shift, nil
}

// attachProbe attaches a kprobe (where is a function) or a uprobe (where is a file).
func attachProbe(source, where string, offset uint64, ret bool, pid, cpu int, prog *ebpf.Program) (io.Closer, error) {
	typ, flag, err := pmu(source)
	if err != nil {
		return nil, err
	}
	name, err := unix.BytePtrFromString(where)
	if err != nil {
		return nil, err
	}
	attr := &unix.PerfEventAttr{Type: typ, Ext1: uint64(uintptr(unsafe.Pointer(name))), Ext2: offset, Wakeup: 1}
	if ret {
		attr.Config |= flag
	}
	defer runtime.KeepAlive(name)
	return attachPerf(attr, pid, cpu, prog)
}

// probeFile is a file in memory that looks like a program, into which uprobes can be put without any
// process ever meeting them.
func probeFile() (*os.File, error) {
	fd, err := unix.MemfdCreate("kaon-doctor", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "kaon-doctor")
	page := make([]byte, os.Getpagesize())
	for i := range page {
		page[i] = 0x90
	}
	if _, err := f.Write(page); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
