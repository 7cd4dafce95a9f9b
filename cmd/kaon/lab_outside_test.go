package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The lab as its user has it: what it injects is bounded and reported, the kernel counts the kicks that it counts itself, and
// nothing is left when it ends.
func TestLabOutside(t *testing.T) {
	command := kaon("lab", "--listen", "127.0.0.1:0", "--warp", "100", "--program", filepath.Join(t.TempDir(), "kick.star"))
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	var stopped bool
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		_ = command.Process.Signal(syscall.SIGTERM)
		return <-ended
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	url, found := strings.CutPrefix(strings.TrimSpace(line), "look:")
	if err != nil || !found {
		_ = command.Process.Kill()
		t.Fatalf("the lab said %q: %v", line, err)
	}
	url = strings.TrimSuffix(strings.TrimSpace(url), "/")
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		ended <- command.Wait()
	}()
	defer func() { _ = stop() }()

	ask := func(method, path, body string, into any) int {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, url+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			request.Header.Set("Content-Type", "application/json")
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if into != nil && response.StatusCode == http.StatusOK {
			if err := json.Unmarshal(data, into); err != nil {
				t.Fatalf("%s %s: %v in %s", method, path, err, data)
			}
		}
		return response.StatusCode
	}
	until := func(what string, condition func() bool) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("did not happen: ", what)
			}
		}
	}

	// Out of bounds, and twice.
	if code := ask(http.MethodPost, "/api/inject/memory", `{"bytes": 1000000000000000}`, nil); code != http.StatusBadRequest {
		t.Errorf("a petabyte: %d", code)
	}
	if code := ask(http.MethodPost, "/api/inject/memory", `{"bytes": 8388608, "seconds": 300}`, nil); code != http.StatusOK {
		t.Errorf("8 MiB: %d", code)
	}
	if code := ask(http.MethodPost, "/api/inject/memory", `{"bytes": 8388608}`, nil); code != http.StatusConflict {
		t.Errorf("a second time: %d", code)
	}
	var injections struct {
		Injections []struct {
			Kind  string
			Bytes int64
		}
	}
	until("8 MiB are held", func() bool {
		ask(http.MethodGet, "/api/inject", "", &injections)
		return len(injections.Injections) == 1 && injections.Injections[0].Bytes == 8<<20
	})

	if code := ask(http.MethodPost, "/api/launch", "", nil); code != http.StatusOK {
		t.Errorf("launch: %d", code)
	}
	var view struct {
		Available, Loading bool
		Reason             string
		App                struct{ Kicks uint64 }
		Seen               *uint64
		Programs           []struct {
			Name, Reason string
			Missed       uint64
		}
	}
	until("there were some kicks", func() bool {
		ask(http.MethodGet, "/api/kernel", "", &view)
		ask(http.MethodPost, "/api/launch", "", nil) // again, if the run has ended
		return view.App.Kicks >= 40 && !view.Loading
	})
	switch {
	case !view.Available && view.Reason == "":
		t.Error("the kernel's view is not available, and does not say why")
	case view.Available && view.Seen != nil:
		// Both numbers of one answer are read one after the other, so they are compared when the beam is gone.
		ask(http.MethodPost, "/api/abort", "", nil)
		until("the kernel says what the app says", func() bool {
			ask(http.MethodGet, "/api/kernel", "", &view)
			// The kernel leaves some out when it is busy, and says so.
			return view.Seen != nil && *view.Seen <= view.App.Kicks && *view.Seen+view.Programs[0].Missed >= view.App.Kicks
		})
	default:
		t.Logf("the kernel's view: %+v", view)
	}
	if err := stop(); err != nil {
		t.Errorf("the lab ended with %v", err)
	}
	left, err := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/kaon-lab-%d*", command.Process.Pid))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v (%v)", left, err)
	}
}
