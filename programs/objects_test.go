package programs_test

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/kaon-project/kaon/internal/check"
	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/programs"
)

// Objects are what they promise, without a kernel.
func TestObjects(t *testing.T) {
	promised := metrics()
	var specs []*program.Spec
	for _, name := range programs.Names() {
		t.Run(name, func(t *testing.T) {
			data, err := programs.Object(name)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			for _, path := range []string{"/root/", "/home/", "/tmp/", "/usr/", "/src/"} {
				if bytes.Contains(data, []byte(path)) {
					t.Errorf("the object contains a path that begins with %s", path)
				}
			}
			spec, err := programs.Load(name)
			if err != nil {
				t.Fatal(err)
			}
			specs = append(specs, spec)
			if spec.Name != name || spec.Help == "" {
				t.Errorf("it is called %q and says of itself %q", spec.Name, spec.Help)
			}
			for _, f := range check.Check(spec) {
				if f.Severity == check.Error {
					t.Error(f)
				} else {
					t.Log(f)
				}
			}
			got := map[string]program.Type{}
			for _, r := range spec.Readers {
				for _, m := range r.Metrics {
					got[m.Name] = m.Type
					if m.Help == "" {
						t.Errorf("metric %s has no help", m.Name)
					}
				}
			}
			for metric, kind := range promised[name] {
				if got[metric] != kind {
					t.Errorf("metric %s is a %q, want %q", metric, got[metric], kind)
				}
				delete(got, metric)
			}
			for metric := range got {
				t.Errorf("metric %s is not promised", metric)
			}
			for _, p := range spec.Params {
				if p.Help == "" {
					t.Errorf("param %s has no help", p.Name)
				}
			}
		})
	}
	for name := range promised {
		if _, err := programs.Load(name); err != nil {
			t.Error(err)
		}
	}
	for _, f := range check.Together(specs) {
		t.Errorf("together: %v", f)
	}
}

// Pages tell what there is.
func TestPages(t *testing.T) {
	cost := regexp.MustCompile(`^(low|medium|high)\b.*\d ?ns`)
	for _, name := range programs.Names() {
		page, err := programs.Page(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := programs.Cost(name); !cost.MatchString(got) {
			t.Errorf("%s: a class and nanoseconds are expected: %q", name, got)
		}
		if area := programs.Area(name); !slices.Contains(programs.Areas(), area) {
			t.Errorf("%s: no area of the library: %q", name, area)
		}
		text := string(page)
		for metric := range metrics()[name] {
			if !strings.Contains(text, metric) {
				t.Errorf("the page of %s does not mention %s", name, metric)
			}
		}
		for _, section := range []string{"# " + name + "\n", "## Metrics", "## Queries", "## Hooks", "## Caveats"} {
			if !strings.Contains(text, section) {
				t.Errorf("the page of %s lacks %q", name, section)
			}
		}
		spec, err := programs.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range spec.Params {
			if !strings.Contains(text, "`"+p.Name+"`") {
				t.Errorf("the page of %s does not mention the param %s", name, p.Name)
			}
		}
	}
}

// Queries of the pages ask for metrics that the Program has.
func TestQueries(t *testing.T) {
	suffix := regexp.MustCompile(`_(bucket|sum|count)$`)
	p, all := parser.NewParser(parser.Options{}), metrics()
	for _, name := range programs.Names() {
		page, err := programs.Page(name)
		if err != nil {
			t.Fatal(err)
		}
		_, section, _ := strings.Cut(string(page), "## Queries\n\n```\n")
		section, _, ok := strings.Cut(section, "```\n")
		if !ok {
			t.Errorf("%s: the page has no queries", name)
			continue
		}
		section = strings.ReplaceAll(section, "\n  ", " ") // a query may go on in an indented line
		queries := 0
		for query := range strings.Lines(section) {
			if query = strings.TrimSpace(query); strings.HasPrefix(query, "#") {
				continue
			}
			queries++
			parsed, err := p.ParseExpr(query)
			if err != nil {
				t.Errorf("%s: %s: %v", name, query, err)
				continue
			}
			own := false
			parser.Inspect(parsed, func(node parser.Node, _ []parser.Node) error {
				v, ok := node.(*parser.VectorSelector)
				if !ok {
					return nil
				}
				base := suffix.ReplaceAllString(v.Name, "")
				known := func(metrics map[string]program.Type) bool {
					_, ok := metrics[v.Name]
					return ok || base != v.Name && metrics[base] == program.Histogram
				}
				own = own || known(all[name])
				if !slices.ContainsFunc(slices.Collect(maps.Values(all)), known) {
					t.Errorf("%s: %s: there is no metric %s", name, query, v.Name)
				}
				return nil
			})
			if !own {
				t.Errorf("%s: not a query of the Program's metrics: %s", name, query)
			}
		}
		if queries < 3 {
			t.Errorf("%s: the page has %d queries", name, queries)
		}
	}
}

func TestDefault(t *testing.T) {
	names := programs.Names()
	if len(programs.Default()) == 0 {
		t.Error("no program is a default")
	}
	for _, name := range programs.Default() {
		if !slices.Contains(names, name) {
			t.Errorf("there is no program %s", name)
		}
	}
	if _, err := programs.Object("no-such"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown program: %v", err)
	}
	if _, err := programs.Load("no-such"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unknown program: %v", err)
	}
}
