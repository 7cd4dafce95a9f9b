package monitoring

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/programs"
)

var update = flag.Bool("update", false, "write the dashboard and the rules anew")

// What is committed is what the code says.
func TestCurrent(t *testing.T) {
	dashboard, err := Library().JSON()
	if err != nil {
		t.Fatal(err)
	}
	laboratory, err := Lab().JSON()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := RulesYAML(Alerts())
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]byte{"../grafana/kaon.json": dashboard, "../grafana/kaon-lab.json": laboratory, "../prometheus/kaon.rules.yaml": rules} {
		if *update {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s is out of date: run `make docs`", file)
		}
	}
}

// The dashboard is what Grafana takes: ids are unique and panels don't overlap.
func TestDashboard(t *testing.T) {
	for _, d := range []*Dashboard{Library(), Lab()} {
		t.Run(d.UID, func(t *testing.T) { checkDashboard(t, d) })
	}
}

func checkDashboard(t *testing.T, dashboard *Dashboard) {
	text, err := dashboard.JSON()
	if err != nil {
		t.Fatal(err)
	}
	type panel struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Panels  []panel
		Targets []struct{ Expr string }
	}
	var d struct {
		Panels     []panel
		Templating struct{ List []struct{ Name string } }
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	ids := map[int]bool{}
	var check func(panels []panel)
	check = func(panels []panel) {
		for i, p := range panels {
			if ids[p.ID] || p.ID == 0 {
				t.Errorf("panel %q: its id %d is not unique", p.Title, p.ID)
			}
			ids[p.ID] = true
			if p.GridPos.X+p.GridPos.W > columns {
				t.Errorf("panel %q is too wide", p.Title)
			}
			for _, o := range panels[:i] {
				if p.GridPos.X < o.GridPos.X+o.GridPos.W && o.GridPos.X < p.GridPos.X+p.GridPos.W &&
					p.GridPos.Y < o.GridPos.Y+o.GridPos.H && o.GridPos.Y < p.GridPos.Y+p.GridPos.H {
					t.Errorf("panels %q and %q overlap", p.Title, o.Title)
				}
			}
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("panel %q asks nothing", p.Title)
			}
			check(p.Panels)
		}
	}
	check(d.Panels)
	// Grafana shows what it does not know as a suffix.
	units := []string{"short", "s", "bytes", "Bps", "ops", "cps", "pps", "iops", "percentunit", "watt", "massg", "percent", "velocityms", "ev", "kelvin"}
	for _, row := range dashboard.Rows {
		titles := map[string]bool{}
		for _, p := range row.Panels {
			if p.Help == "" || !slices.Contains(units, p.Unit) {
				t.Errorf("panel %q has no help, or a unit that is not known", p.Title)
			}
			if titles[p.Title] {
				t.Errorf("two panels in %s are called %q", row.Title, p.Title)
			}
			titles[p.Title] = true
		}
	}
}

// Each area of the library has its row, in the library's order.
func TestAreas(t *testing.T) {
	var got []string
	for _, row := range Library().Rows {
		if row.Area != "" {
			got = append(got, row.Area)
		}
	}
	if want := programs.Areas(); !slices.Equal(got, want) {
		t.Errorf("the rows are %v, want %v", got, want)
	}
}

// Each Program is in the row of its area, or in the overview if that is where it belongs.
func TestEveryProgramHasAPanel(t *testing.T) {
	all := exposed(t)
	shown := map[string]bool{}
	for _, e := range expressions() {
		for _, v := range selectors(t, e.expr) {
			if m, _, ok := family(all, v.Name); ok && e.row != nil && e.row.Area == m.area {
				shown[m.program] = true
			}
		}
	}
	for _, name := range programs.Names() {
		if !shown[name] {
			t.Errorf("no panel of the row for %s shows anything of %s", programs.Area(name), name)
		}
	}
}

// The values that can be chosen come from metrics that exist and have the label.
func TestVariables(t *testing.T) {
	checkVariables(t, exposed(t), variables(), selector("x"))
	checkVariables(t, exposedWithLab(t), labVariables(), ofLab("x"))
}

func checkVariables(t *testing.T, all map[string]metric, variables []variable, selector string) {
	t.Helper()
	query := regexp.MustCompile(`^label_values\((\w+|\{.*\}), (\w+)\)$`)
	known := []string{}
	for _, v := range variables {
		for _, name := range v.metrics {
			if m, ok := all[name]; !ok || v.label != "instance" && !slices.Contains(m.labels, v.label) {
				t.Errorf("%s: %s does not exist, or does not have that label", v.label, name)
			} else if m.optional {
				t.Errorf("%s: %s exists on request only", v.label, name)
			}
		}
		for _, label := range v.within {
			if !slices.Contains(known, label) {
				t.Errorf("%s: there is no variable %s before it", v.label, label)
			}
		}
		known = append(known, v.label)
		m := query.FindStringSubmatch(v.query())
		if m == nil || m[2] != v.label {
			t.Errorf("%s: Grafana does not understand %s", v.label, v.query())
		} else if len(selectors(t, substitute(m[1]))) != 1 {
			t.Errorf("%s: %s is no selector", v.label, m[1])
		}
		if !strings.Contains(selector, v.filter()) {
			t.Errorf("what is chosen of %s is not used", v.label)
		}
	}
}
