package otlp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrConfig is wrapped by errors about where spans shall go.
var ErrConfig = errors.New("spans can't be sent")

// Limits as in the SDKs' batch processors.
const (
	maxQueue = 2048
	maxBatch = 512
	delay    = 5 * time.Second
	timeout  = 10 * time.Second
	attempts = 4
)

// Options say where spans go.
type Options struct {
	// Endpoint is the URL that batches are posted to, such as http://127.0.0.1:4318/v1/traces.
	Endpoint string
	// Headers of each request.
	Headers map[string]string
	// Service is the service.name of spans that have none.
	Service string
	Logger  *slog.Logger
}

// FromEnvironment fills what is not set from the variables OTEL_*. Without an endpoint in either there is none: nothing is sent anywhere
// by default.
func FromEnvironment(o Options, getenv func(string) string) (Options, error) {
	if o.Endpoint == "" && getenv("OTEL_TRACES_EXPORTER") != "none" && getenv("OTEL_SDK_DISABLED") != "true" {
		o.Endpoint = getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
		if base := getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); o.Endpoint == "" && base != "" {
			o.Endpoint = strings.TrimSuffix(base, "/") + "/v1/traces"
		}
		for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
			if p := getenv(name); o.Endpoint != "" && p != "" && p != "http/protobuf" {
				return o, fmt.Errorf("%w: %s is %s: only http/protobuf is spoken here: use the collector's HTTP port, usually 4318", ErrConfig, name, p)
			}
		}
	}
	if o.Headers == nil {
		text := getenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
		if text == "" {
			text = getenv("OTEL_EXPORTER_OTLP_HEADERS")
		}
		for pair := range strings.SplitSeq(text, ",") {
			key, value, ok := strings.Cut(pair, "=")
			decoded, err := url.PathUnescape(strings.TrimSpace(value))
			if key = strings.TrimSpace(key); !ok || key == "" || err != nil {
				continue
			}
			if o.Headers == nil {
				o.Headers = map[string]string{}
			}
			o.Headers[key] = decoded
		}
	}
	if o.Service == "" {
		o.Service = getenv("OTEL_SERVICE_NAME")
	}
	return o, nil
}

// Exporter sends spans in batches, in the background. It is safe for concurrent use.
type Exporter struct {
	options Options
	client  *http.Client
	queue   chan Span
	cancel  context.CancelFunc
	done    chan struct{}
	flushes chan chan struct{}

	sent, lost atomic.Uint64

	mu      sync.Mutex
	problem string // what was logged last
}

// NewExporter checks the endpoint, and sends nothing yet.
func NewExporter(o Options) (*Exporter, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: the endpoint %q is no URL such as http://127.0.0.1:4318/v1/traces", ErrConfig, o.Endpoint)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Service == "" {
		o.Service = "kaon"
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &Exporter{
		options: o, client: &http.Client{Timeout: timeout}, queue: make(chan Span, maxQueue),
		cancel: cancel, done: make(chan struct{}), flushes: make(chan chan struct{}),
	}
	go e.run(ctx)
	return e, nil
}

// Add takes a span. It never waits: a span that finds no room is counted as lost.
func (e *Exporter) Add(s Span) {
	if s.Service == "" {
		s.Service = e.options.Service
	}
	select {
	case e.queue <- s:
	default:
		e.lost.Add(1)
	}
}

// Stats returns how many spans a collector has taken, and how many were lost.
func (e *Exporter) Stats() (sent, lost uint64) { return e.sent.Load(), e.lost.Load() }

// Flush sends what was added before the call.
func (e *Exporter) Flush(ctx context.Context) error {
	through := make(chan struct{})
	select {
	case e.flushes <- through:
	case <-e.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-through:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close sends what is left, for at most a few seconds.
func (e *Exporter) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), delay)
	defer cancel()
	// What is not through by then is lost.
	_ = e.Flush(ctx)
	e.cancel()
	<-e.done
	e.client.CloseIdleConnections()
}

func (e *Exporter) run(ctx context.Context) {
	defer close(e.done)
	ticker := time.NewTicker(delay)
	defer ticker.Stop()
	var batch []Span
	send := func() {
		if len(batch) > 0 {
			e.send(ctx, batch)
			batch = batch[:0]
		}
	}
	for {
		select {
		case <-ctx.Done():
			e.lost.Add(uint64(len(batch) + len(e.queue)))
			return
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) == maxBatch {
				send()
			}
		case <-ticker.C:
			send()
		case through := <-e.flushes:
			for n := len(e.queue); n > 0; n-- {
				if batch = append(batch, <-e.queue); len(batch) == maxBatch {
					send()
				}
			}
			send()
			close(through)
		}
	}
}

func (e *Exporter) send(ctx context.Context, batch []Span) {
	body := encode(batch)
	var err error
	for attempt := range attempts {
		if attempt > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(attempt*attempt) * 250 * time.Millisecond):
			}
		}
		var again bool
		if again, err = e.post(ctx, body); err == nil || !again {
			break
		}
	}
	if err != nil {
		e.lost.Add(uint64(len(batch)))
	} else {
		e.sent.Add(uint64(len(batch)))
	}
	e.log(err)
}

// post sends a batch once. again says that it may be tried again.
func (e *Exporter) post(ctx context.Context, body []byte) (again bool, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.options.Endpoint, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	for key, value := range e.options.Headers {
		request.Header.Set(key, value)
	}
	response, err := e.client.Do(request)
	if err != nil {
		return ctx.Err() == nil, err
	}
	defer response.Body.Close()
	// Read, so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	switch code := response.StatusCode; {
	case code >= 200 && code < 300:
		return false, nil
	case code == http.StatusTooManyRequests, code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		return true, fmt.Errorf("the collector answers %s", response.Status)
	default:
		return false, fmt.Errorf("the collector answers %s", response.Status)
	}
}

// log tells of a problem when it begins or changes, and when it is over.
func (e *Exporter) log(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	e.mu.Lock()
	changed := text != e.problem
	e.problem = text
	e.mu.Unlock()
	switch {
	case !changed:
	case err != nil:
		e.options.Logger.Warn("spans are lost", "endpoint", e.options.Endpoint, "error", err)
	default:
		e.options.Logger.Info("spans are sent again", "endpoint", e.options.Endpoint)
	}
}
