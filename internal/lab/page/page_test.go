package page_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/page"
	"github.com/kaon-project/kaon/ui"
)

// running is a lab that serves.
type running struct {
	t       *testing.T
	session *page.Session
	url     string
	program string
}

func start(t *testing.T, mode lab.Mode, warp float64) *running {
	t.Helper()
	return startWith(t, page.SessionOptions{Mode: mode, Warp: warp, Program: filepath.Join(t.TempDir(), "kick.star")}, page.Options{})
}

func startWith(t *testing.T, sessionOptions page.SessionOptions, options page.Options) *running {
	t.Helper()
	session, err := page.NewSession(sessionOptions)
	if err != nil {
		t.Fatal(err)
	}
	if options.Assets, err = ui.Assets(); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- session.Run(ctx) }()
	go func() { ended <- page.NewServer(session, options).Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
	return &running{t, session, "http://" + listener.Addr().String(), sessionOptions.Program}
}

// replace renames another file over one, as many editors save.
func replace(t *testing.T, path, source string) {
	t.Helper()
	other := path + "~"
	if err := os.WriteFile(other, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
}

// until waits for something that will be.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   string
}

// send sends a request with headers as pairs.
func (l *running) send(method, path, body string, headers ...string) answer {
	l.t.Helper()
	request, err := http.NewRequest(method, l.url+path, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			request.Host = headers[i+1]
		}
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		l.t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(data)}
}

func (l *running) state() page.State {
	l.t.Helper()
	events := l.events()
	defer events.Close()
	var s page.State
	events.next("state", &s)
	return s
}

// stream is an open page without a browser.
type stream struct {
	t    *testing.T
	body io.ReadCloser
	rest []byte
}

func (l *running) events() *stream {
	l.t.Helper()
	response, err := http.Get(l.url + "/api/events")
	if err != nil {
		l.t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		l.t.Fatalf("events: %s", response.Status)
	}
	return &stream{t: l.t, body: response.Body}
}

func (s *stream) Close() { s.body.Close() }

// next reads on to the next event of a name.
func (s *stream) next(name string, into any) {
	s.t.Helper()
	buffer := make([]byte, 64<<10)
	for {
		text, rest, whole := bytes.Cut(s.rest, []byte("\n\n"))
		if !whole {
			n, err := s.body.Read(buffer)
			if err != nil {
				s.t.Fatalf("events: %v", err)
			}
			s.rest = append(s.rest, buffer[:n]...)
			continue
		}
		s.rest = rest
		data, ok := bytes.CutPrefix(text, []byte("event: "+name+"\ndata: "))
		if !ok {
			continue
		}
		if err := json.Unmarshal(data, into); err != nil {
			s.t.Fatal(err)
		}
		return
	}
}
