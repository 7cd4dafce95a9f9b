package page_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/lab"
)

// The reference names each metric and each route, and its program is good.
func TestDocument(t *testing.T) {
	data, err := os.ReadFile("../../../docs/reference/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	program := regexp.MustCompile("(?s)```python kick.star\n(.*?)```").FindStringSubmatch(page)
	if program == nil {
		t.Fatal("the page has no program")
	}
	if _, err := lab.LoadProgram("kick.star", []byte(program[1]), time.Now()); err != nil {
		t.Error(err)
	}
	l := start(t, lab.Compatible, 1)
	for _, mode := range []string{"compatible", "physics"} {
		l.send("PUT", "/api/mode", `{"mode": "`+mode+`"}`)
		names := regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(l.send("GET", "/metrics", "").body, -1)
		if len(names) < 10 {
			t.Fatalf("%d metrics", len(names))
		}
		for _, m := range names {
			if !strings.HasPrefix(m[1], "go_") && !strings.HasPrefix(m[1], "process_") && !strings.Contains(page, "`"+m[1]+"`") {
				t.Errorf("the page does not tell of %s", m[1])
			}
		}
	}
	routes := regexp.MustCompile("`(GET|POST|PUT|DELETE) (/[^`]*)`").FindAllStringSubmatch(page, -1)
	if len(routes) < 20 {
		t.Errorf("%d routes", len(routes))
	}
	for _, route := range routes {
		if route[2] == "/api/events" {
			l.events().Close()
			continue
		}
		if a := l.send(route[1], route[2], ""); a.status == 404 || a.status == 405 {
			t.Errorf("%s: %d %s", route[0], a.status, a.body)
		}
	}
}
