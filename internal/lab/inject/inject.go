// Package inject makes load on purpose, bounded in size and time: CPU time or memory, in a child process that ends with
// this one, in a cgroup of its own where there can be one.
package inject

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kaon-project/kaon/internal/lab/cgroup"
)

// Kind is what is injected.
type Kind string

// Kinds.
const (
	CPU    Kind = "cpu"
	Memory Kind = "memory"
)

// Kinds returns all kinds.
func Kinds() []Kind { return []Kind{CPU, Memory} }

// Defaults and limits.
const (
	DefaultDuration = 30 * time.Second
	MaxDuration     = 10 * time.Minute
	DefaultCPUs     = 1.0
	MinCPUs         = 0.01
	DefaultBytes    = 64 << 20
	MinBytes        = 1 << 20
	// AvailableShare of the memory that is available when an injection starts is the most that it may take. It ends
	// when only ReservedShare of it would be left, whoever took the rest.
	AvailableShare = 0.5
	ReservedShare  = 0.25
)

// childOverhead is what the child takes beside what it injects, for the limit of its cgroup.
const childOverhead = 64 << 20

// Errors that callers may want to tell apart; what wraps them says more.
var (
	// ErrOptions means that an injection would be out of bounds.
	ErrOptions = errors.New("out of bounds")
	// ErrBusy means that an Injector injects this already.
	ErrBusy = errors.New("it is injected already")

	errSlow = fmt.Errorf("the child did not begin within %v: this machine is too busy, try again", beginWithin)
)

// Options are what to inject. The zero value is one CPU, or 64 MiB, for half a minute.
type Options struct {
	// CPUs that are kept busy, at most those of the machine; 0: DefaultCPUs.
	CPUs float64
	// Bytes of memory that are touched and held; 0: DefaultBytes.
	Bytes int64
	// Duration; 0: DefaultDuration.
	Duration time.Duration
}

// withDefaults fills what was left out and checks the rest. available is how many bytes of memory there are.
func (o Options) withDefaults(kind Kind, available int64) (Options, error) {
	if o.CPUs == 0 {
		o.CPUs = DefaultCPUs
	}
	if o.Bytes == 0 {
		o.Bytes = DefaultBytes
	}
	if o.Duration == 0 {
		o.Duration = DefaultDuration
	}
	if o.Duration < 0 || o.Duration > MaxDuration {
		return o, fmt.Errorf("%w: for %v: say more than 0 and at most %v", ErrOptions, o.Duration, MaxDuration)
	}
	switch kind {
	case CPU:
		if most := float64(runtime.NumCPU()); !(o.CPUs >= MinCPUs && o.CPUs <= most) {
			return o, fmt.Errorf("%w: %v CPUs: say %v to %v, which is what this machine has", ErrOptions, o.CPUs, MinCPUs, most)
		}
	case Memory:
		if o.Bytes < MinBytes {
			return o, fmt.Errorf("%w: %d bytes of memory: say %d at least", ErrOptions, o.Bytes, MinBytes)
		}
		if most := int64(AvailableShare * float64(available)); o.Bytes > most {
			return o, fmt.Errorf("%w: %s of memory, but only %s are available here and half of that is the most: say %d bytes or less",
				ErrOptions, size(o.Bytes), size(available), most)
		}
	default:
		return o, fmt.Errorf("%w: there is no %q to inject: it is %s or %s", ErrOptions, kind, CPU, Memory)
	}
	return o, nil
}

// size writes bytes for people.
func size(n int64) string { return fmt.Sprintf("%.0f MiB", math.Floor(float64(n)/(1<<20))) }

// Status tells how an injection is.
type Status struct {
	Kind    Kind    `json:"kind"`
	Options Options `json:"-"`
	Running bool    `json:"running"`
	// Remaining time until it ends by itself; 0 if it has.
	Remaining time.Duration `json:"-"`
	// CPUSeconds that the child used so far, and Bytes that it touched and holds now, as it says itself.
	CPUSeconds float64 `json:"cpuSeconds"`
	Bytes      int64   `json:"bytes"`
	// Cgroup is the directory of its cgroup, "" without; Limits are those of its files that hold a limit (cpu.max, memory.max).
	Cgroup string   `json:"cgroup,omitempty"`
	Limits []string `json:"limits,omitempty"`
	// Err says why it ended early, or what could not be tidied up; nil if it did as it was told.
	Err error `json:"-"`
}

// Injection is one that was started. Its methods are safe for concurrent use.
type Injection struct {
	kind    Kind
	options Options
	pid     int
	cell    *cgroup.Cell
	stop    func()
	begun   chan struct{} // closed at the child's first report
	done    chan struct{}
	stopped atomic.Bool

	mu      sync.Mutex
	started time.Time // at the child's first report, before it when the child was started
	limits  []string
	usage   usage
	ended   bool
	err     error
}

// number tells the cgroups of one process's injections apart: a name that was given away is not used again.
func number() int { return int(time.Now().UnixNano() & math.MaxInt32) }

// Start injects until Options.Duration is over, ctx ends (so it is not that of a request), Stop is called or this process ends,
// whichever comes first. The child is this executable, called with arguments for which IsChild is true.
func Start(ctx context.Context, kind Kind, options Options) (*Injection, error) {
	available, err := available(false)
	if err != nil && kind == Memory {
		return nil, fmt.Errorf("find out how much memory is available: %w", err)
	}
	if options, err = options.withDefaults(kind, available); err != nil {
		return nil, err
	}
	i := &Injection{kind: kind, options: options, begun: make(chan struct{}), done: make(chan struct{})}
	attributes := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// Without a cgroup the child is bounded by itself only.
	if cell, err := cgroup.Make("inject-"+string(kind), number()); err == nil {
		i.cell = cell
		attributes.UseCgroupFD, attributes.CgroupFD = true, cell.FD()
		if kind == Memory {
			i.limit()
		}
	}
	if err := i.run(ctx, attributes); err != nil {
		if i.cell != nil {
			err = errors.Join(err, i.cell.Remove())
		}
		return nil, fmt.Errorf("inject %s: %w", kind, err)
	}
	return i, nil
}

// limit sets the limits of the cgroup whose controllers are there. The child keeps them by itself, too: so that of the CPU
// can wait until the child has begun, which it would only make slow.
func (i *Injection) limit() {
	const period = 100_000 // microseconds
	files := map[Kind][][2]string{
		CPU:    {{"cpu.max", fmt.Sprintf("%d %d", max(int64(i.options.CPUs*period), 1000), period)}},
		Memory: {{"memory.max", strconv.FormatInt(i.options.Bytes+childOverhead, 10)}, {"memory.swap.max", "0"}},
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, file := range files[i.kind] {
		if set, err := i.cell.Limit(file[0], file[1]); set && err == nil {
			i.limits = append(i.limits, file[0])
		}
	}
}

// run starts the child and what waits for it.
func (i *Injection) run(ctx context.Context, attributes *syscall.SysProcAttr) error {
	ctx, cancel := context.WithCancelCause(ctx)
	i.stop = func() { cancel(nil) }
	// The child ends by itself; this is for one that does not, or never begins.
	late := time.AfterFunc(beginWithin, func() {
		select {
		case <-i.begun:
			cancel(nil)
		default:
			cancel(errSlow)
		}
	})
	command := exec.CommandContext(ctx, "/proc/self/exe", childArguments(i.kind, i.options, i.cell != nil)...)
	command.SysProcAttr = attributes
	command.Stderr = &tail{}
	// The child ends when its input does; it is killed if that doesn't help.
	in, err := command.StdinPipe()
	if err != nil {
		return err
	}
	command.Cancel = in.Close
	command.WaitDelay = graceful
	out, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	started := make(chan error)
	go func() {
		defer close(i.done)
		// The kernel ends the child with the thread that started it: so the thread stays.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer cancel(nil)
		defer late.Stop()
		err := command.Start()
		if err != nil {
			started <- err
			return
		}
		i.started, i.pid = time.Now(), command.Process.Pid
		started <- nil
		reported := i.follow(out, func() { i.begin(late) })
		err = errors.Join(reported, command.Wait())
		i.finish(command, err, context.Cause(ctx))
	}()
	return <-started
}

// begin is called at the child's first report: its time counts from now on. A deadline that began with the fork would
// cut short what a busy machine is slow to start.
func (i *Injection) begin(late *time.Timer) {
	late.Reset(i.options.Duration + graceful)
	if i.cell != nil && i.kind == CPU {
		i.limit()
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.started = time.Now()
	close(i.begun)
}

// finish notes how the child ended and removes its cgroup. told is why it was told to end, and killed if that did not help; nil if
// it was not.
func (i *Injection) finish(command *exec.Cmd, err, told error) {
	killed := false
	if state := command.ProcessState; state != nil {
		status, ok := state.Sys().(syscall.WaitStatus)
		killed = ok && status.Signaled() && status.Signal() == unix.SIGKILL
	}
	switch {
	case i.stopped.Load():
		err = nil
	case errors.Is(told, errSlow):
		err, killed = told, false
	case told != nil && (killed || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		err = nil
	}
	if text := command.Stderr.(*tail).String(); err != nil && text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	if err != nil && killed {
		err = fmt.Errorf("%w: probably for want of memory: see the kernel's log", err)
	}
	if i.cell != nil {
		err = errors.Join(err, i.cell.Remove())
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if state := command.ProcessState; state != nil {
		i.usage.CPUSeconds = (state.UserTime() + state.SystemTime()).Seconds()
	}
	i.usage.Bytes, i.ended, i.err = 0, true, err
}

// Status tells how it is.
func (i *Injection) Status() Status {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := Status{Kind: i.kind, Options: i.options, Running: !i.ended, CPUSeconds: i.usage.CPUSeconds, Bytes: i.usage.Bytes, Limits: i.limits, Err: i.err}
	if s.Running {
		s.Remaining = max(i.options.Duration-time.Since(i.started), 0)
		if i.cell != nil {
			s.Cgroup = i.cell.Dir()
		}
	}
	return s
}

// Done is closed when it has ended and its cgroup is removed.
func (i *Injection) Done() <-chan struct{} { return i.done }

// Stop ends it and returns when it has ended and its cgroup is removed. It may be called again.
func (i *Injection) Stop() {
	i.stopped.Store(true)
	i.stop()
	<-i.done
}

// tail keeps the end of what a child complains about.
type tail struct{ text []byte }

func (t *tail) Write(p []byte) (int, error) {
	const most = 2000
	t.text = append(t.text, p...)
	if len(t.text) > most {
		t.text = t.text[len(t.text)-most:]
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.text) }
