package terminal

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/kaon-project/kaon/internal/agent"
)

// TopOptions are those of `kaon top`.
type TopOptions struct {
	// URL of the agent.
	URL string
	// All shows every BPF program of the machine, whoever loaded it.
	All      bool
	Once     bool
	Interval time.Duration // default 1 s
	Output   string        // text or json
	Out      io.Writer
	Err      io.Writer
}

// Cost is what one function costs now.
type Cost struct {
	Program  string `json:"program"`
	Function string `json:"function"`
	// RunsPerSecond, NanosecondsPerRun and CPUPercent (of one CPU) during the
	// last interval; the latter two are absent without the kernel's statistics.
	RunsPerSecond     float64  `json:"runsPerSecond"`
	NanosecondsPerRun *float64 `json:"nanosecondsPerRun,omitempty"`
	CPUPercent        *float64 `json:"cpuPercent,omitempty"`
}

// counts are a function's totals at one moment.
type counts struct {
	program, function string
	runs              uint64
	kernelRuns        uint64
	runtime           time.Duration
	hasKernel         bool
}

// Top shows what Programs cost, until the context ends. The kernel's statistics are on while it
// looks: they cost every BPF program of the machine about 70 ns per run.
func Top(ctx context.Context, options TopOptions) error {
	if options.Interval <= 0 {
		options.Interval = time.Second
	}
	if options.Output != "text" && options.Output != "json" {
		return fmt.Errorf("--output %q: want text or json", options.Output)
	}
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		fmt.Fprintf(options.Err, "kaon: run times are unknown: the kernel's statistics can't be switched on (%v): run as root\n", err)
	} else {
		defer stats.Close()
	}
	file, isFile := options.Out.(*os.File)
	interactive := isFile && term.IsTerminal(int(file.Fd())) && options.Output == "text" && !options.Once
	before, _, err := options.sample(ctx)
	if err != nil {
		return ended(ctx, err)
	}
	last := time.Now()
	ticker := time.NewTicker(options.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		after, status, err := options.sample(ctx)
		if err != nil {
			return ended(ctx, err)
		}
		now := time.Now()
		costs := difference(before, after, now.Sub(last).Seconds())
		before, last = after, now
		var b strings.Builder
		if options.Output == "json" {
			encoder := json.NewEncoder(&b)
			for _, c := range costs {
				if err := encoder.Encode(c); err != nil {
					return err
				}
			}
		} else {
			writeCosts(&b, costs)
			writeMaps(&b, status)
		}
		text := b.String()
		if interactive {
			text = "\x1b[2J\x1b[H" + text
		}
		if _, err := io.WriteString(options.Out, text); err != nil || options.Once {
			return err
		}
	}
}

// sample reads the totals of all functions.
func (o *TopOptions) sample(ctx context.Context) (map[string]counts, []agent.Status, error) {
	totals := map[string]counts{}
	status, err := fetchStatus(ctx, o.URL)
	if err != nil && !o.All {
		return nil, nil, fmt.Errorf("%w: start one with `kaon up`, name its --url, or see all programs of the machine with --all", err)
	}
	known := map[ebpf.ProgramID]bool{}
	for _, s := range status {
		for _, h := range s.Hooks {
			if h.ProgramID == 0 {
				continue
			}
			known[ebpf.ProgramID(h.ProgramID)] = true
			c := counts{program: s.Name, function: h.Function, runs: h.Runs}
			c.kernel(ebpf.ProgramID(h.ProgramID))
			totals[s.Name+"/"+h.Function] = c
		}
	}
	if !o.All {
		return totals, status, nil
	}
	for id := ebpf.ProgramID(0); ; {
		id, err = ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			return totals, status, nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("list the machine's BPF programs: %w: run as root", err)
		}
		if known[id] {
			continue
		}
		c := counts{program: "(other)", function: fmt.Sprintf("id %d", id)}
		c.kernel(id)
		totals[fmt.Sprint(id)] = c
	}
}

// kernel adds the kernel's statistics, if it gives them.
func (c *counts) kernel(id ebpf.ProgramID) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return
	}
	defer p.Close()
	stats, err := p.Stats()
	if err != nil {
		return
	}
	c.kernelRuns, c.runtime, c.hasKernel = stats.RunCount, stats.Runtime, true
	if c.program != "(other)" {
		return
	}
	if info, err := p.Info(); err == nil {
		c.function = fmt.Sprintf("%s (%s, id %d)", info.Name, info.Type, id)
	}
}

func fetchStatus(ctx context.Context, url string) ([]agent.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/api/v1/programs", nil)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask the agent at %s: %s", url, response.Status)
	}
	var status []agent.Status
	if err := json.NewDecoder(io.LimitReader(response.Body, 64<<20)).Decode(&status); err != nil {
		return nil, fmt.Errorf("ask the agent at %s: %w", url, err)
	}
	return status, nil
}

func difference(before, after map[string]counts, seconds float64) []Cost {
	var costs []Cost
	for key, a := range after {
		b, ok := before[key]
		if !ok || a.runs < b.runs || a.kernelRuns < b.kernelRuns {
			continue // it is new, or started anew
		}
		cost := Cost{Program: a.program, Function: a.function, RunsPerSecond: float64(a.runs-b.runs) / seconds}
		if a.program == "(other)" {
			cost.RunsPerSecond = float64(a.kernelRuns-b.kernelRuns) / seconds
		}
		if a.hasKernel && b.hasKernel && a.kernelRuns > b.kernelRuns {
			elapsed := float64(a.runtime - b.runtime)
			perRun, percent := elapsed/float64(a.kernelRuns-b.kernelRuns), elapsed/seconds/1e7
			cost.NanosecondsPerRun, cost.CPUPercent = &perRun, &percent
		}
		costs = append(costs, cost)
	}
	slices.SortFunc(costs, func(x, y Cost) int {
		return cmp.Or(-cmp.Compare(value0(x.CPUPercent), value0(y.CPUPercent)), -cmp.Compare(x.RunsPerSecond, y.RunsPerSecond),
			strings.Compare(x.Program+x.Function, y.Program+y.Function))
	})
	return costs
}

func value0(x *float64) float64 {
	if x == nil {
		return 0
	}
	return *x
}

func writeCosts(b *strings.Builder, costs []Cost) {
	fmt.Fprintf(b, "%-16s %-36s %11s %9s %8s\n", "PROGRAM", "FUNCTION", "RUNS/S", "NS/RUN", "CPU %")
	for _, c := range costs {
		perRun, percent := "-", "-"
		if c.NanosecondsPerRun != nil {
			perRun, percent = fmt.Sprintf("%.0f", *c.NanosecondsPerRun), fmt.Sprintf("%.3f", *c.CPUPercent)
		}
		fmt.Fprintf(b, "%s %s %11s %9s %8s\n", pad(printable(c.Program), 16), pad(printable(c.Function), 36), Quantity(c.RunsPerSecond, ""), perRun, percent)
	}
}

func writeMaps(b *strings.Builder, status []agent.Status) {
	fmt.Fprintf(b, "\n%-16s %-36s %11s %9s %8s\n", "PROGRAM", "MAP", "ENTRIES", "FILL %", "MEMORY")
	for _, s := range status {
		for _, m := range s.Maps {
			fill := "-"
			if m.Capacity > 0 {
				fill = fmt.Sprintf("%.1f", 100*float64(m.Entries)/float64(m.Capacity))
			}
			fmt.Fprintf(b, "%s %s %11d %9s %8s\n", pad(printable(s.Name), 16), pad(printable(m.Name), 36), m.Entries, fill, Quantity(float64(m.Bytes), "bytes"))
		}
	}
}
