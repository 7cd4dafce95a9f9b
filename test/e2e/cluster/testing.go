package cluster

import (
	"log/slog"
	"os"
	"testing"
)

// Need skips a test where no cluster can be started; with KAON_E2E set (make e2e) the test fails there.
func Need(t testing.TB, nodes int) {
	t.Helper()
	if testing.Short() {
		t.Skip(ErrNoRoot)
	}
	if err := Available(nodes); err != nil {
		if os.Getenv("KAON_E2E") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// NeedFull skips a test that takes long, unless KAON_E2E is "full" (make e2e-full).
func NeedFull(t testing.TB) {
	t.Helper()
	if os.Getenv("KAON_E2E") != "full" {
		t.Skip("needs KAON_E2E=full (make e2e-full)")
	}
}

// ForTest starts a cluster that ends with the test, or skips the test as Need does. With KAON_E2E_KEEP set the cluster's
// folder, whose name the test logs, stays.
func ForTest(t testing.TB, options Options) *Cluster {
	t.Helper()
	Need(t, options.Nodes)
	if options.Log == nil {
		options.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	options.Keep = options.Keep || os.Getenv("KAON_E2E_KEEP") != ""
	c, err := Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}
