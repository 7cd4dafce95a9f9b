package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kaon-project/kaon/test/vm/console"
)

// machine says what is emulated.
type machine struct {
	qemu     string // path of qemu-system-x86_64
	cpus     int
	memoryMB int
	// bootTimeout is until init has mounted everything, timeout until all
	// tests have ended.
	bootTimeout, timeout time.Duration
	// silence is how long it may print nothing.
	silence time.Duration
}

var (
	errNoBoot = errors.New("the guest did not boot in time")
	errNoEnd  = errors.New("the guest's tests did not end in time")
	errSilent = errors.New("the guest fell silent")
)

const (
	// defaultSilence is how long a guest may print nothing. Its tests print when they begin and end, and none takes
	// a third of it: a guest that is silent hangs, with the emulator more often than not.
	defaultSilence = 3 * time.Minute
	// boots is how often a kernel is booted if the emulator crashes or hangs.
	boots = 3
)

// command is what boots a kernel. The emulator's own translation is used even
// where /dev/kvm exists: on many machines it exists and can't be used, and the
// times stay comparable.
func (m machine) command(ctx context.Context, kernel *Cached, image string) *exec.Cmd {
	model := "max"
	if kernel.Kernel == "6.12" {
		// Translated, cmpxchg16b breaks this kernel's allocator: a double fault right after it. Newer
		// kernels need it for socket storage.
		model = "max,-cx16"
	}
	return exec.CommandContext(ctx, m.qemu,
		"-accel", "tcg,thread=multi", "-cpu", model,
		"-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memoryMB),
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", kernel.image(), "-initrd", image,
		// Debian 11 does not have BPF among its LSMs unless it is told to.
		"-append", "console=ttyS0 quiet panic=-1 mitigations=off lsm=landlock,lockdown,yama,bpf")
}

// Boot is the outcome of all packages on one kernel.
type Boot struct {
	Kernel       Cached           `json:"kernel"`
	Packages     []*PackageResult `json:"packages"`
	BootSeconds  float64          `json:"bootSeconds"` // until init had mounted everything
	TotalSeconds float64          `json:"totalSeconds"`
	ImageBytes   int64            `json:"imageBytes"`
	Attempts     int              `json:"attempts"`
	Warnings     []string         `json:"warnings,omitempty"`
	// Problem says why the guest did not get to its end.
	Problem string `json:"problem,omitempty"`

	timedOut bool     // in a test
	other    []string // last lines that are the kernel's or the emulator's
}

// OK tells whether every package ran and none failed.
func (b *Boot) OK() bool {
	if b.Problem != "" {
		return false
	}
	for _, p := range b.Packages {
		if !p.OK() {
			return false
		}
	}
	return true
}

// crashed tells whether the guest vanished although nothing had failed: the
// emulator does that once in a while, or hangs before init runs. A guest that hung in a test, or vanished
// after a failure, did what its tests told it to.
func (b *Boot) crashed() bool {
	if b.Problem == "" || b.timedOut {
		return false
	}
	for _, p := range b.Packages {
		for _, test := range p.Tests {
			if test.Status == Failed && test.ended {
				return false
			}
		}
	}
	return true
}

// bootWithRetry boots again after a crash of the emulator.
func bootWithRetry(ctx context.Context, log *slog.Logger, m machine, kernel Cached, image string, packages []testPackage, echo io.Writer) *Boot {
	var warnings []string
	seconds := 0.0
	for attempt := 1; ; attempt++ {
		result := boot(ctx, m, kernel, image, packages, echo)
		crashed := ctx.Err() == nil && result.crashed()
		if !crashed || attempt == boots {
			result.Attempts = attempt
			result.TotalSeconds += seconds
			result.Warnings = append(warnings, result.Warnings...)
			return result
		}
		log.Warn("booting again: the guest ended without a sign", "kernel", kernel.Kernel, "problem", result.Problem)
		warnings = append(warnings, fmt.Sprintf("boot %d: %s", attempt, result.Problem))
		seconds += result.TotalSeconds
	}
}

// boot runs the image and reads its console until the guest powers off. Lines
// of tests are copied to echo as they come, if it is not nil.
func boot(ctx context.Context, m machine, kernel Cached, image string, packages []testPackage, echo io.Writer) *Boot {
	result := &Boot{Kernel: kernel}
	defer func() { result.addMissing(packages) }()
	start := time.Now()
	defer func() { result.TotalSeconds = time.Since(start).Seconds() }()

	if ctx.Err() != nil {
		result.Problem = "interrupted"
		return result
	}
	guestContext, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	bootTimer := time.AfterFunc(m.bootTimeout, func() { cancel(fmt.Errorf("%w (%v)", errNoBoot, m.bootTimeout)) })
	defer bootTimer.Stop()
	endTimer := time.AfterFunc(m.timeout, func() { cancel(fmt.Errorf("%w (%v)", errNoEnd, m.timeout)) })
	defer endTimer.Stop()
	cmd := m.command(guestContext, &kernel, image)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		result.Problem = fmt.Sprintf("start the emulator: %v", err)
		return result
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		result.Problem = fmt.Sprintf("start the emulator: %v", err)
		return result
	}
	silenceTimer := time.AfterFunc(m.bootTimeout+m.silence, func() { cancel(fmt.Errorf("%w (%v)", errSilent, m.silence)) })
	defer silenceTimer.Stop()
	heard := func() { silenceTimer.Reset(m.silence) }
	done := result.read(out, start, echo, func() { bootTimer.Stop() }, heard)
	waitErr := cmd.Wait()

	switch {
	case done:
	case ctx.Err() != nil:
		result.Problem = "interrupted"
	case guestContext.Err() != nil:
		cause := context.Cause(guestContext)
		result.Problem, result.timedOut = cause.Error(), errors.Is(cause, errNoEnd)
	default:
		result.Problem = "the guest ended early"
		if waitErr != nil {
			result.Problem += fmt.Sprintf(": the emulator: %v", waitErr)
		}
		if text := strings.TrimSpace(stderr.String()); text != "" {
			result.Problem += ": " + text
		}
	}
	return result
}

// addMissing adds a result for each package that has none.
func (b *Boot) addMissing(packages []testPackage) {
	for _, p := range packages {
		if slices.ContainsFunc(b.Packages, func(r *PackageResult) bool { return r.Package == p.name }) {
			continue
		}
		missing := &PackageResult{Package: p.name, Problem: "did not run"}
		if p.buildError != nil {
			missing.Problem = "does not build"
			missing.tail = strings.Split(p.buildError.Error(), "\n")
		}
		b.Packages = append(b.Packages, missing)
	}
}

// read fills the result from the console and reports whether the guest came
// to its end. It calls booted when init has mounted everything, and heard at each line.
func (b *Boot) read(out io.Reader, start time.Time, echo io.Writer, booted, heard func()) (done bool) {
	var current *testLog
	var name string
	var began time.Time
	finish := func(ended bool, code int, elapsed time.Duration) {
		if current != nil {
			b.Packages = append(b.Packages, newPackageResult(name, current, ended, code, elapsed))
			current = nil
		}
	}
	reader := bufio.NewReaderSize(out, 128<<10)
	for {
		// A line that is longer than the buffer comes in pieces.
		line, err := reader.ReadSlice('\n')
		if len(line) > 0 {
			heard()
			event, ok := console.Parse(string(line))
			switch {
			case !ok:
				if text := strings.TrimRight(string(line), "\r\n"); text != "" {
					b.other = appendBounded(b.other, text)
				}
			case event.Kind == console.Hello:
				b.BootSeconds = time.Since(start).Seconds()
				booted()
			case event.Kind == console.Warn:
				b.Warnings = append(b.Warnings, event.Text)
			case event.Kind == console.Begin:
				current, name, began = &testLog{}, event.Package, time.Now()
			case event.Kind == console.Output && current != nil:
				current.Line(event.Text)
				if echo != nil {
					fmt.Fprintf(echo, "%-7s %s: %s\n", b.Kernel.Kernel, name, strings.ReplaceAll(event.Text, frameworkMark, ""))
				}
			case event.Kind == console.End:
				finish(true, event.Code, event.Elapsed)
			case event.Kind == console.Done:
				done = true
			}
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			finish(false, 0, time.Since(began))
			return done
		}
	}
}
