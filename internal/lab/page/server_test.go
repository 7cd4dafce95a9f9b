package page_test

import (
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/page"
)

// Another site neither writes nor reads, by whatever name its DNS gives this machine.
func TestOtherSites(t *testing.T) {
	l := startWith(t, page.SessionOptions{Program: t.TempDir() + "/kick.star"}, page.Options{Hosts: []string{"lab.example"}})
	f := func(status int, method, path string, headers ...string) {
		t.Helper()
		body := ""
		if method == "PUT" {
			body = `{"source": "KICK_POWER = 1\n"}`
		}
		if a := l.send(method, path, body, headers...); a.status != status {
			t.Errorf("%s %s %q: %d %s, want %d", method, path, headers, a.status, a.body, status)
		}
	}
	port := l.url[strings.LastIndex(l.url, ":"):]
	// Rebinding: the browser takes it for the site's own.
	f(403, "GET", "/state", "Host", "evil.example")
	f(403, "GET", "/metrics", "Host", "evil.example"+port)
	f(403, "PUT", "/api/program", "Host", "evil.example"+port, "Origin", "http://evil.example"+port)
	f(403, "GET", "/", "Host", "127.0.0.1.evil.example")
	f(403, "GET", "/", "Host", "localhost.evil.example")
	// A page of another site that posts.
	f(403, "PUT", "/api/program", "Origin", "http://evil.example")
	f(403, "PUT", "/api/program", "Origin", "null")
	f(403, "PUT", "/api/program", "Origin", "http://localhost:1")
	f(403, "POST", "/api/launch", "Sec-Fetch-Site", "cross-site")
	f(403, "POST", "/api/launch", "Sec-Fetch-Site", "same-site")
	f(403, "POST", "/state", "Origin", "http://evil.example")
	f(403, "GET", "/api/events", "Sec-Fetch-Site", "cross-site")
	f(403, "GET", "/api/program", "Sec-Fetch-Site", "same-site")
	f(200, "GET", "/api/program", "Sec-Fetch-Site", "none")
	f(403, "DELETE", "/api/inject/cpu", "Origin", "http://evil.example")
	if got := l.session.Program().Power; got != lab.DefaultKickPower {
		t.Errorf("the power is %v", got)
	}
	if s := l.state(); s.Run != 0 {
		t.Error("it was launched")
	}
	// The page itself, and commands.
	f(200, "PUT", "/api/program", "Origin", l.url, "Sec-Fetch-Site", "same-origin")
	f(200, "PUT", "/api/program")
	for _, host := range []string{"localhost", "localhost" + port, "LocalHost.", "127.0.0.1", "[::1]" + port, "10.1.2.3:80", "lab.example" + port} {
		f(200, "GET", "/state", "Host", host)
	}
	for header, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"} {
		if got := l.send("GET", "/", "").header.Get(header); got != want {
			t.Errorf("%s: %q", header, got)
		}
	}
}

// A bad request is told what is wrong with it.
func TestBadRequests(t *testing.T) {
	l := start(t, lab.Compatible, 1)
	f := func(status int, reason, method, path, body string, headers ...string) {
		t.Helper()
		a := l.send(method, path, body, headers...)
		if a.status != status || !strings.Contains(a.body, reason) {
			t.Errorf("%s %s %.60q: %d %s, want %d with %q", method, path, body, a.status, a.body, status, reason)
		}
	}
	f(400, "speed", "POST", "/state", `{"status": 1}`)
	f(400, "want", "POST", "/state", `{}`)
	f(400, "from 0 to 4", "POST", "/state", `{"status": 9, "speed": 1}`)
	f(400, "faster than light", "POST", "/state", `{"status": 1, "speed": 3e8}`)
	f(400, "not what is wanted", "POST", "/state", `{"status": "running", "speed": 1}`)
	f(400, "unknown field", "POST", "/state", `{"status": 1, "speed": 1, "power": 2}`)
	f(400, "goes on after", "POST", "/state", `{"status": 1, "speed": 1}{}`)
	f(415, "Content-Type", "POST", "/state", `{"status": 1, "speed": 1}`, "Content-Type", "text/plain")
	f(413, "longer than", "POST", "/state", `{"x": "`+strings.Repeat("a", 1<<20)+`"}`)
	f(405, "", "DELETE", "/state", "")
	f(405, "GET", "POST", "/metrics", "")
	f(404, "", "GET", "/nothing", "")
	f(400, "0.1 to 1000", "PUT", "/api/warp", `{"warp": 0}`)
	f(400, "0.1 to 1000", "PUT", "/api/warp", `{"warp": 1e9}`)
	f(400, "compatible or physics", "PUT", "/api/mode", `{"mode": "magic"}`)
	f(400, "source is missing", "PUT", "/api/program", `{}`)
	f(413, "may have 65536 bytes", "PUT", "/api/program", `{"source": "`+strings.Repeat("#", lab.MaxSource+1)+`"}`)
	f(404, "cpu or memory", "POST", "/api/inject/disk", `{}`)
	f(400, "out of bounds", "POST", "/api/inject/cpu", `{"seconds": -1}`)
	f(501, "nothing can be injected", "POST", "/api/inject/cpu", `{}`)
	f(500, "can't be asked", "GET", "/kernel/metrics", "")
	f(200, `"available":false`, "GET", "/api/kernel", "")
	f(409, "can't be asked", "POST", "/api/steps/kernel", "")
	// Without a version, too, it is a sentence.
	f(200, "<footer>Kaon. ", "GET", "/", "")
}

// The workshop's routes, as its page and its checkers know them.
func TestOriginalRoutes(t *testing.T) {
	l := start(t, lab.Compatible, 1)
	f := func(method, path, body, want string) {
		t.Helper()
		if a := l.send(method, path, body); a.status != 200 || a.body != want+"\n" {
			t.Errorf("%s %s: %d %s, want %s", method, path, a.status, a.body, want)
		}
	}
	f("GET", "/kick_power", "", `{"kick_power":27}`)
	f("GET", "/state", "", `{"status":0,"speed":0}`)
	l.launch()
	f("POST", "/state", `{"status":2,"speed":299792455.3}`, `{"message":"state not changed: the accelerator runs on the server","status":1}`)
	if a := l.send("GET", "/state", ""); !strings.HasPrefix(a.body, `{"status":1,"speed":24982704`) {
		t.Errorf("GET /state: %s", a.body)
	}
}

// /metrics speaks what the scraper asks for, and parses with Prometheus' own parsers.
func TestMetrics(t *testing.T) {
	l := start(t, lab.Compatible, 300)
	l.save("KICK_POWER = 40\nn = counter(\"kick_count\", \"Kicks.\")\n\ndef kick(turn, beam):\n    n.inc()\n")
	l.launch()
	l.ends()
	wanted := []string{
		// The workshop's, and what its dashboard asks for.
		"kick_power", "beam_speed_km_s", "beam_energy_mev", "accelerator_state",
		"accelerator_beam_energy_electronvolts", "accelerator_beam_speed_ratio", "accelerator_kicks_total", "accelerator_runs_total", "accelerator_info",
		"kick_count_total", "go_goroutines", "process_resident_memory_bytes",
	}
	for accept, contentType := range map[string]string{
		"": "text/plain; version=0.0.4", "application/openmetrics-text;version=1.0.0": "application/openmetrics-text; version=1.0.0",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited": "application/vnd.google.protobuf",
	} {
		a := l.send("GET", "/metrics", "", "Accept", accept)
		if !strings.HasPrefix(a.header.Get("Content-Type"), contentType) {
			t.Errorf("%q is answered with %q", accept, a.header.Get("Content-Type"))
		}
		found := map[string]bool{}
		parser, err := textparse.New([]byte(a.body), a.header.Get("Content-Type"), labels.NewSymbolTable(), textparse.ParserOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for {
			entry, err := parser.Next()
			if entry == textparse.EntryInvalid {
				if err.Error() != "EOF" {
					t.Fatalf("%q: %v", accept, err)
				}
				break
			}
			if entry == textparse.EntrySeries || entry == textparse.EntryHistogram {
				var metric labels.Labels
				parser.Labels(&metric)
				found[metric.Get("__name__")] = true
			}
		}
		for _, name := range wanted {
			if !found[name] {
				t.Errorf("%q: %s is missing", accept, name)
			}
		}
	}
	// In physics mode accelerator_state is the stateset, and the workshop's names are away.
	l.send("PUT", "/api/mode", `{"mode": "physics"}`)
	body := l.send("GET", "/metrics", "").body
	if strings.Contains(body, "beam_energy_mev") || !strings.Contains(body, `accelerator_state{accelerator_state="stopped"} 1`) || !strings.Contains(body, `accelerator_magnet_temperature_kelvin{sector="8"} 1.9`) {
		t.Errorf("physics mode:\n%s", body)
	}
}

// The page, its parts, and that only those run in it.
func TestPage(t *testing.T) {
	l := start(t, lab.Compatible, 1)
	nonces := map[string]bool{}
	for range 2 {
		a := l.send("GET", "/", "")
		policy := a.header.Get("Content-Security-Policy")
		nonce := regexp.MustCompile(`'nonce-(\w+)'`).FindStringSubmatch(policy)
		if a.status != 200 || nonce == nil || !strings.Contains(a.body, `content="`+nonce[1]+`"`) || !strings.Contains(policy, "script-src 'self';") || !strings.Contains(policy, "frame-ancestors 'none'") {
			t.Errorf("%d %q", a.status, policy)
			continue
		}
		nonces[nonce[1]] = true
	}
	if len(nonces) != 2 {
		t.Error("the nonce is used twice")
	}
	for path, kind := range map[string]string{"/assets/lab.js": "text/javascript", "/assets/lab-style.css": "text/css", "/assets/LICENSES.txt": "text/plain"} {
		if a := l.send("GET", path, ""); a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), kind) {
			t.Errorf("%s: %d %q", path, a.status, a.header.Get("Content-Type"))
		}
	}
	if a := l.send("GET", "/assets/..%2fui.go", ""); a.status == 200 {
		t.Error("what is no asset is served")
	}
}

// However many open the page: there is a bound, and who does not read holds nobody up.
func TestViewers(t *testing.T) {
	l := start(t, lab.Compatible, 100)
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	// These ask and never read.
	for range 63 {
		c, err := net.Dial("tcp", strings.TrimPrefix(l.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		fmt.Fprintf(c, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	events := l.events()
	defer events.Close()
	until(t, "the bound", func() bool {
		response, err := http.Get(l.url + "/api/events")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusServiceUnavailable
	})
	l.launch()
	var s page.State
	for s.Result == nil {
		events.next("state", &s)
	}
	open[0].Close()
	until(t, "a place", func() bool {
		response, err := http.Get(l.url + "/api/events")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}
