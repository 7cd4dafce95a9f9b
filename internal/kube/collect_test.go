package kube

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/kaon-project/kaon/internal/agent"
)

// newTestCollector knows tokens "NAME" of kaon's agents and "NAME@NODE" of agents on that node.
func newTestCollector() (c *collector, changed *[]string) {
	changed = &[]string{}
	c = &collector{user: "agent", nodes: map[string]*heard{}, tokens: map[[32]byte]who{},
		changed: func(names ...string) { *changed = append(*changed, names...) },
		review: func(token string) (*authenticationv1.TokenReview, error) {
			name, node, bound := strings.Cut(token, "@")
			r := &authenticationv1.TokenReview{}
			r.Status.Authenticated, r.Status.User.Username = name != "stranger", name
			if bound {
				r.Status.User.Extra = map[string]authenticationv1.ExtraValue{"authentication.kubernetes.io/node-name": {node}}
			}
			return r, nil
		}}
	return c, changed
}

func post(c *collector, token string, report any) *httptest.ResponseRecorder {
	body, ok := report.([]byte)
	if !ok {
		body, _ = json.Marshal(report)
	}
	r := httptest.NewRequest(http.MethodPost, reportPath, bytes.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

func TestCollectorTurnsAway(t *testing.T) {
	c, _ := newTestCollector()
	f := func(token string, report any, want int) {
		t.Helper()
		if w := post(c, token, report); w.Code != want {
			t.Errorf("token %q: %d %s, want %d", token, w.Code, w.Body, want)
		}
	}
	report := Report{Node: "one"}
	f("", report, http.StatusUnauthorized)
	f("stranger", report, http.StatusUnauthorized)
	f("other", report, http.StatusForbidden)
	f("agent@two", report, http.StatusForbidden)
	f("agent", []byte("{"), http.StatusBadRequest)
	f("agent", Report{}, http.StatusBadRequest)
	f("agent", bytes.Repeat([]byte(" "), maxReport+1), http.StatusBadRequest)
	if c.count() != 0 || c.refusals != 7 {
		t.Errorf("%d nodes, %d refusals", c.count(), c.refusals)
	}
	f("agent@one", report, http.StatusOK)
	f("agent", Report{Node: "two"}, http.StatusOK)
	if c.count() != 2 {
		t.Errorf("%d nodes", c.count())
	}
	reviews := c.reviews
	f("agent@one", report, http.StatusOK)
	if c.reviews != reviews {
		t.Error("a token that was checked is checked again")
	}
}

func TestCollectorTellsWhatChanged(t *testing.T) {
	c, changed := newTestCollector()
	f := func(report Report, at time.Duration, want ...string) {
		t.Helper()
		*changed = nil
		c.take(report, noon.Add(at))
		slices.Sort(*changed)
		if !slices.Equal(*changed, want) {
			t.Errorf("%+v: %q changed, want %q", report, *changed, want)
		}
	}
	a, b := ProgramReport{Name: "a", State: agent.Up}, ProgramReport{Name: "b", State: agent.Up}
	f(Report{Node: "n", Programs: []ProgramReport{a, b}}, 0, "")
	f(Report{Node: "n", Programs: []ProgramReport{a, b}}, time.Second)
	b.State = agent.Down
	f(Report{Node: "n", Programs: []ProgramReport{a, b}}, 2*time.Second, "b")
	f(Report{Node: "n", Programs: []ProgramReport{b, {Name: "c"}}}, 3*time.Second, "a", "c")
	*changed = nil
	if silent := c.fallSilent(noon.Add(30 * time.Second)); silent != nil {
		t.Errorf("silent: %v", silent)
	}
	for range 2 { // it is said once
		if silent := c.fallSilent(noon.Add(time.Hour)); !slices.Equal(silent, []string{"n"}) || !slices.Equal(*changed, []string{""}) {
			t.Errorf("silent: %v, changed %q", silent, *changed)
		}
	}
	if o := c.observe("b"); len(o) != 1 || !o[0].silent || o[0].report.State != agent.Down {
		t.Errorf("%+v", o)
	}
	f(Report{Node: "n", Programs: []ProgramReport{b}}, time.Hour, "")
	c.forget("n")
	if c.count() != 1 {
		t.Error("a node that reports was forgotten")
	}
	f(Report{Node: "n", Leaving: true}, time.Hour, "")
	if c.count() != 0 {
		t.Error("an agent that left is still there")
	}
}

// However many agents there are, what they send while nothing changes has a bound.
func TestReplyBoundsReports(t *testing.T) {
	c, _ := newTestCollector()
	for _, f := range []struct {
		nodes            int
		interval, spread float64
	}{{1, 15, 0.002}, {750, 15, 1.5}, {1000, 20, 2}, {5000, 100, 10}} {
		for len(c.nodes) < f.nodes {
			c.nodes[string(rune(len(c.nodes)))+"n"] = &heard{}
		}
		if r := c.reply(); r.IntervalSeconds != f.interval || r.SpreadSeconds != f.spread {
			t.Errorf("%d nodes: %+v", f.nodes, r)
		}
	}
}
