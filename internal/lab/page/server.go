package page

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kaon-project/kaon/internal/exposition"
	"github.com/kaon-project/kaon/internal/lab"
	"github.com/kaon-project/kaon/internal/lab/inject"
	"github.com/kaon-project/kaon/internal/lab/kernelview"
)

// Options of a Server.
type Options struct {
	// Assets are the built page: index.html, lab.js and lab.css.
	Assets fs.FS
	// Hosts are further names, without port, under which the lab may be asked for: by default it is localhost or any IP address.
	Hosts []string
	// Inject makes load; nil means that there is none. It and Kernel are the caller's to end.
	Inject *inject.Injector
	// Kernel is what the kernel says of this process; nil means that it is not asked.
	Kernel  *kernelview.View
	Version string
	Logger  *slog.Logger
}

// Server serves a Session over HTTP. Its mux has GET /, /metrics, /kick_power, /state as the workshop's server, and /api.
type Server struct {
	session *Session
	options Options
	log     *slog.Logger
	handler http.Handler
	kernel  kernel
	// process gathers go_ and process_ metrics.
	process prometheus.Gatherer
	// closing ends the streams of events, which Shutdown would wait for.
	closing context.Context
	close   context.CancelFunc
}

// NewServer returns a Server. It serves while the session runs.
func NewServer(session *Session, options Options) *Server {
	s := &Server{session: session, options: options, log: options.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.kernel.view = options.Kernel

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.process = registry
	mux := http.NewServeMux()
	mux.Handle("/metrics", exposition.NewHandler(s.gather, exposition.HandlerOptions{Extra: registry, Logger: s.log}))
	mux.Handle("/kernel/metrics", exposition.NewHandler(s.kernel.gather, exposition.HandlerOptions{Logger: s.log}))
	mux.HandleFunc("GET /{$}", s.servePage)
	mux.HandleFunc("GET /assets/{name}", s.serveAsset)

	mux.HandleFunc("GET /kick_power", s.serveKickPower)
	mux.HandleFunc("GET /state", s.serveState)
	mux.HandleFunc("POST /state", s.takeState)

	mux.HandleFunc("GET /api/events", s.serveEvents)
	mux.HandleFunc("GET /api/history", s.serveHistory)
	mux.HandleFunc("POST /api/launch", s.command(func(ctx context.Context, _ *struct{}) error { return session.Launch(ctx) }))
	mux.HandleFunc("POST /api/abort", s.command(func(ctx context.Context, _ *struct{}) error { return session.Abort(ctx) }))
	mux.HandleFunc("PUT /api/mode", command(s, func(ctx context.Context, r *modeRequest) error { return session.SetMode(ctx, r.Mode) }))
	mux.HandleFunc("PUT /api/warp", command(s, func(ctx context.Context, r *warpRequest) error { return session.SetWarp(ctx, r.Warp) }))
	mux.HandleFunc("GET /api/program", s.serveProgram)
	mux.HandleFunc("PUT /api/program", s.saveProgram)
	mux.HandleFunc("POST /api/program/reset", s.resetProgram)
	mux.HandleFunc("GET /api/program/diff", s.serveDiff)
	mux.HandleFunc("GET /api/inject", s.serveInjections)
	mux.HandleFunc("POST /api/inject/{kind}", s.inject)
	mux.HandleFunc("DELETE /api/inject/{kind}", s.stopInjection)
	mux.HandleFunc("GET /api/kernel", s.serveKernel)
	mux.HandleFunc("POST /api/steps/kernel", s.kernelAsked)
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })

	s.handler = s.guard(mux)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Serve serves on the listener, and closes it, until the context ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: s, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
	ticking, stop := context.WithCancel(ctx)
	defer stop()
	go s.publishInjections(ticking)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	s.close()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		return errors.Join(err, server.Close())
	}
	return nil
}

// servePage serves the page. Only its own script and styles run in it; the nonce is for those that the editor makes.
func (s *Server) servePage(w http.ResponseWriter, _ *http.Request) {
	text, err := fs.ReadFile(s.options.Assets, "index.html")
	if err != nil {
		s.fail(w, err)
		return
	}
	nonce := rand.Text()
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' data:; style-src 'self' 'nonce-"+nonce+
		"'; style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	name := strings.TrimSpace("Kaon " + s.options.Version)
	page := strings.NewReplacer("{{nonce}}", nonce, "{{name}}", name).Replace(string(text))
	if _, err := w.Write([]byte(page)); err != nil {
		s.log.Debug("could not send the page", "error", err)
	}
}

func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request) {
	// Another version of kaon may listen here next time.
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeFileFS(w, r, s.options.Assets, r.PathValue("name"))
}

// answer sends JSON.
func (s *Server) answer(w http.ResponseWriter, status int, payload any) {
	data, err := json.Marshal(payload)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if _, err := w.Write(append(data, '\n')); err != nil {
		s.log.Debug("could not send an answer", "error", err)
	}
}

// failure is the JSON of all errors.
type failure struct {
	Error string `json:"error"`
}

func (s *Server) refuse(w http.ResponseWriter, status int, err error) {
	s.answer(w, status, failure{err.Error()})
}

// fail answers an error that a command returned, with the status that fits.
func (s *Server) fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		// As where the file is mounted from a ConfigMap.
		status, err = http.StatusForbidden, fmt.Errorf("%w: change the file where it comes from", err)
	case errors.Is(err, errNoInjector):
		status = http.StatusNotImplemented
	case errors.Is(err, ErrChanged), errors.Is(err, inject.ErrBusy):
		status = http.StatusConflict
	case errors.Is(err, ErrEnded):
		status = http.StatusServiceUnavailable
	case errors.Is(err, ErrWarp), errors.Is(err, inject.ErrOptions), errors.Is(err, lab.ErrMode):
		status = http.StatusBadRequest
	}
	s.refuse(w, status, err)
}
