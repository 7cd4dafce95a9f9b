package ebpfexporter

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/kaon-project/kaon/api/v1alpha1"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/program"
)

// ErrMigrate is returned if a configuration could not be migrated at all; the report says why.
var ErrMigrate = errors.New("not every configuration could be read")

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// MigrateDirectory migrates the configurations of dir: it writes manifests into to, which must not have any of their names yet, and a report.
func MigrateDirectory(dir, to string, out io.Writer, options Options) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.y*ml"))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	slices.Sort(paths)
	absolute, err := filepath.Abs(to)
	if err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	found, failed := 0, false
	for _, path := range paths {
		data, err := readFile(path)
		if err != nil || !Is(data) {
			continue
		}
		found++
		fmt.Fprintf(out, "%s\n", path)
		m, err := Migrate(path, absolute, options)
		if err != nil {
			failed = true
			for _, p := range program.Problems(err) {
				fmt.Fprintf(out, "  error: %v\n", p)
			}
			continue
		}
		if m.Manifest != nil {
			target := filepath.Join(to, filepath.Base(path))
			if err := writeNew(target, m.Manifest); err != nil {
				return err
			}
			fmt.Fprintf(out, "  written: %s\n", target)
		}
		for _, text := range m.Better {
			fmt.Fprintf(out, "  better: %s\n", text)
		}
		for _, text := range m.Human {
			fmt.Fprintf(out, "  look at: %s\n", text)
		}
	}
	switch {
	case found == 0:
		return &program.Problem{Where: dir, What: "there is no configuration of ebpf_exporter (NAME.yaml with metrics or tracing)", Fix: "name the directory of --config.dir"}
	case failed:
		return ErrMigrate
	}
	return nil
}

// writeNew writes a manifest to a file that must not exist.
func writeNew(path string, p *v1alpha1.Program) error {
	text, err := manifest.Marshal(p)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &program.Problem{Where: path, What: "the file exists", Fix: "choose another directory with --output"}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
