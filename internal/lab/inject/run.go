package inject

import (
	"context"
	"fmt"
	"io"
	"time"
)

// sayEvery is how often Run says how it goes.
const sayEvery = 5 * time.Second

// Run injects until it ends or ctx does, and says on out what it does. An end by ctx is no error.
func Run(ctx context.Context, out io.Writer, kind Kind, options Options) error {
	i, err := Start(ctx, kind, options)
	if err != nil {
		return err
	}
	defer i.Stop()
	select {
	case <-i.begun: // it has all its limits
	case <-i.Done():
	}
	s := i.Status()
	fmt.Fprintf(out, "injecting %s for %v in process %d%s; Ctrl-C ends it\n", amount(s), s.Options.Duration, i.pid, bounds(s))
	ticker := time.NewTicker(sayEvery)
	defer ticker.Stop()
	for {
		select {
		case <-i.Done():
			s := i.Status()
			if s.Err != nil {
				return fmt.Errorf("inject %s: %w", kind, s.Err)
			}
			fmt.Fprintf(out, "ended: %.1f s of CPU time were used\n", s.CPUSeconds)
			return nil
		case <-ticker.C:
			s := i.Status()
			fmt.Fprintf(out, "%v left: %.1f s of CPU time used, %s held\n", s.Remaining.Round(time.Second), s.CPUSeconds, size(s.Bytes))
		}
	}
}

func amount(s Status) string {
	if s.Kind == CPU {
		return fmt.Sprintf("%g CPUs", s.Options.CPUs)
	}
	return size(s.Options.Bytes) + " of memory"
}

// bounds says what bounds it beside itself.
func bounds(s Status) string {
	switch {
	case s.Cgroup == "":
		return ", without a cgroup of its own"
	case len(s.Limits) == 0:
		return ", in the cgroup " + s.Cgroup
	}
	return fmt.Sprintf(", in the cgroup %s with limits in %v", s.Cgroup, s.Limits)
}
