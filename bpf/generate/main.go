// Command generate makes what is derived and committed. Without arguments it
// writes kaon_tables.h and compiles the test programs of package bpf, which
// is looked for in the current directory and below ./bpf; else it compiles each FILE.bpf.c to
// FILE.bpf.o beside it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/kaon-project/kaon/bpf"
	"github.com/kaon-project/kaon/bpf/tables"
)

func main() {
	arch := flag.String("arch", "amd64", "the `GOARCH` that the objects are for")
	clang := flag.String("clang", "", "the compiler's `path`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *arch, *clang, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, arch, clang string, sources []string) error {
	if len(sources) == 0 {
		directory := "."
		if _, err := os.Stat("bpf/kaon.h"); err == nil {
			directory = "bpf"
		}
		if _, err := os.Stat(filepath.Join(directory, "kaon.h")); err != nil {
			return fmt.Errorf("run this at the top of the repository or in bpf: %w", err)
		}
		if err := os.WriteFile(filepath.Join(directory, "kaon_tables.h"), tables.Header(), 0o644); err != nil {
			return err
		}
		var err error
		if sources, err = filepath.Glob(filepath.Join(directory, "testdata", "*.bpf.c")); err != nil {
			return err
		}
	}
	for _, source := range sources {
		err := bpf.Compile(ctx, bpf.CompileOptions{Source: source, Arch: arch, Clang: clang, Warnings: os.Stderr})
		if err != nil {
			return err
		}
	}
	return nil
}
