package page_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/page"
)

// Whatever is sent, the answer says whose mistake it was, and a state that was told changes nothing.
func FuzzRequests(f *testing.F) {
	f.Add(0, `{"status": 1, "speed": 24982704}`)
	f.Add(1, `{"warp": 10}`)
	f.Add(2, `{"mode": "physics"}`)
	f.Add(3, `{"cpus": 1, "seconds": 60}`)
	f.Add(4, `{"source": "KICK_POWER = 40\n", "base": "x"}`)
	f.Add(0, `{"status": 1e400, "speed": null}{`)
	routes := [][2]string{{"POST", "/state"}, {"PUT", "/api/warp"}, {"PUT", "/api/mode"}, {"POST", "/api/inject/cpu"}, {"PUT", "/api/program"}}
	session, err := page.NewSession(page.SessionOptions{Program: filepath.Join(f.TempDir(), "kick.star")})
	if err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- session.Run(ctx) }()
	f.Cleanup(func() {
		cancel()
		<-ended
	})
	server := page.NewServer(session, page.Options{})
	f.Fuzz(func(t *testing.T, route int, body string) {
		to := routes[uint(route)%uint(len(routes))]
		request := httptest.NewRequest(to[0], "http://localhost"+to[1], strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		server.ServeHTTP(answer, request)
		// 501: nothing can be injected here.
		if answer.Code >= 500 && answer.Code != http.StatusNotImplemented {
			t.Errorf("%s %s %q: %d %s", to[0], to[1], body, answer.Code, answer.Body)
		}
		if answer.Code >= 400 && !strings.Contains(answer.Body.String(), `{"error":"`) {
			t.Errorf("%s %s %q: %d without a reason: %s", to[0], to[1], body, answer.Code, answer.Body)
		}
		if state, _ := session.Lab().State(); state.Status != lab.Stopped {
			t.Errorf("%s %s %q: the accelerator is %s", to[0], to[1], body, state.Status)
		}
	})
}
