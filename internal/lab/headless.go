package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"time"
)

// ErrMissed is wrapped by the error of a run that ended otherwise than wanted.
var ErrMissed = errors.New("another outcome was wanted")

// RunOptions configure a run without a page.
type RunOptions struct {
	// Mode; empty means Compatible.
	Mode Mode
	Seed uint64
	// Kick is the power of every kick, nil if a program decides.
	Kick *float64
	// Program is the path of a kick program; empty means DefaultProgram.
	Program string
	// Until is the wanted outcome; empty means any.
	Until Outcome
	// Warp is how many seconds are simulated in one second; 0 means as fast as possible.
	Warp float64
	// Output is text or json; empty means text.
	Output string
	Out    io.Writer
}

// report is the JSON form of a run.
type report struct {
	Mode Mode   `json:"mode"`
	Seed uint64 `json:"seed"`
	Result
	DurationSeconds float64 `json:"duration_seconds"`
	Energy          float64 `json:"energy_electronvolts"`
	Ratio           float64 `json:"speed_ratio"`
	Until           Outcome `json:"until,omitempty"`
	Reached         bool    `json:"reached"`
}

// Run launches one beam, waits for how it ends, and writes that to Out. Its error wraps ErrMissed if that is not what
// was wanted, and is a *ProgramError if the kick program failed.
func Run(ctx context.Context, options RunOptions) error {
	switch options.Until {
	case "", Succeeded, TimedOut, Overload:
	default:
		return fmt.Errorf("no run ends in %q: it is %s, %s or %s", options.Until, Succeeded, TimedOut, Overload)
	}
	if options.Output != "" && options.Output != "text" && options.Output != "json" {
		return fmt.Errorf("there is no output %q: it is text or json", options.Output)
	}
	if !(options.Warp >= 0) || math.IsInf(options.Warp, 0) {
		return fmt.Errorf("warp is %v: it must be 0 or more", options.Warp)
	}
	file, source, err := options.source()
	if err != nil {
		return err
	}
	if options.Mode == "" {
		options.Mode = Compatible
	}
	l, err := NewLab(Options{Mode: options.Mode, Seed: options.Seed, File: file, Source: source})
	if err != nil {
		return err
	}
	l.Start()
	result, err := l.wait(ctx, options.Warp)
	if err != nil {
		return err
	}
	reached := options.Until == "" || options.Until == result.Outcome
	r := report{
		Mode: options.Mode, Seed: options.Seed, Result: result, DurationSeconds: result.Duration.Seconds(),
		Energy: result.Beam.Energy, Ratio: result.Beam.Ratio, Until: options.Until, Reached: reached,
	}
	if err := r.write(options.Out, options.Output); err != nil {
		return err
	}
	if !reached {
		return fmt.Errorf("the run ended in %s: %w (%s)", result.Outcome, ErrMissed, options.Until)
	}
	return nil
}

func (o *RunOptions) source() (file string, source []byte, err error) {
	switch {
	case o.Kick != nil && o.Program != "":
		return "", nil, errors.New("a kick program decides about kicks: give either --kick or --program")
	case o.Kick != nil:
		if !(*o.Kick >= 0 && *o.Kick <= maxPower) {
			return "", nil, fmt.Errorf("kick power %v: it must be from 0 to %d", *o.Kick, maxPower)
		}
		return "kick.star", []byte("KICK_POWER = " + strconv.FormatFloat(*o.Kick, 'f', -1, 64) + "\n"), nil
	case o.Program != "":
		f, err := os.Open(o.Program)
		if err != nil {
			return "", nil, fmt.Errorf("kick program: %w", err)
		}
		defer f.Close()
		// One byte more than allowed tells that it is too long, however long it is.
		source, err := io.ReadAll(io.LimitReader(f, MaxSource+1))
		if err != nil {
			return "", nil, fmt.Errorf("kick program: %w", err)
		}
		return o.Program, source, nil
	}
	return "", nil, nil
}

// wait lets time pass until the run ends, the program fails or the context is done.
func (l *Lab) wait(ctx context.Context, warp float64) (Result, error) {
	const tick = 20 * time.Millisecond
	step := time.Second
	var pace <-chan time.Time
	if warp > 0 {
		step = time.Duration(min(float64(tick)*warp, float64(time.Hour)))
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		pace = ticker.C
	}
	for {
		if pace != nil {
			select {
			case <-ctx.Done():
			case <-pace:
			}
		}
		if err := ctx.Err(); err != nil {
			return Result{}, fmt.Errorf("the run did not end: %w", err)
		}
		result, ended := l.Advance(step)
		if err := l.Problem(); err != nil {
			return Result{}, err
		}
		if ended {
			return result, nil
		}
	}
}

func (r *report) write(out io.Writer, output string) error {
	if output == "json" {
		text, err := json.Marshal(r)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		_, err = out.Write(append(text, '\n'))
		return err
	}
	_, err := fmt.Fprintf(out, "%s after %.1f s: %d kicks, %d turns, %.4g TeV, %s of the speed of light\n",
		r.Outcome, r.DurationSeconds, r.Kicks, r.Turns, r.Energy/1e12, strconv.FormatFloat(r.Ratio, 'f', 10, 64))
	return err
}
