// Command vm runs the tests of packages on the kernels of a matrix, in emulated
// machines. README.md says how.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

var errTestsFailed = errors.New("tests failed")

// settings are the command's flags.
type settings struct {
	kernels       string
	cache         string
	run           string
	json          string
	library       string
	verbose       bool
	list          bool
	fetch         bool
	update        bool
	parallel      int
	cpus          int
	memoryMB      int
	timeout       time.Duration
	kernelTimeout time.Duration
}

func main() {
	var names []string
	for _, kernel := range matrix() {
		names = append(names, kernel.Name)
	}
	var s settings
	flag.StringVar(&s.kernels, "kernels", strings.Join(names, ","), "kernels, separated by commas: of the matrix, or a version that Debian's backports have")
	flag.StringVar(&s.cache, "cache", "", "directory of the kernels (default: kaon/kernels in the user's cache directory)")
	flag.StringVar(&s.run, "run", "", "run only tests that match this regular expression")
	flag.StringVar(&s.json, "json", "", "also write the results as JSON to this file (-: to standard output, instead of the table)")
	flag.StringVar(&s.library, "library", "", "also write the table of built-in programs and kernels to this file")
	flag.BoolVar(&s.verbose, "v", false, "print what the tests print")
	flag.BoolVar(&s.list, "list", false, "print the cached kernels and exit")
	flag.BoolVar(&s.fetch, "fetch", false, "fetch the kernels that are not cached and exit")
	flag.BoolVar(&s.update, "update", false, "look for newer releases of the kernels, even if they are cached")
	flag.IntVar(&s.parallel, "parallel", 1, "how many machines run at a time")
	flag.IntVar(&s.cpus, "smp", 1, "processors of a machine: 1, or 2 where concurrency is tested (the emulator is less reliable with 2)")
	flag.IntVar(&s.memoryMB, "memory", 1024, "memory of a machine in MB")
	flag.DurationVar(&s.timeout, "timeout", 5*time.Minute, "limit for the tests of one package")
	flag.DurationVar(&s.kernelTimeout, "kernel-timeout", 20*time.Minute, "limit for all tests on one kernel")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: go run ./test/vm [flags] [PACKAGE...]\n\nDefault packages: %s\n\n", strings.Join(defaultPackages(), " "))
		flag.PrintDefaults()
	}
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, s, flag.Args())
	switch {
	case errors.Is(err, errTestsFailed):
		os.Exit(1)
	case err != nil:
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(2)
	}
}

func run(ctx context.Context, s settings, patterns []string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	kernels, err := parseKernels(s.kernels)
	if err != nil {
		return err
	}
	if s.cache == "" {
		if s.cache, err = defaultCacheDir(); err != nil {
			return err
		}
	}
	cache := kernelCache{dir: s.cache, log: log}
	if s.list {
		return printKernels(os.Stdout, cache)
	}
	m := machine{cpus: s.cpus, memoryMB: s.memoryMB, bootTimeout: 3 * time.Minute, timeout: s.kernelTimeout, silence: defaultSilence}
	if !s.fetch {
		if m.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
			return fmt.Errorf("find the emulator (on Debian: apt-get install qemu-system-x86): %w", err)
		}
	}
	cached, err := cache.get(ctx, kernels, s.update)
	if err != nil {
		return err
	}
	if s.fetch {
		return printKernels(os.Stdout, cache)
	}

	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	if len(patterns) == 0 {
		patterns = existing(root, defaultPackages())
	}
	packages, untested, err := listPackages(ctx, root, patterns)
	if err != nil {
		return err
	}
	if len(untested) > 0 {
		log.Info("no tests in " + strings.Join(untested, " "))
	}
	if len(packages) == 0 {
		return fmt.Errorf("find tests in %s: there are none", strings.Join(patterns, " "))
	}
	dir, err := os.MkdirTemp("", "kaon-vm-")
	if err != nil {
		return fmt.Errorf("create a directory: %w", err)
	}
	defer os.RemoveAll(dir)
	start := time.Now()
	if err := build(ctx, root, dir, packages); err != nil {
		return err
	}
	log.Info("built the tests", "packages", len(packages), "took", time.Since(start).Round(100*time.Millisecond))

	boots, err := bootAll(ctx, log, s, m, root, dir, packages, cached)
	if err != nil {
		return err
	}
	result := newReport(boots)
	if s.json != "" {
		if err := result.writeJSON(s.json); err != nil {
			return err
		}
	}
	if s.library != "" {
		if err := writeLibrary(s.library, boots); err != nil {
			return err
		}
	}
	if s.json != "-" {
		if err := result.print(os.Stdout); err != nil {
			return err
		}
	}
	if !result.OK {
		return errTestsFailed
	}
	return nil
}

// bootAll runs the packages on all kernels, at most s.parallel at a time, and then what failed once more, one machine at a time.
func bootAll(ctx context.Context, log *slog.Logger, s settings, m machine, root, dir string, packages []testPackage, kernels []Cached) ([]*Boot, error) {
	var echo io.Writer
	if s.verbose {
		echo = os.Stderr
	}
	run := func(kernel Cached, packages []testPackage, expression string) (*Boot, error) {
		image := filepath.Join(dir, kernel.Kernel+".cpio.gz")
		defer os.Remove(image)
		if err := writeImage(image, root, dir, packages, kernel, imageOptions{run: expression, timeout: s.timeout}); err != nil {
			return nil, err
		}
		b := bootWithRetry(ctx, log, m, kernel, image, packages, echo)
		if info, err := os.Stat(image); err == nil {
			b.ImageBytes = info.Size()
		}
		log.Info("ran", "kernel", kernel.Kernel, "release", kernel.Release, "tests", cmp.Or(expression, "all"), "ok", b.OK(),
			"boot", fmt.Sprintf("%.1fs", b.BootSeconds), "total", fmt.Sprintf("%.1fs", b.TotalSeconds))
		return b, nil
	}
	boots := make([]*Boot, len(kernels))
	failures := make([]error, len(kernels))
	slots := make(chan struct{}, max(1, s.parallel))
	var group sync.WaitGroup
	for i, kernel := range kernels {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			boots[i], failures[i] = run(kernel, packages, s.run)
		})
	}
	group.Wait()
	if err := errors.Join(failures...); err != nil {
		return nil, err
	}
	for _, b := range boots {
		if err := b.again(packages, run); err != nil {
			return nil, err
		}
	}
	return boots, nil
}

func printKernels(out io.Writer, cache kernelCache) error {
	kernels, err := cache.all()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s:\n", cache.dir)
	if len(kernels) == 0 {
		fmt.Fprintln(out, "  (none: -fetch gets them)")
	}
	for _, k := range kernels {
		fmt.Fprintf(out, "  %-7s %s (%s %s, %s, fetched %s)\n", k.Kernel, k.Release, k.Package, k.Version, k.Suite, k.Fetched.Format(time.DateOnly))
	}
	return nil
}

// moduleRoot is the directory of the go.mod that is in use.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	file := strings.TrimSpace(string(out))
	if file == "" || file == os.DevNull {
		return "", errors.New("find the module: run this inside of the repository")
	}
	return filepath.Dir(file), nil
}
