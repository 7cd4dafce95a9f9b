package page_test

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/page"
)

// ends waits for the end of a run that was launched, and returns its result.
func (l *running) ends() *page.Result {
	l.t.Helper()
	events := l.events()
	defer events.Close()
	for {
		var s page.State
		events.next("state", &s)
		if s.Result != nil {
			return s.Result
		}
	}
}

func (l *running) launch() {
	l.t.Helper()
	if a := l.send("POST", "/api/launch", ""); a.status != http.StatusOK {
		l.t.Fatalf("launch: %d %s", a.status, a.body)
	}
}

// save writes a program and returns what became of it.
func (l *running) save(source string) page.Program {
	l.t.Helper()
	body, err := json.Marshal(map[string]string{"source": source})
	if err != nil {
		l.t.Fatal(err)
	}
	a := l.send("PUT", "/api/program", string(body))
	var p page.Program
	if err := json.Unmarshal([]byte(a.body), &p); a.status != http.StatusOK || err != nil {
		l.t.Fatalf("save: %d %s %v", a.status, a.body, err)
	}
	return p
}

// The run is the same whether nobody looks, or several, one of whom never reads, and one goes away.
func TestPagesChangeNothing(t *testing.T) {
	var results []page.Result
	for _, viewers := range []int{0, 3} {
		l := start(t, lab.Physics, 400)
		for i := range viewers {
			events := l.events()
			defer events.Close()
			if i == 1 {
				events.Close()
			}
		}
		l.save("KICK_POWER = 40\n\ndef kick(turn, beam):\n    return 35 + turn % 7\n")
		l.launch()
		results = append(results, *l.ends())
	}
	if results[0] != results[1] {
		t.Errorf("alone %+v\nwatched %+v", results[0], results[1])
	}
	if results[0].Outcome != lab.Succeeded {
		t.Errorf("the outcome is %s", results[0].Outcome)
	}
}

// The outcomes of the workshop, by saving another number.
func TestOutcomes(t *testing.T) {
	l := start(t, lab.Compatible, 200)
	f := func(power string, outcome lab.Outcome, kicks uint64) {
		t.Helper()
		l.save("KICK_POWER = " + power + "\n")
		l.launch()
		got := l.ends()
		if got.Outcome != outcome || kicks > 0 && got.Kicks != kicks {
			t.Errorf("%s: %s with %d kicks, want %s with %d", power, got.Outcome, got.Kicks, outcome, kicks)
		}
	}
	f("27", lab.TimedOut, 0)
	f("40", lab.Succeeded, 0)
	f("50", lab.Overload, 1)
	if runs := l.state().Totals.Runs; runs[lab.TimedOut] != 1 || runs[lab.Succeeded] != 1 || runs[lab.Overload] != 1 {
		t.Errorf("runs: %v", runs)
	}
	l.launch()
	l.send("POST", "/api/abort", "")
	if s := l.state(); s.Status != "stopped" && s.Status != "overloaded" {
		t.Errorf("after an abort: %s", s.Status)
	}
	// The page was led on.
	events := l.events()
	defer events.Close()
	var done []page.Step
	events.next("steps", &done)
	for _, step := range []page.Step{page.StepLaunch, page.StepTimeout, page.StepEdit, page.StepSuccess, page.StepOverload} {
		if !slices.Contains(done, step) {
			t.Errorf("%s is not done: %v", step, done)
		}
	}
}

// A change of the file is taken up however it comes about; what is broken does not run.
func TestProgramFile(t *testing.T) {
	l := start(t, lab.Compatible, 1)
	power := func(want float64) {
		t.Helper()
		until(t, "the power", func() bool { return l.session.Program().Power == want })
	}
	power(27)
	if source, err := os.ReadFile(l.program); err != nil || string(source) != lab.DefaultProgram {
		t.Fatalf("the original was not written: %q (%v)", source, err)
	}
	write := func(source string) {
		t.Helper()
		if err := os.WriteFile(l.program, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("KICK_POWER = 31\n")
	power(31)
	replace(t, l.program, "KICK_POWER = 32\n")
	power(32)
	if err := os.Remove(l.program); err != nil {
		t.Fatal(err)
	}
	problem := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			p := l.session.Program().Problem
			return p != nil && strings.Contains(p.Message, want)
		})
	}
	problem("is gone")
	power(32)
	write("KICK_POWER = 32\n")
	until(t, "the end of the problem", func() bool { return l.session.Program().Problem == nil })
	// Through a link, whose target is replaced.
	target := filepath.Join(t.TempDir(), "target.star")
	if err := os.WriteFile(target, []byte("KICK_POWER = 33\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, l.program+"~"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.program+"~", l.program); err != nil {
		t.Fatal(err)
	}
	power(33)
	l.save("KICK_POWER = 34\n")
	info, err := os.Stat(target)
	if source, _ := os.ReadFile(target); err != nil || string(source) != "KICK_POWER = 34\n" || info.Mode().Perm() != 0o600 {
		t.Errorf("the link's target has %q, %v (%v)", source, info, err)
	}
	if err := os.Remove(l.program); err != nil {
		t.Fatal(err)
	}

	write("KICK_POWER = 35\n\ndef kick(turn, beam):\n    return KICK_POWER +\n")
	until(t, "the line", func() bool { p := l.session.Program().Problem; return p != nil && p.Line == 4 })
	power(34)
	write(strings.Repeat("#", lab.MaxSource+10))
	problem("at most")
	write("KICK_POWER = 101\n")
	problem("from 0 to 100")
	if err := os.Remove(l.program); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(l.program, 0o644); err != nil {
		t.Fatal(err)
	}
	problem("no regular file")
	power(34)
}

// What root's lab writes stays, or becomes, that of whose folder it is in.
func TestSavedFileKeepsItsOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const user, other = 12345, 12346
	directory := t.TempDir()
	if err := os.Chown(directory, user, user); err != nil {
		t.Skip("needs the right to give files away:", err)
	}
	program := filepath.Join(directory, "kick.star")
	l := startWith(t, page.SessionOptions{Program: program}, page.Options{})
	f := func(want uint32) {
		t.Helper()
		info, err := os.Stat(program)
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != want || s.Gid != want || info.Mode().Perm() != 0o644 {
			t.Errorf("the file is %d:%d's, with mode %v, want %d's", s.Uid, s.Gid, info.Mode(), want)
		}
	}
	f(user)
	if err := os.Chown(program, other, other); err != nil {
		t.Fatal(err)
	}
	l.save("KICK_POWER = 34\n")
	f(other)
}

// A ConfigMap that is mounted changes by exchanging a link in its directory.
func TestMountedProgram(t *testing.T) {
	directory := t.TempDir()
	for version, power := range map[string]string{"..1": "41", "..2": "42"} {
		if err := os.Mkdir(filepath.Join(directory, version), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(directory, version, "kick.star"), []byte("KICK_POWER = "+power+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(directory, "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(directory, "new"), filepath.Join(directory, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..1", "..data")
	link("..data/kick.star", "kick.star")
	l := startWith(t, page.SessionOptions{Program: filepath.Join(directory, "kick.star")}, page.Options{})
	if got := l.session.Program().Power; got != 41 {
		t.Fatalf("the power is %v", got)
	}
	link("..2", "..data")
	until(t, "the power", func() bool { return l.session.Program().Power == 42 })
}

// Who saves over what somebody else wrote is told so.
func TestSaveConflict(t *testing.T) {
	l := start(t, lab.Compatible, 1)
	base := l.session.Program().Revision
	replace(t, l.program, "KICK_POWER = 41\n")
	body := `{"source": "KICK_POWER = 42\n", "base": "` + base + `"}`
	if a := l.send("PUT", "/api/program", body); a.status != http.StatusConflict || !strings.Contains(a.body, "changed meanwhile") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if got := l.session.Program(); got.Power != 41 {
		t.Errorf("the power is %v", got.Power)
	}
	l.save("KICK_POWER = 43\n")
	if a := l.send("POST", "/api/program/reset", ""); a.status != http.StatusOK {
		t.Errorf("reset: %d %s", a.status, a.body)
	}
	if source, err := os.ReadFile(l.program); err != nil || string(source) != lab.DefaultProgram {
		t.Errorf("after a reset: %q (%v)", source, err)
	}
}

// A program that is broken when the lab starts is shown; the original runs.
func TestBrokenFromTheStart(t *testing.T) {
	program := filepath.Join(t.TempDir(), "kick.star")
	if err := os.WriteFile(program, []byte("KICK_POWER = \n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l := startWith(t, page.SessionOptions{Program: program}, page.Options{})
	if p := l.session.Program(); p.Problem == nil || p.Problem.Line != 1 || p.Power != lab.DefaultKickPower || p.Source != "KICK_POWER = \n" {
		t.Errorf("%+v", p)
	}
	if _, err := page.NewSession(page.SessionOptions{Program: filepath.Join(t.TempDir(), "missing", "kick.star")}); err == nil || !strings.Contains(err.Error(), "--program") {
		t.Errorf("a folder that is missing: %v", err)
	}
	if _, err := page.NewSession(page.SessionOptions{Program: program, Mode: "fast"}); err == nil {
		t.Error("a mode that is none is taken")
	}
	if _, err := page.NewSession(page.SessionOptions{Program: program, Warp: 1e6}); err == nil {
		t.Error("a warp beyond all bounds is taken")
	}
}

// A program that uses up all its steps at each kick slows the beam down, and nobody else.
func TestSlowProgram(t *testing.T) {
	l := start(t, lab.Physics, page.MaxWarp)
	l.save("KICK_POWER = 1\n\ndef kick(turn, beam):\n    x = 0\n    for i in range(8000):\n        x += i\n    return KICK_POWER\n")
	l.launch()
	until(t, "the answer that it is slow", func() bool { return l.state().Slow })
	if a := l.send("GET", "/kick_power", ""); a.body != "{\"kick_power\":1}\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// Another mode aborts the beam; what was counted stays.
func TestModeAndWarp(t *testing.T) {
	l := start(t, lab.Compatible, 300)
	l.launch()
	l.ends()
	kicks := l.state().Totals.Kicks
	if kicks == 0 {
		t.Fatal("no kicks")
	}
	if a := l.send("PUT", "/api/warp", `{"warp": 0.1}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	l.launch()
	if a := l.send("PUT", "/api/mode", `{"mode": "physics"}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	s := l.state()
	if s.Mode != lab.Physics || s.Status != "stopped" || s.Warp != 60 || s.Totals.Kicks != kicks || s.Totals.Runs[lab.Aborted] != 1 || len(s.Sectors) != 8 {
		t.Errorf("%+v", s)
	}
	l.launch()
	if s := l.state(); s.Run != 3 {
		t.Errorf("the run is %d, want 3", s.Run)
	}
}

// The metrics of the kick program are sent as they are, and their numbers kept for charts.
func TestOwnMetrics(t *testing.T) {
	l := start(t, lab.Compatible, 300)
	l.save("KICK_POWER = 40\nn = counter(\"kick_count\", \"Kicks.\")\nspeed = histogram(\"speed\", labels=[\"phase\"])\n\ndef kick(turn, beam):\n    n.inc()\n    speed.observe(beam.ratio, phase=\"any\")\n")
	l.launch()
	kicks := l.ends().Kicks
	events := l.events()
	defer events.Close()
	var own page.Own
	// What is told may be of a moment before the end.
	var count struct {
		Metric string
		Value  uint64
	}
	for len(own.Series) != 2 || count.Metric != "kick_count_total" || count.Value != kicks {
		events.next("own", &own)
		if len(own.Series) == 0 {
			continue
		}
		if err := json.Unmarshal(own.Series[0], &count); err != nil {
			t.Fatal(err)
		}
	}
	var history page.History
	if err := json.Unmarshal([]byte(l.send("GET", "/api/history", "").body), &history); err != nil {
		t.Fatal(err)
	}
	if len(history.Time) < 3 || len(history.Ratio) != len(history.Time) || len(history.Own) != 2 || len(history.Own[0].Points) == 0 {
		t.Errorf("the history has %d moments and %d numbers", len(history.Time), len(history.Own))
	}
	var done []page.Step
	for !slices.Contains(done, page.StepCount) || !slices.Contains(done, page.StepLabel) {
		events.next("steps", &done)
	}
}
