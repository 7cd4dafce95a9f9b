// Package server is the agent's HTTP side: metrics, status, the API, and a page
// for people.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/exporter-toolkit/web"

	"github.com/kaon-project/kaon/internal/agent"
	"github.com/kaon-project/kaon/internal/exposition"
)

// Options of a Server. The zero value is usable.
type Options struct {
	Version string
	Logger  *slog.Logger
	// CreatedSeries adds _created series in OpenMetrics text.
	CreatedSeries bool
	// Profiling serves /debug/pprof.
	Profiling bool
	// ScrapeTimeout bounds scrapes whose client does not say how long it waits. 0: 10 s.
	ScrapeTimeout time.Duration
}

// A Server serves an agent over HTTP.
type Server struct {
	agent   *agent.Agent
	options Options
	log     *slog.Logger
	mux     *http.ServeMux
	page    page

	scrapes        *prometheus.CounterVec
	scrapeBytes    *prometheus.CounterVec
	scrapeDuration *prometheus.SummaryVec
}

// New returns a Server; it serves once Serve is called.
func New(a *agent.Agent, options Options) *Server {
	s := &Server{agent: a, options: options, log: options.Logger, mux: http.NewServeMux()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.options.ScrapeTimeout <= 0 {
		s.options.ScrapeTimeout = 10 * time.Second
	}
	s.scrapes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaon_scrapes_total", Help: "Scrapes, by whether they succeeded."}, []string{"result"})
	s.scrapeBytes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kaon_scrape_bytes_total", Help: "Bytes of expositions, before and after compression."}, []string{"stage"})
	s.scrapeDuration = prometheus.NewSummaryVec(prometheus.SummaryOpts{Name: "kaon_scrape_duration_seconds", Help: "Time that scrapes took, from the request to the last byte."}, []string{"format"})
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.scrapes, s.scrapeBytes, s.scrapeDuration, a.Figures(options.Version),
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	s.mux.Handle("GET /metrics", exposition.NewHandler(s.gather, exposition.HandlerOptions{
		Options: exposition.Options{CreatedSamples: options.CreatedSeries},
		Extra:   registry, Logger: s.log, Done: s.scraped,
	}))
	s.mux.HandleFunc("GET /{$}", s.serveIndex)
	s.mux.HandleFunc("GET /api/v1/programs", s.servePrograms)
	s.mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "healthy") })
	s.mux.HandleFunc("GET /-/ready", s.serveReady)
	if options.Profiling {
		s.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
		s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		s.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Serve serves on the listeners, and closes them, until the context ends; then it lets scrapes in progress finish.
// configFile is exporter-toolkit's web configuration (TLS, basic authentication), or empty.
func (s *Server) Serve(ctx context.Context, listeners []net.Listener, configFile string) error {
	// One for each listener: exporter-toolkit changes the server that it is given.
	servers := make([]*http.Server, len(listeners))
	failed := make(chan error, len(listeners))
	for i, l := range listeners {
		servers[i] = &http.Server{
			Handler: s, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute,
			MaxHeaderBytes: 64 << 10, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		}
		go func() { failed <- web.Serve(l, servers[i], &web.FlagConfig{WebConfigFile: &configFile}, s.log) }()
	}
	var errs []error
	select {
	case err := <-failed:
		errs = append(errs, fmt.Errorf("serve: %w", err))
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	for _, server := range servers {
		if err := server.Shutdown(ending); err != nil {
			errs = append(errs, err, server.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *Server) gather(ctx context.Context, names []string) (exposition.Snapshot, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.options.ScrapeTimeout)
		defer cancel()
	}
	var want func(string) bool
	if len(names) > 0 {
		wanted := make(map[string]bool, len(names))
		for _, name := range names {
			wanted[name] = true
		}
		want = func(metric string) bool { return wanted[metric] }
	}
	snapshot := s.agent.Gather(ctx, want)
	result := exposition.Snapshot{Families: snapshot.Families, Release: snapshot.Release}
	if len(snapshot.Families) > 0 {
		return result, nil // who was too slow is missing, and the agent says so
	}
	return result, ctx.Err()
}

func (s *Server) scraped(scrape exposition.Scrape) {
	result := "success"
	if scrape.Err != nil {
		result = "failure"
		s.log.Warn("a scrape failed", "error", scrape.Err)
	}
	s.scrapes.WithLabelValues(result).Inc()
	s.scrapeBytes.WithLabelValues("uncompressed").Add(float64(scrape.Bytes))
	s.scrapeBytes.WithLabelValues("sent").Add(float64(scrape.Sent))
	s.scrapeDuration.WithLabelValues(formatName(scrape.Format)).Observe(scrape.Elapsed.Seconds())
}

func (s *Server) serveReady(w http.ResponseWriter, _ *http.Request) {
	if err := s.agent.Ready(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (s *Server) servePrograms(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(s.agent.Status()); err != nil {
		s.log.Debug("could not send the status", "error", err)
	}
}

// goVersion is shown on the page.
func goVersion() string { return strings.TrimPrefix(runtime.Version(), "go") }

func formatName(f exposition.Format) string {
	switch f.Syntax {
	case exposition.OpenMetrics:
		return "openmetrics"
	case exposition.Protobuf:
		return "protobuf"
	}
	return "text"
}
