package lint

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An address is asked as Prometheus asks, and its Content-Type is a part of the answer.
func TestAddresses(t *testing.T) {
	const openMetricsBody = "# HELP a x\n# TYPE a gauge\na 1\n# EOF\n"
	const textBody = "# HELP a x\n# TYPE a gauge\na 1\n"
	const right = "application/openmetrics-text; version=1.0.0; charset=utf-8"
	f := func(contentType, body string, asked, format Format, what string) {
		t.Helper()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			accept := r.Header.Get("Accept")
			if strings.Contains(accept, "openmetrics") != (asked != Text) || strings.Contains(accept, "text/plain") != (asked != OpenMetrics) {
				t.Errorf("asked for %s: Accept is %q", asked, accept)
			}
			if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				t.Error("gzip is not asked for")
			}
			w.Header()["Content-Type"] = nil
			if contentType != "" {
				w.Header().Set("Content-Type", contentType)
			}
			w.Header().Set("Content-Encoding", "gzip")
			zipped := gzip.NewWriter(w)
			_, _ = io.WriteString(zipped, body)
			_ = zipped.Close()
		}))
		defer server.Close()
		result := (&Source{Format: asked}).All(context.Background(), []string{server.URL})
		if len(result.Expositions) != 1 {
			t.Fatalf("%v", result.Unusable)
		}
		report := result.Expositions[0]
		if report.Format != format || report.Samples != 1 {
			t.Errorf("%q: %+v", contentType, report)
		}
		if what == "" && len(report.Findings) != 0 || what != "" && (len(report.Findings) == 0 || !strings.Contains(report.Findings[0].What, what) || report.Findings[0].Line != 0) {
			t.Errorf("%q: %+v, want %q", contentType, report.Findings, what)
		}
	}
	f(right, openMetricsBody, "", OpenMetrics, "")
	f(right, openMetricsBody, OpenMetrics, OpenMetrics, "")
	f("text/plain; version=0.0.4", textBody, "", Text, "")
	f("text/plain", textBody, Text, Text, "")
	f("text/plain", openMetricsBody, "", Text, "ends with # EOF")
	f("application/openmetrics-text", openMetricsBody, "", OpenMetrics, "does not say the version")
	f("", openMetricsBody, "", OpenMetrics, "no Content-Type")
	f("text/css", textBody, "", Text, "is none of a scrape")
	f("; ;", textBody, "", Text, "is none of a scrape")
	f(right+"; escaping=allow-utf-8", "# HELP \"a.b\" x\n# TYPE \"a.b\" gauge\n{\"a.b\"} 1\n# EOF\n", "", OpenMetrics, "")
}

func TestUnusable(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/protobuf":
			w.Header().Set("Content-Type", "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
		case "/page":
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
		case "/cut":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "a 1\n")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	f := func(arg, want string) {
		t.Helper()
		result := (&Source{}).All(context.Background(), []string{arg})
		if len(result.Unusable) != 1 || !strings.Contains(result.Unusable[0], want) || !result.Failed() {
			t.Errorf("%s: %+v, want %q", arg, result, want)
		}
	}
	f(server.URL+"/missing", "404 Not Found")
	f(server.URL+"/protobuf", "neither OpenMetrics nor Prometheus text")
	f(server.URL+"/cut", "unexpected EOF")
	f(server.URL+"/page", "metrics are mostly at /metrics")
	compressed := filepath.Join(t.TempDir(), "a.prom.gz")
	if err := os.WriteFile(compressed, []byte("\x1f\x8b\x08\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	f(compressed, "it is compressed")
	f(closed.URL, "refused")
	f("http://127.0.0.1:x/", "invalid port")
	f("/no/such/file", "an address begins with http://")
	result := (&Source{Format: "xml"}).All(context.Background(), []string{"-"})
	if len(result.Unusable) != 1 || !strings.Contains(result.Unusable[0], "want openmetrics or text") {
		t.Errorf("%+v", result)
	}
}

// One exposition that can't be read leaves the others alone; the output is text or JSON.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.prom")
	if err := os.WriteFile(path, []byte("a x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	source := Source{Stdin: strings.NewReader("# HELP a x\n# TYPE a gauge\na 1\n")}
	result := source.All(context.Background(), []string{"/no/such/file", "-", path})
	var text, encoded strings.Builder
	if err := result.Write(&text, "text"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"error: open /no/such/file", "\nstandard input: ok (Prometheus text 0.0.4, 3 lines, 1 metric, 1 sample)\n", path + ": 1 error, 2 warnings", "do:  "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing in\n%s", want, text.String())
		}
	}
	if err := result.Write(&encoded, "json"); err != nil {
		t.Fatal(err)
	}
	var again Result
	if err := json.Unmarshal([]byte(encoded.String()), &again); err != nil {
		t.Fatal(err)
	}
	if len(again.Unusable) != 1 || len(again.Expositions) != 2 || again.Expositions[1].Findings[0].Line != 1 || again.Expositions[1].Findings[0].Column != 3 {
		t.Errorf("%s", encoded.String())
	}
	if strings.Contains(encoded.String(), `"findings": null`) {
		t.Error("no findings are an empty list")
	}
	if err := result.Write(&text, "yaml"); err == nil {
		t.Error("yaml is no output")
	}
}
