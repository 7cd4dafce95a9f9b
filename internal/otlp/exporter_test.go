package otlp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// dump prints a message field by field: what it is told to be messages as such.
func dump(t testing.TB, b []byte, path string, messages map[string]bool) string {
	t.Helper()
	var out strings.Builder
	for len(b) > 0 {
		number, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatalf("at %s: %v", path, protowire.ParseError(n))
		}
		b = b[n:]
		at := fmt.Sprintf("%s.%d", path, number)
		switch typ {
		case protowire.BytesType:
			v, m := protowire.ConsumeBytes(b)
			if m < 0 {
				t.Fatal(protowire.ParseError(m))
			}
			if messages[at] {
				out.WriteString(dump(t, v, at, messages))
			} else {
				fmt.Fprintf(&out, "%s %q\n", at, v)
			}
			n = m
		case protowire.Fixed64Type:
			v, m := protowire.ConsumeFixed64(b)
			fmt.Fprintf(&out, "%s %d\n", at, v)
			n = m
		default:
			v, m := protowire.ConsumeVarint(b)
			fmt.Fprintf(&out, "%s %d\n", at, v)
			n = m
		}
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
	}
	return out.String()
}

var messages = map[string]bool{
	".1": true, ".1.1": true, ".1.2": true, ".1.1.1": true, ".1.1.1.2": true, ".1.2.1": true, ".1.2.2": true, ".1.2.2.9": true, ".1.2.2.9.2": true,
}

func TestEncode(t *testing.T) {
	start := time.Unix(100, 5)
	got := dump(t, encode([]Span{
		{Service: "a", Name: "x\xff", TraceID: [16]byte{1}, SpanID: [8]byte{2}, ParentID: [8]byte{3}, Start: start, Duration: 7, Attributes: []Attribute{{"k", "v"}, {"e", ""}}},
		{Service: "b", Name: "y", TraceID: [16]byte{4}, SpanID: [8]byte{5}, Start: start},
		{Service: "a", Name: "z", TraceID: [16]byte{6}, SpanID: [8]byte{7}, Start: start},
	}), "", messages)
	z16, z8 := strings.Repeat(`\x00`, 15), strings.Repeat(`\x00`, 7)
	want := `.1.1.1.1 "service.name"
.1.1.1.2.1 "a"
.1.2.1.1 "github.com/kaon-project/kaon"
.1.2.2.1 "\x01` + z16 + `"
.1.2.2.2 "\x02` + z8 + `"
.1.2.2.4 "\x03` + z8 + `"
.1.2.2.5 "x` + "\uFFFD" + `"
.1.2.2.6 1
.1.2.2.7 100000000005
.1.2.2.8 100000000012
.1.2.2.9.1 "k"
.1.2.2.9.2.1 "v"
.1.2.2.9.1 "e"
.1.2.2.9.2.1 ""
.1.2.2.1 "\x06` + z16 + `"
.1.2.2.2 "\a` + z8 + `"
.1.2.2.5 "z"
.1.2.2.6 1
.1.2.2.7 100000000005
.1.2.2.8 100000000005
.1.1.1.1 "service.name"
.1.1.1.2.1 "b"
.1.2.1.1 "github.com/kaon-project/kaon"
.1.2.2.1 "\x04` + z16 + `"
.1.2.2.2 "\x05` + z8 + `"
.1.2.2.5 "y"
.1.2.2.6 1
.1.2.2.7 100000000005
.1.2.2.8 100000000005
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// collector counts the spans it is sent, and answers with the given codes first.
type collector struct {
	mu     sync.Mutex
	codes  []int
	spans  int
	posts  int
	header http.Header
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts++
	c.header = r.Header
	if len(c.codes) > 0 {
		code := c.codes[0]
		c.codes = c.codes[1:]
		w.WriteHeader(code)
		return
	}
	c.spans += strings.Count(string(body), "NAME")
}

func TestExporter(t *testing.T) {
	f := func(codes []int, spans, wantSpans, wantPosts int) {
		t.Helper()
		c := &collector{codes: codes}
		server := httptest.NewServer(c)
		defer server.Close()
		e, err := NewExporter(Options{Endpoint: server.URL, Headers: map[string]string{"X-Tenant": "one"}})
		if err != nil {
			t.Fatal(err)
		}
		for range spans {
			e.Add(Span{Name: "NAME"})
		}
		e.Close()
		if c.spans != wantSpans || c.posts != wantPosts {
			t.Errorf("%d spans in %d posts, want %d in %d", c.spans, c.posts, wantSpans, wantPosts)
		}
		if sent, lost := e.Stats(); int(sent) != wantSpans || int(lost) != spans-wantSpans {
			t.Errorf("%d sent, %d lost", sent, lost)
		}
		if c.posts > 0 && (c.header.Get("X-Tenant") != "one" || c.header.Get("Content-Type") != "application/x-protobuf") {
			t.Errorf("headers %v", c.header)
		}
	}
	f(nil, 0, 0, 0)
	f(nil, 3, 3, 1)
	f([]int{503}, 3, 3, 2)
	f([]int{400}, 3, 0, 1)
}

// A collector that does not answer costs no memory and nobody's time.
func TestExporterIsBounded(t *testing.T) {
	block := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-block }))
	defer server.Close()
	defer close(block)
	e, err := NewExporter(Options{Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * maxQueue {
		e.Add(Span{})
	}
	if _, lost := e.Stats(); lost == 0 {
		t.Error("the queue has no bound")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	e.cancel()
	<-e.done
}

func TestOptions(t *testing.T) {
	f := func(given Options, env map[string]string, want Options, wantErr bool) {
		t.Helper()
		got, err := FromEnvironment(given, func(name string) string { return env[name] })
		if (err != nil) != wantErr || !wantErr && fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: got %+v %v, want %+v", env, got, err, want)
		}
	}
	f(Options{}, nil, Options{}, false)
	f(Options{}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/", "OTEL_SERVICE_NAME": "s", "OTEL_EXPORTER_OTLP_HEADERS": "a=b%20c, d=e,bad"},
		Options{Endpoint: "http://c:4318/v1/traces", Service: "s", Headers: map[string]string{"a": "b c", "d": "e"}}, false)
	f(Options{}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, Options{Endpoint: "http://t/x"}, false)
	f(Options{Endpoint: "http://mine"}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Options{Endpoint: "http://mine"}, false)
	f(Options{}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Options{}, true)
	f(Options{}, map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, Options{}, false)
	for _, endpoint := range []string{"", "localhost:4318", "ftp://x", "http://", "::"} {
		if _, err := NewExporter(Options{Endpoint: endpoint}); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: got %v", endpoint, err)
		}
	}
}
