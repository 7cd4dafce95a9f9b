package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/kaon-project/kaon/programs"
	"github.com/kaon-project/kaon/test/sandbox"
)

// measureStart takes the time from the start of the process to its first complete answer.
func measureStart(ctx context.Context, o options) (figures []figure, err error) {
	s, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	watch, err := newWatch(ctx, s.home)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, watch.Close()) }()
	wall := figure{what: "start to the first complete scrape, default programs, time", unit: "ms", atMost: 300, baselineName: "kaon --version"}
	cpu := figure{what: "start to the first complete scrape, CPU", unit: "ms"}
	for range o.repeats {
		took, used, missing, err := s.start(ctx, o)
		if err != nil {
			return nil, err
		}
		wall.samples, cpu.samples = append(wall.samples, took), append(cpu.samples, used)
		if missing != "" {
			wall.note = "on this machine these programs do not run: " + missing
		}
		begun := time.Now()
		if err := exec.CommandContext(ctx, o.binary, "--version").Run(); err != nil {
			return nil, err
		}
		wall.baseline = append(wall.baseline, float64(time.Since(begun))/1e6)
	}
	opened, err := watch.count(ctx, "kallsyms_opened_total")
	if err != nil {
		return nil, err
	}
	return []figure{wall, cpu, {what: "times that /proc/kallsyms was opened by a start", samples: []float64{opened / float64(o.repeats)},
		note: "0 is the target: it is parsed only when a label names kernel functions"}}, nil
}

// start returns the time and CPU time in ms until everything was answered, and which programs did not run.
func (s *stage) start(ctx context.Context, o options) (took, used float64, missing string, err error) {
	begun := time.Now()
	a, err := s.up(o)
	if err != nil {
		return 0, 0, "", err
	}
	defer stop(a, &err)
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body, err := a.WaitServing(waiting)
	if err != nil {
		return 0, 0, "", err
	}
	took = float64(time.Since(begun)) / 1e6
	nanoseconds, err := a.CPU()
	if err != nil {
		return 0, 0, "", err
	}
	for _, name := range programs.Default() {
		if up, ok := sandbox.Sample(body, fmt.Sprintf("kaon_program_up{program=%q}", name)); !ok || up != 1 {
			missing += " " + name
		}
	}
	return took, float64(nanoseconds) / 1e6, missing, nil
}

// measureIdle takes the memory of an agent that has nothing to do but a few scrapes.
func measureIdle(ctx context.Context, o options) (figures []figure, err error) {
	s, err := newStage()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	ours, err := s.up(o, append(programs.Default(), "syscalls")...)
	if err != nil {
		return nil, err
	}
	defer stop(ours, &err)
	theirs, err := s.baseline(0)
	if err != nil {
		return nil, err
	}
	defer stop(theirs, &err)
	anonymous := figure{what: "idle agent, anonymous memory", unit: "MB", atMost: 15, baselineName: "client_golang's go_ and process_ metrics only"}
	resident := figure{what: "idle agent, resident memory", unit: "MB", atMost: 45, baselineName: "client_golang's go_ and process_ metrics only"}
	idle := figure{what: "idle agent, CPU between scrapes", unit: "ms/s"}
	for _, a := range []*sandbox.Agent{ours, theirs} {
		waiting, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if _, err := a.WaitServing(waiting); err != nil {
			return nil, err
		}
	}
	const rounds = 3
	for range rounds {
		before, err := ours.CPU()
		if err != nil {
			return nil, err
		}
		select {
		case <-time.After(o.idle / rounds):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		after, err := ours.CPU()
		if err != nil {
			return nil, err
		}
		idle.samples = append(idle.samples, float64(after-before)/1e6/(o.idle/rounds).Seconds())
		for _, a := range []*sandbox.Agent{ours, theirs} {
			if _, err := scrape(a, 3, "gzip"); err != nil {
				return nil, err
			}
		}
		for field, f := range map[string]*figure{"RssAnon": &anonymous, "VmRSS": &resident} {
			for a, samples := range map[*sandbox.Agent]*[]float64{ours: &f.samples, theirs: &f.baseline} {
				bytes, err := a.Memory(field)
				if err != nil {
					return nil, err
				}
				*samples = append(*samples, float64(bytes)/1e6)
			}
		}
	}
	figures = []figure{anonymous, resident, idle}
	binary, err := os.Stat(o.binary)
	if err != nil {
		return nil, err
	}
	figures = append(figures, figure{what: "size of the binary", unit: "MB", samples: []float64{float64(binary.Size()) / 1e6}})
	if !o.build {
		return figures, nil
	}
	took, err := coldBuild(ctx, o)
	return append(figures, figure{what: "build with an empty cache, modules present, time", unit: "s", samples: []float64{took}}), err
}

func coldBuild(ctx context.Context, o options) (float64, error) {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(o.temp, "cold"), "./cmd/kaon")
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOCACHE="+filepath.Join(o.temp, "cache"))
	begun := time.Now()
	if out, err := command.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build: %w: %s", err, out)
	}
	return time.Since(begun).Seconds(), nil
}
