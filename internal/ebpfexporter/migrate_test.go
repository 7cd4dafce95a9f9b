package ebpfexporter_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/internal/check"
	"github.com/kaon-project/kaon/internal/ebpfexporter"
	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/manifest"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// migrate writes the manifests of the test configurations.
func migrate(t *testing.T) (dir, report string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "new", "manifests")
	var out bytes.Buffer
	if err := ebpfexporter.MigrateDirectory("testdata", dir, &out, ebpfexporter.Options{Steps: series.Steps()}); err != nil {
		t.Fatal(err)
	}
	return dir, out.String()
}

func loadManifest(t *testing.T, path string) *program.Spec {
	t.Helper()
	specs, err := manifest.Load(path, manifest.Options{Decoders: series.Decoders()})
	if err != nil {
		t.Fatal(err)
	}
	return specs[0]
}

// The manifests are good ones, and what can't be migrated stays.
func TestMigrate(t *testing.T) {
	dir, report := migrate(t)
	golden(t, "migration.txt", strings.ReplaceAll(report, dir, "OUTPUT"))
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		names = append(names, filepath.Base(path))
		for _, f := range check.Check(loadManifest(t, path)) {
			if f.Severity == check.Error {
				t.Errorf("%s: %v", path, f)
			}
		}
	}
	if want := []string{"config.yaml", "counters.yaml", "histograms.yaml", "ksyscall.yaml", "libbpf.yaml", "sections.yaml"}; !slices.Equal(names, want) {
		t.Errorf("wrote %v, want %v", names, want)
	}
	if err := ebpfexporter.MigrateDirectory("testdata", dir, &bytes.Buffer{}, ebpfexporter.Options{Steps: series.Steps()}); err == nil || !strings.Contains(err.Error(), "the file exists") {
		t.Errorf("a second time: %v", err)
	}
	if err := ebpfexporter.MigrateDirectory(dir, dir, &bytes.Buffer{}, ebpfexporter.Options{Steps: series.Steps()}); err == nil || !strings.Contains(err.Error(), "no configuration of ebpf_exporter") {
		t.Errorf("a directory of manifests: %v", err)
	}
}

// Both read the same maps alike, but for what the report says.
func TestMigratedSeries(t *testing.T) {
	dir, _ := migrate(t)
	f := func(name string, fill func(*testing.T, mapsOnly), differences ...string) {
		t.Helper()
		spec := load(t, name)
		maps := createMaps(t, spec)
		fill(t, maps)
		show := func(spec *program.Spec, differences ...string) (lines []string) {
			collector, err := series.NewCollector(spec, maps, series.Options{})
			if err != nil {
				t.Fatal(err)
			}
			text := strings.NewReplacer(differences...).Replace(scrape(t, collector, exposition.Format{Syntax: exposition.Text}))
			for line := range strings.Lines(text) {
				lines = append(lines, normal(strings.TrimSuffix(line, "\n")))
			}
			return lines
		}
		old, migrated := show(spec, differences...), show(loadManifest(t, filepath.Join(dir, name+".yaml")))
		for _, line := range migrated {
			if !slices.Contains(old, line) {
				t.Errorf("%s: new: %s", name, line)
			}
		}
		for _, line := range old {
			if !slices.Contains(migrated, line) && !strings.HasSuffix(line, " 0") && !strings.Contains(line, " ebpf_exporter_by_cpu_array_total ") { // entries of arrays
				t.Errorf("%s: gone: %s", name, line)
			}
		}
	}
	f("histograms", fillHistograms, "unknown:2", "2")
	f("counters", fillCounters, "unknown:0", "0", "unknown:3", "3", "unknown:524", "ENOTSUPP", "unknown_syscall:", "", "unknown:4095:0", "unknown:4095:0",
		"# TYPE ebpf_exporter_alone counter", "# TYPE ebpf_exporter_alone untyped", "ebpf_exporter_alone 42", "ebpf_exporter_alone 4284")
}

// normal sorts the labels of a line, leaves out empty ones, which are none, and writes numbers in one way.
func normal(line string) string {
	at := strings.LastIndexByte(line, ' ')
	if n, err := strconv.ParseFloat(line[at+1:], 64); err == nil && line[0] != '#' {
		line = line[:at+1] + strconv.FormatFloat(n, 'g', -1, 64)
	}
	name, rest, ok := strings.Cut(line, "{")
	if !ok || line[0] == '#' {
		return line
	}
	labels, value, _ := strings.Cut(rest, "} ")
	var all []string
	series.EachLabel(labels, func(name, value string) bool {
		if value != "" {
			all = append(all, name+"="+value)
		}
		return true
	})
	slices.Sort(all)
	return name + "{" + strings.Join(all, ",") + "} " + value
}

func TestStepsOfManifests(t *testing.T) {
	if !slices.Equal(manifest.Steps(), series.Steps()) {
		t.Errorf("manifests know %v, there are %v", manifest.Steps(), series.Steps())
	}
}

func TestMigrateMistakes(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("metrics: {counters: [{help: x}]}"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("testdata/counters.bpf.o")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "bad.bpf.o"), code, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err = ebpfexporter.MigrateDirectory(dir, filepath.Join(dir, "new"), &out, ebpfexporter.Options{Steps: series.Steps()})
	if err == nil || !strings.Contains(out.String(), "metrics.counters[0]: it has no name") {
		t.Errorf("%v: %s", err, out.String())
	}
}
