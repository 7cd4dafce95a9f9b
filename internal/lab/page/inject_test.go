package page_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kaon-project/kaon/internal/lab/inject"
	"github.com/kaon-project/kaon/internal/lab/page"
)

// injections returns what the server says of them.
func (l *running) injections() page.Injections {
	l.t.Helper()
	var all page.Injections
	if err := json.Unmarshal([]byte(l.send("GET", "/api/inject", "").body), &all); err != nil {
		l.t.Fatal(err)
	}
	return all
}

// Buttons inject, and stop; what is wanted is bounded; the lab's own metrics tell.
func TestInject(t *testing.T) {
	injector := inject.NewInjector()
	l := startWith(t, page.SessionOptions{Program: t.TempDir() + "/kick.star"}, page.Options{Inject: injector})
	t.Cleanup(injector.Close)
	if a := l.send("POST", "/api/inject/cpu", `{"cpus": 0.1, "seconds": 300}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := l.send("POST", "/api/inject/memory", `{"bytes": 4194304, "seconds": 300}`); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	until(t, "what they use", func() bool {
		all := l.injections().Injections
		return len(all) == 2 && all[0].CPUSeconds > 0 && all[1].Bytes == 4194304 && all[0].Running && all[0].Remaining > 0 && all[0].Duration == 300
	})
	metrics := l.send("GET", "/metrics", "").body
	for _, want := range []string{"accelerator_injected_memory_bytes 4194304", `accelerator_injections_total{kind="cpu"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for body, status := range map[string]int{`{}`: http.StatusConflict, `{"seconds": 1e6}`: http.StatusBadRequest, `{"cpus": -1}`: http.StatusConflict} {
		if a := l.send("POST", "/api/inject/cpu", body); a.status != status {
			t.Errorf("%s: %d %s, want %d", body, a.status, a.body, status)
		}
	}
	for _, kind := range []string{"cpu", "memory"} {
		if a := l.send("DELETE", "/api/inject/"+kind, ""); a.status != http.StatusOK {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	for _, i := range l.injections().Injections {
		if i.Running || i.Error != "" {
			t.Errorf("%+v", i)
		}
	}
	if a := l.send("POST", "/api/inject/cpu", `{"cpus": 1000}`); a.status != http.StatusBadRequest {
		t.Errorf("%d %s", a.status, a.body)
	}
	events := l.events()
	defer events.Close()
	var done []page.Step
	events.next("steps", &done)
	if !slices.Contains(done, page.StepCPU) || !slices.Contains(done, page.StepMemory) {
		t.Errorf("done: %v", done)
	}
}
