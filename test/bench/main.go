// Command bench measures what Kaon costs, each figure beside a baseline of the same run: `make bench`. It runs
// in a network namespace of its own and observes only cgroups that it makes. Needs root and
// the repository, best on a quiet machine.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/kaon-project/kaon/test/sandbox"
)

// options say how thoroughly to measure.
type options struct {
	// repeats of each figure; of scrapes, how many are averaged in one repeat.
	repeats, scrapes int
	// idle is how long the agent rests before its memory is read.
	idle time.Duration
	// runs of a function in the kernel per repeat.
	runs int
	// build also measures a build with an empty cache.
	build  bool
	binary string
	temp   string
}

func main() {
	smoke := flag.Bool("smoke", false, "run everything briefly: shows that it works, not how fast it is")
	write := flag.String("write", "", "also write the figures as a page to this `file`")
	build := flag.Bool("build", false, "also measure a build with an empty cache, which takes minutes")
	only := flag.String("only", "", "measure only these `groups`, separated by commas: encode, scrape, exporter, start, idle, kernel, library")
	library := flag.String("library", "", "also write the costs of the built-in programs as a page to this `file`")
	serve := flag.String("serve", "", "(for itself) serve the map with this `id` as an exporter without Kaon does")
	address := flag.String("address", "", "(for itself) `address` of -serve")
	kernel := flag.Int("kernel", 0, "(for itself) measure functions in the kernel, with that many `runs`")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *serve != "":
		err = serveBaseline(ctx, *serve, *address)
	case *kernel > 0:
		err = runKernel(ctx, *kernel)
	case !sandbox.Inside():
		var code int
		if code, err = sandbox.Reenter(); err == nil {
			os.Exit(code)
		}
	default:
		o := options{repeats: 9, scrapes: 20, idle: 30 * time.Second, runs: 2_000_000, build: *build}
		if *smoke {
			o = options{repeats: 2, scrapes: 2, idle: time.Second, runs: 100_000}
		}
		err = run(ctx, o, *only, *write, *library)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// groups of figures, in the order of the page.
var groups = []struct {
	name    string
	measure func(context.Context, options) ([]figure, error)
}{
	{"encode", measureEncoding}, {"scrape", measureScrapes}, {"exporter", measureExporter}, {"start", measureStart}, {"idle", measureIdle}, {"kernel", measureKernel},
}

func run(ctx context.Context, o options, only, write, library string) error {
	root, err := sandbox.Root()
	if err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := sandbox.Network(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: without interfaces the program packets has nothing to attach to:", err)
	}
	if o.temp, err = os.MkdirTemp("", "kaon-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.temp)
	if o.binary, err = sandbox.Build(ctx, o.temp); err != nil {
		return err
	}
	var all []figure
	wanted := func(group string) bool { return only == "" || strings.Contains(","+only+",", ","+group+",") }
	for _, g := range groups {
		if !wanted(g.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "measuring:", g.name)
		figures, err := g.measure(ctx, o)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		all = append(all, figures...)
	}
	writeText(os.Stdout, all)
	if write != "" {
		var page bytes.Buffer
		writePage(&page, all, o)
		if err := os.WriteFile(write, page.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if !wanted("library") {
		return nil
	}
	fmt.Fprintln(os.Stderr, "measuring: library")
	costs, err := measureLibrary(ctx, o)
	if err != nil {
		return err
	}
	writeCosts(os.Stdout, costs)
	if library == "" {
		return nil
	}
	var page bytes.Buffer
	writeCostsPage(&page, costs)
	return os.WriteFile(library, page.Bytes(), 0o644)
}
