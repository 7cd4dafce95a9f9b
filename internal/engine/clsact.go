package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Traffic control before tcx: a bpf filter on the clsact queueing discipline. Nothing but its
// name ties such a filter to this process, so what a crash leaves behind is swept at the next start.

// Numbers of linux/pkt_sched.h and linux/pkt_cls.h.
const (
	tcHandleClsact  = 0xffff0000
	tcParentClsact  = 0xfffffff1
	tcParentIngress = 0xfffffff2
	tcParentEgress  = 0xfffffff3

	tcaKind    = 1
	tcaOptions = 2

	tcaBPFFd    = 6
	tcaBPFName  = 7
	tcaBPFFlags = 8

	tcaBPFFlagDirectAction = 1
	// clsactPriority leaves room before and after for others' filters.
	clsactPriority = 0x6b61
)

// clsactFilter is an attachment.
type clsactFilter struct {
	ifindex int
	parent  uint32
	handle  uint32
	name    string
}

func attachClsact(ifindex int, function string, prog *ebpf.Program, egress bool) (attachment, error) {
	owner, err := clsactOwner()
	if err != nil {
		return nil, err
	}
	n, err := openNetlink()
	if err != nil {
		return nil, err
	}
	defer n.Close()
	err = n.do(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_EXCL, tcMessage(ifindex, tcHandleClsact, tcParentClsact, 0), attribute(tcaKind, cString("clsact")))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		if errors.Is(err, unix.ENOENT) {
			return nil, fmt.Errorf("%w: this kernel has neither tcx nor clsact (CONFIG_NET_CLS_ACT, CONFIG_NET_SCH_INGRESS): %w", ErrUnsupported, err)
		}
		return nil, fmt.Errorf("add clsact to interface %d: %w", ifindex, err)
	}
	f := &clsactFilter{ifindex: ifindex, parent: tcParentIngress, name: owner + function}
	if egress {
		f.parent = tcParentEgress
	}
	if len(f.name) > 250 {
		f.name = f.name[:250]
	}
	if err := f.set(n, prog, unix.NLM_F_CREATE|unix.NLM_F_EXCL); err != nil {
		return nil, err
	}
	// The kernel chose a handle: find it by the program.
	filters, err := n.filters(ifindex, f.parent)
	if err != nil {
		return nil, err
	}
	for _, other := range filters {
		if other.name == f.name {
			f.handle = max(f.handle, other.handle)
		}
	}
	if f.handle == 0 {
		return nil, fmt.Errorf("the filter on interface %d is not there after it was added", ifindex)
	}
	return f, nil
}

func (f *clsactFilter) set(n *netlink, prog *ebpf.Program, flags uint16) error {
	options := attribute(tcaBPFFd, binary.NativeEndian.AppendUint32(nil, uint32(prog.FD())))
	options = append(options, attribute(tcaBPFName, cString(f.name))...)
	options = append(options, attribute(tcaBPFFlags, binary.NativeEndian.AppendUint32(nil, tcaBPFFlagDirectAction))...)
	err := n.do(unix.RTM_NEWTFILTER, flags, tcMessage(f.ifindex, f.handle, f.parent, clsactInfo),
		attribute(tcaKind, cString("bpf")), attribute(tcaOptions|unix.NLA_F_NESTED, options))
	if err != nil {
		return fmt.Errorf("add the filter to clsact of interface %d: %w", f.ifindex, err)
	}
	return nil
}

// clsactInfo is priority and protocol (ETH_P_ALL in network order) of our filters.
const clsactInfo = clsactPriority<<16 | 0x0300

// Update exchanges the program of the filter.
func (f *clsactFilter) Update(prog *ebpf.Program) error {
	n, err := openNetlink()
	if err != nil {
		return err
	}
	defer n.Close()
	return f.set(n, prog, 0)
}

// Close removes the filter; the queueing discipline stays, for others may use it.
func (f *clsactFilter) Close() error {
	n, err := openNetlink()
	if err != nil {
		return err
	}
	defer n.Close()
	err = n.do(unix.RTM_DELTFILTER, 0, tcMessage(f.ifindex, f.handle, f.parent, clsactInfo), attribute(tcaKind, cString("bpf")))
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove the filter from clsact of interface %d: %w", f.ifindex, err)
	}
	return nil
}

// clsactOwner begins the names of this process's filters: its PID namespace, number and start.
func clsactOwner() (string, error) {
	namespace, err := pidNamespace()
	if err != nil {
		return "", err
	}
	start, err := processStart(os.Getpid())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("kaon:%d:%d:%d:", namespace, os.Getpid(), start), nil
}

func pidNamespace() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return 0, fmt.Errorf("find this process's PID namespace: %w", err)
	}
	return st.Ino, nil
}

// processStart returns when a process started, in clock ticks after boot.
func processStart(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses and may contain anything.
	_, rest, ok := strings.Cut(string(data[max(0, strings.LastIndexByte(string(data), ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat is malformed", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// abandoned says that a filter's name is ours and its process lives no more. Filters of other PID
// namespaces can't be judged and stay.
func abandoned(name string) bool {
	parts := strings.SplitN(name, ":", 5)
	if len(parts) != 5 || parts[0] != "kaon" {
		return false
	}
	namespace, err := pidNamespace()
	if err != nil || parts[1] != strconv.FormatUint(namespace, 10) {
		return false
	}
	pid, err := strconv.Atoi(parts[2])
	if err != nil {
		return false
	}
	start, err := processStart(pid)
	return err != nil || strconv.FormatUint(start, 10) != parts[3]
}

// sweepClsact removes the filters of agents that are gone and returns how many.
func (e *Engine) sweepClsact() (int, error) {
	interfaces, err := e.options.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("list the network interfaces: %w", err)
	}
	n, err := openNetlink()
	if err != nil {
		return 0, err
	}
	defer n.Close()
	swept := 0
	var errs []error
	for _, i := range interfaces {
		for _, parent := range []uint32{tcParentIngress, tcParentEgress} {
			filters, err := n.filters(i.Index, parent)
			if err != nil {
				// No clsact there.
				continue
			}
			for _, f := range filters {
				if !abandoned(f.name) {
					continue
				}
				if err := f.Close(); err != nil {
					errs = append(errs, err)
					continue
				}
				swept++
			}
		}
	}
	return swept, errors.Join(errs...)
}
