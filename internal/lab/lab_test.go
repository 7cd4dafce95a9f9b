package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/exposition/lint"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

// expose writes families as OpenMetrics.
func expose(t testing.TB, families []*series.Family) string {
	t.Helper()
	groups, err := exposition.Group(families)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w := exposition.NewWriter(&out, exposition.Format{Syntax: exposition.OpenMetrics, Version: "1.0.0", Escaping: model.UnderscoreEscaping}, exposition.Options{})
	for _, group := range groups {
		if err := w.Write(group); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func newLab(t testing.TB, mode Mode, source string) *Lab {
	t.Helper()
	l, err := NewLab(Options{Mode: mode, Seed: 5, File: "kick.star", Source: []byte(source), Now: func() time.Time { return time.Unix(1700000000, 0) }})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func gather(t testing.TB, l *Lab, names ...string) string {
	t.Helper()
	snapshot, err := l.Gather(context.Background(), names)
	if err != nil {
		t.Fatal(err)
	}
	return expose(t, snapshot.Families)
}

func wantLines(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		if !strings.Contains("\n"+text, "\n"+line+"\n") {
			t.Errorf("%s is missing in\n%s", line, text)
		}
	}
}

func TestProgramMetrics(t *testing.T) {
	p := mustLoad(t, `KICK_POWER = 30
kicks = counter("kick_count", help="Kicks.", labels=["parity"])
level = gauge("level")
stock = gauge("stock", fn=lambda: 2.5)
speed = histogram("speed", buckets=[1, 10])
wide = histogram("wide")
took = summary("took")
build = info("build", labels=["version"])
build.set(version="1")
build.set(version="2")
door = stateset("door", ["open", "closed"])
def kick(turn, beam):
    kicks.inc(parity=["even", "odd"][turn % 2])
    level.set(-0.1)
    speed.observe(turn)
    wide.observe(3)
    took.observe(0.5)
    door.set("closed")
`)
	for turn := range uint64(3) {
		if _, err := p.Kick(turn+9, Beam{}); err != nil {
			t.Fatal(err)
		}
	}
	families, err := p.Families()
	if err != nil {
		t.Fatal(err)
	}
	wantLines(t, expose(t, families),
		"# HELP kick_count Kicks.", "# TYPE kick_count counter",
		`kick_count_total{parity="even"} 1`, `kick_count_total{parity="odd"} 2`,
		"level -0.1", "stock 2.5",
		`speed_bucket{le="1.0"} 0`, `speed_bucket{le="10.0"} 2`, `speed_bucket{le="+Inf"} 3`, "speed_sum 30", "speed_count 3",
		"wide_sum 9", "wide_count 3", "took_count 3", "took_sum 1.5",
		`build_info{version="2"} 1`, `door{door="open"} 0`, `door{door="closed"} 1`)
}

func TestMetricErrors(t *testing.T) {
	for source, want := range map[string]string{
		`counter("kick_power")`:              "is taken",
		`gauge("beam_energy_mev")`:           "is taken",
		`gauge("accelerator_x")`:             "is taken",
		`counter("a")` + "\n" + `gauge("a")`: "is taken",
		`gauge("1a")`:                        "no metric name",
		`gauge("a", labels=["le"])`:          "can't be a label",
		`gauge("a", labels=["b", "b"])`:      "twice",
		`counter("a").inc(-1)`:               "never goes down",
		`gauge("a").set(float("inf"))`:       "not finite",
		`gauge("a", labels=["b"]).set(1)`:    "is missing",
		`histogram("a", buckets=[2, 1])`:     "must ascend",
		`stateset("a", ["b"]).set("c")`:      "is no state",
		`gauge("a", fn=len).set(1)`:          "which sets it",
		`gauge("a").observe(1)`:              "no .observe",
		`gauge("a", color=1)`:                "unexpected keyword",
	} {
		_, err := load(t, "KICK_POWER = 1\n"+source)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
	}
}

func TestCompatibleMetrics(t *testing.T) {
	l := newLab(t, Compatible, "KICK_POWER = 40")
	wantLines(t, gather(t, l), "kick_power 0", "beam_speed_km_s 0", "accelerator_state 0")
	l.Start()
	wantLines(t, gather(t, l), "kick_power 40", "beam_speed_km_s 24982704", "accelerator_state 1", `accelerator_status{accelerator_status="running"} 1`)
	l.Advance(25 * time.Second)
	wantLines(t, gather(t, l), "kick_power 0", "accelerator_state 2", "accelerator_beam_speed_ratio 0.999999991")
	if result, ended := l.Advance(time.Minute); !ended || result.Outcome != Succeeded {
		t.Fatal(result, ended)
	}
	text := gather(t, l)
	wantLines(t, text, `accelerator_runs_total{result="success"} 1`, `accelerator_runs_total{result="timeout"} 0`,
		"accelerator_run_duration_seconds_count 1", "accelerator_run_duration_seconds_sum 30", `accelerator_info{mode="compatible",seed="5"} 1`, "accelerator_state 0")
	if !strings.Contains(text, `# {run_id="1"} 30 1700000000.000`) {
		t.Errorf("no exemplar:\n%s", text)
	}
	if only := gather(t, l, "kick_power"); strings.Contains(only, "accelerator") {
		t.Error(only)
	}
}

func TestPhysicsMetrics(t *testing.T) {
	l := newLab(t, Physics, "KICK_POWER = 40")
	l.Start()
	wantLines(t, gather(t, l), "accelerator_beam_energy_electronvolts 450000000000", `accelerator_magnet_temperature_kelvin{sector="8"} 1.9`,
		`accelerator_state{accelerator_state="running"} 1`)
	if text := gather(t, l); strings.Contains(text, "kick_power") {
		t.Error(text)
	}
}

// A counter never goes down when a run ends.
func TestCountersGrow(t *testing.T) {
	l := newLab(t, Compatible, "KICK_POWER = 60")
	for range 2 {
		l.Start()
		l.Advance(time.Minute)
	}
	l.Start()
	l.Abort()
	wantLines(t, gather(t, l), "accelerator_kicks_total 2", "accelerator_turns_total 2",
		`accelerator_runs_total{result="overload"} 2`, `accelerator_runs_total{result="abort"} 1`)
}

// A bad program changes nothing but the problem that is shown; one that fails later falls back to its KICK_POWER.
func TestLastGoodProgram(t *testing.T) {
	l := newLab(t, Compatible, "KICK_POWER = 40")
	if err := l.SetProgram("kick.star", []byte("KICK_POWER = ")); err == nil || l.Problem() == nil {
		t.Error("taken")
	}
	if _, power := l.State(); power != 40 {
		t.Error(power)
	}
	if err := l.SetProgram("kick.star", []byte("KICK_POWER = 35\ndef kick(turn, beam): fail('no')")); err != nil || l.Problem() != nil {
		t.Error(err, l.Problem())
	}
	l.Start()
	result, _ := l.Advance(time.Minute)
	if result.Outcome != Succeeded || l.Problem() == nil || !strings.Contains(l.Problem().Error(), "kick.star:2:") {
		t.Error(result, l.Problem())
	}
}

func TestScalarsAreExact(t *testing.T) {
	// In all formats, and beside others of any size.
	values := []float64{0.999999991, 0.1, -0.1, 1e-300, 1e300, math.MaxFloat64, -math.MaxFloat64, 6.8e12, 1 << 60, math.SmallestNonzeroFloat64, 0, 7, -7, math.Inf(1)}
	var samples []sample
	for i, v := range values {
		samples = append(samples, sample{fmt.Sprintf(`n="%d"`, i), v})
	}
	f := func(want []float64, family *series.Family) {
		t.Helper()
		for _, accept := range []string{"text/plain", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"} {
			got := scrape(t, accept, family)
			for i, v := range want {
				if got[fmt.Sprint(i)] != v {
					t.Errorf("%s: %v became %v", accept, v, got[fmt.Sprint(i)])
				}
			}
		}
	}
	f(values, scalars("v", "", "", program.Gauge, 0, samples...))
	f([]float64{3, -5, 0}, scalars("v", "", "", program.Gauge, 0, sample{`n="0"`, 3}, sample{`n="1"`, -5}, sample{`n="2"`, 0}))
}

// scrape writes a family of gauges in a format and reads it as a scraper does; the keys are the values of the label n.
func scrape(t *testing.T, accept string, family *series.Family) map[string]float64 {
	t.Helper()
	handler := exposition.NewHandler(func(context.Context, []string) (exposition.Snapshot, error) {
		return exposition.Snapshot{Families: []*series.Family{family}}, nil
	}, exposition.HandlerOptions{})
	request := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	request.Header.Set("Accept", accept)
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, request)
	read := map[string]float64{}
	decoder := expfmt.NewDecoder(answer.Body, expfmt.ResponseFormat(answer.Header()))
	for {
		var f dto.MetricFamily
		if err := decoder.Decode(&f); errors.Is(err, io.EOF) {
			return read
		} else if err != nil {
			t.Fatal(err)
		}
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetName() == "n" {
					read[l.GetValue()] = m.GetGauge().GetValue()
				}
			}
		}
	}
}

func TestRun(t *testing.T) {
	power := func(p float64) *float64 { return &p }
	file := filepath.Join(t.TempDir(), "kick.star")
	if err := os.WriteFile(file, []byte("KICK_POWER = 45\ndef kick(turn, beam): return 60 if turn == 3 else None"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.star")
	if err := os.WriteFile(bad, []byte("KICK_POWER = 45\ndef kick(turn, beam): return []"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		options   RunOptions
		out, fail string
	}{
		{RunOptions{}, "timeout after 30.0 s: ", ""},
		{RunOptions{Kick: power(40), Until: Succeeded}, "success after 30.0 s: ", ""},
		{RunOptions{Kick: power(40), Until: Succeeded, Warp: 1000}, "success after 30.0 s: ", ""},
		{RunOptions{Kick: power(40), Until: Overload}, "success after 30.0 s: ", "another outcome"},
		{RunOptions{Mode: Physics, Kick: power(40), Until: Succeeded}, "6.8 TeV", ""},
		{RunOptions{Program: file, Until: Overload}, "overload", ""},
		{RunOptions{Program: bad}, "", "bad.star:2:1: what kick returned is a list"},
		{RunOptions{Program: "/nowhere"}, "", "kick program: open /nowhere"},
		{RunOptions{Program: file, Kick: power(1)}, "", "either"},
		{RunOptions{Kick: power(math.NaN())}, "", "from 0 to 100"},
		{RunOptions{Until: "abort"}, "", "no run ends"},
		{RunOptions{Output: "xml"}, "", "no output"},
		{RunOptions{Warp: -1}, "", "warp"},
		{RunOptions{Mode: "x"}, "", "no mode"},
	} {
		var out bytes.Buffer
		c.options.Out = &out
		err := Run(context.Background(), c.options)
		if (err == nil) != (c.fail == "") || err != nil && !strings.Contains(err.Error(), c.fail) || !strings.Contains(out.String(), c.out) {
			t.Errorf("%+v: %s, %v; want %q, %q", c.options, out.String(), err, c.out, c.fail)
		}
	}
	var out bytes.Buffer
	if err := Run(context.Background(), RunOptions{Kick: power(49), Output: "json", Until: TimedOut, Out: &out}); !errors.Is(err, ErrMissed) {
		t.Error(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["outcome"] != "success" || got["duration_seconds"] != 30.0 || got["reached"] != false {
		t.Error(out.String(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Run(ctx, RunOptions{Out: &out}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What the lab and a kick program say has no mistake, in either text format.
func TestMetricsAreFlawless(t *testing.T) {
	const source = `
KICK_POWER = 40
kicks = counter("kick_count", "Kicks.", labels=["half"])
speeds = histogram("beam_speed_ratio_seen", "Speed at each kick, as a share of the speed of light.")
few = histogram("power_seen", "Power of kicks.", buckets=[10, 20, 50])
waits = summary("wait_turns", "Turns between kicks.")
stock = gauge("stock", "Things left.", fn=lambda: 17)
mood = stateset("mood", ["good", "bad"], "Mood of the operator.")
build = info("program", "Which program this is.", labels=["version"])
build.set(version="1 \"quoted\" \\ é")

def kick(turn, beam):
    kicks.inc(half="first" if beam.ratio < 0.5 else "second")
    speeds.observe(beam.ratio)
    few.observe(KICK_POWER)
    waits.observe(1)
    mood.set("bad")
    return KICK_POWER
`
	for _, mode := range []Mode{Compatible, Physics} {
		l := newLab(t, mode, source)
		server := httptest.NewServer(exposition.NewHandler(l.Gather, exposition.HandlerOptions{}))
		defer server.Close()
		check := func(when string) {
			t.Helper()
			for _, format := range []lint.Format{lint.OpenMetrics, lint.Text} {
				result := (&lint.Source{Format: format}).All(context.Background(), []string{server.URL})
				if len(result.Expositions) != 1 || result.Expositions[0].Samples < 30 {
					t.Fatalf("%s, %s: %+v", mode, when, result)
				}
				for _, f := range result.Expositions[0].Findings {
					t.Errorf("%s, %s, %s: %+v", mode, when, format, f)
				}
			}
		}
		check("before")
		l.Start()
		l.Advance(20 * time.Second)
		check("during a run")
		for range 200 {
			if _, ended := l.Advance(time.Minute); ended {
				break
			}
		}
		check("after a run")
	}
}
