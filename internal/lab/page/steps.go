package page

import (
	"slices"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// Step is what the page asks for next. The server knows which are done, so that every page shows the same.
type Step string

// Steps, in the order in which the page leads on.
const (
	StepLaunch    Step = "launch"
	StepTimeout   Step = "timeout"
	StepEdit      Step = "edit"
	StepSuccess   Step = "success"
	StepOverload  Step = "overload"
	StepCount     Step = "count"
	StepHistogram Step = "histogram"
	StepLabel     Step = "label"
	StepCPU       Step = "cpu"
	StepMemory    Step = "memory"
	StepKernel    Step = "kernel"
)

// progress is which steps are done.
type progress map[Step]bool

// list returns the steps that are done.
func (p progress) list() []Step {
	done := make([]Step, 0, len(p))
	for step := range p {
		done = append(done, step)
	}
	slices.Sort(done)
	return done
}

// outcome is the step that a run's end does.
func outcome(o lab.Outcome) Step {
	switch o {
	case lab.TimedOut:
		return StepTimeout
	case lab.Succeeded:
		return StepSuccess
	case lab.Overload:
		return StepOverload
	}
	return ""
}

// defined are the steps that a program's metrics do.
func defined(families []*series.Family) []Step {
	var steps []Step
	for _, f := range families {
		switch f.Metric.Type {
		case program.Counter:
			if f.Metric.Name == "kick_count_total" && len(f.Values) > 0 && f.Values[0] > 0 {
				steps = append(steps, StepCount)
			}
		case program.Histogram:
			for i, point := range f.Points {
				if !slices.ContainsFunc(f.Row(i)[1:], func(n uint64) bool { return n > 0 }) {
					continue
				}
				steps = append(steps, StepHistogram)
				if point.Labels != "" {
					steps = append(steps, StepLabel)
				}
			}
		}
	}
	return steps
}
