package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/exposition/lint"
	"github.com/kaon-project/kaon/programs"
)

// newAgent returns an agent that has nothing loaded.
func newAgent(t *testing.T) *agent.Agent {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	a, err := agent.New(agent.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func apply(t *testing.T, a *agent.Agent, programs ...agent.ProgramConfig) {
	t.Helper()
	if err := a.Apply(context.Background(), agent.Config{Programs: programs}); err != nil {
		t.Fatal(err)
	}
}

func get(s *Server, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func TestPaths(t *testing.T) {
	a := newAgent(t)
	s := New(a, Options{Version: "1.2.3"})
	f := func(path string, status int, parts ...string) {
		t.Helper()
		w := get(s, path)
		if w.Code != status {
			t.Errorf("%s: %d, want %d: %s", path, w.Code, status, w.Body)
		}
		for _, part := range parts {
			if !strings.Contains(w.Body.String(), part) {
				t.Errorf("%s: %q is missing in\n%s", path, part, w.Body)
			}
		}
	}
	// Nothing was applied yet.
	f("/-/healthy", 200, "healthy")
	f("/-/ready", 503, "are being loaded")
	f("/api/v1/programs", 200, "[]")
	f("/", 200, "Not ready: the programs are being loaded", "No programs are configured", "Nothing has been counted yet")
	apply(t, a)
	f("/-/ready", 200, "ready")
	f("/", 200, "1.2.3")
	f("/metrics", 200, `kaon_build_info{`, `version="1.2.3"`, "go_goroutines ", "process_cpu_seconds_total ", "kaon_workloads ")
	f("/debug/pprof/", 404)
	f("/metrics/", 404)
	f("/x", 404)

	// One that is down is reported everywhere, and its words break nothing.
	name := "/nowhere/<script>alert(1)</script>.o"
	apply(t, a, agent.ProgramConfig{Source: name})
	f("/-/ready", 503, "is down", "nowhere")
	f("/", 200, "&lt;script&gt;", `class="down"`)
	f("/metrics", 200, "kaon_program_up{", "} 0\n")
	if strings.Contains(get(s, "/").Body.String(), "<script>") {
		t.Error("a name becomes part of the page")
	}
	var status []agent.Status
	w := get(s, "/api/v1/programs")
	if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
		t.Fatal(err)
	}
	if len(status) != 1 || status[0].State != agent.Down || status[0].Source != name || status[0].Reason == "" {
		t.Errorf("%+v", status)
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	// An optional one may be down.
	apply(t, a, agent.ProgramConfig{Source: name, Optional: true})
	f("/-/ready", 200)

	profiling := New(a, Options{Profiling: true})
	if w := get(profiling, "/debug/pprof/"); w.Code != 200 || !strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("profiling: %d", w.Code)
	}
	if w := get(profiling, "/"); !strings.Contains(w.Body.String(), `href="/debug/pprof/"`) {
		t.Error("the page has no link to the profiles")
	}
}

func TestMetrics(t *testing.T) {
	a := newAgent(t)
	apply(t, a)
	s := New(a, Options{})
	w := get(s, "/metrics?name[]=go_goroutines")
	if w.Code != 200 || !strings.Contains(w.Body.String(), "go_goroutines ") || strings.Contains(w.Body.String(), "process_") {
		t.Errorf("%d\n%s", w.Code, w.Body)
	}
	w = get(s, "/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasSuffix(w.Body.String(), "# EOF\n") || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/openmetrics-text") {
		t.Errorf("%v: %s", w.Header(), w.Body)
	}
	if w := get(s, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds", "0.0000001"); w.Code != 500 {
		t.Errorf("a scrape that is too late: %d", w.Code)
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, "/metrics", nil))
		if w.Code != 405 {
			t.Errorf("%s: %d", method, w.Code)
		}
	}
	body := get(s, "/metrics").Body.String()
	for _, want := range []string{
		`kaon_scrapes_total{result="success"} 2`, `kaon_scrapes_total{result="failure"} 1`,
		`kaon_scrape_duration_seconds_count{format="openmetrics"} 1`, `kaon_scrape_bytes_total{stage="uncompressed"} `,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
}

// What the agent says of itself and of programs has no mistake, in any text format that a server may ask for.
func TestMetricsAreFlawless(t *testing.T) {
	a := newAgent(t)
	apply(t, a, agent.ProgramConfig{Source: "tasks"}, agent.ProgramConfig{Source: "memory"}, agent.ProgramConfig{Source: "throttling"}, agent.ProgramConfig{Source: "/nowhere/é.o"})
	server := httptest.NewServer(New(a, Options{Version: "1.2.3"}))
	defer server.Close()
	for _, format := range []lint.Format{"", lint.OpenMetrics, lint.Text} {
		source := lint.Source{Format: format}
		result := source.All(context.Background(), []string{server.URL + "/metrics"})
		if len(result.Expositions) != 1 {
			t.Fatalf("%s: %v", format, result.Unusable)
		}
		report := result.Expositions[0]
		if report.Samples < 50 || format != "" && report.Format != format {
			t.Errorf("%d samples in %s", report.Samples, report.Format)
		}
		for _, f := range report.Findings {
			t.Errorf("%s: %+v", report.Format, f)
		}
	}
}

func TestServe(t *testing.T) {
	a := newAgent(t)
	apply(t, a)
	listeners, err := listen(t.Context(), &agent.Config{Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- New(a, Options{}).Serve(ctx, listeners, "") }()
	for _, l := range listeners {
		response, err := http.Get("http://" + l.Addr().String() + "/-/healthy")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", l.Addr(), response.Status)
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end with its context")
	}
	if c, err := net.Dial("tcp", listeners[0].Addr().String()); err == nil {
		c.Close()
		t.Error("it still listens")
	}
}

func TestListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	// The first address is free, and free again afterwards.
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := probe.Addr().String()
	probe.Close()
	if _, err := listen(t.Context(), &agent.Config{Listen: []string{free, taken.Addr().String()}}); err == nil || !strings.Contains(err.Error(), "--listen") {
		t.Errorf("a busy address: %v", err)
	}
	if l, err := net.Listen("tcp", free); err != nil {
		t.Errorf("a listener was left open: %v", err)
	} else {
		l.Close()
	}
	if _, err := listen(t.Context(), &agent.Config{Web: agent.WebConfig{SystemdSocket: true}}); !errors.Is(err, ErrNoSocket) {
		t.Errorf("without a socket from systemd: %v", err)
	}
	web := filepath.Join(t.TempDir(), "web.yaml")
	for _, text := range []string{"tls_server_config: {cert_file: none.pem, key_file: none.pem}", "colour: red", "basic_auth_users: {me: plain}"} {
		if err := os.WriteFile(web, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := listen(t.Context(), &agent.Config{Listen: []string{"127.0.0.1:0"}, Web: agent.WebConfig{ConfigFile: web}}); err == nil || !strings.Contains(err.Error(), web) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAddress(t *testing.T) {
	web := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(web, []byte("tls_server_config:\n  cert_file: a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(listen, config, want string) {
		t.Helper()
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		if got := address(l, config); got != strings.ReplaceAll(want, "PORT", port) {
			t.Errorf("%s: got %s, want %s", listen, got, want)
		}
	}
	f("127.0.0.1:0", "", "http://127.0.0.1:PORT")
	f(":0", "", "http://localhost:PORT")
	f("127.0.0.1:0", web, "https://127.0.0.1:PORT")
	f("127.0.0.1:0", "/nowhere", "http://127.0.0.1:PORT")
}

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kaon.yaml")
	if err := os.WriteFile(path, []byte("programs: [exec]\nlisten: ['127.0.0.1:1']\ncgroupRoot: /a\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(o UpOptions, wantPrograms []string, wantListen, wantRoot string) {
		t.Helper()
		config, err := o.config()
		if err != nil {
			t.Fatal(err)
		}
		var sources []string
		for _, p := range config.Programs {
			sources = append(sources, p.Source)
		}
		if !slices.Equal(sources, wantPrograms) || strings.Join(config.Listen, " ") != wantListen || config.CgroupRoot != wantRoot {
			t.Errorf("%+v: got %q, %q, %q", o, sources, config.Listen, config.CgroupRoot)
		}
	}
	f(UpOptions{}, programs.Default(), "", "")
	f(UpOptions{Programs: []string{"tasks"}}, []string{"tasks"}, "", "")
	f(UpOptions{ConfigFile: path}, []string{"exec"}, "127.0.0.1:1", "/a")
	f(UpOptions{ConfigFile: path, Programs: []string{"tasks"}, Listen: []string{":2"}, CgroupRoot: "/b"}, []string{"exec", "tasks"}, ":2", "/b")
	if _, err := (&UpOptions{ConfigFile: path + ".none"}).config(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the file: %v", err)
	}
	config, err := (&UpOptions{}).config()
	if err != nil || !config.Programs[0].Optional {
		t.Errorf("the default programs are not optional: %v", err)
	}
}

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	for _, o := range [][2]string{{"loud", "text"}, {"info", "xml"}} {
		if _, err := newLogger(&out, o[0], o[1]); err == nil {
			t.Errorf("%q is taken", o)
		}
	}
	log, err := newLogger(&out, "warn", "json")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("not this")
	log.Warn("this")
	var entry map[string]any
	if err := json.Unmarshal(out.Bytes(), &entry); err != nil || entry["msg"] != "this" || entry["level"] != slog.LevelWarn.String() {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestBanner(t *testing.T) {
	a := newAgent(t)
	apply(t, a, agent.ProgramConfig{Source: "no-such-program"})
	var out bytes.Buffer
	banner(&out, a, "https://localhost:1", "bin/kaon")
	for _, want := range []string{"down      no-such-program\n                           no-such-program: no such built-in program", "https://localhost:1/metrics", "bin/kaon list"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}
