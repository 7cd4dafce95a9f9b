package agent

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Every field is either taken up at once or named as one that needs a restart; the comments of the fields say which.
func TestNeedsRestart(t *testing.T) {
	f := func(text string, want ...string) {
		t.Helper()
		before, err := ReadConfig(writeConfig(t, "programs: [exec]\n"))
		if err != nil {
			t.Fatal(err)
		}
		after, err := ReadConfig(writeConfig(t, text))
		if err != nil {
			t.Fatal(err)
		}
		if got := before.NeedsRestart(after); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	f("programs: [exec]")
	f("programs: [exec, tasks]\nlimits: {series: 1, seriesPerMetric: 1}\nstaticLabels: {a: b}")
	f("listen: [':1']", "listen")
	f("web: {profiling: true}", "web")
	f("cgroupRoot: a", "cgroupRoot")
	f("limits: {scrapeTimeout: 1s, mapBytes: 1Mi}", "limits.scrapeTimeout", "limits.mapBytes")
	f("traces: {endpoint: 'http://a'}", "traces")
	f("traces: {headers: {a: b}}", "traces")
	f("kubernetes: {enabled: true, labels: [a]}", "kubernetes")
	f("{createdSeries: true, statistics: true, pinDirectory: /sys/fs/bpf/a}", "createdSeries", "statistics", "pinDirectory")
	atOnce := []string{"programs", "limits", "staticLabels", "-"} // limits: in part
	config := reflect.TypeFor[Config]()
	for i := range config.NumField() {
		name, _, _ := strings.Cut(config.Field(i).Tag.Get("json"), ",")
		all := []string{"listen", "web", "cgroupRoot", "traces", "kubernetes", "createdSeries", "statistics", "pinDirectory"}
		if !slices.Contains(atOnce, name) && !slices.Contains(all, name) {
			t.Errorf("decide whether %s needs a restart", name)
		}
	}
}
