package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/agent"
)

// systemd is told when the agent serves, when it reloads and when it ends.
func TestSystemd(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), "socket")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	next := func() string {
		t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	object := filepath.Join(t.TempDir(), "none.yaml")
	if err := os.WriteFile(object, []byte("apiVersion: kaon.dev/v1alpha1\nkind: Program\nmetadata: {name: none}\nspec: {source: {builtin: none}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		// A Program that can't be read: nothing of this machine is looked at.
		ended <- Up(ctx, UpOptions{Programs: []string{object}, Listen: []string{"127.0.0.1:0"}, Out: io.Discard})
	}()
	if got := next(); got != "READY=1" {
		t.Fatalf("got %q", got)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if got := next(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("got %q", got)
	}
	if got := next(); got != "READY=1" {
		t.Errorf("got %q", got)
	}
	cancel()
	if got := next(); got != "STOPPING=1" {
		t.Errorf("got %q", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// stuck is a client that does not read.
type stuck struct {
	httptest.ResponseRecorder
	writing, release chan struct{}
}

func (s *stuck) Write(b []byte) (int, error) {
	close(s.writing)
	<-s.release
	return len(b), nil
}

// A viewer of the page who does not read keeps no other waiting.
func TestStuckViewer(t *testing.T) {
	a := newAgent(t)
	apply(t, a)
	s := New(a, Options{})
	first := &stuck{writing: make(chan struct{}), release: make(chan struct{})}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		s.ServeHTTP(first, httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	<-first.writing
	second := make(chan int)
	go func() { second <- get(s, "/").Code }()
	select {
	case code := <-second:
		if code != http.StatusOK {
			t.Errorf("got %d", code)
		}
	case <-time.After(20 * time.Second):
		t.Error("the second viewer waits for the first")
	}
	close(first.release)
	<-gone
}

// A viewer who left does not leave an empty page for the next.
func TestViewerWhoLeft(t *testing.T) {
	a := newAgent(t)
	apply(t, a, agent.ProgramConfig{Source: "bpf", Optional: true})
	s := New(a, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
	if body := get(s, "/").Body.String(); strings.Contains(body, "Nothing has been counted yet") {
		t.Error("the page is empty")
	}
}

// Two listeners with one web configuration: each asks for the password, once.
func TestTwoListenersWithPassword(t *testing.T) {
	a := newAgent(t)
	apply(t, a)
	file := filepath.Join(t.TempDir(), "web.yaml")
	// The password is "test".
	if err := os.WriteFile(file, []byte("basic_auth_users: {me: $2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listeners, err := listen(t.Context(), &agent.Config{Listen: []string{"127.0.0.1:0", "127.0.0.1:0"}, Web: agent.WebConfig{ConfigFile: file}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- New(a, Options{}).Serve(ctx, listeners, file) }()
	for _, l := range listeners {
		for password, want := range map[string]int{"test": http.StatusOK, "other": http.StatusUnauthorized} {
			request, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/-/healthy", l.Addr()), nil)
			if err != nil {
				t.Fatal(err)
			}
			request.SetBasicAuth("me", password)
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != want {
				t.Errorf("%s with %q: %s", l.Addr(), password, response.Status)
			}
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
