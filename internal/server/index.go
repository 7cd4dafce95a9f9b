package server

import (
	"bytes"
	"context"
	_ "embed"
	"html/template"
	"net/http"
	"sync"
	"time"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/terminal"
)

//go:embed index.html
var indexHTML string

// page keeps what the page for people needs from one view to the next.
type page struct {
	mu       sync.Mutex
	template *template.Template
	overview terminal.Overview
	lines    []terminal.Line
	at       time.Time
}

// refresh is the interval at which the page reloads itself; requests in between share one reading.
const refresh = 2 * time.Second

func (s *Server) serveIndex(w http.ResponseWriter, r *http.Request) {
	// Rendered before it is sent: a client that reads slowly must not keep others waiting.
	rendered, err := s.renderIndex(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if _, err := w.Write(rendered); err != nil {
		s.log.Debug("could not send the page", "error", err)
	}
}

func (s *Server) renderIndex(ctx context.Context) ([]byte, error) {
	p := &s.page
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.template == nil {
		parsed, err := template.New("index").Parse(indexHTML)
		if err != nil {
			return nil, err
		}
		p.template = parsed
	}
	if now := time.Now(); now.Sub(p.at) >= refresh/2 {
		// The next viewer gets the same: it does not depend on whether this one waits for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.ScrapeTimeout)
		defer cancel()
		snapshot := s.agent.Gather(ctx, nil)
		p.lines, p.at = p.overview.Update(snapshot.Families, now), now
		snapshot.Release()
	}
	var b bytes.Buffer
	err := p.template.Execute(&b, struct {
		Version, Go string
		Refresh     int
		Ready       error
		Programs    []agent.Status
		Lines       []terminal.Line
		Profiling   bool
	}{s.options.Version, goVersion(), int(refresh.Seconds()), s.agent.Ready(), s.agent.Status(), p.lines, s.options.Profiling})
	return b.Bytes(), err
}
