package inject

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// graceful is how long a child may take to end when it was told to.
	graceful = 3 * time.Second
	// beginWithin is how long a child may take until its first report.
	beginWithin = time.Minute
	// reportEvery is how often the child says what it did.
	reportEvery = 200 * time.Millisecond
	// chunk is how much memory is mapped at once, and after how much it is looked whether there is enough left.
	chunk = 1 << 20
	// cpuWindow is the time of which each worker is busy for its share.
	cpuWindow = 20 * time.Millisecond
	// maxReport is the longest line that a child's report may have.
	maxReport = 1 << 12
)

// usage is what a child reports, a JSON object per line.
type usage struct {
	CPUSeconds float64 `json:"cpuSeconds"`
	Bytes      int64   `json:"bytes"`
}

// childCommand begins the arguments with which this executable calls itself: a hidden command of kaon.
var childCommand = [...]string{"lab", "inject", "child"}

func childArguments(kind Kind, o Options, inCell bool) []string {
	return append(childCommand[:], "-cpus", strconv.FormatFloat(o.CPUs, 'g', -1, 64),
		"-bytes", strconv.FormatInt(o.Bytes, 10), "-for", o.Duration.String(), "-cell="+strconv.FormatBool(inCell), string(kind))
}

// IsChild tells whether the arguments, without the program's name, are those of a child. Test binaries that start
// injections ask so in TestMain, and call ChildMain.
func IsChild(arguments []string) bool {
	return len(arguments) > len(childCommand) && slices.Equal(arguments[:len(childCommand)], childCommand[:])
}

// ChildMain is Child with what follows the hidden command, or with all arguments if IsChild; and with standard
// input and output.
func ChildMain(ctx context.Context, arguments []string) error {
	if IsChild(arguments) {
		arguments = arguments[len(childCommand):]
	}
	var o Options
	var inCell bool
	flags := flag.NewFlagSet("child", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Float64Var(&o.CPUs, "cpus", 0, "")
	flags.Int64Var(&o.Bytes, "bytes", 0, "")
	flags.DurationVar(&o.Duration, "for", 0, "")
	flags.BoolVar(&inCell, "cell", false, "")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return fmt.Errorf("%w: name what to inject: %s or %s", ErrOptions, CPU, Memory)
	}
	return Child(ctx, os.Stdin, os.Stdout, Kind(flags.Arg(0)), o, inCell)
}

// Child injects in this process until the time is over, in ends or ctx does. It reports on out. inCell: it has a cgroup of its own.
func Child(ctx context.Context, in io.Reader, out io.Writer, kind Kind, options Options, inCell bool) error {
	left, err := available(inCell)
	if err != nil && kind == Memory {
		return err
	}
	if options, err = options.withDefaults(kind, left); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, options.Duration)
	defer cancel()
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, in)
	}()
	// If memory runs out in spite of all, this process is the first to go.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	held := &memory{}
	var wait sync.WaitGroup
	if kind == CPU {
		burn(ctx, &wait, options.CPUs)
	} else {
		wait.Go(func() { held.grow(ctx, options.Bytes, int64(ReservedShare*float64(left)), inCell) })
	}
	err = report(ctx, out, held)
	cancel()
	wait.Wait()
	held.release()
	return err
}

// report says what was used until ctx ends.
func report(ctx context.Context, out io.Writer, held *memory) error {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	encoder := json.NewEncoder(out)
	for {
		var used unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
			return fmt.Errorf("getrusage: %w", err)
		}
		bytes, problem := held.status()
		seconds := float64(used.Utime.Nano()+used.Stime.Nano()) / 1e9
		if err := encoder.Encode(usage{CPUSeconds: seconds, Bytes: bytes}); err != nil {
			return err // nobody is left to read it
		}
		if problem != nil {
			return problem
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// burn keeps so many CPUs busy until ctx ends.
func burn(ctx context.Context, wait *sync.WaitGroup, cpus float64) {
	workers := int(cpus)
	if float64(workers) < cpus {
		workers++
	}
	share := cpus / float64(workers)
	// One thread more for what reports.
	runtime.GOMAXPROCS(workers + 1)
	for range workers {
		wait.Go(func() { burnOne(ctx, share) })
	}
}

// burnOne is busy for a share of each window.
func burnOne(ctx context.Context, share float64) {
	sink := uint64(1)
	for next := time.Now(); ctx.Err() == nil; {
		next = next.Add(cpuWindow)
		for busy := next.Add(-time.Duration((1 - share) * float64(cpuWindow))); time.Now().Before(busy); {
			for range 10_000 {
				sink = sink*6364136223846793005 + 1442695040888963407
			}
		}
		if now := time.Now(); now.After(next) {
			next = now // what was missed is not made up for
		} else if share < 1 {
			time.Sleep(time.Until(next))
		}
	}
	runtime.KeepAlive(sink)
}

// memory is what is held.
type memory struct {
	mu      sync.Mutex
	chunks  [][]byte
	bytes   int64
	problem error
}

// grow maps and touches memory, page by page, up to a size. It stops early when less than reserve would be left.
func (m *memory) grow(ctx context.Context, want, reserve int64, inCell bool) {
	page := os.Getpagesize()
	for want > 0 && ctx.Err() == nil {
		n := int(min(want, chunk))
		if left, err := available(inCell); err != nil || left-int64(n) < reserve {
			held, _ := m.status()
			m.fail(fmt.Errorf("ended early, with %s: there are only %s of memory left", size(held), size(left)))
			return
		}
		data, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			m.fail(fmt.Errorf("map memory: %w", err))
			return
		}
		// Huge pages would be touched as a whole; without the advice the figures are only coarser.
		_ = unix.Madvise(data, unix.MADV_NOHUGEPAGE)
		for i := 0; i < n; i += page {
			data[i] = 1
		}
		m.mu.Lock()
		m.chunks, m.bytes = append(m.chunks, data), m.bytes+int64(n)
		m.mu.Unlock()
		want -= int64(n)
	}
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.problem = err
}

func (m *memory) status() (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes, m.problem
}

func (m *memory) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.chunks {
		_ = unix.Munmap(c)
	}
	m.chunks, m.bytes = nil, 0
}

// follow reads what the child reports until it says no more, and calls begin at the first report.
func (i *Injection) follow(out io.Reader, begin func()) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, maxReport)
	for first := true; lines.Scan(); first = false {
		var now usage
		if err := json.Unmarshal(lines.Bytes(), &now); err != nil {
			return fmt.Errorf("what the child reports is no report: %w", err)
		}
		i.mu.Lock()
		i.usage = now
		i.mu.Unlock()
		if first {
			begin()
		}
	}
	return lines.Err()
}
