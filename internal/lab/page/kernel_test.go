package page_test

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kaon-project/kaon/internal/lab/inject"
	"github.com/kaon-project/kaon/internal/lab/kernelview"
	"github.com/kaon-project/kaon/internal/lab/page"
)

func (l *running) kernel() page.KernelView {
	l.t.Helper()
	var view page.KernelView
	a := l.send("GET", "/api/kernel", "")
	if err := json.Unmarshal([]byte(a.body), &view); err != nil {
		l.t.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return view
}

// startSeen starts a lab at which the kernel looks, or skips where it does not.
func startSeen(t *testing.T, warp float64) *running {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	view := kernelview.Start(context.Background(), kernelview.Options{})
	t.Cleanup(func() {
		if err := view.Close(); err != nil {
			t.Error(err)
		}
	})
	select {
	case <-view.Loaded():
	case <-time.After(2 * time.Minute):
		t.Fatal("programs are not loaded")
	}
	if s := view.Status(); !s.Available {
		t.Skip("needs eBPF:", s.Reason)
	} else if p := s.Programs[0]; !p.Up {
		t.Skip("needs uprobes:", p.Reason)
	}
	injector := inject.NewInjector()
	t.Cleanup(injector.Close) // before the view
	return startWith(t, page.SessionOptions{Program: t.TempDir() + "/kick.star", Warp: warp}, page.Options{Kernel: view, Inject: injector})
}

// agree tells whether the kernel counted all kicks but those which it says that it left out, as it does when it is busy.
func agree(view page.KernelView, kicks uint64) bool {
	return view.Seen != nil && *view.Seen <= kicks && *view.Seen+view.Programs[0].Missed >= kicks
}

// App and kernel count the same kicks, and both say so.
func TestKernelSaysTheSame(t *testing.T) {
	l := startSeen(t, 300)
	for range 2 {
		l.launch()
		l.ends()
	}
	kicks := l.session.Lab().Totals().Kicks
	if kicks < 30 {
		t.Fatalf("%d kicks", kicks)
	}
	until(t, "the same number", func() bool {
		view := l.kernel()
		return view.Available && agree(view, kicks) && view.App.Kicks == kicks && view.App.CPUSeconds > 0 && view.App.ResidentBytes > 0
	})
	if a := l.send("GET", "/kernel/metrics", "", "Accept", "application/openmetrics-text;version=1.0.0"); a.status != 200 || !strings.Contains(a.body, "accelerator_kernel_kicks_total") || !strings.HasSuffix(a.body, "# EOF\n") {
		t.Errorf("%d %s", a.status, a.body)
	}
}
