package exposition

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kaon-project/kaon/internal/program"
	"github.com/kaon-project/kaon/internal/series"
)

func fixed(families ...*series.Family) Gather {
	return func(context.Context, []string) (Snapshot, error) { return Snapshot{Families: families}, nil }
}

func get(t testing.TB, h http.Handler, query string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "/metrics"+query, nil)
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, request)
	return recorder
}

func TestHandlerServesEveryFormat(t *testing.T) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	// A name that is taken is left out.
	registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "thing"}, func() float64 { return 99 }))
	var log bytes.Buffer
	var scrapes []Scrape
	h := NewHandler(fixed(zoo()...), HandlerOptions{Extra: registry, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Done: func(s Scrape) { scrapes = append(scrapes, s) }})
	for _, format := range []Format{textFormat(), openMetricsFormat(), protobufFormat()} {
		for _, encoding := range []string{"identity", "gzip"} {
			response := get(t, h, "", "Accept", format.ContentType(), "Accept-Encoding", encoding)
			if response.Code != http.StatusOK || response.Header().Get("Content-Type") != format.ContentType() ||
				response.Header().Get("Vary") != "Accept, Accept-Encoding" {
				t.Fatalf("status %d, header %v", response.Code, response.Header())
			}
			sent := int64(response.Body.Len())
			body := response.Body.String()
			if encoding == "gzip" {
				if response.Header().Get("Content-Encoding") != "gzip" {
					t.Fatal("not gzip")
				}
				zipped, err := gzip.NewReader(response.Body)
				if err != nil {
					t.Fatal(err)
				}
				plain, err := io.ReadAll(zipped)
				if err != nil {
					t.Fatal(err)
				}
				body = string(plain)
			}
			got := mustScrape(t, body, format.ContentType())
			if got.samples[seriesKey("go_goroutines")] < 1 || got.samples[seriesKey("process_open_fds")] < 1 || got.samples[seriesKey("thing")] != 3 {
				t.Errorf("%s: samples are missing or wrong", format.ContentType())
			}
			if last := scrapes[len(scrapes)-1]; last.Bytes != int64(len(body)) || last.Sent != sent || last.Err != nil || last.Elapsed <= 0 {
				t.Errorf("reported %+v for a body of %d bytes, %d sent", last, len(body), sent)
			}
		}
	}
	if n := strings.Count(log.String(), "thing"); n == 0 || strings.Count(log.String(), "level=WARN") != 1 {
		t.Errorf("the clash is to be logged once: %s", log.String())
	}
	for i, problem := range strictOpenMetrics(t, get(t, NewHandler(fixed(strictZoo()...), HandlerOptions{Extra: registry,
		Logger: slog.New(slog.DiscardHandler)}), "", "Accept", openMetricsFormat().ContentType()).Body.String()) {
		if problem != "" {
			t.Errorf("body %d: %s", i, problem)
		}
	}
}

func TestHandlerSelectsByName(t *testing.T) {
	var asked []string
	h := NewHandler(func(_ context.Context, names []string) (Snapshot, error) {
		asked = names
		return Snapshot{Families: zoo()}, nil
	}, HandlerOptions{Extra: prometheus.NewRegistry()})
	body := get(t, h, "?name[]=thing&name[]=odd").Body.String()
	if len(asked) != 2 || asked[0] != "thing" || asked[1] != "odd" {
		t.Errorf("gather was asked for %q", asked)
	}
	if want := "# HELP odd A counter without the suffix.\n# TYPE odd counter\nodd 3\n# TYPE thing untyped\nthing 3\n"; body != want {
		t.Errorf("got\n%s", body)
	}
}

func TestHandlerFailsEarlyWithAReason(t *testing.T) {
	released := 0
	h := NewHandler(func(context.Context, []string) (Snapshot, error) {
		return Snapshot{Release: func() { released++ }}, errors.New("map reads: out of luck")
	}, HandlerOptions{})
	response := get(t, h, "", "Accept-Encoding", "gzip")
	if response.Code != http.StatusInternalServerError || !strings.Contains(response.Body.String(), "read the metrics: map reads: out of luck") ||
		response.Header().Get("Content-Encoding") != "" {
		t.Errorf("got %d %v %s", response.Code, response.Header(), response.Body)
	}
	if released != 1 {
		t.Errorf("released %d times", released)
	}
	request := httptest.NewRequest(http.MethodPost, "/metrics", nil)
	recorder := httptest.NewRecorder()
	h.ServeHTTP(recorder, request)
	if recorder.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: got %d", recorder.Code)
	}
}

func TestHandlerHonoursTheScrapeTimeout(t *testing.T) {
	f := func(header string, want time.Duration) {
		t.Helper()
		if got := scrapeTimeout(http.Header{"X-Prometheus-Scrape-Timeout-Seconds": {header}}); got != want {
			t.Errorf("%q: got %v, want %v", header, got, want)
		}
	}
	f("10", 9500*time.Millisecond)
	f("1", 900*time.Millisecond)
	f("0.1", 90*time.Millisecond)
	f("", 0)
	f("x", 0)
	f("-1", 0)
	f("NaN", 0)
	f("1e300", 0)

	h := NewHandler(func(ctx context.Context, _ []string) (Snapshot, error) {
		<-ctx.Done()
		return Snapshot{}, ctx.Err()
	}, HandlerOptions{})
	response := get(t, h, "", "X-Prometheus-Scrape-Timeout-Seconds", "0.05")
	if response.Code != http.StatusInternalServerError || !strings.Contains(response.Body.String(), "scrape_timeout") {
		t.Errorf("got %d %s", response.Code, response.Body)
	}
}

// What could be read in time is served: a Program that is too slow does not take the others along.
func TestHandlerServesWhatWasReadInTime(t *testing.T) {
	family := &series.Family{Metric: &program.Metric{Name: "quick_total", Type: program.Counter}, Stride: 1,
		Points: []series.Point{{}}, Values: []uint64{7}}
	h := NewHandler(func(ctx context.Context, _ []string) (Snapshot, error) {
		<-ctx.Done()
		return Snapshot{Families: []*series.Family{family}}, nil
	}, HandlerOptions{})
	response := get(t, h, "", "X-Prometheus-Scrape-Timeout-Seconds", "0.05")
	if response.Code != http.StatusOK || !strings.Contains(response.Body.String(), "quick_total 7\n") {
		t.Errorf("got %d %s", response.Code, response.Body)
	}
}

// large has many chunks in every format.
func large() *series.Family {
	f := &series.Family{Metric: &program.Metric{Name: "large_total", Type: program.Counter}, Stride: 1}
	for i := range 40000 {
		f.Points = append(f.Points, series.Point{Labels: labelText("namespace", "shop", "pod", "cart-5d8f7c9b6-x2x9z", "i", string(rune('a'+i%26))+time.Duration(i).String())})
		f.Values = append(f.Values, uint64(i)*1e6)
	}
	return f
}

func TestLargeFamilies(t *testing.T) {
	family := large()
	for _, format := range []Format{textFormat(), openMetricsFormat(), protobufFormat()} {
		chunks := &chunkCounter{}
		w := NewWriter(chunks, format, Options{})
		if err := w.Write([]*series.Family{family, family}[:1]); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if chunks.largest > 2*chunkSize || chunks.n < 10 || int64(chunks.Len()) != w.Written() {
			t.Errorf("%d chunks, the largest of %d bytes", chunks.n, chunks.largest)
		}
		got := mustScrape(t, chunks.String(), format.ContentType())
		if len(got.samples) != len(family.Points) {
			t.Errorf("%s: got %d series, want %d", format.ContentType(), len(got.samples), len(family.Points))
		}
	}
	// Beyond what is buffered, over two families of one name.
	second := large()
	second.Metric.Name = family.Metric.Name
	for i := range second.Points {
		second.Points[i].Labels += `,program="second"`
	}
	got := mustScrape(t, encode(t, protobufFormat(), Options{}, family, second), protobufFormat().ContentType())
	if len(got.samples) != 80000 {
		t.Errorf("got %d series", len(got.samples))
	}
}

type chunkCounter struct {
	bytes.Buffer
	n, largest int
}

func (c *chunkCounter) Write(b []byte) (int, error) {
	c.n++
	c.largest = max(c.largest, len(b))
	return c.Buffer.Write(b)
}

// A failure after the first byte must not look like a whole exposition.
func TestHandlerAbortsLate(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var scrapes []Scrape
	h := NewHandler(fixed(large()), HandlerOptions{Done: func(s Scrape) { mu.Lock(); scrapes = append(scrapes, s); mu.Unlock() }})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&dyingWriter{ResponseWriter: rw, left: 5}, r)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	defer server.Close()
	for _, encoding := range []string{"identity", "gzip"} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Accept", openMetricsFormat().ContentType())
		request.Header.Set("Accept-Encoding", encoding)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			continue // not even the header was sent
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil || bytes.Contains(body, []byte("# EOF")) {
			t.Errorf("%s: a part of %d bytes was taken for the whole", encoding, len(body))
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(scrapes) != 2 || scrapes[0].Err == nil || scrapes[0].Bytes == 0 {
		t.Errorf("reported %+v", scrapes)
	}
}

// dyingWriter fails after some writes.
type dyingWriter struct {
	http.ResponseWriter
	left int
}

func (d *dyingWriter) Write(b []byte) (int, error) {
	if d.left--; d.left < 0 {
		return 0, errors.New("broken pipe")
	}
	return d.ResponseWriter.Write(b)
}

func TestHandlerIsSafeForConcurrentScrapes(t *testing.T) {
	h := NewHandler(fixed(zoo()...), HandlerOptions{})
	formats := []Format{textFormat(), openMetricsFormat(), protobufFormat()}
	want := map[Format]string{}
	for _, format := range formats {
		want[format] = encode(t, format, Options{}, zoo()...)
	}
	var group sync.WaitGroup
	for i := range 30 {
		group.Go(func() {
			format := formats[i%3]
			if got := get(t, h, "", "Accept", format.ContentType()).Body.String(); got != want[format] {
				t.Errorf("%s: a concurrent scrape differs", format.ContentType())
			}
		})
	}
	group.Wait()
}
