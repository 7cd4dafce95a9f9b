package engine

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/program"
)

const onlineCPUsFile = "/sys/devices/system/cpu/online"

// perfTarget is what the target of a perf_event says:
// "type=software,config=cpu_clock,frequency=99" or "...,period=1000000".
type perfTarget struct {
	kind, config uint64
	// sample is a frequency per second if frequency, else a period in events.
	sample    uint64
	frequency bool
}

var perfTypes = map[string]uint64{
	"hardware": unix.PERF_TYPE_HARDWARE, "software": unix.PERF_TYPE_SOFTWARE, "tracepoint": unix.PERF_TYPE_TRACEPOINT,
	"hw_cache": unix.PERF_TYPE_HW_CACHE, "raw": unix.PERF_TYPE_RAW,
}

var perfSoftware = map[string]uint64{
	"cpu_clock": unix.PERF_COUNT_SW_CPU_CLOCK, "task_clock": unix.PERF_COUNT_SW_TASK_CLOCK, "page_faults": unix.PERF_COUNT_SW_PAGE_FAULTS,
	"context_switches": unix.PERF_COUNT_SW_CONTEXT_SWITCHES, "cpu_migrations": unix.PERF_COUNT_SW_CPU_MIGRATIONS,
	"page_faults_min": unix.PERF_COUNT_SW_PAGE_FAULTS_MIN, "page_faults_maj": unix.PERF_COUNT_SW_PAGE_FAULTS_MAJ,
	"alignment_faults": unix.PERF_COUNT_SW_ALIGNMENT_FAULTS, "emulation_faults": unix.PERF_COUNT_SW_EMULATION_FAULTS,
}

var perfHardware = map[string]uint64{
	"cpu_cycles": unix.PERF_COUNT_HW_CPU_CYCLES, "instructions": unix.PERF_COUNT_HW_INSTRUCTIONS,
	"cache_references": unix.PERF_COUNT_HW_CACHE_REFERENCES, "cache_misses": unix.PERF_COUNT_HW_CACHE_MISSES,
	"branch_instructions": unix.PERF_COUNT_HW_BRANCH_INSTRUCTIONS, "branch_misses": unix.PERF_COUNT_HW_BRANCH_MISSES,
	"bus_cycles": unix.PERF_COUNT_HW_BUS_CYCLES, "stalled_cycles_frontend": unix.PERF_COUNT_HW_STALLED_CYCLES_FRONTEND,
	"stalled_cycles_backend": unix.PERF_COUNT_HW_STALLED_CYCLES_BACKEND, "ref_cpu_cycles": unix.PERF_COUNT_HW_REF_CPU_CYCLES,
}

func parsePerfEvent(text string) (perfTarget, error) {
	t := perfTarget{kind: unix.PERF_TYPE_SOFTWARE}
	given := make(map[string]string)
	for _, item := range program.SplitList(text) {
		key, value, ok := strings.Cut(item, "=")
		if !ok || value == "" {
			return t, fmt.Errorf("perf_event %q: want type=, config= and frequency= or period=", item)
		}
		if _, twice := given[key]; twice {
			return t, fmt.Errorf("perf_event: %s is given twice", key)
		}
		given[key] = strings.ToLower(strings.TrimSpace(value))
	}
	number := func(value string, names ...map[string]uint64) (uint64, bool) {
		if n, err := strconv.ParseUint(value, 0, 64); err == nil {
			return n, true
		}
		for _, prefix := range []string{"", "perf_type_", "perf_count_sw_", "perf_count_hw_"} {
			name, ok := strings.CutPrefix(strings.ReplaceAll(value, "-", "_"), prefix)
			for _, m := range names {
				if n, known := m[name]; ok && known {
					return n, true
				}
			}
		}
		return 0, false
	}
	var ok bool
	if value, has := given["type"]; has {
		if t.kind, ok = number(value, perfTypes); !ok {
			return t, fmt.Errorf("perf_event type %q: want hardware, software, hw_cache, raw or a number", value)
		}
	}
	configs := perfSoftware
	if t.kind == unix.PERF_TYPE_HARDWARE {
		configs = perfHardware
	}
	value, has := given["config"]
	if !has {
		return t, errors.New("perf_event has no config, for instance config=cpu_clock")
	}
	if t.config, ok = number(value, configs); !ok {
		return t, fmt.Errorf("perf_event config %q is neither a number nor known for this type", value)
	}
	for _, key := range []string{"frequency", "period"} {
		value, has := given[key]
		if !has {
			continue
		}
		if t.sample != 0 {
			return t, errors.New("perf_event: frequency and period exclude each other")
		}
		n, err := strconv.ParseUint(value, 0, 63)
		if err != nil || n == 0 {
			return t, fmt.Errorf("perf_event %s %q is not a positive number", key, value)
		}
		t.sample, t.frequency = n, key == "frequency"
	}
	if t.sample == 0 {
		return t, errors.New("perf_event needs a frequency or a period")
	}
	for key := range given {
		switch key {
		case "type", "config", "frequency", "period":
		default:
			return t, fmt.Errorf("perf_event: unknown field %q, known are type, config, frequency and period", key)
		}
	}
	return t, nil
}

// perfTargets returns the CPUs that are online, or the process if the hook names one.
func perfTargets(e *Engine, hook *program.Hook) ([]target, error) {
	if _, err := parsePerfEvent(hook.Target); err != nil {
		return nil, err
	}
	if hook.PID > 0 {
		return []target{{Name: "process " + strconv.Itoa(hook.PID), ID: uint64(hook.PID)}}, nil
	}
	cpus, err := e.onlineCPUs()
	if err != nil {
		return nil, err
	}
	targets := make([]target, 0, len(cpus))
	for _, cpu := range cpus {
		targets = append(targets, target{Name: "cpu" + strconv.Itoa(cpu), ID: uint64(cpu)})
	}
	return targets, nil
}

func (e *Engine) onlineCPUs() ([]int, error) {
	data, err := os.ReadFile(e.cpusFile)
	if err != nil {
		return nil, fmt.Errorf("find the online CPUs: %w", err)
	}
	return parseCPUs(string(data))
}

// parseCPUs reads a list like "0-3,8".
func parseCPUs(text string) ([]int, error) {
	const maxCPUs = 1 << 16
	var cpus []int
	for _, item := range program.SplitList(text) {
		low, high, isRange := strings.Cut(item, "-")
		first, err := strconv.Atoi(low)
		last := first
		if err == nil && isRange {
			last, err = strconv.Atoi(high)
		}
		if err != nil || first < 0 || last < first || last >= maxCPUs {
			return nil, fmt.Errorf("%q is not a list of CPUs", text)
		}
		for cpu := first; cpu <= last; cpu++ {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) == 0 || len(cpus) > maxCPUs {
		return nil, fmt.Errorf("%q is not a list of CPUs", text)
	}
	return cpus, nil
}

// perfEvent is an attachment: an event of one CPU or process, and the link to it where the kernel has such links.
type perfEvent struct {
	fd   int
	link *link.RawLink
}

func attachPerfEvent(r *attachRequest) (attachment, error) {
	t, err := parsePerfEvent(r.hook.Target)
	if err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{Type: uint32(t.kind), Size: uint32(unix.PERF_ATTR_SIZE_VER1), Config: t.config, Sample: t.sample}
	if t.frequency {
		attr.Bits |= unix.PerfBitFreq
	}
	pid, cpu := -1, int(r.target.ID)
	if r.hook.PID > 0 {
		pid, cpu = r.hook.PID, -1
		attr.Bits |= unix.PerfBitInherit
	}
	fd, err := unix.PerfEventOpen(&attr, pid, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("%w: this machine has no such counter (virtual machines often have no hardware counters): use type=software,config=cpu_clock: %w", ErrUnsupported, err)
	case errors.Is(err, unix.EINVAL) && t.frequency:
		return nil, fmt.Errorf("open the perf event (is the frequency above /proc/sys/kernel/perf_event_max_sample_rate?): %w", err)
	case errors.Is(err, unix.ESRCH):
		return nil, fmt.Errorf("%w: there is no process %d: %w", ErrNoTarget, r.hook.PID, err)
	case err != nil:
		return nil, fmt.Errorf("open the perf event: %w", err)
	}
	event := &perfEvent{fd: fd}
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: fd, Program: r.program, Attach: ebpf.AttachPerfEvent})
	if err == nil {
		event.link = l
		return event, nil
	}
	// Kernels before 5.15 have no links to perf events.
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, r.program.FD()); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set the perf event's program: %w", err)
	}
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("enable the perf event: %w", err)
	}
	return event, nil
}

func (p *perfEvent) Close() error {
	var err error
	if p.link != nil {
		err = p.link.Close()
	}
	return errors.Join(err, unix.Close(p.fd))
}

func (p *perfEvent) Pin(path string) error {
	if p.link == nil {
		return fmt.Errorf("perf events have no links before Linux 5.15: %w", ErrUnsupported)
	}
	return p.link.Pin(path)
}

func (p *perfEvent) Unpin() error {
	if p.link == nil {
		return nil
	}
	return p.link.Unpin()
}

// Info describes the link.
func (p *perfEvent) Info() (*link.Info, error) {
	if p.link == nil {
		return nil, fmt.Errorf("perf events have no links before Linux 5.15: %w", ErrUnsupported)
	}
	return p.link.Info()
}
