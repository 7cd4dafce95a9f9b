package terminal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/profile"
)

// ErrBinary means that a terminal can't show the output that was asked for.
var ErrBinary = errors.New("pprof's format is not for terminals: name a file with --output-file, or redirect the output")

// stacked says that what is asked for is stacks, not series.
func (o *RunOptions) stacked() bool { return o.Output == "folded" || o.Output == "pprof" }

// checkStacks refuses what can't be shown as stacks, before anything is loaded.
func (o *RunOptions) checkStacks() error {
	if o.ByWorkload && o.Output != "folded" {
		return errors.New("--by-workload is for -o folded; pprof profiles have the workload in each sample's labels")
	}
	if !o.stacked() {
		return nil
	}
	if len(o.Programs) != 1 {
		return fmt.Errorf("-o %s takes one program", o.Output)
	}
	specs, err := agent.ResolveWithOptions(o.Programs[0], agent.ResolveOptions{Prefix: o.Prefix})
	if err != nil {
		return err
	}
	if len(specs) != 1 {
		return fmt.Errorf("-o %s takes one program, but %s has %d", o.Output, o.Programs[0], len(specs))
	}
	if err := profile.Check(specs[0]); err != nil {
		return fmt.Errorf("-o %s: %w: run profile, or use -o text, json or openmetrics", o.Output, err)
	}
	if file, ok := o.Out.(*os.File); ok && o.Output == "pprof" && term.IsTerminal(int(file.Fd())) {
		return ErrBinary
	}
	return nil
}

// openOutput makes Out the file that OutputFile names, and returns what closes it.
func (o *RunOptions) openOutput() (func() error, error) {
	if o.OutputFile == "" {
		return func() error { return nil }, nil
	}
	f, err := os.OpenFile(o.OutputFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("--output-file: %w", err)
	}
	o.Out = f
	return f.Close, nil
}

// record samples stacks until the time is over, or it is interrupted, and writes them.
func (r *runner) record(ctx context.Context) error {
	if file, ok := r.options.Err.(*os.File); ok && term.IsTerminal(int(file.Fd())) && r.options.duration() == 0 {
		fmt.Fprintln(r.options.Err, "kaon: sampling; Ctrl-C ends it and shows what was seen")
	}
	sampling, stop := ctx, context.CancelFunc(func() {})
	if d := r.options.duration(); d > 0 {
		sampling, stop = context.WithTimeout(ctx, d)
	}
	defer stop()
	p, err := r.agent.Record(sampling, r.agent.Status()[0].Name)
	if err != nil {
		return err
	}
	if len(r.filter) > 0 {
		p.Keep(r.filter.Match)
	}
	r.describe(r.options.Err, p)
	if r.options.Output == "pprof" {
		return p.WritePprof(r.options.Out)
	}
	return p.WriteFolded(r.options.Out, profile.FoldedOptions{Workload: r.options.ByWorkload})
}

// duration is for how long stacks are sampled; 0: until interrupted.
func (o *RunOptions) duration() time.Duration {
	if o.For == 0 && o.Once {
		return o.Interval
	}
	return o.For
}

// describe says how much was seen, and what is missing.
func (r *runner) describe(w io.Writer, p *profile.Profile) {
	samples, cpu := p.Total()
	fmt.Fprintf(w, "kaon: %d samples, %s of CPU time in %s\n", samples, Quantity(cpu.Seconds(), "seconds"), Quantity(p.Duration.Seconds(), "seconds"))
	l := p.Losses
	say := func(n uint64, what string) {
		if n > 0 {
			fmt.Fprintf(w, "kaon: %d %s\n", n, what)
		}
	}
	say(l.Samples, "samples were lost, for lack of room")
	say(l.Stacks, "stacks were lost, for lack of room: shown as [lost stack]")
	say(l.Ended, "frames have no name because their process ended before it was looked at")
	say(l.NoSymbols, "frames have no name because their file has no symbols for them"+examples(l.Binaries))
	say(l.Generated, "frames are of code made at run time, without a /tmp/perf-PID.map")
	say(l.Unmapped, "frames are of no code: these programs were compiled without frame pointers")
	say(l.Kernel, "frames of the kernel have no name: does /proc/kallsyms show addresses?")
	if l.Late {
		fmt.Fprintln(w, "kaon: not all names were looked up: it took too long")
	}
}

// examples names the three binaries that lack the most symbols.
func examples(binaries map[string]uint64) string {
	paths := slices.SortedFunc(maps.Keys(binaries), func(a, b string) int {
		return cmp.Or(cmp.Compare(binaries[b], binaries[a]), strings.Compare(a, b))
	})
	if len(paths) > 3 {
		paths = append(paths[:3], "...")
	}
	for i, path := range paths {
		paths[i] = printable(path)
	}
	return ": " + strings.Join(paths, ", ")
}
