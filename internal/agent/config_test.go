package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kaon.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every field, and what a path in it is relative to.
func TestReadConfig(t *testing.T) {
	path := writeConfig(t, `
programs:
- exec
- ./mine.bpf.o
- source: more/*.yaml
  params: {minimum: 10ms, list: [a, b]}
  pin: true
  optional: true
  staticLabels: {team: one}
- /absolute/x.bpf.o
listen: [127.0.0.1:1, "[::1]:2"]
web: {configFile: web.yaml, systemdSocket: true, profiling: true}
cgroupRoot: kubepods.slice
limits: {series: 10, seriesPerMetric: 5, scrapeTimeout: 3s, mapBytes: 512Mi}
createdSeries: true
statistics: true
pinDirectory: /sys/fs/bpf/other
staticLabels: {cluster: two}
`)
	c, err := ReadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	var sources []string
	for _, p := range c.Programs {
		sources = append(sources, p.Source)
	}
	if got, want := strings.Join(sources, " "), "exec "+dir+"/mine.bpf.o "+dir+"/more/*.yaml /absolute/x.bpf.o"; got != want {
		t.Errorf("sources %s, want %s", got, want)
	}
	p := c.Programs[2]
	if p.Params["minimum"] != "10ms" || p.Params["list"] != "a,b" || !p.Pin || !p.Optional || p.StaticLabels["team"] != "one" {
		t.Errorf("got %+v", p)
	}
	if n, err := c.Limits.mapBytes(); err != nil || n != 512<<20 {
		t.Errorf("mapBytes is %d, %v", n, err)
	}
	if c.Web.ConfigFile != dir+"/web.yaml" || !c.Web.SystemdSocket || !c.Web.Profiling || c.CgroupRoot != "kubepods.slice" ||
		c.Limits.Series != 10 || c.Limits.SeriesPerMetric != 5 || time.Duration(c.Limits.ScrapeTimeout) != 3*time.Second ||
		!c.CreatedSeries || !c.Statistics || c.PinDirectory != "/sys/fs/bpf/other" || c.StaticLabels["cluster"] != "two" || len(c.Listen) != 2 {
		t.Errorf("got %+v", c)
	}
}

func TestReadConfigMistakes(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := ReadConfig(writeConfig(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	f("programs: [{sauce: exec}]", "source")
	f("programs: ['']", "programs[0].source")
	f("limits: {series: -1}", "negative")
	f("limits: {mapBytes: lots}", "limits.mapBytes")
	f("limits: {mapBytes: 0}", "limits.mapBytes")
	f("limits: {mapBytes: -1}", "limits.mapBytes")
	f("limits: {mapBytes: 99999999999999Ti}", "limits.mapBytes")
	f("limits: {scrapeTimeout: soon}", "duration")
	f("pinDirectory: pins", "pinDirectory")
	f("listen: 127.0.0.1:1", "listen")
}

// limits.mapBytes reaches the engine.
func TestMapBytes(t *testing.T) {
	cgroup := newCgroup(t)
	if _, err := New(Options{CgroupRoot: cgroup, MapBytes: "many"}); err == nil {
		t.Error("no error")
	}
	a, err := New(Options{CgroupRoot: cgroup, MapBytes: "1Ki"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if err := a.Apply(context.Background(), Config{Programs: []ProgramConfig{{Source: "testdata/calls.bpf.o", Params: number}}}); err != nil {
		t.Fatal(err)
	}
	if state, reason := stateOf(a, "calls"); state != Down || !strings.Contains(reason, "limit of 1.0 KiB") {
		t.Errorf("state %q, reason %q", state, reason)
	}
}
