package agent

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/kaon-project/kaon/internal/engine"
)

func TestSeverity(t *testing.T) {
	f := func(h engine.HookStatus, want slog.Level) {
		t.Helper()
		h.Err = errors.New("refused")
		all := []engine.HookStatus{h, {Function: "new", Group: "read", Attached: true}}
		if got := severity(h, all); got != want {
			t.Errorf("%+v: %v, want %v", h, got, want)
		}
	}
	f(engine.HookStatus{State: engine.Failed}, slog.LevelWarn)
	f(engine.HookStatus{State: engine.Failed, Group: "write"}, slog.LevelWarn)
	f(engine.HookStatus{State: engine.Failed, Group: "read"}, slog.LevelDebug)
	f(engine.HookStatus{State: engine.Failed, Optional: true}, slog.LevelInfo)
	f(engine.HookStatus{State: engine.Waiting}, slog.LevelInfo)
}
